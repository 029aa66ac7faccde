from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from scaling_sim.errors import ConfigError, LawError
from scaling_sim.inference import point_fit
from scaling_sim.inference.design import prepare
from scaling_sim.inference.optimum import hessian
from scaling_sim.inference.point import posterior_mode
from scaling_sim.inference.target import LogPosterior
from scaling_sim.laws import get_law, kaplan, law_names
from scaling_sim.laws.constants import constants
from scaling_sim.predict.layout import Grid, Sweep, Tuning
from scaling_sim.predict.noise import Noise
from scaling_sim.predict.simulate import design_of, simulate, stopping_steps
from scaling_sim.runs.table import FLAGS, NUMBERS, RunTable, read_runs

QUIET = Noise(sigma=0.0)
LAWS = [name for name in law_names() if name not in ("critical-batch", "width")]  # `width`: another test registers it


def _truth(name: str) -> dict[str, Any]:
    return {"law": name} | ({"E": 0.7} if name.endswith("-floor") else {})


@pytest.mark.parametrize("name", LAWS)
def test_without_noise_every_row_lies_on_the_law(name: str) -> None:
    from scaling_sim.predict.simulate import _DEFAULTS

    table = simulate(_truth(name), noise=QUIET)
    law = get_law(name)
    data = law.observe(table)
    assert table.loss == pytest.approx(table.extra["expected_loss"], rel=1e-12)
    assert len(data) >= 9
    published = {**constants(_DEFAULTS[name.removesuffix("-floor")]).values, "E": 0.7}
    if name in ("chinchilla", "data-constrained"):
        published["E"] = constants(_DEFAULTS[name]).values["E"]
    assert data.response == pytest.approx(np.exp(law.log_response(published, data.columns)), rel=1e-9)


@pytest.mark.parametrize("name", LAWS)
def test_the_table_survives_its_csv(tmp_path: Path, name: str) -> None:
    table = simulate(_truth(name), noise=0.01, diverged=0.1, seed=3)
    table.to_csv(tmp_path / "runs.csv")
    back = read_runs(tmp_path / "runs.csv")
    for column in ("run", *NUMBERS, *FLAGS):
        np.testing.assert_array_equal(getattr(back, column), getattr(table, column))
    assert back.data_hash == table.data_hash
    assert back.simulated
    assert back.dropped == table.dropped
    assert back.extra["purpose"].tolist() == table.extra["purpose"].tolist()


def test_seeds_repeat_and_differ() -> None:
    truth = constants("kaplan-table5")
    assert simulate(truth, seed=1).data_hash == simulate(truth, seed=1).data_hash
    assert simulate(truth, seed=1).data_hash != simulate(truth, seed=2).data_hash


def test_a_kaplan_sweep_has_all_kinds_of_runs() -> None:
    design = Sweep(seeds=3, seed_N=(1e6,), batch_N=(1e6, 1e8), batches=(2.0**17, 2.0**21))
    table = simulate(constants("kaplan-table5"), design, diverged=0.2, seed=5)
    purposes = table.extra["purpose"]
    assert set(purposes.tolist()) == {"curve", "batch", "seed", "data"}
    assert len(table.dropped["diverged"]) > 0
    assert np.all(table.curve == (purposes != "data"))
    assert np.all(table.stopped == (purposes == "data"))
    assert np.all(table.S[table.curve] >= 2 * table.warmup[table.curve])
    assert np.all(table.tokens[table.stopped] >= 2 * table.D[table.stopped] * (1 - 1e-12))
    assert table.tokens == pytest.approx(table.B * table.S)
    lost = {name.split("@")[0] for name in table.dropped["diverged"]}
    assert not lost & set(table.run.tolist())


def test_early_stopping_follows_equation_5_7() -> None:
    """Reference for N = 3e8 from the fits of Table 2 with S_c = 2.1e3, alpha_S = .76."""
    p = {**constants("kaplan-table2").values, "S_c": 2.1e3, "alpha_S": 0.76, "alpha_B": 0.21, "B_star": 1e-30}
    D = np.array([21.5e6, 86e6, 344e6])
    steps = stopping_steps(np.full(3, 3e8), D, np.full(3, 1e30), p)
    assert steps == pytest.approx([1.19e3, 2.08e3, 4.41e3], rel=0.005)
    assert stopping_steps(np.array([3e8]), np.array([1e9]), np.array([1e3]), p) == pytest.approx([2e6])


