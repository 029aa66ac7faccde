"""Deadlines, limits and repeated data: every optimum against direct minimisation of the law's own loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from scaling_sim.errors import ConfigError, DataWarning, LawError
from scaling_sim.laws import get_law
from scaling_sim.laws.constants import constants
from scaling_sim.laws.kaplan import loss_nd, solve_loss
from scaling_sim.predict.allocate import allocate, plan_of
from scaling_sim.predict.constraints import Limits
from scaling_sim.predict.plans import Policy
from scaling_sim.predict.roots import bracketed_root, newton_root
from tests.predict.support import around, table
from tests.predict.test_allocate import CHINCHILLA, KAPLAN, isoflop_runs, one, value

MACHINE: dict[str, Any] = {"num_gpus": 1000, "flops_per_second": 1e15, "utilisation": 0.4}
REPEATED = st.fixed_dictionaries(
    {
        "E": st.floats(0.1, 2.5),
        "A": st.floats(1, 1e4),
        "alpha": st.floats(0.1, 0.9),
        "B": st.floats(1, 1e4),
        "beta": st.floats(0.1, 0.9),
        "R_D": st.floats(1, 100),
        "R_N": st.floats(1, 100),
    }
)


@example(root=1.1564609438008343e-272, steepness=1.0, width=79.4348835021191, where=1.1564609438008343e-272)
@given(root=st.floats(-50, 50), steepness=st.floats(1e-3, 1e3), width=st.floats(1e-3, 100), where=st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_bracketed_roots_are_found(root: float, steepness: float, width: float, where: float) -> None:
    low = np.array([root - where * width])
    found = bracketed_root(lambda u: np.expm1(np.clip(steepness * (u - root), -50, 50)), low, low + width)
    assert found[0] == pytest.approx(root, abs=1e-9)


@given(root=st.floats(-50, 50), steepness=st.floats(1e-2, 1e2), width=st.floats(1e-3, 100), where=st.floats(-0.5, 1.5))
@settings(max_examples=200, deadline=None)
def test_newton_finds_a_root_or_the_end_beyond_which_it_lies(
    root: float, steepness: float, width: float, where: float
) -> None:
    low = np.array([root - where * width])

    def f(u: Any) -> tuple[Any, Any]:
        z = np.clip(steepness * (u - root), -50, 50)
        return np.expm1(z), steepness * np.exp(z)

    found = newton_root(f, low, low + width)
    assert found[0] == pytest.approx(float(np.clip(root, low[0], low[0] + width)), abs=1e-9)


def test_without_a_change_of_sign_the_nearer_end_is_given() -> None:
    assert bracketed_root(lambda u: u + 3.0, np.array([0.0]), np.array([1.0]))[0] == 0.0


# ------------------------------------------------------------------------------------------------ deadlines


@given(p=KAPLAN, log10_C=st.floats(15, 26), log10_S=st.floats(1, 7))
@settings(max_examples=60, deadline=None)
def test_a_number_of_steps_is_the_minimum_of_the_implicit_loss(
    p: dict[str, float], log10_C: float, log10_S: float
) -> None:
    C, S = 10.0**log10_C, 10.0**log10_S
    found = plan_of(one("kaplan", p), np.array([C]), Policy("steps", np.array([S]))).best()

    def loss(log_N: float) -> float:
        N = np.exp(log_N)
        return float(np.log(solve_loss(N, C / (6 * N * S), S, p)))

    centre = float(np.log(found["N"][0, 0]))
    best = minimize_scalar(loss, bracket=(centre - 1, centre + 0.7), options={"xtol": 1e-9})
    assert float(found["loss"][0, 0]) == pytest.approx(np.exp(best.fun), rel=1e-6)
    assert loss(centre) == pytest.approx(best.fun, abs=1e-6)
    for name, expected in (("S", S), ("C", C)):
        assert float(found[name][0, 0]) == pytest.approx(expected, rel=1e-12)
    shares = found["S_min"] / found["S"] + found["C_min"] / found["C"]
    assert float(shares[0, 0]) == pytest.approx(1, rel=1e-9)


def test_many_steps_cost_the_least_compute_and_few_cost_loss() -> None:
    fit = constants("kaplan-appendix-b")
    C = np.array([1e22])

    def spent(S: float) -> dict[str, Any]:
        return plan_of(fit, C, Policy("steps", np.array([S]))).best()

    free = allocate(fit, 1e22, batch=1e-3)
    assert spent(1e12)["loss"][0, 0] == pytest.approx(value(free, "loss"), rel=1e-6)
    assert spent(1e12)["N"][0, 0] == pytest.approx(value(free, "N"), rel=1e-5)
    losses = [spent(S)["loss"][0, 0] for S in (1e3, 1e4, 1e5, 1e6)]
    assert losses == sorted(losses, reverse=True)
    critical = allocate(fit, 1e22)
    same_steps = spent(value(critical, "S"))["loss"][0, 0]
    assert same_steps <= value(critical, "loss") * (1 + 1e-12)  # at as many steps N may still move


@given(
    p=KAPLAN,
    size=st.floats(1e-6, 1e6),
    token=st.floats(1e-6, 1e6),
    policy=st.sampled_from(["critical", "fixed", "steps"]),
)
@settings(max_examples=40, deadline=None)
def test_units_of_parameters_and_tokens_change_nothing(
    p: dict[str, float], size: float, token: float, policy: Any
) -> None:
    """Counted in other units, the same optimum comes out: for every way to choose the batch, repeated data included."""
    other = {**p, "N_c": size * p["N_c"], "B_star": token * p["B_star"], "D_c": token * p["D_c"]}
    value_of = {"critical": (None, None), "fixed": (1e6, token * 1e6), "steps": (np.array([1e4]), np.array([1e4]))}
    found = []
    for k, (parameters, factor, tokens) in enumerate(((p, 1.0, 1.0), (other, size, token))):
        plan = plan_of(
            one("kaplan", parameters),
            np.array([1e21 * factor * tokens]),
            Policy(policy, value_of[policy][k]),
            Limits(unique_tokens=1e9 * tokens),
        )
        best = plan.best()
        found.append([best["N"] / factor, best["B"] / tokens, best["S"], best["loss"], best["epochs"]])
    np.testing.assert_allclose(np.ravel(found[0]), np.ravel(found[1]), rtol=1e-6)


def test_a_deadline_is_a_budget() -> None:
    fit = around("kaplan-table5", num=100)
    found = allocate(fit, hours=100, step_seconds=2.0, **MACHINE)
    C = 1000 * 4e14 * 100 * 3600
    assert found.batch == "deadline"
    np.testing.assert_allclose(found.draws["S"], 100 * 3600 / 2)
    np.testing.assert_allclose(6 * found.draws["N"] * found.draws["B"] * found.draws["S"], C)
    np.testing.assert_allclose(found.draws["time"], 100 * 3600)
    by_compute = allocate(fit, hours=100, **MACHINE)
    assert by_compute.N.median == allocate(fit, C).N.median
    slow = allocate(fit, 1e20, hours=100, **MACHINE)  # the budget ends long before the deadline
    np.testing.assert_allclose(slow.draws["time"], 1e20 / 4e17)
    assert float(allocate(fit, 1e30, hours=100, **MACHINE).compute[0]) == pytest.approx(C)
    gpus = allocate(fit, 1e24, hours=100, step_seconds=1.0, flops_per_second=4e14)
    np.testing.assert_allclose(gpus.draws["gpus"], 1e24 / (4e14 * 100 * 3600))
    answer = found.to_json()
    assert answer["batch"] == "deadline"
    assert answer["time_seconds"]["median"] == pytest.approx(360000)


def test_the_valley_of_a_deadline_ends_one_per_cent_up() -> None:
    fit = around("kaplan-table5", num=50)
    found = allocate(fit, hours=100, step_seconds=20.0, **MACHINE)
    C, S = float(found.compute[0]), 18_000.0
    for end, side in zip(found.valley(0.01), (-1, 1), strict=True):
        assert np.all(side * (end.draws - found.N.draws) > 0)
        loss = solve_loss(end.draws, C / (6 * end.draws * S), S, fit.draws)
        np.testing.assert_allclose(loss, 1.01 * found.loss.draws, rtol=1e-8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hours": 10.0}, "hours= alone is a budget only with num_gpus= and flops_per_second="),
        ({"compute": 1e20, "step_seconds": 1.0}, "give hours=, too"),
        ({"compute": 1e20, "hours": 1e-6, "step_seconds": 1.0}, "at least one step"),
        ({"compute": 1e20, "hours": 1.0, "step_seconds": 1.0, "batch": 1e6}, "hours and step_seconds set the batch"),
        ({"compute": 1e20, "num_gpus": -1.0}, "num_gpus must be positive"),
        ({"compute": 1e20, "max_N": 0.0}, "max_N must be above 0"),
        ({"compute": 1e20, "method": "guess"}, "method must be law, isoflop or envelope"),
    ],
)
def test_bad_deadlines_and_limits(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        allocate(constants("kaplan-table5"), **given)


def test_what_published_frontiers_cannot_say() -> None:
    with pytest.raises(LawError, match="limits would need; use a kaplan fit"):
        allocate(constants("kaplan-table6"), 1e20, max_N=1e6)
    with pytest.raises(LawError, match="a deadline would need"):
        allocate(constants("kaplan-table6"), 1e20, hours=1.0, step_seconds=1.0)
    with pytest.raises(LawError, match="published constants come without"):
        allocate(constants("besiroglu"), 1e20, method="isoflop")
    with pytest.warns(DataWarning, match="step_seconds is ignored"):
        allocate(constants("besiroglu"), 1e20, hours=1.0, step_seconds=1.0)


# ------------------------------------------------------------------------------------------------ limits


@pytest.mark.parametrize("name", ["kaplan-table5", "besiroglu", "muennighoff"])
def test_a_bound_on_size_binds_only_where_it_is_below_the_best(name: str) -> None:
    fit = around(name, num=200)
    free = allocate(fit, 1e22)
    bound = free.N.median
    held = allocate(fit, 1e22, max_N=bound)
    np.testing.assert_allclose(held.draws["N"], np.minimum(free.draws["N"], bound), rtol=1e-9)
    np.testing.assert_allclose(held.draws["C"], 1e22, rtol=1e-12)
    assert np.all(held.draws["loss"] >= free.draws["loss"] * (1 - 1e-12))
    assert held.valley()[1].draws.max() <= bound
    assert held.to_json()["limits"] == {"max_N_parameters": bound}


def test_memory_bounds_size() -> None:
    found = allocate(constants("besiroglu"), 1e24, gpu_memory=80e9, num_gpus=8)
    assert found.N.median == pytest.approx(8 * 80e9 / 16)
    assert any("16 bytes per parameter" in note and "activations are not counted" in note for note in found.notes)
    assert allocate(constants("besiroglu"), 1e24, gpu_memory=80e9, bytes_per_parameter=2).N.median == 40e9


def test_a_law_of_fresh_tokens_stops_where_they_end() -> None:
    fit = around("besiroglu", num=200)
    free = allocate(fit, 1e22)
    U = free.D.median / 3
    held = allocate(fit, 1e22, unique_tokens=U)
    np.testing.assert_allclose(held.draws["D"], U)
    np.testing.assert_allclose(held.draws["N"], 1e22 / (6 * U))
    both = allocate(fit, 1e22, unique_tokens=U, max_N=1e9)
    np.testing.assert_allclose(both.draws["C"], 6 * 1e9 * U)
    assert any("of the budget can be spent" in note for note in both.notes)
    low, high = held.valley()
    assert np.all((low.draws < held.N.draws) & (held.N.draws < high.draws))
    p = fit.draws
    for N in (low.draws, high.draws):
        loss = p["E"] + p["A"] * N ** -p["alpha"] + p["B"] * np.minimum(U, 1e22 / (6 * N)) ** -p["beta"]
        np.testing.assert_allclose(loss, 1.01 * held.draws["law_alone_loss"][:, 0], rtol=1e-8)


@given(p=REPEATED, log10_C=st.floats(16, 25), scarcity=st.floats(-1, 3))
@settings(max_examples=60, deadline=None)
def test_repetition_is_the_minimum_of_its_law(p: dict[str, float], log10_C: float, scarcity: float) -> None:
    C = 10.0**log10_C
    U = value(allocate(one("chinchilla", {k: p[k] for k in ("E", "A", "alpha", "B", "beta")}), C), "D") / 10**scarcity
    found = allocate(one("data-constrained", p), C, unique_tokens=U)
    law = get_law("data-constrained")

    def loss(log_N: float) -> float:
        N = np.array([np.exp(log_N)])
        tokens = C / (6 * N)
        return float(law.loss(p, {"N": N, "tokens": tokens, "D": np.minimum(tokens, U)})[0])

    centre = float(np.log(value(found, "N")))
    assert value(found, "loss") == pytest.approx(loss(centre), rel=1e-12)
    around_it = np.linspace(centre - 4, centre + 4, 401)
    assert loss(centre) <= min(map(loss, around_it)) * (1 + 1e-9)
    best = minimize_scalar(loss, bounds=(centre - 0.05, centre + 0.05), method="bounded", options={"xatol": 1e-10})
    assert loss(centre) - p["E"] == pytest.approx(best.fun - p["E"], rel=1e-6)
    assert value(found, "tokens") == pytest.approx(value(found, "epochs") * value(found, "D"), rel=1e-12)
    assert 6 * value(found, "N") * value(found, "tokens") == pytest.approx(C, rel=1e-12)


def test_enough_unique_tokens_change_nothing() -> None:
    for name in ("kaplan-table5", "muennighoff"):
        fit = around(name, num=50)
        free, held = allocate(fit, 1e21), allocate(fit, 1e21, unique_tokens=1e15)
        np.testing.assert_allclose(held.draws["loss"], free.draws["loss"], rtol=1e-9)
        np.testing.assert_allclose(held.draws["N"], free.draws["N"], rtol=1e-7)
        np.testing.assert_allclose(held.draws["epochs"], 1.0)


def test_muennighoff_spends_more_on_epochs_than_on_size() -> None:
    """R_D* > R_N*: excess parameters lose their worth before repetitions do: N* is below that of fresh data."""
    free = allocate(constants("muennighoff"), 1e22)
    held = allocate(constants("muennighoff"), 1e22, unique_tokens=free.D.median / 10)
    assert 1 < held.draws["epochs"][0, 0] < 15
    assert held.N.median < free.N.median
    assert held.loss.median > free.loss.median


@pytest.mark.parametrize("batch", ["critical", 1e6])
@pytest.mark.parametrize("name", ["kaplan-table5", "kaplan-appendix-b"])
def test_kaplan_trains_until_early_stopping(name: str, batch: Any) -> None:
    """max[L(N, S_min), L(N, U)] on a grid of N is nowhere lower than at the size found."""
    fit = around(name, num=30)
    C, U = 1e22, 2e9
    found = allocate(fit, C, unique_tokens=U, batch=batch)
    p = {key: values[:, None] for key, values in fit.draws.items()}
    plan = plan_of(fit, np.array([C]), Policy() if batch == "critical" else Policy("fixed", batch))
    grid = found.draws["N"] * np.geomspace(0.05, 20, 801)
    losses = np.stack([plan.at(N[:, None])["loss"][:, 0] for N in grid.T], axis=1)
    repeated = C / (6 * grid) > U
    objective = np.where(repeated, np.maximum(losses, loss_nd(grid, U, p)), losses)
    here = found.draws["loss"][:, 0]
    assert np.all(here <= objective.min(axis=1) * (1 + 1e-9))
    assert np.all(objective.min(axis=1) <= here * (1 + 1e-3))
    np.testing.assert_allclose(found.draws["C"], C, rtol=1e-12)
    assert np.all(found.draws["epochs"] > 1)
    np.testing.assert_allclose(6 * found.draws["N"] * found.draws["tokens"], C)


def test_kaplan_leaves_compute_unspent_where_a_small_model_has_learned_all() -> None:
    fit = around("kaplan-table5", num=30)
    C, U, largest = 1e22, 2e9, 1e8
    found = allocate(fit, C, unique_tokens=U, max_N=largest)
    p = {key: values[:, None] for key, values in fit.draws.items()}
    np.testing.assert_allclose(found.draws["loss"], loss_nd(largest, U, p), rtol=1e-7)
    assert np.all(found.draws["C"] < C)
    d = found.draws
    np.testing.assert_allclose(6 * d["N"] * d["B"] * d["S"], d["C"], rtol=1e-9)
    np.testing.assert_allclose(d["loss"], solve_loss(d["N"], d["B"], d["S"], p), rtol=1e-7)


@given(p=CHINCHILLA, log10_C=st.floats(16, 25), factor=st.floats(0.1, 10))
@settings(max_examples=30, deadline=None)
def test_penalties_are_differences_of_the_loss(p: dict[str, float], log10_C: float, factor: float) -> None:
    found = allocate(one("chinchilla", p), 10.0**log10_C)
    N = factor * value(found, "N")
    loss = p["E"] + p["A"] * N ** -p["alpha"] + p["B"] * (10.0**log10_C / (6 * N)) ** -p["beta"]
    penalty = found.penalty(N).median
    assert penalty == pytest.approx(loss - value(found, "loss"), rel=1e-6, abs=1e-12)
    assert penalty >= -1e-12


def test_limits_say_what_they_are() -> None:
    limits = Limits.of(max_N=1e9, gpu_memory=1e9, num_gpus=2)
    assert limits.max_N == 2e9 / 16
    assert limits.some
    assert not Limits().some


# ------------------------------------------------------------------------------------------------ what else is said


@pytest.mark.parametrize("method", ["isoflop", "envelope"])
def test_the_best_size_may_be_read_off_the_runs(method: Any) -> None:
    fit = replace(around("besiroglu", sd=1e-3, num=300), runs=isoflop_runs())
    budgets = [1e20, 1e19, 1e19]
    found, law = allocate(fit, budgets, method=method, backtest=None), allocate(fit, budgets, backtest=None)
    assert found.to_json()["method"] == method
    ratio = np.median(found.draws["N"], axis=0) / np.median(law.draws["N"], axis=0)
    assert np.all(np.abs(np.log(ratio)) < 0.3)
    assert np.all(found.draws["N"][:, 1] == found.draws["N"][:, 2])
    np.testing.assert_allclose(6 * found.draws["N"] * found.draws["D"], np.broadcast_to(budgets, (300, 3)))
    assert np.all(found.draws["loss"] >= law.draws["loss"].min(axis=0) * (1 - 1e-3))
    again = allocate(fit, budgets, method=method, backtest=None)
    np.testing.assert_array_equal(again.draws["N"], found.draws["N"])
    with pytest.raises(ConfigError, match="reads runs at the critical batch"):
        allocate(fit, 1e20, method=method, batch=1e6)


def test_how_far_the_loss_lies_beyond_the_batch_sweep() -> None:
    runs = table(N=np.full(4, 1e6), tokens=np.full(4, 1e9), loss=[6.0, 4.0, 5.5, 3.5], B=[1e4, 1e4, 1e5, 1e5])
    fit = around("kaplan-table5", num=50, runs=runs)
    deep = allocate(fit, 1e22, backtest=None)
    expected = np.log10(4.0 / deep.quantity("law_alone_loss").median)
    assert deep.beyond_batch_sweep() == pytest.approx(expected)
    assert deep.to_json()["loss_decades_beyond_batch_sweep"] == pytest.approx(expected)
    inside = allocate(fit, 1e16, backtest=None)
    assert 4.0 < inside.quantity("law_alone_loss").median < 5.5
    assert inside.beyond_batch_sweep() == 0
