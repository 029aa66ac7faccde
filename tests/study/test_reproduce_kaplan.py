"""The frame of the reproduction: systems, files, table, and what happens where runs are missing."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scaling_sim.datasets import Experiment, write
from scaling_sim.errors import ConfigError
from scaling_sim.study.reproduce.kaplan import SYSTEMS, Data, Finding, Row, find, reproduce_kaplan
from tests.study.kaplan_records import FACTS, small_experiment


def test_every_system_has_its_own_name_and_can_be_found() -> None:
    names = [system.name for system in SYSTEMS]
    assert len(set(names)) == len(names)
    assert find(["F1"])[0].name == "one-variable"
    with pytest.raises(ConfigError, match="no system is called F99; there are: one-variable"):
        find(["F99"])


def test_a_row_keeps_quantiles_of_infinite_draws() -> None:
    row = Row.of("C*", 1e4, np.array([1.0] * 5 + [np.inf] * 5), 3, "FLOP")
    assert row.ours == np.inf
    assert row.interval90 == (1.0, np.inf)


def test_without_runs_every_system_says_what_is_missing() -> None:
    empty = Data(Experiment((), FACTS))
    for system in SYSTEMS:
        finding = system.compute(empty)
        assert finding.missing, system.name
        assert finding.title, system.name
        assert not finding.rows, system.name


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Finding]]:
    folder = tmp_path_factory.mktemp("kaplan")
    return folder, reproduce_kaplan(folder, small_experiment(), processes=1)


@pytest.mark.slow
def test_every_system_gives_rows_and_files(made: tuple[Path, dict[str, Finding]]) -> None:
    folder, findings = made
    assert list(findings) == [system.name for system in SYSTEMS]
    page = (folder / "index.html").read_text()
    for name, finding in findings.items():
        assert f'id="{name}"' in page
        if not finding.missing and (folder / f"{name}.svg").exists():
            assert (folder / f"{name}.svg").read_text().startswith("<svg")
            assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_table_has_paper_ours_interval_and_runs(made: tuple[Path, dict[str, Finding]]) -> None:
    folder, findings = made
    written = json.loads((folder / "table.json").read_text())
    assert written["simulated"] is True
    for name, system in written["systems"].items():
        assert len(system["rows"]) == len(findings[name].rows)
        for row in system["rows"]:
            assert {"quantity", "paper", "ours", "interval90", "n_runs", "unit"} <= set(row)
            assert row["n_runs"] > 0 or row["ours"] is None, (name, row)
    rows = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
    assert len(rows) == sum(len(finding.rows) for finding in findings.values())


def test_the_command_writes_the_systems_that_are_asked_for(tmp_path: Path) -> None:
    experiment = small_experiment()
    write(tmp_path / "small.jsonl.xz", experiment.records, experiment.facts)
    asked = ("--out", str(tmp_path / "out"), "--data", str(tmp_path / "small.jsonl.xz"), "--only", "F9 dropout")
    done = _command("kaplan", *asked, "--json")
    assert done.returncode == 0, done.stderr
    systems = json.loads(done.stdout)["systems"]
    assert list(systems) == ["dropout"]
    assert (tmp_path / "out" / "dropout.svg").exists()
    refused = _command("kaplan")
    assert refused.returncode == 2
    assert "give --out FOLDER" in refused.stderr
    refused = _command("kaplan-arithmetic", "--only", "F1")
    assert refused.returncode == 2
    assert "takes no --only" in refused.stderr


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scaling_sim.cli", "reproduce", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)
