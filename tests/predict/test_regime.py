from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from scaling_sim.errors import RegimeWarning
from scaling_sim.laws.registry import get_law
from scaling_sim.predict.backtest import backtest
from scaling_sim.predict.regime import regime_change
from tests.predict.test_discrepancy import runs

LAW = get_law("chinchilla")


def test_runs_of_one_law_are_one_regime() -> None:
    assert [regime_change(runs(seed=seed, noise=3e-3), LAW) for seed in range(6)] == [None] * 6


def test_small_runs_that_never_left_warm_up_are_named() -> None:
    """The ten smallest of 48 runs lie 6 to 15 % above their law, the smaller the more."""
    table = runs(noise=3e-3)
    order = np.argsort(table.C)[:10]
    loss = table.loss.copy()
    loss[order] *= np.linspace(1.15, 1.06, 10)
    bad = replace(table, loss=loss, data_hash="")
    found = regime_change(bad, LAW)
    assert found is not None
    assert set(found.rows) <= set(bad.row_names(np.isin(np.arange(len(bad)), order)))
    assert len(found.rows) >= 5
    assert np.median(found.log_error) > 0.05
    with pytest.warns(RegimeWarning, match="smallest runs follow another law than the rest.*left warm-up"):
        tested = backtest(bad, LAW)
    assert "fit again without them" in tested.caveat().lower()
    json.dumps(tested.to_json(), allow_nan=False)


def test_a_penalty_that_fades_with_compute_is_not_seen() -> None:
    """The limit that the documentation states: the rest carries part of the penalty, and foretells the small runs."""
    table = runs(noise=3e-3)
    fading = 1 + 0.1 / (1 + (table.C / (10 * table.C.min())) ** 0.7)
    assert fading.max() > 1.07
    assert regime_change(replace(table, loss=table.loss * fading, data_hash=""), LAW) is None
