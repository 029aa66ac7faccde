from __future__ import annotations

import json
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from scaling_sim.errors import ConfigError, ExtrapolationWarning, LawError
from scaling_sim.laws.constants import constants
from scaling_sim.predict.allocate import allocate
from scaling_sim.predict.candidates import Candidate, Constraints, default_candidates
from scaling_sim.predict.crossover import crossover
from scaling_sim.predict.design import design
from scaling_sim.predict.forecast import forecast
from scaling_sim.predict.quantity import Quantity
from scaling_sim.predict.targets import crossing
from tests.predict.support import Draws, around, table

RUNS = table(N=[1e7, 1e8], tokens=[1e9, 1e10], B=[1e5, 2e5], S=[1e4, 5e4], loss=[3.5, 3.0])


def kaplan_fit() -> Draws:
    return replace(around("kaplan-table5", num=1000), runs=RUNS)


def chinchilla_fit() -> Draws:
    return replace(around("besiroglu", num=1000), runs=RUNS, noise={"sigma": np.full(1000, 2e-3)})


def test_expected_sd_is_that_of_a_linear_gaussian_posterior() -> None:
    """Power law in N: ln L = αN·(ln N_c − ln N) is linear in (αN·ln N_c, αN), so the update has a closed form."""
    rng = np.random.default_rng(0)
    slope, level = 0.076 + 0.002 * rng.standard_normal(20_000), 3.0 + 0.05 * rng.standard_normal(20_000)
    fit = Draws("power-n", {"alpha_N": slope, "N_c": np.exp(level / slope)}, RUNS)
    with pytest.warns(ExtrapolationWarning, match="N = 1e\\+12 lies outside"):
        target = forecast(fit, N=1e12, backtest=None).law_loss
    runs = [Candidate("final", 1e3, 1.0, tokens=1.0)]
    found = design(fit, target, budget=1.0, candidates=runs, noise=0.01)
    prior = np.diag([0.002**2, 0.05**2])
    measured, wanted = np.array([-np.log(1e3), 1.0]), np.array([-np.log(1e12), 1.0])
    gain = (wanted @ prior @ measured) ** 2 / (measured @ prior @ measured + 0.01**2)
    assert found.sd_before == pytest.approx(np.sqrt(wanted @ prior @ wanted), rel=0.03)
    assert found.sd_after == pytest.approx(np.sqrt(wanted @ prior @ wanted - gain), rel=0.05)


def test_the_informative_run_is_bought_and_the_useless_one_is_not() -> None:
    fit = chinchilla_fit()
    target = forecast(fit, N=1e8, tokens=1e10, backtest=None).law_loss
    same = Candidate("final", 1e8, 10.0, tokens=1e10)
    other = Candidate("final", 1e3, 10.0, tokens=1e10)
    found = design(fit, target, budget=10.0, candidates=[other, same])
    assert [p.candidate for p in found.purchases] == [same]
    assert found.sd_after < 0.2 * found.sd_before


@pytest.mark.parametrize("fit", [chinchilla_fit(), kaplan_fit()])
def test_default_runs_respect_the_budget_and_shrink_the_target(fit: Draws) -> None:
    found = design(fit, compute=1e22, budget=1e19)
    assert 0 < found.cost <= 1e19
    assert found.sd_after < found.sd_before
    sds = [found.sd_before, *(p.sd_after for p in found.purchases)]
    assert all(a >= b for a, b in pairwise(sds))
    cheaper = design(fit, compute=1e22, budget=1e17)
    assert cheaper.sd_after >= found.sd_after * 0.999
    answer = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert sum(run["count"] for run in answer["runs"]) == answer["num_runs"] == len(found.purchases)
    assert sum(run["cost_flop"] for run in answer["runs"]) == pytest.approx(found.cost)
    same = [tuple(run[k] for k in ("kind", "N_parameters", "tokens", "D_tokens", "S_steps")) for run in answer["runs"]]
    assert len(set(same)) == len(same) <= len(found.purchases)  # copies of a run are one row
    assert answer["runs"][-1]["target_sd_after"] == found.sd_after
    assert answer["target"] == "N at 1e+22 FLOP"
    assert "<table" in found._repr_html_()


def test_kaplan_runs_of_every_kind_are_on_offer() -> None:
    kinds = {c.kind for c in default_candidates(kaplan_fit(), 1e20)}
    assert kinds == {"curve", "stopped"}
    bought = design(kaplan_fit(), crossover(kaplan_fit()).C, budget=1e20)
    assert {p.candidate.kind for p in bought.purchases} == {"curve", "stopped"}  # C* needs both laws


def test_the_critical_batch_is_measured_on_both_sides_of_the_usual_one() -> None:
    """Where C* hangs on B_crit, runs at other batches tell more of it than any that can be bought at the usual one."""
    rng, fit = np.random.default_rng(0), around("kaplan-table5", sd=0.002, num=1000)
    B_star = fit.draws["B_star"] * np.exp(0.3 * rng.standard_normal(1000))
    fit = replace(fit, draws=fit.draws | {"B_star": B_star}, runs=RUNS, noise={"sigma": np.full(1000, 3e-3)})
    batch = float(np.median(RUNS.B))
    usual = Constraints(batch=batch)
    offered = default_candidates(fit, 1e20)
    assert {c.B for c in offered if c.kind == "stopped"} == {batch}
    assert {c.B for c in offered if c.kind == "curve"} == {batch, batch / 16, batch * 16}
    assert {c.B for c in default_candidates(fit, 1e20, usual)} == {batch}, "the batch that the user wants"
    free, bound = (design(fit, crossing(), budget=1e20, constraints=one, max_runs=6) for one in (None, usual))
    assert free.sd_after < 0.8 * bound.sd_after
    assert {p.candidate.B for p in free.purchases} - {batch}


def test_a_target_with_infinite_draws_is_ranked() -> None:
    fit = kaplan_fit()
    C = crossover(fit).C
    with_none = Quantity("C", np.where(np.arange(1000) < 100, np.inf, C.draws), "flop")
    found = design(fit, with_none, budget=1e20)
    assert found.scale.startswith("normal score")
    assert found.sd_before == pytest.approx(1.0, abs=0.03)
    assert found.sd_after < found.sd_before


def test_two_hundred_candidates_take_under_ten_seconds() -> None:
    fit = replace(around("kaplan-table5", num=4000), runs=RUNS)
    start = time.process_time()
    design(fit, compute=1e22, budget=1e20)
    assert time.process_time() - start < 10


def test_refusals() -> None:
    fit = chinchilla_fit()
    with pytest.raises(ConfigError, match="needs a target"):
        design(fit, budget=1e20)
    with pytest.raises(ConfigError, match="budget must be positive and finite, got 0"):
        design(fit, compute=1e22, budget=0)
    with pytest.raises(ConfigError, match="another number of draws"):
        design(fit, allocate(constants("besiroglu"), 1e20).N, budget=1e20)
    with pytest.raises(ConfigError, match="budget must pay for one run"):
        design(fit, compute=1e22, budget=1e3)
    with pytest.raises(LawError, match="pass candidates="):
        design(constants("besiroglu"), compute=1e22, budget=1e20)
