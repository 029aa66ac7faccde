import numpy as np
import pytest

from scaling_sim.engine.cohort import Recipe
from scaling_sim.errors import ConfigError
from scaling_sim.model.shape import Shape
from scaling_sim.training.schedule import (
    kaplan_learning_rate,
    learning_rate,
    learning_rates,
    small_model_learning_rate,
)


def recipe(**changes: object) -> Recipe:
    return Recipe(**{"peak_lr": 0.1, "batch_tokens": 64, "steps": 100, **changes})


def test_warm_up_rises_linearly_to_the_peak_and_stays() -> None:
    rates = learning_rates(recipe(warmup_steps=10), 0, 100)
    np.testing.assert_allclose(rates[:10], 0.01 * np.arange(1, 11))
    np.testing.assert_array_equal(rates[10:], 0.1)


def test_decay_is_constant_then_straight_to_zero_at_the_end() -> None:
    rates = learning_rates(recipe(schedule="decay", decay_steps=20), 0, 100)
    np.testing.assert_array_equal(rates[:80], 0.1)
    np.testing.assert_allclose(np.diff(rates[80:]), -0.1 / 20)
    assert rates[-1] == pytest.approx(0.1 / 40)
    assert rates[80:].sum() == pytest.approx(0.1 * 20 / 2)  # the area under the triangle


def test_cosine_ends_at_its_horizon_not_at_the_run_s_end() -> None:
    rates = learning_rates(recipe(schedule="cosine", warmup_steps=10, horizon_steps=60), 0, 100)
    assert rates[9] == pytest.approx(0.1)
    assert rates[34] == pytest.approx(0.05)  # half-way between 10 and 60
    np.testing.assert_allclose(rates[59:], 0.0, atol=1e-17)


@pytest.mark.parametrize("schedule", ["constant", "decay", "cosine"])
def test_any_part_equals_the_whole(schedule: str) -> None:
    whole = recipe(schedule=schedule, decay_steps=30, warmup_steps=7)
    rates = learning_rates(whole, 0, 100)
    np.testing.assert_array_equal(np.concatenate([learning_rates(whole, s, 25) for s in (0, 25, 50, 75)]), rates)
    assert learning_rate(42, whole) == rates[41]
    assert (rates > 0).all() or schedule == "cosine"


# Facts of Kaplan et al. 2020, equation (D.1), as computed from the printed constants.
@pytest.mark.parametrize(("N", "lr"), [(768, 2.312e-3), (1e6, 1.312e-3), (1e8, 6.693e-4), (1.5e9, 2.915e-4)])
def test_kaplan_s_rule(N: float, lr: float) -> None:
    assert kaplan_learning_rate(N) == pytest.approx(lr, rel=1e-3)


@pytest.mark.parametrize("N", [0, -1, 2e10])
def test_kaplan_s_rule_refuses_what_it_cannot_give(N: float) -> None:
    with pytest.raises(ConfigError, match=r"D\.1"):
        kaplan_learning_rate(N)


def test_small_model_rule_falls_with_size_within_its_range() -> None:
    shapes = [Shape(n_layer=n, d_model=d, n_head=1, n_ctx=8) for n, d in ((0, 8), (1, 8), (2, 16), (2, 64), (12, 1024))]
    rates = [small_model_learning_rate(shape) for shape in shapes]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 3e-2
    assert rates[-1] == 1e-3
