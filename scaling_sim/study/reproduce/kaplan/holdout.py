"""The held-out check: the laws fitted below a tenth of the largest compute, the top decade forecast."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from scaling_sim.laws.registry import get_law
from scaling_sim.report.figures.canvas import GREY, OURS, ReportFigure, sheet
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.study.reproduce.kaplan.drawing import Shades, size_points
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row, gathered
from scaling_sim.study.reproduce.kaplan.rows import joint_rows

if TYPE_CHECKING:
    from scaling_sim.predict.backtest import Backtest
    from scaling_sim.runs.table import RunTable
    from scaling_sim.study.reproduce.kaplan.data import Data

Array = NDArray[np.float64]
LAWS = {"held-out": "kaplan", "held-out-floor": "kaplan-floor"}
OVER_WIDE = 0.8
"""Share of rows inside 50 % intervals above which these are called too wide."""
WORDS = {"held-out": "the paper's law", "held-out-floor": "the law with a floor"}


def holdout(data: Data) -> Finding:
    """The top decade of compute forecast from the runs below it."""
    rows, missing = gathered({name: partial(_rows, data, name) for name in LAWS})
    made = [name for name in LAWS if name not in missing]
    return Finding(
        "Held out", "The top decade of compute, forecast", rows, lambda: _figure(data, made), _remark(data, made)
    )


def _rows(data: Data, name: str) -> Iterator[Row]:
    test: Backtest = data.shared(name)
    n, words = _num_runs(joint_rows(data), test), WORDS[name]
    error = np.abs(np.log(test.observed / test.quantiles[:, 2]))
    width = float(np.median(np.log(test.quantiles[:, 4] / test.quantiles[:, 0])))
    yield Row(f"coverage of 90 %, {words}", None, test.coverage(0.9), None, n, "share", "nominal 0.9")
    yield Row(f"coverage of 50 %, {words}", None, test.coverage(0.5), None, n, "share", "nominal 0.5")
    alone = test.coverage(0.9, law_alone=True)
    yield Row(f"coverage of 90 %, {words} alone, no discrepancy", None, alone, None, n, "share", "nominal 0.9")
    yield Row(f"median error of the forecast, {words}", None, float(np.median(error)), None, n, "ln L")
    yield Row(f"largest error of the forecast, {words}", None, float(error.max()), None, n, "ln L")
    yield Row(f"median error of {words} alone", None, float(np.median(np.abs(test.residual))), None, n, "ln L")
    yield Row(f"median width of the 90 % interval, {words}", None, width, None, n, "ln L")


def _num_runs(table: RunTable, test: Backtest) -> int:
    return len(np.unique(table.run[test.cut[0] < table.C]))


def _remark(data: Data, made: list[str]) -> str:
    test: Backtest = data.shared(made[0])
    parts = [
        f"Fitted to the rows below {test.cut[0]:.2g} FLOP, a tenth of the largest run; {len(test.C)} rows of "
        f"{_num_runs(joint_rows(data), test)} runs beyond were forecast, up to {test.reach_decades:.1f} decades away."
    ]
    for name in made:
        test = data.shared(name)
        error = float(np.median(np.abs(np.log(test.observed / test.quantiles[:, 2]))))
        parts.append(
            f"By {WORDS[name]} with its discrepancy the 90 % intervals covered {test.coverage(0.9):.0%} of them, the "
            f"median error was {error:.1%}; {WORDS[name]} alone covered {test.coverage(0.9, law_alone=True):.0%}."
        )
    over = [WORDS[name] for name in made if data.shared(name).coverage(0.5) > OVER_WIDE]
    if over:
        parts.append(
            f"Half of the rows should lie in the 50 % intervals; more than {OVER_WIDE:.0%} do by {' and '.join(over)}, "
            "whose intervals are too wide: full coverage is not good calibration."
        )
    parts += [f"The error of {WORDS[name]} alone {trend}." for name in made if (trend := _trend(data.shared(name)))]
    parts.append("Rows of one run go together, so that the shares are uncertain by more than their number says.")
    return " ".join(parts)


def _trend(test: Backtest) -> str:
    """How the error of the law runs with compute, where it does; in words."""
    order = np.argsort(test.C)
    first, _, last = np.array_split(test.residual[order], 3)
    change = float(np.median(last) - np.median(first))
    return (
        f"moves by {change:+.1%} of the loss from the first to the last third of compute" if abs(change) > 0.01 else ""
    )


def _figure(data: Data, made: list[str]) -> ReportFigure:
    panels = [(name, alone) for name in made for alone in (False, True)][:3]
    titles = [f"{WORDS[name][0].upper()}{WORDS[name][1:]}{', alone' if alone else ''}" for name, alone in panels]
    figure, axes = sheet("holdout", "The top decade of compute, forecast from below", titles, height=4.0)
    table = joint_rows(data)
    shades = Shades(table.N)
    for ax, (name, alone) in zip(axes, panels, strict=True):
        test: Backtest = data.shared(name)
        row = get_law(LAWS[name]).observe(table).row  # in the order of the back-test
        sizes = table.N[row][table.C[row] > test.cut[0]]
        _panel(ax, test, test.law_quantiles if alone else test.quantiles, sizes, shades)
    low, high = min(ax.get_ylim()[0] for ax in axes), max(ax.get_ylim()[1] for ax in axes)
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
    ax.legend(loc="lower left")
