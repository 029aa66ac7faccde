from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from scaling_sim.errors import ConfigError, DesignError, LawError
from scaling_sim.laws.constants import constants
from scaling_sim.predict.backtest import Backtest, backtest, backtest_of, crps
from scaling_sim.predict.forecast import forecast
from scaling_sim.runs.table import RunTable
from tests.predict.support import around, table

P = constants("besiroglu").values


def chinchilla_runs(slow: float = 0.0, noise: float = 1e-3, seed: int = 0) -> RunTable:
    """Runs of Chinchilla's form, or with ``slow`` nats of their floor falling like C^−.06, which no such law can do."""
    rng = np.random.default_rng(seed)
    N, ratio = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e9, 8), np.geomspace(5, 100, 6)))
    tokens: NDArray[np.float64] = N * ratio
    loss = P["E"] + P["A"] * N ** -P["alpha"] + P["B"] * tokens ** -P["beta"]
    loss = loss + slow * ((6 * N * tokens / 1e16) ** -0.06 - 1 / 3)
    return table(N=N, tokens=tokens, loss=loss * np.exp(noise * rng.standard_normal(len(N))))


@pytest.fixture(scope="module")
def true_law() -> Backtest:
    return backtest(chinchilla_runs(), "chinchilla")


@pytest.fixture(scope="module")
def bent() -> Backtest:
    return backtest(chinchilla_runs(slow=1.2), "chinchilla")


def test_a_true_law_hardly_drifts(true_law: Backtest) -> None:
    assert abs(true_law.drift) < 2e-3
    assert true_law.coverage(0.9) > 0.8
    assert 0.8 < true_law.coverage(0.9, law_alone=True) < 0.99
    assert 0.35 < true_law.coverage(0.5, law_alone=True) < 0.7
    assert true_law.reach_decades > 1


def test_a_wrong_law_is_found_out_and_forecasts_stand_it(bent: Backtest) -> None:
    assert bent.drift < -1e-3
    assert bent.coverage(0.9, law_alone=True) < 0.7
    assert bent.coverage(0.9) > 0.8
    assert bent.crps.mean() < 0.9 * bent.crps_law.mean()


def test_the_law_alone_knows_its_parameters_no_better_than_its_runs_do(true_law: Backtest) -> None:
    """Its intervals widen with the distance from the runs: they are no error bars about one curve."""
    low, high = np.log(true_law.law_quantiles[:, [0, -1]]).T
    first = true_law.cut == true_law.cut.min()
    width, far = (high - low)[first], true_law.h[first]
    assert width[far > 0.9 * far.max()].mean() > 1.5 * width[far < 0.2 * far.max()].mean()
    np.testing.assert_allclose(np.exp(low + high) ** 0.5, true_law.predicted, rtol=5e-3)


def test_held_out_rows_lie_beyond_their_cut_and_were_not_fitted(true_law: Backtest) -> None:
    assert np.all(true_law.h > 0)
    assert len(np.unique(true_law.cut)) >= 4
    changed = chinchilla_runs()
    top = np.argmax(changed.C)
    loss = changed.loss.copy()
    loss[top] *= 2  # the largest run is in no training part
    again = backtest(replace(changed, loss=loss, data_hash=""), "chinchilla")
    np.testing.assert_allclose(again.predicted, true_law.predicted, rtol=1e-12)
    assert not np.allclose(again.observed, true_law.observed)


def test_crps_of_a_normal_sample() -> None:
    """For a standard Normal, CRPS(y) = y(2Φ(y) − 1) + 2φ(y) − 1/√π."""
    from scipy.stats import norm

    y = np.array([-1.0, 0.0, 2.5])
    draws = np.random.default_rng(0).standard_normal((40_000, 3))
    expected = y * (2 * norm.cdf(y) - 1) + 2 * norm.pdf(y) - np.pi**-0.5
    np.testing.assert_allclose(crps(draws, y), expected, atol=0.01)


def test_a_forecast_makes_its_own_backtest() -> None:
    fit = replace(around("besiroglu", sd=1e-4, num=500), runs=chinchilla_runs(slow=1.2))
    found = forecast(fit, N=3e9, tokens=1e11)
    assert found.notes == (backtest_of(fit).caveat(),)  # type: ignore[union-attr]
    assert found.to_json()["backtest_coverage90"] == backtest_of(fit).coverage()  # type: ignore[union-attr]
    assert found.median > found.law_loss.median  # the draws know nothing of what these runs have above their law
    assert backtest_of(fit) is backtest_of(fit)


