"""Targets, constraints, the search and the misfit behind a design."""

from __future__ import annotations

from functools import cache
from itertools import combinations_with_replacement
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scaling_sim.errors import ConfigError
from scaling_sim.laws.registry import get_law
from scaling_sim.predict.allocate import chinchilla_size
from scaling_sim.predict.candidates import BATCHES, WIDER, Candidate, Constraints, default_candidates
from scaling_sim.predict.criteria import PosteriorVariance
from scaling_sim.predict.design import design
from scaling_sim.predict.discrepancy import Discrepancy, learn, pose
from scaling_sim.predict.joint import World, misfit_noise
from scaling_sim.predict.layout import Grid, log_spaced
from scaling_sim.predict.outlook import outlooks
from scaling_sim.predict.search import Rules, Search
from scaling_sim.predict.simulate import simulate
from scaling_sim.predict.targets import best_size, crossing, curvature, loss_of
from tests.predict.support import table


@cache
def fitted(law: str = "chinchilla") -> Any:
    grid = Grid(N=log_spaced(1e7, 1e8, 5), tokens=None, tokens_per_parameter=log_spaced(5, 80, 4))
    runs = simulate({"law": law}, grid if law == "chinchilla" else None, noise=0.004, seed=1)
    found = learn(runs, law, num_draws=800)
    return SimpleNamespace(law=found.law, law_name=law, draws=found.draws, runs=runs, noise={}, model=found)


def gaussian(seed: int, num: int = 7, sizes: tuple[int, ...] = (1,)) -> tuple[World, np.ndarray]:
    """A target and runs that are linear in five unknowns, with costs between 1 and 9."""
    rng = np.random.default_rng(seed)
    blocks = [rng.standard_normal((sizes[k % len(sizes)], 5)) for k in range(num)]
    J = np.concatenate([rng.standard_normal((1, 5)), *blocks])
    return World(J @ J.T, [0.3 * np.eye(len(block)) + 0.1 for block in blocks], "log"), rng.uniform(1, 9, num)


@pytest.mark.parametrize("seed", range(6))
def test_the_search_comes_near_the_best_of_all_lists(seed: int) -> None:
    world, costs = gaussian(seed, sizes=(1, 1, 3))
    search = Search(PosteriorVariance([world]), costs, Rules(12.0, 4, 2))
    lists = [list(c) for k in range(5) for c in combinations_with_replacement(range(7), k)]
    allowed = [c for c in lists if costs[c].sum() <= 12 and max(np.bincount(c, minlength=1)) <= 2]
    best = min(search.error(c) for c in allowed)
    found = search.best()
    assert sorted(found) in [sorted(c) for c in allowed]
    assert search.error(found) <= 1.05 * best
    assert search.error(found) < 0.99 * np.median([search.error(c) for c in allowed])


def test_constraints_are_kept() -> None:
    limits = Constraints(sizes=[2e7, 6e7], largest_run=3e17, batch=1e5, tokens_per_parameter=(10, 40), max_tokens=8e8)
    found = default_candidates(fitted(), 1e19, limits)
    assert {c.N for c in found} == {2e7, 6e7}
    assert all(c.cost <= 3e17 and c.B == 1e5 and 10 <= (c.tokens or 0) / c.N <= 40.01 for c in found)
    assert all((c.tokens or np.inf) <= 8e8 for c in found)
    plan = design(fitted(), best_size(1e20), budget=9e17, constraints=limits, max_runs=3)
    assert len(plan.purchases) <= 3
    assert plan.cost <= 9e17


@pytest.mark.parametrize("law", ["chinchilla", "kaplan"])
@pytest.mark.parametrize("budget", [1e18, 1e20, 1e22])
def test_about_two_hundred_runs_are_on_offer(law: str, budget: float) -> None:
    assert 150 <= len(default_candidates(fitted(law), budget)) <= 300


@pytest.mark.parametrize(
    ("made", "offered"), [((5, 80), (1.25, 320)), ((0.1, 80), (0.1, 320)), ((2, 5000), (1, 5000))], ids=str
)
def test_runs_on_offer_lie_a_little_beyond_those_made(made: tuple[float, float], offered: tuple[float, float]) -> None:
    N = np.array([1e7, 1e7])
    fit: Any = SimpleNamespace(law_name="chinchilla", runs=table(N=N, tokens=N * np.array(made), loss=[3.0, 3.0]))
    ratios = [(c.tokens or 0) / c.N for c in default_candidates(fit, 1e20)]
    assert min(ratios) == pytest.approx(offered[0], rel=0.05)
    assert max(ratios) == pytest.approx(offered[1], rel=0.05)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"largest_run": 0}, "largest_run must be positive"),
        ({"sizes": []}, "at least one size"),
        ({"sizes": [1e6, np.nan]}, r"sizes\[1\] must be positive"),
        ({"tokens_per_parameter": (9, 3)}, r"must be \(least, most\)"),
    ],
)
def test_impossible_constraints_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Constraints(**given)


def test_a_budget_below_the_dearest_allowed_run_says_what_it_must_pay() -> None:
    with pytest.raises(ConfigError, match="budget must pay for one run"):
        default_candidates(fitted(), 1e19, Constraints(largest_run=1e3))


