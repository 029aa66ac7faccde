from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling_sim.errors import ConfigError
from scaling_sim.laws import Law, get_law, law_names, register_law
from scaling_sim.laws.base import Centre, log_expm1, log_sum_exp
from scaling_sim.laws.floor import Floor
from scaling_sim.laws.power import PowerLaw

CENTRE = {
    "log_N": 15.0, "log_D": 20.0, "log_tokens": 20.0, "log_C": 37.0, "log_B": 12.0, "log_S": 9.0, "log_loss": 1.0,
    "log_B_crit": 12.0, "log_best_lr": -6.0, "log_best_B": 13.0,
    "stopped_log_N": 14.0, "stopped_log_D": 17.0, "stopped_log_loss": 1.2,
}  # fmt: skip
VARIANTS: list[tuple[str, dict[str, bool]]] = [(name, {}) for name in law_names()] + [
    ("kaplan", {"shared": False}),
    ("kaplan-floor", {"shared": False}),
]
PLAIN = ["power-n", "power-d", "power-c", "kaplan-nd", "kaplan-ns"]
FINAL = [*PLAIN, *[f"{name}-floor" for name in PLAIN], "chinchilla", "data-constrained"]


def coordinates(law: Law, size: int, seed: int = 0, width: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.normal(c.prior.mean, width * c.prior.sd, size) for c in law.coordinates(CENTRE)], axis=1)


def columns(size: int = 40, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    N, tokens = np.exp(rng.uniform(9, 21, size)), np.exp(rng.uniform(14, 26, size))
    B = np.exp(rng.uniform(8, 15, size))
    return {
        "N": N,
        "D": tokens / rng.integers(1, 5, size),
        "tokens": tokens,
        "C": 6 * N * tokens,
        "B": B,
        "S": tokens / B,
    }


def draws(law: Law, u: np.ndarray) -> dict[str, np.ndarray]:
    return {name: value[:, None] for name, value in law.to_parameters(u, CENTRE).items()}


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_coordinates_and_parameters_are_inverse(name: str, options: dict[str, bool]) -> None:
    law = get_law(name, **options)
    u = coordinates(law, 200)
    parameters = law.to_parameters(u, CENTRE)
    assert tuple(parameters) == law.parameters
    back = law.from_parameters(parameters, CENTRE)
    np.testing.assert_allclose(back, u, atol=1e-9)
    assert get_law(name, **law.options()).parameters == law.parameters


@pytest.mark.parametrize("name", FINAL)
def test_loss_at_the_centre_is_the_first_coordinate(name: str) -> None:
    law = get_law(name)
    u = coordinates(law, 50)
    at = {key: np.exp(CENTRE[f"log_{key}"]) for key in ("N", "D", "tokens", "C", "S")}
    if name == "data-constrained":  # at one epoch and few parameters it is Chinchilla's form
        at["D"] = at["tokens"]
        u[:, 6] = 30.0  # excess parameters count in full
    above_mean = law.log_loss(draws(law, u), at)[:, 0] - CENTRE["log_loss"]
    np.testing.assert_allclose(above_mean, u[:, 0], atol=1e-6)


@pytest.mark.parametrize(("name", "column"), [(name, column) for name in FINAL for column in get_law(name).columns])
def test_loss_falls_with_every_resource(name: str, column: str) -> None:
    law = get_law(name)
    parameters, before = draws(law, coordinates(law, 50)), columns()
    after = {**before, column: before[column] * 1.5}
    if name == "data-constrained" and column == "D":
        after["tokens"] = after["tokens"] * 1.5
    assert np.all(law.log_loss(parameters, after) <= law.log_loss(parameters, before) + 1e-12)
    assert np.mean(law.log_loss(parameters, after) < law.log_loss(parameters, before)) > 0.5


@pytest.mark.parametrize("name", FINAL)
def test_loss_is_finite_at_extremes(name: str) -> None:
    law = get_law(name)
    tiny = {key: np.array([1e-3, 1e30]) for key in ("N", "D", "tokens", "C", "S")}
    value = law.log_loss(draws(law, coordinates(law, 200, width=1.0)), tiny)
    assert np.all(np.isfinite(value))


def test_chinchilla_is_its_formula() -> None:
    p = {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 410.0, "beta": 0.28}
    N, tokens = np.array([1e8, 7e10]), np.array([2e9, 1.4e12])
    expected = 1.7 + 400 / N**0.34 + 410 / tokens**0.28
    np.testing.assert_allclose(get_law("chinchilla").loss(p, {"N": N, "tokens": tokens}), expected, rtol=1e-13)


def test_data_constrained_is_chinchilla_at_one_epoch_and_saturates() -> None:
    p = {"E": 1.87, "A": 521.0, "alpha": 0.353, "B": 1488.0, "beta": 0.353, "R_D": 15.4, "R_N": 5.3}
    law, D = get_law("data-constrained"), np.array([1e9, 1e10])
    N = 0.02 * D  # fewer parameters than the data can feed (0.051 D)
    once = law.loss(p, {"N": N, "D": D, "tokens": D})
    np.testing.assert_allclose(once, get_law("chinchilla").loss(p, {"N": N, "tokens": D}), rtol=1e-12)
    endless = law.loss(p, {"N": N, "D": D, "tokens": 1e6 * D})
    np.testing.assert_allclose(endless, get_law("chinchilla").loss(p, {"N": N, "tokens": 16.4 * D}), rtol=1e-9)


@given(st.lists(st.floats(-700, 700), min_size=2, max_size=4))
def test_log_sum_exp(terms: list[float]) -> None:
    np.testing.assert_allclose(log_sum_exp(*terms), np.logaddexp.reduce(terms), atol=1e-12)


@given(st.floats(1e-12, 700))
def test_log_expm1(x: float) -> None:
    np.testing.assert_allclose(log_expm1(x), np.log(np.expm1(x)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "nearest"), [("chinchila", "chinchilla"), ("kaplan_nd", "kaplan-nd")])
def test_unknown_law_lists_the_valid_names_and_suggests_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"chinchilla, data-constrained.*; got '{name}'; did you mean {nearest}\?"):
        get_law(name)


