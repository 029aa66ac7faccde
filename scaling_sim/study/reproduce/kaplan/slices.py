"""Figure 11: loss against size at fixed compute and at fixed steps, read off the learning curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from scaling_sim.laws.kaplan import loss_ns, min_compute, min_steps
from scaling_sim.report.figures.canvas import ReportFigure, band, points, sheet
from scaling_sim.report.figures.curves import central, efficient_loss, span
from scaling_sim.report.figures.observed import slice_curves, slice_places
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.study.reproduce.kaplan.drawing import LOSS, Shades, law_draws
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row
from scaling_sim.study.reproduce.kaplan.frontier import family_fit, methods
from scaling_sim.study.reproduce.kaplan.rows import num_runs

if TYPE_CHECKING:
    from collections.abc import Callable

    from scaling_sim.runs.table import RunTable
    from scaling_sim.study.reproduce.kaplan.data import Data

Array = NDArray[np.float64]

TITLE = "Slices at fixed compute and fixed steps"


def slices(data: Data) -> Finding:
    """Loss against size at fixed compute and at fixed steps."""
    fit = family_fit(data, joint=True)
    runs, p, table = num_runs(fit.runs, "curve"), central(fit), fit.runs
    C_min, S_min = (
        min_compute(table.loss, table.B, table.C, p),
        min_steps(table.loss, table.B, table.S, p),
    )
    by_C, by_S = (slice_places(table, table.curve, values) for values in (C_min, S_min))
    bracketed = sum(_has_minimum(*slice_curves(table, table.curve, C_min, float(C))) for C in by_C)
    monotone = sum(_falls(*slice_curves(table, table.curve, S_min, float(S))) for S in by_S)
    rows = [
        Row("slices at fixed compute with a minimum between sizes", None, bracketed, None, runs, f"of {len(by_C)}"),
        Row("slices at fixed steps that fall with size", None, monotone, None, runs, f"of {len(by_S)}"),
    ]
    for joint, words in ((False, "B_crit of the batch sweeps"), (True, "B_crit of the joint law")):
        found = methods(data, joint=joint)
        if "isoflop" in found.estimates:
            exponent = found.estimates["isoflop"].exponent
            rows.append(Row.of(f"exponent of N* by isoFLOP minima, {words}", 0.73, exponent, runs))
    remark = (
        f"Left: at each compute there is a best size, which grows with compute; {bracketed} of {len(by_C)} slices have "
        f"their minimum between the sizes measured. Right: at a fixed number of steps larger is better, in {monotone} "
        f"of {len(by_S)} slices at every step from size to size. Points are read off the learning curves and brought "
        "to batches far below (left) or above (right) critical; lines are the joint law, which is worst at few steps, "
        f"as in the paper. {found.refused.get('isoflop', '')}"
    )
    values = {"C": (by_C, C_min), "S": (by_S, S_min)}
    return Finding("F11", TITLE, tuple(rows), lambda: _figure(data, values), remark.strip())


def _has_minimum(sizes: Array, losses: Array) -> bool:
    return len(sizes) > 2 and 0 < int(np.argmin(losses)) < len(sizes) - 1


def _falls(sizes: Array, losses: Array) -> bool:
    return len(sizes) > 1 and bool(np.all(np.diff(losses) < 0))


def _figure(data: Data, values: dict[str, tuple[Array, Array]]) -> ReportFigure:
    titles = ["Fixed compute", "Fixed steps"]
    figure, axes = sheet("slices", TITLE, titles, height=4.2)
    fit = family_fit(data, joint=True)
    p = law_draws(fit, 240)
    laws: dict[str, Callable[[Array, float], Array]] = {
        "C": lambda N, C: efficient_loss(N, C, p),
        "S": lambda N, S: loss_ns(N, S, p),
    }
    labels = {"C": "compute $C_{min}$, FLOP", "S": "steps $S_{min}$"}
    for ax, kind in zip(axes, ("C", "S"), strict=True):
        places, column = values[kind]
        shades = Shades(places, "C")
        for place in places:
            _slice(ax, fit.runs, column, float(place), laws[kind], shades)
        ax.set_xlabel("non-embedding parameters N")
        log_axes(ax)
        shades.key(figure, ax, labels[kind])
    axes[0].set_ylabel(LOSS)
    return figure


def _slice(
    ax: Axes, table: RunTable, column: Array, place: float, law: Callable[[Array, float], Array], shades: Shades
) -> None:
    """Points of one slice, and the law a little beyond them."""
    sizes, losses = slice_curves(table, table.curve, column, place)
    if not len(sizes):
        return
    points(ax, sizes, losses, series=f"{place:.3g}", colour=shades(place))
    N = span(sizes, 3.0, 3.0)
    band(ax, N, law(N, place), series=f"{place:.3g}", colour=shades(place), width=1.2)