def test_losses_of_data_limited_runs_and_of_curves_are_those_of_the_two_forms() -> None:
    p = constants("kaplan-table5").values
    table = simulate(constants("kaplan-table5"), noise=QUIET)
    stopped, curve = table.stopped, table.curve
    assert table.loss[stopped] == pytest.approx(kaplan.loss_nd(table.N[stopped], table.D[stopped], p))
    assert table.loss[curve] == pytest.approx(kaplan.solve_loss(table.N[curve], table.B[curve], table.S[curve], p))


def test_a_changed_exponent_keeps_the_loss_at_the_centre() -> None:
    usual = simulate({"law": "chinchilla"}, noise=QUIET)
    steep = simulate({"law": "chinchilla", "alpha": 0.5, "beta": 0.25}, noise=QUIET)
    assert np.exp(np.mean(np.log(steep.loss))) == pytest.approx(np.exp(np.mean(np.log(usual.loss))), rel=0.05)
    L = steep.loss[steep.tokens == steep.tokens.max()]  # at N, rN, r²N, …: differences of losses fall by r^alpha
    r = steep.N.max() ** (1 / 7) / steep.N.min() ** (1 / 7)
    assert (L[0] - L[1]) / (L[1] - L[2]) == pytest.approx(r**0.5)


def test_given_parameters_are_taken_as_they_are() -> None:
    truth = {"law": "chinchilla", "E": 2.0, "A": 100.0, "alpha": 0.3, "B": 50.0, "beta": 0.2}
    table = simulate(truth, Grid(N=(1e6,), tokens=(1e8,)), noise=QUIET)
    assert table.loss[0] == pytest.approx(2.0 + 100 * 1e6**-0.3 + 50 * 1e8**-0.2)
    partly = simulate({"law": "kaplan-floor", "E": 0.7}, noise=QUIET)
    assert partly.loss.min() > 0.7


@pytest.mark.statistical
@pytest.mark.parametrize("nu", [3.0, np.inf])
def test_independent_errors_have_the_stated_distribution(nu: float) -> None:
    """KS distance over 4096 errors; P(false alarm) < 1e-4. The other nu must fail."""
    from scipy import stats

    design = Grid(N=tuple(np.geomspace(1e6, 1e9, 64)), tokens=tuple(np.geomspace(1e9, 1e12, 64)))
    table = simulate(constants("hoffmann"), design, noise=Noise(0.02, nu), seed=11)
    errors = np.log(table.loss / table.extra["expected_loss"]) / 0.02
    right, wrong = (stats.norm(), stats.t(3)) if np.isinf(nu) else (stats.t(3), stats.norm())
    assert stats.kstest(errors, right.cdf).pvalue > 1e-4
    assert stats.kstest(errors, wrong.cdf).pvalue < 1e-6


@pytest.mark.statistical
def test_errors_along_a_curve_have_the_stated_covariance() -> None:
    """Sample covariance of 4000 normal curves, entries within 5 standard errors (√(2/4000) of the variance)."""
    noise = Noise(sigma=0.01, nu=np.inf, tau=0.02, ell=0.7)
    log_S = np.log(np.array([1e3, 2e3, 5e3, 1e4, 1e5]))
    rng = np.random.default_rng(0)
    errors = np.array([noise.draw(log_S, True, rng) for _ in range(4000)])
    gaps = np.abs(log_S[:, None] - log_S)
    expected = 0.01**2 * np.eye(5) + 0.02**2 * np.exp(-gaps / 0.7)
    assert np.cov(errors.T) == pytest.approx(expected, abs=5 * np.sqrt(2 / 4000) * 5e-4)
    heavy = Noise(sigma=0.01, nu=3.0, tau=0.02, ell=0.7)
    sizes = np.array([np.abs(heavy.draw(log_S, True, rng)).max() for _ in range(4000)])
    assert np.mean(sizes > 0.1) > 10 * np.mean(np.abs(errors).max(axis=1) > 0.1)


