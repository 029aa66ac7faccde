"""Weights over laws by back-test, beside leave-one-out, and what is said where they disagree."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scaling_sim.config import json_text
from scaling_sim.errors import DataError
from scaling_sim.inference import fit
from scaling_sim.predict import Comparison, compare
from scaling_sim.predict.backtest import backtest_of
from scaling_sim.predict.backtest_weights import _crps, _scale, backtest_weights
from tests.inference.support import chinchilla


def held_out(error: Any, cuts: int = 5, rows: int = 20) -> Any:
    """A back-test whose log error at h beyond each cut is ``error(h)``; the same rows whatever the law."""
    rng = np.random.default_rng(0)
    cut = np.repeat(np.geomspace(1e19, 1e21, cuts), rows)
    C = cut * np.exp(rng.uniform(0.1, 4.0, cut.size))
    observed = 2.0 + rng.uniform(0, 1, cut.size)
    return SimpleNamespace(cut=cut, C=C, observed=observed, predicted=observed * np.exp(-error(np.log(C / cut))))


NOISE = np.random.default_rng(4).standard_normal(100) * 0.003


def test_the_law_that_extrapolates_gets_the_weight() -> None:
    tests = {"true": held_out(lambda h: NOISE), "drifts": held_out(lambda h: NOISE + 0.01 * h)}
    found = backtest_weights(tests)
    assert not isinstance(found, str)
    assert found.best == "true"
    assert found.weights["true"] > 0.95
    assert found.wins == {"true": 5, "drifts": 0}
    assert found.error["drifts"] > 4 * found.error["true"]
    assert found.crps["drifts"] > 2 * found.crps["true"]
    assert (found.num_rows, found.num_cuts) == (100, 5)


def test_laws_that_err_on_different_rows_share_the_weight() -> None:
    odd = np.arange(100) % 2 == 0
    tests = {
        "even": held_out(lambda h: np.where(odd, 0.05, NOISE)),
        "odd": held_out(lambda h: np.where(odd, NOISE, 0.05)),
    }
    found = backtest_weights(tests)
    assert not isinstance(found, str)
    assert found.weights["even"] == pytest.approx(0.5, abs=0.1)


def test_only_rows_that_all_laws_predicted_from_the_same_cut_count() -> None:
    full, other = held_out(lambda h: NOISE), held_out(lambda h: NOISE)
    keep = np.random.default_rng(1).permutation(100)[:70]
    part = SimpleNamespace(**{name: getattr(other, name)[keep] for name in ("cut", "C", "observed", "predicted")})
    found = backtest_weights({"a": full, "b": part})
    assert not isinstance(found, str)
    assert found.num_rows == 70
    assert found.log_score["a"] == pytest.approx(found.log_score["b"])  # the same errors, in whatever order
    moved = SimpleNamespace(cut=full.cut * 2, C=full.C, observed=full.observed, predicted=full.predicted)
    words = backtest_weights({"a": full, "b": moved})
    assert isinstance(words, str)
    assert "share no row held out beyond the same cut" in words
    assert backtest_weights({"a": full, "b": "too few rows"}) == "b: too few rows"


@pytest.mark.parametrize("cuts", [1, 2])
def test_few_shared_cuts_give_weights_that_say_so(cuts: int) -> None:
    """The scale of errors then comes from all cuts of each law, and the law that drifts still loses."""
    true, drifts = held_out(lambda h: NOISE), held_out(lambda h: NOISE + 0.01 * h)
    drifts.cut = np.where(drifts.cut <= np.unique(drifts.cut)[cuts - 1], drifts.cut, drifts.cut * 1.01)
    drifts.C = np.where(drifts.cut == true.cut, drifts.C, drifts.C * 1.01)
    found = backtest_weights({"true": true, "drifts": drifts, "cannot": "too few rows"})
    assert not isinstance(found, str)
    assert (found.num_cuts, found.num_rows) == (cuts, 20 * cuts)
    assert found.weights["true"] > 0.95
    assert found.lacks == (
        f"these weights rest on {cuts} of 3 cuts in compute that they should have",
        "cannot has no weight: too few rows",
    )
    assert "But these weights rest on" in found.verdict


def test_the_scale_of_errors_is_found_near_and_far() -> None:
    rng = np.random.default_rng(2)
    h = rng.uniform(0.1, 4, 20_000)
    which = np.arange(h.size) % 4
    a, b = _scale(np.hypot(0.003, 0.01 * h) * rng.standard_t(4, h.size), h, which)
    assert a == pytest.approx(0.003, rel=0.15)
    assert b == pytest.approx(0.01, rel=0.05)
    a, b = _scale(0.003 * rng.standard_t(4, h.size), h, which)
    assert np.hypot(a, b * 4) == pytest.approx(0.003, rel=0.1)


def test_crps_is_the_integral_of_squared_differences() -> None:
    from scipy.stats import t

    x = np.linspace(-400, 400, 4_000_001)
    for z in (-2.0, 0.0, 0.7):
        expected = np.sum((t.cdf(x, 4) - (x >= z)) ** 2) * (x[1] - x[0])
        assert float(_crps(np.array([z]))[0]) == pytest.approx(expected, abs=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_laws_that_read_other_rows_are_tested_at_cuts_of_their_common_ones() -> None:
    """power-c reads the lower envelope only: its own cuts lie elsewhere."""
    runs = chinchilla(0.34, 0.28)
    fits = [fit(runs, law, seed=1, min_ess=400) for law in ("power-c", "chinchilla")]
    alone = backtest_weights({one.law_name: backtest_of(one) for one in fits})
    assert not isinstance(alone, str)
    assert alone.num_cuts < 3
    together = compare(fits).backtest
    assert not isinstance(together, str)
    assert together.num_cuts >= 3
    assert not together.lacks
    assert together.num_rows > alone.num_rows


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    runs = chinchilla(0.34, 0.28)
    return compare([fit(runs, law, seed=1, min_ess=400) for law in ("power-n", "chinchilla")])


@pytest.mark.filterwarnings("ignore")
def test_a_comparison_judges_interpolation_and_extrapolation(comparison: Comparison) -> None:
    assert not isinstance(comparison.loo, str)
    assert not isinstance(comparison.backtest, str)
    assert comparison.loo.best == comparison.backtest.best == "chinchilla"
    assert comparison.backtest.weights["chinchilla"] > 0.99
    assert comparison.verdict.endswith("Both prefer chinchilla.")
    frame = comparison.to_dataframe()
    assert list(frame.index) == ["chinchilla", "power-n"]
    assert {"elpd", "backtest_weight", "not_identified"} <= set(frame.columns)
    assert '"backtest"' in json_text(comparison.to_json())


def test_disagreement_is_said_in_words(comparison: Comparison) -> None:
    assert not isinstance(comparison.backtest, str)
    swapped = {"chinchilla": -1.0, "power-n": 3.0}
    other = replace(comparison, backtest=replace(comparison.backtest, log_score=swapped))
    assert "They disagree: chinchilla interpolates better, power-n extrapolates better" in other.verdict
    assert not isinstance(comparison.loo, str)
    noise = np.resize([5.0, -5.0], len(comparison.loo.units))
    close = {
        law: values * 0 + (noise if law == "chinchilla" else 0) for law, values in comparison.loo.pointwise.items()
    }
    open_ = replace(other, loo=replace(comparison.loo, pointwise=close))
    assert "leaves open what the back-test decides for power-n" in open_.verdict


def test_what_is_not_identified_or_did_not_converge_is_named(comparison: Comparison) -> None:
    weak = replace(comparison, not_identified={"chinchilla": ("E",)}, converged={"chinchilla": True, "power-n": False})
    assert "chinchilla: E not identified." in weak.verdict
    assert "power-n did not converge." in weak.verdict
    assert weak.to_json()["converged"] is False
    assert weak.to_dataframe().not_identified["chinchilla"] == "E"


def test_one_fit_is_nothing_to_compare(comparison: Comparison) -> None:
    with pytest.raises(DataError, match="two or more different laws"):
        compare([])
