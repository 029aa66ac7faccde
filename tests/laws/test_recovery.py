"""Every law finds its own parameters again."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from scaling_sim.inference import point_fit
from scaling_sim.laws import get_law, kaplan, law_names
from scaling_sim.laws.constants import constants
from scaling_sim.predict.noise import Noise
from scaling_sim.predict.simulate import simulate
from scaling_sim.runs.table import RunTable

SETS = {
    "power-n": "kaplan-power-n", "power-d": "kaplan-power-d", "power-c": "kaplan-power-c",
    "kaplan-nd": "kaplan-table2", "kaplan-ns": "kaplan-table3", "kaplan": "kaplan-table5",
    "chinchilla": "besiroglu", "data-constrained": "muennighoff",
    "learning-rate": "step-law-learning-rate", "batch-size": "step-law-batch-size",
}  # fmt: skip
OWN_PAIR = {"alpha_N_curve": 0.077, "N_c_curve": 6.5e13}
OURS = [name for name in law_names() if name in SETS or name.removesuffix("-floor") in SETS]
VARIANTS = [*[(name, {}) for name in OURS], *[(name, {"shared": False}) for name in ("kaplan", "kaplan-floor")]]


def truth(name: str, options: dict[str, Any]) -> dict[str, float]:
    values = dict(constants(SETS[name.removesuffix("-floor")]).values)
    return values | ({"E": 1.2} if name.endswith("-floor") else {}) | (OWN_PAIR if options else {})


def test_no_law_is_left_out() -> None:
    assert set(OURS) >= set(law_names()) - {"critical-batch", "width"}  # `width`: a law that another test registers


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_without_noise_the_point_is_the_truth(name: str, options: dict[str, Any]) -> None:
    law, expected = get_law(name, **options), truth(name, options)
    found = point_fit(simulate(expected, law=law, noise=Noise(sigma=0.0)), law)
    assert found.agreed
    assert dict(found.parameters) == pytest.approx({key: expected[key] for key in law.parameters}, rel=1e-4, abs=1e-9)


def test_critical_batches_that_were_measured_give_their_law() -> None:
    p = constants("kaplan-table5").values
    runs = simulate(p, law="kaplan", noise=Noise(sigma=0.0))
    runs = dataclasses.replace(runs, extra={"B_crit": kaplan.critical_batch(runs.loss, p)})
    found = point_fit(runs, "critical-batch").parameters
    assert dict(found) == pytest.approx({"alpha_B": 0.21, "B_star": 2.1e8}, rel=1e-4)


@pytest.mark.parametrize("name", ["power-n", "power-d", "power-c", "kaplan-nd", "kaplan-ns"])
def test_a_floor_that_is_not_there_is_found_to_be_small(name: str) -> None:
    """Truth without a floor: the law with one finds E below 1 % of the least loss."""
    runs = simulate(truth(name, {}), law=name, noise=Noise(sigma=0.0))
    assert point_fit(runs, f"{name}-floor").parameters["E"] < 0.01 * runs.loss.min()


def test_a_floor_that_is_ignored_costs_the_exponent() -> None:
    runs = simulate(truth("power-n-floor", {}), law="power-n-floor", noise=Noise(sigma=0.0))
    plain, floored = (point_fit(runs, name).parameters["alpha_N"] for name in ("power-n", "power-n-floor"))
    assert floored == pytest.approx(0.076, rel=1e-6)
    assert plain < 0.06


TINY = ["power-n", "power-d", "power-c", "kaplan-nd", "kaplan-ns", "kaplan", "kaplan-floor", "chinchilla"]


@pytest.mark.parametrize("name", TINY)
def test_the_density_is_finite_where_scales_leave_the_range_of_floats(name: str) -> None:
    """log α = −12 makes N_c = ∞ in natural parameters; the formula is that of its limit, smooth in log α."""
    from scaling_sim.inference.design import prepare
    from scaling_sim.inference.target import LogPosterior

    law = get_law(name)
    runs: RunTable = simulate(truth(name, {}), law=law)
    target = LogPosterior(law, prepare(runs, law))
    names = [coordinate.name for coordinate in target.coordinates]
    u = np.tile([coordinate.prior.mean for coordinate in target.coordinates], (3, 1))
    tiny = [i for i, found in enumerate(names) if found.startswith("log_alpha") or found == "log_beta"]
    u[:, tiny] = np.array([-11.9, -12.0, -12.1])[:, None]
    scales = np.array(list(law.to_parameters(u[:, : target.num_law], target.centre).values()))
    assert name == "chinchilla" or np.isinf(scales).any()
    flat = target(u) - [np.sum([_log_prior(c, x) for c, x in zip(target.coordinates, row, strict=True)]) for row in u]
    assert np.all(np.isfinite(flat))
    assert np.ptp(flat) < 0.01 * np.abs(flat).max()


def _log_prior(coordinate: Any, x: float) -> float:
    return float(-0.5 * ((x - coordinate.prior.mean) / coordinate.prior.sd) ** 2)


def test_parameters_in_logs_and_natural_ones_give_one_loss() -> None:
    for name in OURS:
        law = get_law(name)
        data = law.observe(simulate(truth(name, {}), law=law, noise=Noise(sigma=0.0)))
        centre = law.centre(data)
        u = np.array([[coordinate.prior.mean for coordinate in law.coordinates(centre)]])
        one, other = (
            law.log_response({key: value[:, None] for key, value in found(u, centre).items()}, data.columns)
            for found in (law.formula_parameters, law.to_parameters)
        )
        np.testing.assert_allclose(one, other, atol=1e-9, err_msg=name)