def test_a_posterior_gives_its_law_its_point_and_its_noise() -> None:
    values = constants("hoffmann").values
    draws = {name: np.array([value, 1.1 * value]) for name, value in values.items()}
    fitted = SimpleNamespace(
        law_name="chinchilla",
        law=get_law("chinchilla"),
        draws=draws,
        point=values,
        noise={"sigma": np.zeros(2), "nu": np.full(2, 3.0)},
    )
    table = simulate(fitted)
    assert table.loss == pytest.approx(simulate(constants("hoffmann"), noise=QUIET).loss)
    second = simulate(fitted, draw=1)
    assert second.loss == pytest.approx(
        np.exp(get_law("chinchilla").log_loss({k: 1.1 * v for k, v in values.items()}, _columns(second)))
    )
    assert {simulate(fitted, draw="random", seed=s).data_hash for s in range(20)} == {
        simulate(fitted, draw=i).data_hash for i in (0, 1)
    }


def _columns(table: RunTable) -> dict[str, np.ndarray]:
    return {"N": table.N, "tokens": table.tokens}


@pytest.mark.parametrize(
    ("truth", "keywords", "error", "message"),
    [
        ({"law": "learning-rate"}, {"design": Tuning(lr=())}, ConfigError, "lr of a simulated sweep must be positive"),
        ({"law": "power-n-floor"}, {}, ConfigError, "power-n-floor needs E as well"),
        ({"alpha": 0.5}, {}, ConfigError, "needs its law"),
        ({"law": "chinchilla", "alhpa": 0.5}, {}, ConfigError, "has no parameter alhpa; it has E, A, alpha"),
        ({"law": "kaplan-floor"}, {}, ConfigError, "kaplan-floor needs E as well"),
        ({"law": "critical-batch", "alpha_B": 0.2, "B_star": 2e8}, {}, LawError, "gives no loss"),
        (constants("kaplan-table6"), {}, LawError, "a frontier says nothing about single runs"),
        ({"law": "chinchilla"}, {"diverged": 1.0}, ConfigError, r"must lie in \[0, 1\)"),
        ({"law": "chinchilla"}, {"noise": -0.1}, ConfigError, "must not be negative"),
        ({"law": "chinchilla"}, {"noise": {"curves": QUIET}}, ConfigError, "by role"),
        (constants("hoffmann"), {"draw": 3}, ConfigError, "a number below 1, got 3"),
        ({"law": "chinchilla"}, {"design": Grid(N=())}, ConfigError, "N of a simulated sweep must be positive"),
        ({"law": "kaplan"}, {"design": Sweep(steps=100)}, ConfigError, "ends within twice its warm-up"),
    ],
)
def test_mistakes_are_named(truth: object, keywords: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        simulate(truth, **keywords)  # type: ignore[arg-type]


def test_different_truths_have_independent_errors_under_one_seed() -> None:
    """Correlation of 64 errors; |r| < .5 but for a chance of 1e-4."""

    def errors(alpha: float, beta: float, seed: int = 0) -> np.ndarray:
        table = simulate({"law": "chinchilla", "alpha": alpha, "beta": beta}, seed=seed)
        return np.asarray(np.log(table.loss / table.extra["expected_loss"]))

    first = errors(0.5, 0.25)
    assert first == pytest.approx(errors(0.5, 0.25))
    for other in (errors(0.2, 0.6), errors(0.5, 0.26), errors(0.5, 0.25, seed=1)):
        assert abs(spearmanr(first, other).statistic) < 0.5


@pytest.mark.statistical
@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.25), (0.2, 0.6)])
def test_intervals_of_default_sweeps_cover_their_truth(alpha: float, beta: float) -> None:
    """Laplace 90 % intervals of log α and log β over 40 seeds.

    How many hold the truth is binomial(40, .9): fewer than 28 with probability 9e-5, and all 80 of both exponents with
    2e-4 (were they independent). The mean z-score lies within 4 standard errors, 1/√40, of 0 and their sd within 4 of
    1/√80 of 1 (6e-5 each): a false alarm in one of 2 truths × 2 exponents has probability 1.3e-3 at most.
    """
    z = np.array([_z_scores(alpha, beta, seed) for seed in range(40)])
    covered = (np.abs(z) < 1.645).sum(axis=0)
    assert np.all(covered >= 28), covered
    assert covered.sum() < 80
    assert np.all(np.abs(z.mean(axis=0)) < 4 / np.sqrt(40))
    assert np.all(np.abs(z.std(axis=0, ddof=1) - 1) < 4 / np.sqrt(80))