def test_kaplan_runs_are_split_by_compute_in_their_roles() -> None:
    from scaling_sim.laws.kaplan import loss_nd, solve_loss

    p = constants("kaplan-table5").values
    rng = np.random.default_rng(0)
    rows = [
        (f"c{N:g}-{B:g}", N, B * S, B * S, B, S, float(solve_loss(N, B, S, p)), False, True)
        for N in np.geomspace(1e3, 1e6, 4)
        for B in (2e3, 3.2e4)
        for S in np.geomspace(1e3, 1e5, 8)
    ]
    rows += [
        (f"d{N:g}-{D:g}", N, D, 5 * D, 3e4, 5 * D / 3e4, float(loss_nd(N, D, p)), True, False)
        for N in np.geomspace(1e4, 1e6, 3)
        for D in np.geomspace(1e5, 1e7, 5)
    ]
    names = ("run", "N", "D", "tokens", "B", "S", "loss", "stopped", "curve")
    columns = {name: np.array(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    columns["loss"] = columns["loss"] * np.exp(2e-3 * rng.standard_normal(len(rows)))
    found = backtest(table(**columns), "kaplan", num_cuts=3)
    assert found.law_name == "kaplan"
    assert np.max(np.abs(found.residual)) < 0.1
    assert abs(found.drift) < 0.01
    assert found.coverage(0.9, law_alone=True) > 0.75
    assert found.coverage(0.9) > 0.75


def test_refusals() -> None:
    with pytest.raises(DesignError, match="published constants come without runs"):
        backtest(constants("besiroglu"))
    with pytest.raises(ConfigError, match="at least 2 cuts, got num_cuts=1"):
        backtest(chinchilla_runs(), "chinchilla", num_cuts=1)
    few = chinchilla_runs()
    few = few.select(np.argsort(np.argsort(few.C)) >= 43, "few")
    with pytest.raises(DesignError, match="at least 2 cuts in compute with enough rows"):
        backtest(few, "chinchilla")
    measured = replace(chinchilla_runs(), extra={"B_crit": np.full(48, 1e5)}, data_hash="")
    with pytest.raises(LawError, match="does not predict a loss"):
        backtest(measured, "critical-batch")
    assert "no runs behind these constants" in str(backtest_of(constants("besiroglu")))


def test_results_read_well(bent: Backtest) -> None:
    answer = json.loads(json.dumps(bent.to_json(), allow_nan=False))
    assert answer["num_held_out"] == len(bent.to_dataframe())
    assert "90 % intervals covered" in str(bent)
    assert bent._repr_html_().startswith("<p>")
    assert not bent.beyond(bent.largest * 10**bent.reach_decades)
    assert bent.beyond(bent.largest * 10 ** (1.6 * bent.reach_decades))


@pytest.mark.shared_data
def test_larger_runs_of_a_public_sweep_are_not_covered_by_the_law_alone() -> None:
    """On 245 public points the bare law's 90 % interval covers 59 % of the larger runs."""
    from pathlib import Path

    from scaling_sim.runs.table import read_runs

    path = Path(__file__).resolve().parents[3] / "shared/data/epoch/svg_extracted_data.csv"
    if not path.exists():
        pytest.skip("the public data sets are not beside the checkout")
    runs = read_runs(path, columns="N=Model Size,C=Training FLOP,loss=loss")
    found = backtest(runs, "chinchilla")
    assert found.coverage(0.9, law_alone=True) < 0.65
    assert found.coverage(0.9) > 0.7


@pytest.mark.shared_data
def test_few_runs_say_little_of_larger_ones_and_the_law_alone_says_so() -> None:
    """A dozen runs of a public sweep: error bars about the mode cover 45 % beyond them, the law's posterior 98 %."""
    from pathlib import Path

    import pandas as pd

    from scaling_sim.runs.table import read_runs

    path = Path(__file__).resolve().parents[3] / "shared/data/gadre/runs.csv"
    if not path.exists():
        pytest.skip("the public data sets are not beside the checkout")
    every = pd.read_csv(path)
    runs = read_runs(every[every.train_data == "c4_original"], columns="N=N,tokens=D,loss=loss_c4_val")
    assert backtest(runs, "chinchilla").coverage(0.9, law_alone=True) > 0.9
