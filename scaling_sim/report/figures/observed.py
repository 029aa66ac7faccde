"""Measured points brought to the axes of the paper's figures. For showing only: fits never see these numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scaling_sim.report.figures.curves import Array, central, learning_curves, need_rows

if TYPE_CHECKING:
    from scaling_sim.report.data import ReportData
    from scaling_sim.runs.table import RunTable

NUM_SLICES = 6


def minimal_steps(data: ReportData) -> Array:
    """S_min of every row (eq 5.4) at the point estimate; S itself where B_crit was not fitted."""
    from scaling_sim.laws.kaplan import min_steps

    table, _ = need_rows(data, "any")
    fit = data.fit_with("alpha_B", "B_star")
    return table.S if fit is None else min_steps(table.loss, table.B, table.S, central(fit))


def minimal_compute(data: ReportData) -> Array:
    """C_min of every row (eq 5.5) at the point estimate; C itself where B_crit was not fitted."""
    from scaling_sim.laws.kaplan import min_compute

    table, _ = need_rows(data, "any")
    fit = data.fit_with("alpha_B", "B_star")
    return table.C if fit is None else min_compute(table.loss, table.B, table.C, central(fit))


def slice_places(table: RunTable, rows: NDArray[np.bool_], values: Array, count: int = NUM_SLICES) -> Array:
    """Places where slices cut several curves: from the second least to the second largest curve's range."""
    ends = [(values[k][0], values[k][-1]) for k in learning_curves(table, rows) if len(k) > 1]
    if not ends:
        return np.empty(0)
    first, last = np.sort([low for low, _ in ends]), np.sort([high for _, high in ends])
    low, high = first[len(first) // 3], last[-max(2, len(last) // 4)] if len(last) > 1 else last[-1]
    return np.geomspace(low * 1.2, high, count) if high > low * 1.2 else np.empty(0)


def slice_curves(
    table: RunTable, rows: NDArray[np.bool_], values: Array, place: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sizes and losses where the learning curves pass ``place``: log L interpolated in the logarithm of ``values``.

    Of several curves of one size the lowest is taken.
    """
    best: dict[float, float] = {}
    for k in learning_curves(table, rows):
        x, y = np.log(values[k]), np.log(table.loss[k])
        order = np.argsort(x)
        if len(k) < 2 or not x[order[0]] <= np.log(place) <= x[order[-1]]:
            continue
        loss = float(np.exp(np.interp(np.log(place), x[order], y[order])))
        size = float(table.N[k[0]])
        best[size] = min(loss, best.get(size, np.inf))
    sizes = np.array(sorted(best))
    return sizes, np.array([best[size] for size in sizes])


def observed_minima(data: ReportData) -> tuple[Array, Array]:
    """Compute and best size of each isoFLOP slice with a bracketed minimum: vertex of a parabola in log N."""
    table, curve = need_rows(data, "curve")
    values = minimal_compute(data)
    found = []
    for place in slice_places(table, curve, values, 12):
        sizes, losses = slice_curves(table, curve, values, float(place))
        best = int(np.argmin(losses)) if len(losses) else 0
        if 0 < best < len(sizes) - 1:
            found.append((float(place), _vertex(np.log(sizes[best - 1 : best + 2]), losses[best - 1 : best + 2])))
    return np.array([c for c, _ in found]), np.array([n for _, n in found])


def _vertex(log_size: Array, loss: Array) -> float:
    a, b, _ = np.polyfit(log_size - log_size[1], loss, 2)
    return float(np.exp(log_size[1] - b / (2 * a)))
