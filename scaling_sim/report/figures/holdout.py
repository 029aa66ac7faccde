"""How well the law extrapolated on the user's own runs: the back-test over compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scaling_sim.report.figures.canvas import (
    GREY,
    OURS,
    NothingToShow,
    ReportFigure,
    band,
    colours,
    drawn,
    legend_below,
    log_scales,
    points,
    sheet,
)
from scaling_sim.report.figures.curves import DRAWS
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import number

if TYPE_CHECKING:
    from scaling_sim.report.data import ReportData


@drawn
def figure_backtest(data: ReportData) -> ReportFigure:
    """Losses beyond each cut in compute against what the law, fitted below the cut, expected of them."""
    test = data.backtest
    if test is None:
        raise NothingToShow("no back-test was made")
    titles = ["Held-out losses", "Error against distance"]
    figure, (left, right) = sheet("backtest", f"Back-test: {test.law_name}", titles, height=4.2, log="")
    log_scales(left, "xy")
    decades, error = test.h / np.log(10), 100 * np.expm1(test.residual)
    cuts = np.unique(test.cut)
    for cut, colour in zip(cuts, colours(len(cuts), "plasma"), strict=True):
        rows = test.cut == cut
        text = f"fitted below {number(float(cut), 2)} FLOP"
        points(left, test.predicted[rows], test.observed[rows], series=text, colour=colour, size=3.4, label=text)
        points(right, decades[rows], error[rows], series=text, colour=colour, size=3.4, alpha=0.7)
    ends = [float(test.predicted.min()), float(test.predicted.max())]
    left.plot(ends, ends, color=GREY, lw=0.9, zorder=2)
    grid = np.linspace(0, float(decades.max()), 40)
    shift = test.discrepancy(test.largest * 10**grid, DRAWS)
    text = "discrepancy that forecasts carry, 50 and 90 %"
    band(right, grid, 100 * np.expm1(shift), series="discrepancy", colour=OURS, label=text)
    right.axhline(0, color=GREY, lw=0.9)
    left.set_xlabel("expected loss, nats per token")
    left.set_ylabel("observed loss, nats per token")
    right.set_xlabel("decades of compute beyond the cut")
    right.set_ylabel("observed − expected, % of the loss")
    log_axes(left)
    for ax in (left, right):
        legend_below(ax, 2 if ax is left else 1)
    figure.reading = str(test.summary())
    return figure