@pytest.mark.parametrize(
    "target", [best_size(1e20), loss_of(5e8, 1e10), loss_of(5e8, 1e10, B=1e5)], ids=["size", "loss", "loss with batch"]
)
def test_every_target_of_a_law_of_final_losses_becomes_surer(target: Any) -> None:
    plan = design(fitted(), target, budget=1e18)
    assert plan.sd_after < 0.9 * plan.sd_before
    assert plan.cost <= 1e18
    assert not plan.notes
    sure = design(fitted(), target, budget=1e18, misfit=False)
    assert sure.notes == ("the law is taken as true",)


@pytest.mark.parametrize("target", [loss_of(1e9, D=1e9), crossing()], ids=["stopped", "crossover"])
def test_every_target_of_the_joint_law_becomes_surer(target: Any) -> None:
    plan = design(fitted("kaplan"), target, budget=1e20, max_runs=4)
    assert plan.sd_after < 0.9 * plan.sd_before
    assert bool(plan.notes) == (target.kind == "crossover")
    assert plan.purchases
    for run in (purchase.candidate for purchase in plan.purchases):
        assert_can_be_made(run)


def assert_can_be_made(run: Candidate) -> None:
    """A run of the joint law with steps, batches of unique tokens and tokens about as many as those of the fit."""
    runs, limits = fitted("kaplan").runs, Constraints()
    assert run.B is not None
    assert run.cost / (6 * run.N * run.B) >= 0.999 * limits.min_steps
    if run.kind == "stopped":
        assert run.D is not None
        least = max(runs.D[runs.stopped].min() / WIDER, BATCHES * run.B)
        assert least <= run.D


@pytest.mark.parametrize("budget", [1e18, 1e20, 1e22])
def test_every_run_of_the_joint_law_on_offer_can_be_made(budget: float) -> None:
    """Small models reach many tokens per parameter with few tokens: less than a batch of them at the pilot's ratios."""
    found = default_candidates(fitted("kaplan"), budget)
    assert {run.kind for run in found} == {"curve", "stopped"}
    for run in found:
        assert_can_be_made(run)


def test_larger_batches_need_more_unique_tokens() -> None:
    found = default_candidates(fitted("kaplan"), 1e22, Constraints(batch=4e6, tokens_per_parameter=(1, 1000)))
    assert min(run.D or 0.0 for run in found if run.kind == "stopped") >= BATCHES * 4e6


def test_planned_runs_have_names_of_their_own_that_stay() -> None:
    plan = design(fitted(), best_size(1e20), budget=1e18)
    names = [run.run for run in plan.runs()]
    assert len(set(names)) == len(names) == len(plan.purchases)
    assert names == [run.run for run in design(fitted(), best_size(1e20), budget=1e18).runs()]


def test_moments_are_those_of_the_fit_itself() -> None:
    """The sd of ln N* and of the loss by linearisation, against the draws of the posterior of law and discrepancy."""
    fit, model = fitted(), fitted().model
    problem = pose(fit.runs, "chinchilla")[0]
    run = [Candidate("final", 2e7, 1.0, tokens=2e9)]
    found = [view.world() for view in outlooks(fit, problem, model, loss_of(2e8, 2e9), run, num=40)]
    C = 6 * 2e8 * 2e9
    draws = model.log_loss({"N": 2e8, "tokens": np.array([2e9])}, C, 2e8, scatter=False)[:, 0]
    sd = np.sqrt(np.mean([world.covariance[0, 0] for world in found]))
    assert sd == pytest.approx(float(np.std(draws)), rel=0.25)


def test_a_run_like_the_target_leaves_its_own_error_and_no_more() -> None:
    fit, model = fitted(), fitted().model
    problem = pose(fit.runs, "chinchilla")[0]
    same = [Candidate("final", 5e8, 6 * 5e8 * 1e10, tokens=1e10)]
    for view in outlooks(fit, problem, model, loss_of(5e8, 1e10), same, num=4):
        world = view.world()
        assert np.allclose(world.covariance, world.covariance[0, 0], rtol=1e-5)


def test_the_best_size_moves_with_a_slope_of_the_misfit_as_direct_minimisation_says() -> None:
    law = get_law("chinchilla")
    p = {name: float(np.median(values)) for name, values in fitted().model.draws.items()}
    one = SimpleNamespace(law=law, law_name="chinchilla", draws={k: np.array([v]) for k, v in p.items()})
    middle, bend = curvature(one, 1e20)
    slope = 0.002
    fine = middle[0] + np.linspace(-2.5, 2.5, 100_001)
    height = law.log_loss(p, {"N": np.exp(fine), "tokens": 1e20 / 6 / np.exp(fine)}) + slope * fine
    assert fine[np.argmin(height)] - middle[0] == pytest.approx(-slope / bend[0], rel=0.15)
    assert middle[0] == pytest.approx(np.log(chinchilla_size(1e20, p)), abs=1e-9)


def test_errors_of_small_runs_are_larger_where_the_runs_say_so() -> None:
    fit, model = fitted(), fitted().model
    grown = Discrepancy(**{**vars(model), "growth": np.full(800, 0.2)})
    small, large = (
        misfit_noise(fit, grown, Candidate("final", 1e7, cost, tokens=1e8), None, 0)
        for cost in (model.largest / 100, model.largest)
    )
    assert np.sqrt(small / large) == pytest.approx(100**0.1, rel=1e-6)
