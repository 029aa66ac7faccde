"""Dot plots: one row for each of several answers to one question, with the 90 % interval of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from scaling_sim.predict.quantity import Quantity
from scaling_sim.report.figures.canvas import Colour, ReportFigure, points
from scaling_sim.report.figures.ticks import log_axes

DECADES = 4.0
"""Beyond the outermost medians, as far as a logarithmic axis goes at most: an interval may be wider than is of use."""

FAR = 1e200
"""Where an infinite bound is drawn: beyond every axis."""


def dot(
    axes: Axes,
    row: float,
    quantity: Quantity,
    *,
    series: str,
    colour: Colour,
    label: str | None = None,
    hollow: bool = False,
) -> None:
    """Median and 90 % interval of ``quantity`` at height ``row``; a single draw has no interval."""
    low, high = quantity.interval(0.9)
    middle = quantity.median
    axes.plot(
        np.clip([low, high], -FAR, FAR),
        [row, row],
        "-",
        color=colour,
        lw=1.5,
        alpha=0.7,
        zorder=2.5,
        solid_capstyle="butt",
    )
    points(axes, [middle], [row], series=series, colour=colour, label=label, hollow=hollow, size=6.0)
    figure = axes.get_figure(root=True)
    assert isinstance(figure, ReportFigure)
    figure.rows[-1] |= {"x_lo90": low, "x_hi90": high}


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Write ``names`` beside rows 0, 1, … from the top; empty ones leave the ticks of a panel beside another."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def within_reason(axes: Axes) -> bool:
    """End a logarithmic x axis `DECADES` beyond the outermost medians; whether an interval goes on beyond it."""
    low, high = axes.get_xlim()
    figure = axes.get_figure(root=True)
    assert isinstance(figure, ReportFigure)
    here = [row["x"] for row in figure.rows if row["panel"] == axes.get_label()]
    least, most = min(here) / 10**DECADES, max(here) * 10**DECADES
    axes.set_xlim(max(low, least), min(high, most))
    log_axes(axes, y=False)
    return bool(np.any([low < least, high > most]))
