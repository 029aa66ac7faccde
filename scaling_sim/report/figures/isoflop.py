"""IsoFLOP valleys with their cubic fits, and the best size by every method."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from scaling_sim.report.figures.canvas import (
    ACCENT,
    OURS,
    PAPER,
    NothingToShow,
    ReportFigure,
    band,
    colours,
    drawn,
    legend_below,
    line,
    log_scales,
    points,
    sheet,
)
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import number

if TYPE_CHECKING:
    from scaling_sim.predict.isoflop import Minima
    from scaling_sim.predict.methods import Methods
    from scaling_sim.report.data import ReportData

METHOD_COLOURS = {"law": OURS, "isoflop": PAPER, "envelope": ACCENT}


@drawn
def figure_isoflop(data: ReportData) -> ReportFigure:
    """Losses of each budget against size with the cubic through them; minima and the other methods' N*(C)."""
    methods = data.methods
    if methods is None:
        raise NothingToShow("methods were not compared")
    if methods.minima is None:
        raise NothingToShow(methods.refused.get("isoflop", "there are no isoFLOP minima"))
    titles = ["IsoFLOP valleys and their cubics", "Best size by each method"]
    figure, (left, right) = sheet("isoflop", "Valleys and the best size", titles, height=4.6, log="")
    log_scales(left, "xy")
    log_scales(right, "xy")
    _valleys(left, methods.minima)
    _sizes(right, methods)
    figure.reading = (
        f"Left: hollow points are the minima of cubics in ln N, with their 90 % intervals. {methods.verdict}"
    )
    return figure


def _valleys(ax: Axes, minima: Minima) -> None:
    shades = colours(len(minima.valleys))
    low, high = np.exp(np.quantile(minima.log_N, [0.05, 0.95], axis=0))
    for k, (valley, one) in enumerate(zip(minima.valleys, minima.slices, strict=True)):
        text = f"{number(float(np.exp(valley.log_C)), 2)} FLOP"
        grid = np.linspace(*valley.span, 60)
        points(ax, np.exp(one.log_N), np.exp(one.log_loss), series=text, colour=shades[k], size=3.0, alpha=0.7)
        line(ax, np.exp(grid), np.exp(valley.log_loss(grid)), series=text, colour=shades[k], label=text, width=1.2)
        best, loss = np.array([valley.log_N]), valley.log_loss(np.array([valley.log_N]))
        ax.hlines(np.exp(loss), low[k], high[k], color=shades[k], lw=2.4, alpha=0.6, zorder=3)
        points(ax, np.exp(best), np.exp(loss), series=f"minimum at {text}", colour=shades[k], hollow=True, size=5.5)
    ax.set_xlabel("parameters N")
    ax.set_ylabel("loss, nats per token")
    log_axes(ax)
    legend_below(ax, 3)


def _sizes(ax: Axes, methods: Methods) -> None:
    assert methods.minima is not None
    spans = [e.span for e in methods.estimates.values() if e.span is not None]
    grid = np.geomspace(min(low for low, _ in spans), max(high for _, high in spans), 30)
    for name, estimate in methods.estimates.items():
        text = f"{name}: N* ∝ C to the power {estimate.exponent.median:.3f}"
        draws = np.exp(estimate.at(grid))
        dashes = {"law": "-", "isoflop": "--"}.get(name, ":")
        band(ax, grid, draws, series=name, colour=METHOD_COLOURS[name], label=text, dashes=dashes)
    middle = np.exp(np.median(methods.minima.log_N, axis=0))
    low, high = np.exp(np.quantile(methods.minima.log_N, [0.05, 0.95], axis=0))
    errors = np.stack([middle - low, high - middle])
    points(ax, np.exp(methods.minima.log_C), middle, series="isoFLOP minima", colour=PAPER, hollow=True, error=errors)
    ax.set_xlabel("compute, FLOP")
    ax.set_ylabel("best size N*, parameters")
    log_axes(ax)
    legend_below(ax)
