"""How an experiment is asked for, and what is said about where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling_sim.errors import ConfigError
from scaling_sim.study.kaplan.estimate import SystemEstimate, describe
from scaling_sim.study.kaplan.plan import Planned
from scaling_sim.study.kaplan.systems import SYSTEMS

BUDGET_MINUTES = 25.0
"""Of training in all sittings together."""


@dataclass(frozen=True)
class Options:
    """How an experiment is run.

    Attributes
    ----------
    corpus : Path or None
        Folder of the English text.
    budget, sitting : float
        Minutes of training in all sittings together, and of this one.
    systems : tuple of str
        Names of systems; all of them if empty.
    backend, device, workers
        As for `scaling_sim.training.run_sweep`.
    """

    corpus: Path | None = None
    budget: float = BUDGET_MINUTES
    sitting: float = BUDGET_MINUTES
    systems: tuple[str, ...] = ()
    backend: str = "auto"
    device: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        known = [system.name for system in SYSTEMS]
        if unknown := [name for name in self.systems if name not in known]:
            raise ConfigError(f"no system is called {', '.join(unknown)}; there are: {', '.join(known)}")
        for name in ("budget", "sitting"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"--{name} must be positive, got {getattr(self, name):g} minutes")


@dataclass(frozen=True)
class Outcome:
    """Where the experiment stands after a sitting, or before it with ``--dry-run``.

    Attributes
    ----------
    name : str
    systems : tuple of dict
        Name, figures, runs by status, and what is expected of the rest.
    dropped : dict
        System → why it is not part of the experiment.
    flags : tuple of str
        What the report must say.
    complete : bool
        Whether every run of every system that was not dropped is finished.
    data : Path or None
        The data file.
    """

    name: str
    systems: tuple[dict[str, Any], ...]
    dropped: dict[str, str]
    flags: tuple[str, ...]
    complete: bool
    estimates: tuple[SystemEstimate, ...] = ()
    source: str = ""
    sittings: tuple[dict[str, Any], ...] = ()
    data: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "study": self.name,
            "complete": self.complete,
            "systems": list(self.systems),
            "dropped": self.dropped,
            "flags": list(self.flags),
            "expected": [row.to_json() for row in self.estimates],
            "expected_seconds": sum(row.seconds for row in self.estimates),
            "estimated_from": self.source,
            "sittings": list(self.sittings),
            "data": None if self.data is None else str(self.data),
        }

    def describe(self) -> str:
        """The same for reading."""
        lines = [describe(self.estimates, self.source)] if self.estimates else []
        for row in self.systems:
            counts = ", ".join(f"{count} {status}" for status, count in row["statuses"].items())
            lines.append(f"{row['system']:<10s} {counts}")
        lines += [f"dropped: {name} ({why})" for name, why in self.dropped.items()]
        lines += [f"note: {flag}" for flag in self.flags]
        if self.data is not None:
            lines.append(f"data in {self.data}; {'complete' if self.complete else 'the same command goes on'}")
        return "\n".join(lines)


def counts(one: Planned, statuses: Mapping[str, str]) -> dict[str, Any]:
    """A system and how many of its runs have which status."""
    found = [statuses.get(job.run_id, "planned") for job in one.jobs]
    return {
        "system": one.system.name,
        "corpus": one.system.corpus,
        "figures": list(one.system.figures),
        "runs": len(one.jobs),
        "statuses": {status: found.count(status) for status in dict.fromkeys(found)},
    }
