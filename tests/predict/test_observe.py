from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import multivariate_t

from scaling_sim.errors import ConfigError, DataError, LawError
from scaling_sim.laws.constants import constants
from scaling_sim.predict.conditioning import RunErrors, condition, surprise
from scaling_sim.predict.layout import Sweep
from scaling_sim.predict.noise import Noise
from scaling_sim.predict.observe import Observed, observe
from scaling_sim.predict.progress import read_progress
from scaling_sim.predict.simulate import simulate
from scaling_sim.runs.table import RunTable
from tests.predict.support import Draws

NOISE = Noise(0.003, 5.0, 0.005, 3.0)
SMALL = Sweep(N=(1e5, 4e5, 1.6e6, 6.4e6, 2.5e7), batch_N=(), data_N=())
BATCH = SMALL.batch


def truth(seed: int) -> dict[str, Any]:
    """Table 3 with exponents 10 % off, the same loss at the centre of the small runs."""
    rng, p = np.random.default_rng(seed), constants("kaplan-table3").values
    size, step = np.exp(0.1 * rng.standard_normal(2)).tolist()
    middle_N, middle_S = 1.6e6, 1.5e4
    N_c = middle_N * (p["N_c"] / middle_N) ** (1 / size)
    S_c = middle_S * (p["S_c"] / middle_S) ** (1 / step)
    return {
        "law": "kaplan-ns",
        "alpha_N": size * p["alpha_N"],
        "N_c": N_c,
        "alpha_S": step * p["alpha_S"],
        "S_c": S_c,
    }


@cache
def fitted(seed: int) -> Draws:
    """Stand-in for a posterior: the runs and the errors' parameters; the discrepancy learns the law itself."""
    rng, values = np.random.default_rng(seed), constants("kaplan-table3").values
    noise = {
        "sigma": NOISE.sigma * np.exp(0.1 * rng.standard_normal(500)),
        "tau": 0.005 * np.exp(0.2 * rng.standard_normal(500)),
        "ell": NOISE.ell * np.exp(0.3 * rng.standard_normal(500)),
        "nu": rng.choice([3.0, 5.0, 30.0], 500, p=[0.3, 0.6, 0.1]),
    }
    draws = {name: np.full(500, value) for name, value in values.items()}
    return Draws("kaplan-ns", draws, simulate(truth(seed), SMALL, noise=NOISE, seed=seed), noise=noise)


def new_run(seed: int, N: float) -> RunTable:
    """A run of the same truth that the fit has not seen."""
    plan = Sweep(N=(N,), batch_N=(), data_N=(), seed_N=(), points=24)
    return simulate(truth(seed), plan, noise=NOISE, seed=1000 + seed)


def watched(seed: int, N: float, share: float, spoil: Any = None, **asked: Any) -> tuple[Observed, float]:
    """What is said of a run of which ``share`` is over, and its true end."""
    run = new_run(seed, N)
    use = share * run.S[-1] >= run.S
    S, loss = run.S[use], run.loss[use]
    loss = loss if spoil is None else spoil(S, loss)
    asked = {"S": float(run.S[-1]), "seed": seed, **asked}
    return observe(fitted(seed), {"step": S, "loss": loss}, N, **asked), float(run.loss[-1])


