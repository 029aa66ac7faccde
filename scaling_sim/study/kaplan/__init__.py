"""The experiment of Kaplan et al. 2020 on one GPU: every system of runs, and a rehearsal without training."""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "ExperimentConfig": "config",
    "H200": "scales",
    "TINY": "scales",
    "SYSTEMS": "systems",
    "Rates": "rates",
    "rates_of": "rates",
    "Options": "outcome",
    "Outcome": "outcome",
    "run_experiment": "run",
    "plan_experiment": "run",
    "rehearse": "rehearsal",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
