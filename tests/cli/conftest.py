"""The command line as a user meets it: another process, its streams and its exit code."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def cli() -> Run:
    """Run a verb; its exit code must be ``expect``, and no traceback may be seen."""

    def run(*arguments: str, expect: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "80"}
        command = [sys.executable, "-m", "scaling_sim.cli", *arguments]
        outcome = subprocess.run(command, capture_output=True, text=True, env=environment, **options)
        assert outcome.returncode == expect, outcome.stderr
        assert "Traceback" not in outcome.stderr
        return outcome

    return run


@pytest.fixture(scope="session")
def facts(cli: Run) -> Callable[..., dict[str, Any]]:
    """The JSON object that a verb prints."""

    def run(*arguments: str, **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(cli(*arguments, "--json", **options).stdout)
        return found

    return run


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., str]:
    """Write rows under a header; the path of the CSV."""

    def write(header: str, rows: Iterable[Iterable[object]], name: str = "runs.csv") -> str:
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header.split(","))
            writer.writerows(rows)
        return str(tmp_path / name)

    return write
