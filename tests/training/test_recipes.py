from __future__ import annotations

import numpy as np
import pytest

from scaling_sim.errors import ConfigError
from scaling_sim.model.shape import Shape
from scaling_sim.training import learning_rates, recipe

SHAPE = Shape(n_layer=2, d_model=64, n_head=4, n_ctx=64)


def test_the_papers_recipe_has_a_fixed_horizon() -> None:
    """Half-way through its horizon the rate is half its peak, however short the run was meant to be."""
    short = recipe("kaplan-2020", SHAPE, steps=126_500)
    assert (short.batch_tokens, short.warmup_steps, short.horizon_steps) == (2**19, 3000, 250_000)
    assert short.peak_lr == pytest.approx(0.003239 - 0.0001395 * np.log(98_304))
    (last,) = learning_rates(short, 126_499, 1)
    assert last == pytest.approx(short.peak_lr / 2, rel=1e-4)
    assert learning_rates(recipe("kaplan-2020", SHAPE), 249_999, 1)[0] == pytest.approx(0, abs=1e-12)


def test_a_decay_is_as_long_as_the_run() -> None:
    final = recipe("decay", SHAPE, steps=500)
    rates = learning_rates(final, 0, 500)
    assert rates[399] == pytest.approx(final.peak_lr)
    assert rates[-1] < 0.01 * final.peak_lr


def test_a_constant_rate_stays() -> None:
    rates = learning_rates(recipe("constant", SHAPE, seed=3), 100, 50)
    assert np.ptp(rates) == 0


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="kaplan-2020"):
        recipe("kaplan", SHAPE)
    with pytest.raises(ConfigError, match="no field stepps"):
        recipe("constant", SHAPE, stepps=3)
