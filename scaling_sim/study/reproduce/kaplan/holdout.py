"""The held-out check: the laws fitted below a tenth of the largest compute, the top decade forecast."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from scaling_sim.report.figures.canvas import GREY, OURS, ReportFigure, sheet
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.study.reproduce.kaplan.drawing import Shades, size_points
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row

if TYPE_CHECKING:
    from scaling_sim.predict.backtest import Backtest
    from scaling_sim.study.reproduce.kaplan.data import Data

Array = NDArray[np.float64]


def holdout(data: Data) -> Finding:
    """The top decade of compute forecast from the runs below it."""
    test: Backtest = data.shared("held-out")
    fit = data.fit("kaplan")
    beyond = test.cut[0] < fit.runs.C
    n = len(np.unique(fit.runs.run[beyond]))
    error = np.abs(np.log(test.observed / test.quantiles[:, 2]))
    alone = np.abs(test.residual)
    width = np.median(np.log(test.quantiles[:, 4] / test.quantiles[:, 0]))
    rows = (
        Row("coverage of the 90 % interval", 0.9, test.coverage(0.9), None, n, "share", "nominal, not the paper's"),
        Row("coverage of the 50 % interval", 0.5, test.coverage(0.5), None, n, "share", "nominal, not the paper's"),
        Row("coverage of 90 %, law alone", 0.9, test.coverage(0.9, law_alone=True), None, n, "share", "nominal"),
        Row("median error of the forecast", None, float(np.median(error)), None, n, "ln L"),
        Row("largest error of the forecast", None, float(error.max()), None, n, "ln L"),
        Row("median error of the law alone", None, float(np.median(alone)), None, n, "ln L"),
        Row("median width of the 90 % interval", None, float(width), None, n, "ln L"),
        Row("rows held out", None, float(len(test.C)), None, n, "rows"),
    )
    remark = (
        f"The joint law and its discrepancy were fitted to the rows below {test.cut[0]:.2g} FLOP, a tenth of "
        f"the largest run; {len(test.C)} rows of {n} runs beyond were forecast, up to {test.reach_decades:.1f} decades "
        f"away. Their 90 % intervals covered {test.coverage(0.9):.0%}; those of the law alone "
        f"{test.coverage(0.9, law_alone=True):.0%}. "
        "Rows of one run go together, so that the share is uncertain by more than their number says."
    )
    return Finding("Held out", "The top decade of compute, forecast", rows, lambda: _figure(data, test), remark)


def _figure(data: Data, test: Backtest) -> ReportFigure:
    titles = ["Forecast with discrepancy", "The law alone"]
    figure, axes = sheet("holdout", "The top decade of compute, forecast from below", titles, height=4.2)
    fit = data.fit("kaplan")
    row = fit.law.observe(fit.runs).row  # in the order of the back-test
    sizes = fit.runs.N[row][fit.runs.C[row] > test.cut[0]]
    shades = Shades(fit.runs.N)
    for ax, quantiles in zip(axes, (test.quantiles, test.law_quantiles), strict=True):
        _panel(ax, test, quantiles, sizes, shades)
    low = min(ax.get_ylim()[0] for ax in axes)
    high = max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(low, high)
    axes[0].set_ylabel("loss over its median forecast, %")
    shades.key(figure, axes)
    return figure


def _panel(ax: Axes, test: Backtest, quantiles: Array, sizes: Array, shades: Shades) -> None:
    """Observed losses and 90 % intervals over the median forecast."""
    ax.set_yscale("linear")
    middle = quantiles[:, 2]
    low, high = 100 * (quantiles[:, 0] / middle - 1), 100 * (quantiles[:, 4] / middle - 1)
    ax.vlines(test.C, low, high, color=OURS, alpha=0.16, lw=2.0, zorder=1.5)
    ax.plot([], [], color=OURS, alpha=0.3, lw=4, label="90 % interval of each row")
    ax.axhline(0, color=GREY, lw=0.8)
    size_points(ax, shades, sizes, test.C, 100 * (test.observed / middle - 1), size=3.4)
    ax.set_xlabel("compute, FLOP")
    log_axes(ax, y=False)
    ax.legend(loc="best")
