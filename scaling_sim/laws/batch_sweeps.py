"""Batch sweeps as they are read: how many steps each batch needs to reach a loss, at its best learning rate.

Large batches reach a loss after few steps, of which the warm-up is a large part. A linear warm-up of w steps has the
summed learning rate of w/2 steps at full rate: Σ lr/peak = S − w/2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling_sim.laws.bowls import learning_rates
from scaling_sim.runs.table import RunTable

Array = NDArray[np.float64]

MIN_BATCHES = 3
"""Batches that make a sweep: a hyperbola has two parameters."""
MIN_POINTS = 3
"""Points of a curve with which it can be read."""
WARMUP_LOST = 0.5
"""Share of its steps that a linear warm-up costs, by the summed learning rate."""


@dataclass(frozen=True)
class Curve:
    """One batch and learning rate of one size: log losses, each below all before it, and log steps made, (n,) each."""

    N: float
    B: float
    lr: float
    warmup: float
    log_loss: Array
    log_S: Array

    def log_steps(self, log_loss: Array) -> Array:
        """Log of the steps at which the curve first passes each of these log losses (j,); NaN where it does not."""
        return np.interp(-log_loss, -self.log_loss, self.log_S, left=np.nan, right=np.nan)


@dataclass(frozen=True)
class BatchSweep:
    """All batches of one size, read at losses that at least `MIN_BATCHES` of them pass.

    Attributes
    ----------
    N : parameters
    B : (b,) tokens, rising
    loss : (j,) nats per token, falling, evenly spaced in their logarithm
    steps : (b, j) fewest steps of any learning rate tried; NaN where no run of that batch passes the loss
    lr : (b, j) the learning rate that needs so few; NaN where unknown
    warmup : (b,) steps of warm-up, 0 where unknown, never more than half of ``steps``
    edge : (b, j) whether that rate is the lowest or the highest of several tried, so that a better one may lie beyond
    num_curves : learning curves read, one of each batch and learning rate
    """

    N: float
    B: Array
    loss: Array
    steps: Array
    lr: Array
    warmup: Array
    edge: NDArray[np.bool_]
    num_curves: int

    def full_steps(self, lost: float = WARMUP_LOST) -> Array:
        """(b, j) steps less those that warm-up cost, ``lost`` times its length."""
        return np.asarray(self.steps - lost * self.warmup[:, None])


def usable(runs: RunTable) -> NDArray[np.bool_]:
    """(n,) rows of curves whose batch and steps are known."""
    return runs.curve & np.isfinite(runs.B) & np.isfinite(runs.S) & (runs.loss > 0)


def read_curves(runs: RunTable, N: float) -> dict[float, list[Curve]]:
    """Batch → its curves, one of each learning rate, of the models of one size; seeds are averaged at equal steps."""
    rates = learning_rates(runs)
    rows = np.flatnonzero(usable(runs) & (runs.N == N))
    found: dict[float, list[Curve]] = {}
    for B, lr in sorted(dict.fromkeys(zip(runs.B[rows].tolist(), np.nan_to_num(rates[rows]).tolist(), strict=True))):
        own = rows[(runs.B[rows] == B) & (np.nan_to_num(rates[rows]) == lr)]
        curve = _curve(runs, own, N, B, lr or np.nan)
        if len(curve.log_loss) >= MIN_POINTS:
            found.setdefault(B, []).append(curve)
    return found


def _curve(runs: RunTable, rows: NDArray[np.int64], N: float, B: float, lr: float) -> Curve:
    S, place = np.unique(runs.S[rows], return_inverse=True)
    log_loss = np.bincount(place, np.log(runs.loss[rows])) / np.bincount(place)
    low = np.minimum.accumulate(log_loss)
    keep = np.concatenate([[True], low[1:] < low[:-1]])
    warmup = min(float(np.nan_to_num(runs.warmup[rows]).max()), 0.5 * float(S[0]))
    return Curve(N, B, lr, warmup, log_loss[keep], np.log(S[keep]))


def batch_sweeps(runs: RunTable, levels: int, *, passed_by: int | None = MIN_BATCHES) -> list[BatchSweep]:
    """Batch sweeps of a table, by rising N; a size with fewer than `MIN_BATCHES` batches has none.

    Parameters
    ----------
    levels : int
        Losses at which each sweep is read.
    passed_by : int or None
        Batches that must pass a loss for it to be read; None: all.
    """
    found = []
    for N in np.unique(runs.N[usable(runs)]).tolist():
        curves = read_curves(runs, N)
        if len(curves) >= MIN_BATCHES:
            log_loss = _levels(curves, levels, passed_by or len(curves))
            found += [_sweep(curves, log_loss)] if len(log_loss) else []
    return found


def _levels(curves: Mapping[float, Sequence[Curve]], levels: int, passed_by: int) -> Array:
    """(levels,) falling log losses inside the range that so many batches pass; empty if there is none."""
    first = sorted((highest_shared(several) for several in curves.values()), reverse=True)
    last = sorted(min(c.log_loss[-1] for c in several) for several in curves.values())
    high, low = float(first[passed_by - 1]), float(last[passed_by - 1])
    return np.linspace(high, low, levels + 2)[1:-1] if low < high else np.empty(0)


def highest_shared(curves: Sequence[Curve]) -> float:
    """Log of the highest loss at which learning rates can be compared: above it, the best curve is not yet read."""
    return float(min(curve.log_loss[0] for curve in curves))


def fewest_steps(curves: Sequence[Curve], log_loss: Array) -> tuple[Array, Array]:
    """Steps with which the best of some learning rates passes each log loss (j,), and that rate; NaN where none does.

    Losses above `highest_shared` are not read: the best rate passed them before its curve begins.
    """
    steps, lr = np.full(len(log_loss), np.inf), np.full(len(log_loss), np.nan)
    for curve in curves:
        needed = np.exp(curve.log_steps(log_loss))
        better = (needed < steps) & (log_loss <= highest_shared(curves))
        steps[better], lr[better] = needed[better], curve.lr
    return np.where(np.isfinite(steps), steps, np.nan), lr


def _sweep(curves: Mapping[float, Sequence[Curve]], log_loss: Array) -> BatchSweep:
    steps, lr = (np.stack(rows) for rows in zip(*(fewest_steps(c, log_loss) for c in curves.values()), strict=True))
    warmup = np.array([max(curve.warmup for curve in several) for several in curves.values()])
    edge = np.stack([_edge(several, best) for several, best in zip(curves.values(), lr, strict=True)])
    N, number = next(iter(curves.values()))[0].N, sum(map(len, curves.values()))
    return BatchSweep(N, np.array(list(curves)), np.exp(log_loss), steps, lr, warmup, edge, number)


def _edge(curves: Sequence[Curve], best: Array) -> NDArray[np.bool_]:
    tried = np.array([curve.lr for curve in curves])
    return np.asarray(((best == tried.min()) | (best == tried.max())) & (len(curves) > 1))