@pytest.fixture(autouse=True)
def no_backtest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forecasts beyond the runs would make one for each truth; none of these tests is about it."""
    import sys

    monkeypatch.setattr(sys.modules["scaling_sim.predict.forecast"], "backtest_of", lambda _: "not made here")


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.filterwarnings("ignore::scaling_sim.errors.ExtrapolationWarning")
def test_the_update_covers_and_errs_less() -> None:
    """100 truths, one run each, 12 or 400 times the largest of the fit.

    Intervals that cover 90 % fail with probability .0065, and such that cover 75 % pass with probability .06 (binomial,
    82 to 97 of 100); p-values below .05 as often as they should be are more than 12 with probability .0015.
    """
    cover, after, before, odd = [], [], [], []
    for seed in range(100, 200):
        found, end = watched(seed, (3e8, 1e10)[seed % 2], 0.4)
        low, high = found.interval(0.9)
        cover.append(low <= end <= high)
        after.append(abs(np.log(found.median / end)))
        before.append(abs(np.log(found.before.median / end)))
        odd.append(found.p_value)
    assert 82 <= sum(cover) <= 97
    assert np.mean(after) < 0.8 * np.mean(before)
    assert sum(p < 0.05 for p in odd) <= 12


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_badly_tuned_run_is_called_off_track(seed: int) -> None:
    """Losses 6 % above what they should be; by chance errors of this size come once in a thousand runs (t₅)."""
    found, _ = watched(seed, 3e7, 0.3, lambda S, loss: 1.06 * loss)
    assert found.verdict == "off track"
    assert not found.on_track
    assert found.p_value < 0.01
    assert any("take it to last" in note for note in found.notes)


def test_a_run_that_turns_up_is_called_off_track() -> None:
    """A divergence that begins at a third of what has been seen, long before its level is high."""

    def turn(S: Any, loss: Any) -> Any:
        return loss * np.exp(0.08 * np.clip(np.log(S / (0.3 * S[-1])), 0, None))

    found, _ = watched(4, 3e7, 0.3, turn)
    assert found.verdict == "off track"


def test_a_run_whose_loss_is_no_number_has_diverged() -> None:
    found, _ = watched(4, 3e7, 0.3, lambda S, loss: np.where(S[-1] / 2 < S, np.nan, loss), target=2.9)
    assert found.verdict == "off track"
    assert found.probability_of_target == 0
    assert np.isinf(found.median)
    assert any("diverged" in note for note in found.notes)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["loss_nats"]["median"] == "inf"
    whole, _ = watched(4, 3e7, 0.3, lambda S, loss: np.full(len(S), np.nan))
    assert whole.verdict == "off track"


def test_a_better_run_is_ahead() -> None:
    found, _ = watched(4, 3e7, 0.3, lambda S, loss: 0.94 * loss)
    assert found.verdict == "ahead"
    assert found.on_track
    assert found.deviation.median == pytest.approx(np.log(0.94), abs=0.02)


def test_the_joint_law_is_watched_at_another_batch_by_its_tokens() -> None:
    """A batch four times that of the sweep, ten times its largest size; of 80 such runs 90 % ended in the interval."""
    p = dict(constants("kaplan-table5").values)
    plan = Sweep(N=(1e5, 1e6, 1e7, 1e8), batch_N=(1e6,), data_N=(1e6, 1e7, 1e8), points=12)
    noise = fitted(1).noise
    named = {f"{name}_curve": values for name, values in noise.items()}
    fit = Draws(
        "kaplan",
        {name: np.full(500, value) for name, value in p.items()},
        runs=simulate({"law": "kaplan", **p}, plan, noise=NOISE, seed=3),
        noise={**named, "sigma_stopped": noise["sigma"], "nu_stopped": noise["nu"]},
    )
    ahead = replace(plan, N=(1e9,), batch=2.0**21, batch_N=(), data_N=(), seed_N=(), points=24)
    run = simulate({"law": "kaplan", **p}, ahead, noise=NOISE, seed=1504)
    early = 0.4 * run.S[-1] > run.S
    log = {"tokens": run.tokens[early], "loss": run.loss[early]}
    found = observe(fit, log, 1e9, B=ahead.batch, S=float(run.S[-1]))
    assert found.verdict == "on track"
    assert found.median == pytest.approx(run.loss[-1], rel=0.015)
    low, high = found.interval(0.9)
    before = found.before.interval(0.9)
    assert np.log(high / low) < 0.95 * np.log(before[1] / before[0])
    spoilt = observe(fit, {**log, "loss": 1.08 * log["loss"]}, 1e9, B=ahead.batch, S=float(run.S[-1]))
    assert spoilt.verdict == "off track"


def test_targets() -> None:
    found, end = watched(5, 3e7, 0.3, target=None)
    easy, _ = watched(5, 3e7, 0.3, target=1.03 * end)
    hard, _ = watched(5, 3e7, 0.3, target=0.9 * end)
    assert found.probability_of_target is None
    assert easy.probability_of_target is not None
    assert hard.probability_of_target is not None
    assert easy.probability_of_target > 0.9
    assert hard.probability_of_target < 0.01
    assert easy.reached is not None
    assert easy.reached.median < 2.5e5


def times(factor: float) -> Any:
    return lambda S, loss: factor * loss


@pytest.mark.parametrize("share", [0.3, 0.02], ids=["16 points", "few points"])
def test_the_worse_the_run_the_less_likely_its_target(share: float) -> None:
    """No error of its own, neither one that fades nor one of single points, may make hope of how bad a run is."""
    end = watched(5, 3e7, 0.3)[1]
    for target in (1.01 * end, 0.98 * end):
        chances, ends = [], []
        for worse in (1.0, 1.02, 1.04, 1.08, 1.3, 1.44, 2.0):
            found, _ = watched(5, 3e7, share, times(worse), target=target)
            assert found.probability_of_target is not None
            chances.append(found.probability_of_target)
            ends.append(found.median)
        assert all(b <= a for a, b in pairwise(chances)), chances
        assert all(a < b for a, b in pairwise(ends)), ends
        assert chances[-1] == 0
        assert ends[-1] > 1.9 * ends[0]


def test_the_update_of_gaussians_is_the_exact_one() -> None:
    """Normal errors and normal m: mean and variance of the path are those of Gaussian conditioning."""
    rng = np.random.default_rng(0)
    n, log_S, seen = 40_000, np.array([1.0, 2.0, 3.5]), np.array([0, 1])
    mean = 1.0 + 0.02 * rng.standard_normal((n, 1)) + 0.01 * rng.standard_normal((n, 1)) * log_S
    errors = RunErrors(np.full(n, 0.005), np.full(n, 0.3), np.full(n, 2.0), np.full(n, 1e6))
    y, measured = np.array([1.03, 1.02]), np.array([0.0, 0.002])
    m_cov = 0.02**2 + 0.01**2 * np.outer(log_S, log_S)
    level = 0.005**2 * 0.7 * np.exp(-np.abs(log_S[:, None] - log_S) / 2.0)
    joint = m_cov + level
    total = joint[:2, :2] + np.diag(0.005**2 * 0.3 + measured**2)
    gain = joint[:, :2] @ np.linalg.inv(total)
    expected, covariance = 1.0 + gain @ (y - 1.0), joint - gain @ joint[:2]
    found = condition(mean, log_S, seen, y, measured, errors, 0)
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(found.path.mean(axis=0), expected, atol=0.05 * sd.min())
    np.testing.assert_allclose(found.path.std(axis=0), sd, rtol=0.03)
    assert found.point.std() == pytest.approx(0.005 * np.sqrt(0.3), rel=0.03)


def test_simulated_errors_have_the_covariance_of_the_likelihood() -> None:
    n, log_S = 60_000, np.array([0.0, 0.5, 2.0])
    errors = RunErrors(np.full(n, 0.01), np.full(n, 0.2), np.full(n, 1.5), np.full(n, 30.0))
    rng = np.random.default_rng(1)
    drawn = errors.level(log_S, rng) + errors.point(np.zeros(3), rng)
    np.testing.assert_allclose(np.cov(drawn.T), errors.covariance(log_S, np.zeros(3))[0], atol=2.5e-6)


def test_heavy_tails_are_those_of_one_student_t_per_run() -> None:
    """No uncertainty of m: weights of λ must reproduce the conditional multivariate t (ν + k, scaled by the fit)."""
    n, log_S, seen, nu = 60_000, np.array([0.0, 1.0, 2.0]), np.array([0, 1]), 4.0
    errors = RunErrors(np.full(n, 0.01), np.full(n, 0.5), np.full(n, 2.0), np.full(n, nu))
    y = np.array([0.05, 0.04])
    found = condition(np.zeros((n, 3)), log_S, seen, y, np.zeros(2), errors, 0)
    full = errors.covariance(log_S, np.zeros(3))[0]
    gain = full[2, :2] @ np.linalg.inv(full[:2, :2])
    rest = full[2, 2] - gain @ full[:2, 2]
    spread = np.sqrt(rest * (nu + y @ np.linalg.solve(full[:2, :2], y)) / (nu + 2))
    known = multivariate_t(gain @ y, spread**2, df=nu + 2)
    drawn = found.path[:, 2] + found.point
    expected = known.rvs(200_000, random_state=0)
    np.testing.assert_allclose(
        np.quantile(drawn, [0.05, 0.5, 0.95]), np.quantile(expected, [0.05, 0.5, 0.95]), atol=2e-3
    )


def test_surprise_is_uniform_for_runs_like_the_others() -> None:
    rng = np.random.default_rng(2)
    root = np.array([[1.0, 0.0], [0.8, 0.3]])
    replicated = rng.standard_normal((2000, 2)) @ root.T
    p = np.array([surprise(y, replicated) for y in rng.standard_normal((400, 2)) @ root.T])
    assert abs(np.mean(p[:, 0] < 0.1) - 0.1) < 0.045  # 3 standard errors of 400
    assert abs(np.mean(p[:, 1] < 0.1) - 0.1) < 0.045
    assert surprise(np.array([3.0, 3.0]), replicated)[1] < 0.01
    assert surprise(np.array([1.5, -1.5]), replicated)[0] < 0.01  # its level is the usual one, its shape is not


def test_early_points_are_left_out_and_long_curves_thinned() -> None:
    S = np.arange(100, 50_001, 100.0)
    run = new_run(1, 3e7)
    loss = np.interp(np.log(S), np.log(run.S), run.loss)
    found = observe(fitted(1), {"step": S, "loss": loss}, 3e7, S=2.5e5)
    assert found.progress.used.sum() <= 16
    assert found.progress.steps[found.progress.used].min() >= 1000
    assert any("9 points before step 1000" in note for note in found.notes)
    later = observe(fitted(1), {"step": S, "loss": loss}, 3e7, S=2.5e5, warmup=2000)
    assert later.progress.steps[later.progress.used].min() >= 4000


def test_curves_are_read_by_steps_or_tokens(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    path.write_text("tokens,loss,loss_error\n0,9.7,\n1000,3.0,0.01\n500,3.5,\n")
    found = read_progress(path, B=10.0)
    np.testing.assert_array_equal(found.steps, [50, 100])
    np.testing.assert_array_equal(found.loss, [3.5, 3.0])
    np.testing.assert_array_equal(found.error, [np.nan, 0.01])
    with pytest.raises(DataError, match="needs a column step, or tokens and the batch"):
        read_progress(path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"step": [1.0], "value": [3.0]}, "needs a column loss .* it has step, value"),
        ({"step": [1.0, 2.0], "loss": [3.0, -1.0]}, "losses must be positive .* not so in row 1"),
        ({"step": [1.0, -2.0], "loss": [3.0, 2.0]}, "steps must be positive"),
        ({"step": [5.0, 5.0], "loss": [3.0, 2.0]}, "a step may stand once only; not so in row 1"),
        ({"step": [5.0], "loss": ["much"]}, "column loss must hold numbers; not so in row 0"),
        ({"step": [0.0], "loss": [9.0]}, "no measured loss after the first update"),
    ],
)
def test_bad_curves_are_refused(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_progress(columns)


def test_what_cannot_be_watched_says_why() -> None:
    curve = {"step": [2000.0], "loss": [3.5]}
    fit = fitted(1)
    with pytest.raises(LawError, match="predicts finished runs"):
        observe(constants("hoffmann"), curve, 1e9, B=1e6, S=1e4)
    with pytest.raises(LawError, match="constants come without runs"):
        observe(constants("kaplan-table3"), curve, 1e9, B=1e6, S=1e4)
    with pytest.raises(ConfigError, match="two of B"):
        observe(fit, curve, 1e9)
    with pytest.raises(DataError, match="goes on to step 2000, but the run was planned for S = 1000"):
        observe(fit, curve, 1e9, S=1000)
    with pytest.raises(DataError, match="no point of the curve can be used yet: 1 points before step 1000"):
        observe(fit, {"step": [10.0], "loss": [3.5]}, 1e9, S=1e5)
    with pytest.raises(ConfigError, match="target must be a positive loss"):
        observe(fit, curve, 1e9, S=1e5, target=-1.0)
    with pytest.raises(LawError, match="no errors of learning curves"):
        observe(replace(fit, noise={}), curve, 1e7, S=1e5)


def test_results_read_well_and_seeds_repeat() -> None:
    found, _ = watched(2, 3e7, 0.3, target=2.9)
    again, _ = watched(2, 3e7, 0.3, target=2.9)
    np.testing.assert_array_equal(found.loss.draws, again.loss.draws)
    answer = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert answer["verdict"] == found.verdict
    assert answer["loss_nats"]["median"] == found.median
    assert answer["loss_before_nats"] != answer["loss_nats"]
    assert answer["run"]["B_tokens"] == BATCH  # kaplan-ns: the batch that the fit read
    assert list(found.to_dataframe()) == ["step", "median_nats", "lo50", "hi50", "lo90", "hi90"]
    assert found.verdict in str(found)
    assert found.verdict in found._repr_html_()
