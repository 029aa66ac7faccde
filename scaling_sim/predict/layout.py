"""Which runs a simulated sweep consists of, before anybody knows their losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import ConfigError
from scaling_sim.laws.base import Law

Array = NDArray[np.float64]


def log_spaced(low: float, high: float, count: int) -> tuple[float, ...]:
    """``count`` numbers from ``low`` to ``high``, evenly in the logarithm."""
    return tuple(float(x) for x in np.geomspace(low, high, count))


@dataclass(frozen=True)
class Grid:
    """Finished runs of every size with every number of tokens.

    Parameters
    ----------
    N : parameters
    tokens : tokens processed; or None and ``tokens_per_parameter``
    epochs : passes over the data, D = tokens/epochs
    seeds : runs of each cell
    stopped : early-stopped results of repeated data (feed L(N, D)) rather than decayed final losses
    """

    N: Sequence[float] = log_spaced(5e7, 1.6e10, 8)
    tokens: Sequence[float] | None = log_spaced(1e9, 3e11, 8)
    tokens_per_parameter: Sequence[float] = (20.0,)
    epochs: Sequence[float] = (1.0,)
    seeds: int = 1
    stopped: bool = False

    def layout(self) -> Layout:
        """Rows of the grid."""
        _positive(N=self.N, tokens=self.tokens or self.tokens_per_parameter, epochs=self.epochs, seeds=[self.seeds])
        layout = Layout()
        purpose = "data" if self.stopped else "final"
        flags = {"stopped": self.stopped, "decayed": not self.stopped}
        for N in self.N:
            lengths = self.tokens or [N * ratio for ratio in self.tokens_per_parameter]
            for tokens, epochs, seed in product(lengths, self.epochs, range(self.seeds)):
                layout.add(purpose, seed, N=N, tokens=tokens, D=tokens / epochs, **flags)
        return layout


@dataclass(frozen=True)
class Sweep:
    """A sweep for the joint Kaplan system: learning curves, batch sweeps, repeated seeds, early-stopped runs.

    Parameters
    ----------
    N : sizes with a learning curve at ``batch`` tokens per step
    batch, steps, points : of every curve: tokens per step, last step, measurements (log-spaced after twice the warm-up)
    warmup : steps
    batch_N, batches : sizes and batches in tokens of the batch sweeps; each run processes as many tokens as a curve
    seed_N, seeds : sizes whose curve is repeated, and how many seeds these have in all
    data_N, data_D : sizes and unique tokens of the early-stopped runs
    """

    N: Sequence[float] = log_spaced(1e5, 1e9, 8)
    batch: float = 2.0**19
    steps: float = 2.5e5
    points: int = 16
    warmup: float = 500.0
    batch_N: Sequence[float] = (1e6, 1e8)
    batches: Sequence[float] = (2.0**15, 2.0**17, 2.0**21, 2.0**23)
    seed_N: Sequence[float] = (1e6,)
    seeds: int = 3
    data_N: Sequence[float] = log_spaced(1e6, 1e9, 5)
    data_D: Sequence[float] = log_spaced(2e7, 2e10, 6)

    def layout(self) -> Layout:
        """Rows of the sweep."""
        _positive(N=self.N, batch=[self.batch], steps=[self.steps], batches=self.batches, data_D=self.data_D)
        if self.points < 2:
            raise ConfigError(f"a learning curve needs at least 2 points, got {self.points}")
        layout = Layout()
        for N in self.N:
            self._curve(layout, "curve", N, self.batch, 0)
        for N in self.batch_N:
            for B in self.batches:
                self._curve(layout, "batch", N, B, 0)
        for N in self.seed_N:
            for seed in range(1, self.seeds):
                self._curve(layout, "seed", N, self.batch, seed)
        for N in self.data_N:
            for D in self.data_D:
                layout.add("data", 0, N=N, D=D, B=self.batch, stopped=True)
        return layout

    def _curve(self, layout: Layout, purpose: str, N: float, B: float, seed: int) -> None:
        last = self.steps * self.batch / B
        first = max(2 * self.warmup, 1.0)
        if last <= first:
            raise ConfigError(f"a run of {last:g} steps at batch {B:g} ends within twice its warm-up ({first:g} steps)")
        for S in np.geomspace(first, last, self.points):
            tokens = B * float(S)
            values = {"N": N, "B": B, "S": float(S), "tokens": tokens, "D": tokens, "warmup": self.warmup}
            layout.add(purpose, seed, same_run=first < S, curve=True, **values)


@dataclass(frozen=True)
class Tuning:
    """A sweep of learning rate and batch: finished runs of every (N, tokens) with every pair of both.

    Parameters
    ----------
    N, tokens : parameters and tokens processed
    lr : peak learning rates
    batches : tokens per step
    seeds : runs of each pair
    """

    N: Sequence[float] = log_spaced(1e8, 2e9, 3)
    tokens: Sequence[float] = log_spaced(3e9, 1e11, 3)
    lr: Sequence[float] = log_spaced(5e-5, 5e-2, 14)
    batches: Sequence[float] = tuple(2.0**k for k in range(15, 23))
    seeds: int = 1

    def layout(self) -> Layout:
        """Rows of the sweep."""
        _positive(N=self.N, tokens=self.tokens, lr=self.lr, batches=self.batches, seeds=[self.seeds])
        layout = Layout()
        for N, tokens, lr, B, seed in product(self.N, self.tokens, self.lr, self.batches, range(self.seeds)):
            layout.add("lr", seed, N=N, tokens=tokens, D=tokens, lr=lr, B=B, S=tokens / B, decayed=True)
        return layout


@dataclass
class Layout:
    """Rows as lists; ``run`` numbers the runs of each purpose."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    _number: dict[str, int] = field(default_factory=dict)

    def add(self, purpose: str, seed: int, *, same_run: bool = False, **values: Any) -> None:
        """Append a row; ``same_run`` continues the learning curve of the row before."""
        self._number[purpose] = self._number.get(purpose, -1) + (not same_run)
        run = f"{purpose}-{self._number[purpose]:03d}"
        self.rows.append({"run": run, "purpose": purpose, "seed": float(seed), **values})

    def numbers(self, name: str) -> Array:
        """A column of floats, NaN where a row does not have it."""
        return np.array([row.get(name, np.nan) for row in self.rows], dtype=np.float64)

    def flags(self, name: str) -> NDArray[np.bool_]:
        """A column of booleans."""
        return np.array([row.get(name, False) for row in self.rows], dtype=np.bool_)

    def texts(self, name: str) -> NDArray[np.str_]:
        """A column of strings."""
        return np.array([row[name] for row in self.rows], dtype=np.str_)


Design = Grid | Sweep | Tuning


def default_design(law: Law) -> Design:
    """The design that can identify ``law``: curves for a law of steps, else a grid in the columns that it reads."""
    if law.response in ("best_lr", "best_B"):
        return Tuning()
    if "S" in law.columns:
        return Sweep() if "D" in law.columns else Sweep(batch_N=(), data_N=())
    if law.name == "data-constrained":
        return Grid(N=log_spaced(5e7, 5e9, 7), epochs=(1.0, 4.0, 16.0))
    if law.name in ("kaplan-nd", "kaplan-nd-floor"):
        return Grid(N=log_spaced(1e6, 1e9, 7), tokens=log_spaced(2e7, 2e10, 7), stopped=True)
    if law.columns == ("D",):
        return Grid(N=(1e9,), tokens=log_spaced(2e7, 2e10, 12), stopped=True)
    if law.columns in (("N",), ("C",)):
        return Grid(N=log_spaced(1e6, 1e10, 12), tokens=None)
    return Grid()


def _positive(**values: Sequence[float]) -> None:
    for name, numbers in values.items():
        if not len(numbers) or not all(number > 0 for number in numbers):
            raise ConfigError(f"{name} of a simulated sweep must be positive numbers, got {tuple(numbers)}")