def test_options_that_a_law_lacks_are_named() -> None:
    with pytest.raises(ConfigError, match="chinchilla has no such options: shared"):
        get_law("chinchilla", shared=False)


def test_a_users_law_is_one_small_class() -> None:
    @register_law
    class WidthLaw(PowerLaw):
        """L = (N_c/N)^alpha with another name."""

        name = "width"
        parameters = ("alpha_N", "N_c")
        columns = ("N",)
        column, exponent, scale = "N", "alpha_N", "N_c"

    assert "width" in law_names()
    assert isinstance(get_law("width"), WidthLaw)
    with pytest.raises(ConfigError, match="must not be one of ours"):
        register_law(type("Bad", (WidthLaw,), {"name": "chinchilla"}))
    with pytest.raises(TypeError, match="must define loss or log_loss"):
        type("Empty", (Law,), {"name": "empty"})


def test_a_floor_needs_a_law_whose_constants_it_can_reach() -> None:
    class Plain(PowerLaw):
        """A law in natural parameters."""

        name = "plain"
        parameters = ("alpha_N", "N_c")
        columns = ("N",)
        column, exponent, scale = "N", "alpha_N", "N_c"

        def to_parameters(self, u: np.ndarray, centre: Centre) -> dict[str, np.ndarray]:
            return super().to_parameters(u, centre)

    with pytest.raises(TypeError, match="needs a law that defines formula_parameters"):
        type("PlainFloor", (Floor, Plain), {"name": "plain-floor"})
    with pytest.raises(TypeError, match="must define to_parameters"):
        type("Half", (Law,), {"name": "half", "loss": lambda *_: 1.0})


@pytest.mark.parametrize("name", [name for name in law_names() if name.endswith("-floor")])
def test_limits_of_a_floored_law_lie_above_the_floor(name: str) -> None:
    limits = get_law(name).limits()
    assert "L → E" in limits.values()
    assert not any("L → 0" in limit for limit in limits.values())
    assert len(limits) == len(get_law(name.removesuffix("-floor")).limits())
