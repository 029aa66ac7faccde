"""What each sitting did and how long it took: one line of JSON per stage, written as soon as the stage ends."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

FILE = "sittings.jsonl"
COMMIT = "SCALING_SIM_COMMIT"
"""Variable that names the commit where the code is no git checkout."""


class Stage(msgspec.Struct, frozen=True):
    """One stage of one sitting: a corpus, a calibration, or one portion of a system."""

    sitting: str
    """When the sitting began, UTC."""
    stage: str
    """``corpus``, ``calibration``, ``export`` or the name of a system."""
    seconds: float
    part: str = ""
    runs: int = 0
    """Brought to an end."""
    flops: float = 0.0
    complete: bool = True
    placement: str = ""


class Sitting:
    """The sitting that goes on now.

    Parameters
    ----------
    folder : Path
        Of the experiment.
    seconds : float
        After which it is to end.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.path, self._began, self._seconds = folder / FILE, time.monotonic(), seconds
        self.name = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    @property
    def left(self) -> float:
        """Seconds until it is to end."""
        return self._seconds - (time.monotonic() - self._began)

    @contextmanager
    def stage(self, stage: str, part: str = "") -> Iterator[dict[str, Any]]:
        """Time a stage and write it, also if it fails; the mapping receives further fields of `Stage`."""
        began, more = time.monotonic(), dict[str, Any]()
        try:
            yield more
        except BaseException:
            more["complete"] = False
            raise
        finally:
            self._write(Stage(self.name, stage, round(time.monotonic() - began, 2), part, **more))

    def _write(self, stage: Stage) -> None:
        with self.path.open("ab") as file:
            file.write(msgspec.json.encode(stage) + b"\n")


def read_sittings(folder: Path) -> list[Stage]:
    """Every stage so far, in order; a last line that a crash cut off is left out."""
    path = folder / FILE
    stages = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            stages.append(msgspec.json.decode(line, type=Stage))
        except msgspec.DecodeError:
            continue
    return stages


def summary(stages: list[Stage]) -> list[dict[str, Any]]:
    """One entry per sitting: when it began and seconds by stage."""
    sittings: dict[str, dict[str, Any]] = {}
    for stage in stages:
        entry = sittings.setdefault(stage.sitting, {"began": stage.sitting, "seconds": {}, "runs": 0, "flops": 0.0})
        entry["seconds"][stage.stage] = round(entry["seconds"].get(stage.stage, 0.0) + stage.seconds, 2)
        entry["runs"] += stage.runs
        entry["flops"] += stage.flops
    return list(sittings.values())


def commit() -> str:
    """Commit of the code: from the environment, or from git; empty if neither says."""
    if given := os.environ.get(COMMIT):
        return given
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout.strip()
