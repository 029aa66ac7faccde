"""Runs cut at equal compute: what isoFLOP minima and the envelope are read from.

Learning curves (constant learning rate) are interpolated at every budget. Finished runs are grouped where their compute
is close, a quarter of a decade at most; inside a group they are compared at equal N/tokens and corrected for their own
compute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import DataError
from scaling_sim.laws.kaplan import min_compute
from scaling_sim.laws.registry import get_law

Array = NDArray[np.float64]
Index = NDArray[np.int64]

NUM_PLACES = 12
"""Budgets at which learning curves are cut."""
MIN_SIZES = 5
MAX_SPAN = np.log(10.0) / 4
"""Of the compute of finished runs that count as one budget, in ln C."""


@dataclass(frozen=True)
class Slice:
    """Points of one budget, ln C = ``at``; ``run`` numbers the runs across all slices of one table."""

    at: float
    log_N: Array
    log_loss: Array
    log_C: Array
    run: Index

    @property
    def aligned(self) -> Array:
        """ln N − ½ ln C, (n,): half the log of N/tokens, in which the minima of neighbouring budgets nearly agree."""
        return self.log_N - 0.5 * self.log_C

    def take(self, keep: NDArray[np.bool_]) -> Slice:
        """The points where ``keep`` holds."""
        return Slice(self.at, self.log_N[keep], self.log_loss[keep], self.log_C[keep], self.run[keep])


@dataclass(frozen=True)
class Points:
    """One-pass rows that a law reads, (n,) each: compute at which allocations are asked, size, loss, number of the run.

    ``curves`` says whether rows of one run are points of its learning curve.
    """

    log_C: Array
    log_N: Array
    log_loss: Array
    run: Index
    curves: bool
    note: str = ""

    @property
    def num_runs(self) -> int:
        """Runs, numbered from 0."""
        return int(self.run.max()) + 1


def points_of(fit: Any) -> Points:
    """Rows of a posterior's runs that can say which size is best.

    Fits that know B_crit are read at 2·C_min = 2C/(1 + B/B_crit(L)) (5.5), the compute that the same loss would cost at
    the critical batch, with the median parameters; others at the compute paid.

    Raises
    ------
    DataError
        There are no runs, or none of one pass with a known compute.
    """
    runs = getattr(fit, "runs", None)
    if runs is None:
        raise DataError("isoFLOP minima and envelopes are read off runs, and published constants come without")
    law = get_law(getattr(fit, "law", None) or fit.law_name)
    rows = np.unique(law.observe(runs).row)
    rows = rows[rows >= 0]
    good = ~runs.stopped & (runs.C > 0) & (runs.N > 0) & (runs.loss > 0) & np.isfinite(runs.loss + runs.C)
    repeated = runs.tokens > runs.D * (1 + 1e-6)
    rows = rows[(good & ~repeated)[rows]]
    curves = bool(runs.curve[rows].any())
    if curves:
        rows = rows[runs.curve[rows]]
    if not len(rows):
        raise DataError("no single-pass run with a known compute feeds this law: nothing to cut at equal compute")
    C, note = np.asarray(runs.C[rows], dtype=np.float64), ""
    if "B_star" in fit.draws and np.isfinite(runs.B[rows]).all():
        middle = {name: float(np.median(values)) for name, values in fit.draws.items()}
        C = 2 * np.asarray(min_compute(runs.loss[rows], runs.B[rows], C, middle))
        note = "runs are placed at 2·C_min, what their loss would cost at the critical batch"
    names, run = np.unique(runs.run[rows], return_inverse=True)
    logs = (np.log(C), np.log(runs.N[rows]), np.log(runs.loss[rows]))
    return Points(*logs, np.asarray(run.ravel(), dtype=np.int64), curves and len(names) < len(rows), note)


def slices_of(points: Points, places: int = NUM_PLACES) -> list[Slice]:
    """Budgets with their points, in rising order."""
    return _cut_curves(points, places) if points.curves else _grouped(points)


def _grouped(points: Points) -> list[Slice]:
    """Neighbours in compute joined, those that stay closest first, while a group spans at most `MAX_SPAN`.

    So runs made for one budget stay together wherever it lies, which bins of a fixed grid would cut in two.
    """
    order = np.argsort(points.log_C, kind="stable")
    first = last = points.log_C[order]
    starts = np.arange(len(order))
    while len(starts) > 1:
        span = last[1:] - first[:-1]
        k = int(np.argmin(span))
        if span[k] > MAX_SPAN:
            break
        starts, first, last = np.delete(starts, k + 1), np.delete(first, k + 1), np.delete(last, k)
    return [_slice(points, group) for group in np.split(order, starts[1:])]


def _slice(points: Points, group: Index) -> Slice:
    C = points.log_C[group]
    return Slice(float(C.mean()), points.log_N[group], points.log_loss[group], C, points.run[group])


def _cut_curves(points: Points, places: int) -> list[Slice]:
    """Every curve interpolated (ln L in ln C) at budgets that at least `MIN_SIZES` sizes pass."""
    log_N = np.array([points.log_N[points.run == r][0] for r in range(points.num_runs)])
    curves = [_curve(points, r) for r in range(points.num_runs)]
    first, last = (np.array([c[0][k] for c in curves]) for k in (0, -1))
    fine = np.linspace(float(first.min()), float(last.max()), 400)
    shared = [len(np.unique(log_N[(first <= c) & (last >= c)])) >= MIN_SIZES for c in fine]
    if not any(shared):
        return []
    found = []
    low, high = fine[np.flatnonzero(shared)[[0, -1]]].tolist()
    for at in np.linspace(low, high, places):
        r = np.flatnonzero((first <= at) & (last >= at))
        loss = np.array([np.interp(at, *curves[k]) for k in r])
        found.append(Slice(float(at), log_N[r], loss, np.full(len(r), at), r.astype(np.int64)))
    return found


def _curve(points: Points, run: int) -> tuple[Array, Array]:
    rows = np.flatnonzero(points.run == run)
    rows = rows[np.argsort(points.log_C[rows], kind="stable")]
    return points.log_C[rows], points.log_loss[rows]
