"""The crossover from the command line: a known one is found again, and tension is counted by the threshold given."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import scaling_sim as ss
from tests.cli.conftest import Run


def test_simulate_fit_crossover_in_one_pipe_hold_the_truth() -> None:
    """The round trip below with 50 effective draws: enough to say whether an interval holds the true C*."""
    verb = f"{sys.executable} -m scaling_sim.cli"
    pipe = (
        f"{verb} simulate --constants kaplan-table5 --noise 0.003 --seed 1"
        f" | {verb} fit - --law kaplan --min-ess 50 --out - | {verb} crossover - --json"
    )
    done = subprocess.run(["bash", "-o", "pipefail", "-c", pipe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    low, high = found["C_min_flop"]["interval90"]
    assert low < ss.crossover(ss.constants("kaplan-table5")).C.median < high
    assert found["backtested_decades"] > 1
    assert found["backtested_decades_reason"] is None


@pytest.mark.slow
def test_simulate_fit_crossover_hold_the_truth(cli: Run, facts: Any, tmp_path: Path) -> None:
    """As a pipe: CSV on stdout, CSV on stdin, a saved fit; the 90 % interval holds the C* of the constants."""
    sweep = cli("simulate", "--constants", "kaplan-table5", "--noise", "0.003", "--seed", "1").stdout
    saved = str(tmp_path / "f.nc")
    cli("fit", "-", "--law", "kaplan", "--min-ess", "400", "--out", saved, "--json", input=sweep)
    found = facts("crossover", saved)
    truth = facts("crossover", "--constants", "kaplan-table5")
    for key in ("C_min_flop", "N_parameters", "D_tokens", "loss_nats"):
        low, high = found[key]["interval90"]
        assert low < truth[key]["median"] < high, key
    assert found["converged"]
    assert found["simulated"]
    assert found["decades_beyond_runs"]["median"] > 0
    assert sum(found["variance_by_law"].values()) == pytest.approx(1)
    low, high = facts("crossover", saved, "--method", "frontier")["C_min_flop"]["interval90"]
    assert low < found["C_min_flop"]["interval90"][0] < truth["C_min_flop"]["median"] < high


def test_a_pipe_without_a_fit_is_refused_with_a_cure(cli: Run) -> None:
    assert (
        "no fit on stdin; write one with: scaling-sim fit RUNS --out -"
        in cli("crossover", "-", input="", expect=4).stderr
    )
    refused = cli("crossover", "-", input="N,D,loss\n", expect=4).stderr
    assert "stdin" in refused
    assert "--out - writes a binary file" in cli("fit", "-", "--out", "-", "--json", input="", expect=2).stderr
    assert "no fit on stdin" in cli("report", "-", input="", expect=4).stderr
    for twice in (("compare", "-", "-"), ("recipes", "-", "-"), ("forecast", "-", "-N", "1e9", "--observe", "-")):
        assert "stdin is read once: give - for one" in cli(*twice, input="", expect=2).stderr


def test_the_threshold_moves_the_tension(facts: Any) -> None:
    """Less overfitting wants more data, so that one pass runs short earlier; the paper's own rule stays."""
    usual = facts("crossover", "--constants", "kaplan-table5")
    strict = facts("crossover", "--constants", "kaplan-table5", "--threshold", "0.01")
    assert strict["tension"]["C_flop"]["median"] < usual["tension"]["C_flop"]["median"] < usual["C_flop"]["median"]
    assert strict["printed_tension"] == usual["printed_tension"]
