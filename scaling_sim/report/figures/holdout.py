"""How well the law extrapolated on the user's own runs: the back-test over compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scaling_sim.report.figures.canvas import (
    GREY,
    OURS,
    NothingToShow,
    ReportFigure,
    colours,
    drawn,
    legend_below,
    log_scales,
    points,
    quantile_band,
    sheet,
)
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from scaling_sim.report.data import ReportData

    Array = NDArray[np.float64]


@drawn
def figure_backtest(data: ReportData) -> ReportFigure:
    """Losses beyond each cut in compute against what was forecast of them from the runs below the cut."""
    test = data.backtest
    if test is None:
        raise NothingToShow("no back-test was made")
    titles = ["Held-out losses", "Error against distance"]
    figure, (left, right) = sheet("backtest", f"Back-test: {test.law_name}", titles, height=4.2, log="")
    log_scales(left, "xy")
    middle, decades = test.quantiles[:, 2], test.h / np.log(10)
    cuts = np.unique(test.cut)
    for cut, colour in zip(cuts, colours(len(cuts), "plasma"), strict=True):
        rows = test.cut == cut
        text = f"fitted below {number(float(cut), 2)} FLOP"
        points(left, middle[rows], test.observed[rows], series=text, colour=colour, size=3.4, label=text)
        error = 100 * (test.observed[rows] / middle[rows] - 1)
        points(right, decades[rows], error, series=text, colour=colour, size=3.4, alpha=0.7)
    ends = [float(middle.min()), float(middle.max())]
    left.plot(ends, ends, color=GREY, lw=0.9, zorder=2)
    _intervals(right, decades, 100 * (test.quantiles / middle[:, None] - 1))
    right.axhline(0, color=GREY, lw=0.9)
    left.set_xlabel("forecast loss, nats per token")
    left.set_ylabel("observed loss, nats per token")
    right.set_xlabel("decades of compute beyond the cut")
    right.set_ylabel("observed − forecast, % of the loss")
    log_axes(left)
    for ax in (left, right):
        legend_below(ax, 2 if ax is left else 1)
    figure.reading = str(test.summary())
    return figure


def _intervals(ax: Axes, decades: Array, quantiles: Array) -> None:
    """The forecasts' own 50 and 90 % intervals against distance: medians over parts of the held-out rows."""
    order = np.argsort(decades)
    parts = np.array_split(order, min(8, len(order)))
    at = [float(np.median(decades[part])) for part in parts]
    middle = np.array([np.median(quantiles[part], axis=0) for part in parts]).T
    quantile_band(ax, at, middle, series="forecast", colour=OURS, label="intervals of the forecasts, 50 and 90 %")