def _z_scores(alpha: float, beta: float, seed: int) -> np.ndarray:
    """(mode − truth)/sd of log α and log β, sd by the curvature of the log posterior at its mode."""
    law = get_law("chinchilla")
    target = LogPosterior(law, prepare(simulate({"law": law.name, "alpha": alpha, "beta": beta}, seed=seed), law))
    mode, agreed = posterior_mode(target)
    assert agreed
    sd = np.sqrt(np.diag(np.linalg.inv(-hessian(target, mode.u, np.full(len(mode.u), 1e-3)))))
    place = [[c.name for c in target.coordinates].index(name) for name in ("log_alpha", "log_beta")]
    return np.asarray((mode.u[place] - np.log([alpha, beta])) / sd[place])


def test_a_sweep_of_learning_rates_is_lowest_at_its_law() -> None:
    """On the grid nearest the optimum of both laws the loss is the final law's; away from it, the bowl's."""
    best = constants("step-law-learning-rate").values
    lr = float(best["lr_scale"] * 1e9 ** best["exponent_N"] * 1e11 ** best["exponent_tokens"])
    B = float(0.58 * 1e11**0.571)
    design = Tuning(N=(1e9,), tokens=(1e11,), lr=(lr / 2, lr, 2 * lr), batches=(B, 2 * B), seeds=2)
    table = simulate({"law": "learning-rate"}, design, noise=QUIET)
    assert len(table) == 12
    lowest = table.loss[(table.extra["lr"] == lr) & (table.B == B)]
    floor = simulate({"law": "chinchilla"}, Grid(N=(1e9,), tokens=(1e11,)), noise=QUIET).loss
    assert lowest == pytest.approx(np.repeat(floor, 2), rel=1e-12)
    assert table.loss.min() == lowest.min()
    twice = table.loss[(table.extra["lr"] == 2 * lr) & (table.B == B)]
    assert np.log(twice / lowest) == pytest.approx(0.5 * 0.018 * np.log(2) ** 2)
    assert pytest.approx(table.tokens / table.B) == table.S


def test_any_law_of_n_and_tokens_gives_learning_curves() -> None:
    truth = constants("besiroglu")
    table = simulate(truth, design_of(truth, curves=True, seeds=2), noise=Noise(0.0, np.inf, tau=0.01, ell=2.0))
    assert table.curve.all()
    assert table.num_runs == 9  # eight sizes, one of them twice
    error = np.log(table.loss / table.extra["expected_loss"])
    steps = [np.diff(error[table.run == run]) for run in np.unique(table.run)]
    assert np.std(np.concatenate(steps)) < 0.8 * np.std(error)  # errors are shared along a curve
    for run in np.unique(table.run):
        rows = table.run == run
        expected = get_law("chinchilla").loss(truth.values, {"N": table.N[rows], "tokens": table.tokens[rows]})
        assert table.extra["expected_loss"][rows] == pytest.approx(expected)


def test_a_design_is_asked_for_what_it_can_give() -> None:
    assert design_of({"law": "chinchilla"}, seeds=3).layout().numbers("seed").max() == 2
    assert design_of({"law": "kaplan"}, curves=True) == Sweep()
    with pytest.raises(LawError, match="says nothing about learning curves"):
        design_of({"law": "batch-size"}, curves=True)
    with pytest.raises(ConfigError, match="must not be negative"):
        design_of({"law": "chinchilla"}, seeds=-1)


def test_changed_exponents_of_either_sign_keep_the_centre() -> None:
    usual, other = (simulate({"law": "learning-rate", **more}, noise=QUIET) for more in ({}, {"exponent_tokens": -0.1}))
    law = get_law("learning-rate")
    best = [law.observe(table).response for table in (usual, other)]
    assert np.mean(np.log(best[0])) == pytest.approx(np.mean(np.log(best[1])), abs=0.15)
    assert point_fit(other, "learning-rate").parameters["exponent_tokens"] == pytest.approx(-0.1, rel=1e-6)
