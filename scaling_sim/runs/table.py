"""Anyone's runs as one validated table: what a fit reads.

Reading is done by `read_runs`; rows come from a file, a DataFrame or the run store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]


@dataclass(frozen=True)
class RunTable:
    """Rows of training runs, validated, one row per measured loss. All columns are (n,) arrays.

    Words are those of the documentation: ``D`` unique training tokens, ``tokens`` = B·S tokens processed, C = 6·N·tokens.
    Several rows with one ``run`` are points of one learning curve.
    """

    run: NDArray[np.str_]
    """Run id; rows that share it form one learning curve."""
    N: Column
    """Parameters by the definition of the source (non-embedding for our own runs)."""
    D: Column
    """Unique training tokens."""
    tokens: Column
    """Tokens processed."""
    C: Column
    """Compute paid, FLOP."""
    B: Column
    """Batch in tokens per step; NaN if unknown."""
    S: Column
    """Steps made; NaN if unknown."""
    loss: Column
    """Nats per token."""
    loss_error: Column
    """Standard error of the loss, nats; NaN if unknown."""
    warmup: Column
    """Warm-up in steps; NaN if unknown."""
    decayed: NDArray[np.bool_]
    """The learning rate had decayed when the loss was measured."""
    stopped: NDArray[np.bool_]
    """Early-stopped result of a run whose data repeat: feeds L(N, D)."""
    curve: NDArray[np.bool_]
    """Point of a single-epoch curve at constant learning rate, after twice the warm-up: feeds L(N, S_min)."""
    source: str = ""
    """File or study that the rows came from."""
    data_hash: str = ""
    """sha256 of the columns, 16 digits."""
    simulated: bool = False
    dropped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Reason → names of the rows left out. Nothing is left out silently."""
    notes: tuple[str, ...] = ()
    """Derivations and warnings to be shown in reports ("tokens = C/(6N)", …)."""
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Other columns of the source, kept for reports (seed, lr, purpose, …)."""

    def __len__(self) -> int:
        return len(self.loss)
