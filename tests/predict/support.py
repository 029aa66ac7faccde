"""Fits for tests: draws of a law without sampling."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.laws.constants import constants
from scaling_sim.runs.table import RunTable


@dataclass(frozen=True)
class Draws:
    """A stand-in for a posterior: what predictions read of one."""

    law_name: str
    draws: dict[str, NDArray[np.float64]]
    runs: RunTable | None = None
    converged: bool = True
    noise: dict[str, NDArray[np.float64]] = field(default_factory=dict)


def around(name: str, sd: float = 0.02, num: int = 2000, seed: int = 0, **changes: Any) -> Draws:
    """Log-normal draws around a published set, one independent deviation per parameter."""
    rng = np.random.default_rng(seed)
    found = constants(name)
    draws = {key: value * np.exp(sd * rng.standard_normal(num)) for key, value in found.values.items()}
    return Draws(**{"law_name": found.law_name, "draws": draws, **changes})


def table(**columns: Any) -> RunTable:
    """A run table from the columns given; others unknown."""
    num = len(columns["loss"])
    nan = np.full(num, np.nan)
    none = np.zeros(num, dtype=bool)
    N, tokens = np.asarray(columns["N"], float), np.asarray(columns["tokens"], float)
    base: dict[str, Any] = {
        "run": np.array([f"r{i}" for i in range(num)]),
        "D": tokens,
        "C": 6 * N * tokens,
        "B": nan,
        "S": nan,
        "loss_error": nan,
        "warmup": nan,
        "decayed": none,
        "stopped": none,
        "curve": none,
    }
    return RunTable(**{**base, **{k: np.asarray(v) for k, v in columns.items()}})
