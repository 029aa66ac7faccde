"""Law, isoFLOP minima and envelope side by side: they agree where the law is true, and say so where it is not."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scaling_sim.config import json_text
from scaling_sim.errors import ConfigError
from scaling_sim.inference import fit
from scaling_sim.laws.constants import constants
from scaling_sim.predict import compare_methods
from tests.inference.support import epoch
from tests.predict.test_isoflop import STEEP, best_size, sweep


def drawn(runs: Any, sd: float = 0.002, **changes: float) -> Any:
    """A posterior's stand-in: draws around the truth of the sweep."""
    rng = np.random.default_rng(3)
    truth = STEEP | changes
    draws = {name: value * np.exp(sd * rng.standard_normal(1000)) for name, value in truth.items()}
    return SimpleNamespace(law_name="chinchilla", draws=draws, runs=runs, converged=True)


def test_three_methods_agree_on_runs_that_obey_the_law() -> None:
    found = compare_methods(drawn(sweep(noise=0.003).runs), compute=[1e20, 1e22])
    assert list(found.estimates) == ["law", "isoflop", "envelope"]
    assert found.agree is True
    assert "agree on N*(C)" in found.verdict
    for estimate in found.estimates.values():
        low, high = estimate.exponent.interval()
        assert low < 1 / 3 < high
        for i, C in enumerate((1e20, 1e22)):
            low, high = estimate.N(i).interval()
            assert low < best_size(C) < high
    assert found.estimates["isoflop"].span == pytest.approx((1e19, 1e22))


def test_a_law_with_another_exponent_is_told_apart() -> None:
    found = compare_methods(drawn(sweep(noise=0.003).runs, beta=0.5, alpha=0.4), compute=1e22)
    assert found.agree is False
    assert found.verdict.startswith("The law and the isoFLOP minima disagree by more than their joint 90 % uncertainty")
    pair = found.differences[0]
    assert pair.exponent.interval()[0] > 0
    assert pair.exponent.median == pytest.approx(5 / 9 - 1 / 3, abs=0.03)


def test_the_verdict_does_not_depend_on_the_budget_asked_for() -> None:
    fits = [drawn(sweep(noise=0.003).runs), drawn(sweep(noise=0.003).runs, A=500.0)]
    verdicts = [[compare_methods(one, compute=C).agree for C in (1e18, 1e20, 1e23)] for one in fits]
    assert verdicts[0] == [True] * 3
    assert len(set(verdicts[1])) == 1


@pytest.mark.statistical
def test_methods_that_agree_are_rarely_called_apart() -> None:
    """40 sweeps of the law itself: at most 10 % false alarms promised; more than 9 has probability .02 %."""
    alarms = sum(not compare_methods(drawn(sweep(noise=0.003, seed=s).runs), 1e22, seed=s).agree for s in range(40))
    assert alarms <= 9


def test_what_cannot_be_made_says_why() -> None:
    found = compare_methods(constants("besiroglu"), compute=1e21)
    assert list(found.estimates) == ["law"]
    assert found.agree is None
    assert "The isoFLOP minima cannot be made: isoFLOP minima and envelopes are read off runs" in found.verdict
    power = SimpleNamespace(law_name="power-n", draws={"alpha_N": np.ones(9), "N_c": np.ones(9)}, runs=sweep().runs)
    without = compare_methods(power)
    assert list(without.estimates) == ["isoflop", "envelope"]
    assert "The law cannot be made" in without.verdict
    with pytest.raises(ConfigError, match="compute"):
        compare_methods(constants("besiroglu"))
    with pytest.raises(ConfigError, match="positive"):
        compare_methods(power, compute=-1.0)


def test_json_and_table_say_the_same() -> None:
    found = compare_methods(drawn(sweep(noise=0.003).runs))
    facts = json.loads(json_text(found.to_json()))
    assert facts["agree"] is True
    assert facts["verdict"] == found.verdict
    frame = found.to_dataframe()
    assert len(frame) == 6
    assert facts["methods"]["isoflop"]["exponent"]["median"] == pytest.approx(frame.exponent["isoflop"].iloc[0])
    assert len(facts["differences"]) == 3
    again = compare_methods(drawn(sweep(noise=0.003).runs))
    assert json_text(again.to_json()) == json_text(found.to_json())


@pytest.mark.slow
def test_three_exponents_of_epoch_are_about_one_half(shared_data: Path) -> None:
    """Hoffmann et al. (2022): .50 by the envelope and .49 by isoFLOP; Besiroglu et al. (2024): .513 by the law."""
    found = compare_methods(fit(epoch(shared_data), seed=0))
    exponents = {name: e.exponent for name, e in found.estimates.items()}
    assert exponents["law"].median == pytest.approx(0.513, abs=0.02)
    for name in ("isoflop", "envelope"):
        assert exponents[name].median == pytest.approx(0.5, abs=0.035)
        low, high = exponents[name].interval()
        assert low < 0.49 < high
