"""A running run against its forecast, two recipes against one another: figures of one result each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scaling_sim.report.figures.canvas import (
    ACCENT,
    GREY,
    OURS,
    PAPER,
    ReportFigure,
    band,
    drawn,
    legend_below,
    points,
    sheet,
)
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from scaling_sim.predict.observe import Observed
    from scaling_sim.predict.recipes import Recipes


@drawn
def figure_observed(observed: Observed) -> ReportFigure:
    """The curve so far, the curve expected before it was seen, and the updated one."""
    figure, (left, right) = sheet(
        "observed",
        f"The run so far: {observed.verdict}",
        ["Learning curve", "Difference from the forecast"],
        height=4.4,
    )
    right.set_yscale("linear")
    before, after, seen = observed.before.curve, observed.curve, observed.progress
    middle = None
    if before is not None:
        shown = before.steps >= 0.7 * seen.steps[seen.used][0] if seen.used.any() else before.steps > 0
        middle = np.median(before.draws, axis=0)
        band(left, before.steps[shown], before.draws[:, shown], series="before", colour=GREY, label="forecast before")
    band(left, after.steps, after.draws, series="updated", colour=OURS, label="updated forecast")
    _seen(left, observed, seen.loss)
    if middle is not None and before is not None:
        base = np.exp(np.interp(np.log(after.steps), np.log(before.steps), np.log(middle)))
        shown_base = middle[shown]
        band(right, before.steps[shown], 100 * (before.draws[:, shown] / shown_base - 1), series="before", colour=GREY)
        band(right, after.steps, 100 * (after.draws / base - 1), series="updated", colour=OURS)
        at = np.exp(np.interp(np.log(seen.steps), np.log(before.steps), np.log(middle)))
        _seen(right, observed, 100 * (seen.loss / at - 1))
    if observed.target is not None:
        left.axhline(observed.target, color=PAPER, lw=0.9, ls=(0, (4, 3)), label=f"target {observed.target:g}")
    for ax in (left, right):
        ax.set_xlabel("steps")
    left.set_ylabel("loss, nats per token")
    right.set_ylabel("% of the forecast loss")
    log_axes(left)
    log_axes(right, y=False)
    legend_below(left, 2)
    figure.reading = str(observed).replace("\n", "; ") + "."
    return figure


def _seen(ax: Axes, observed: Observed, values: NDArray[np.float64]) -> None:
    seen = observed.progress
    known = np.isfinite(values)
    used, rest = seen.used & known, ~seen.used & known
    if rest.any():
        points(
            ax, seen.steps[rest], values[rest], series="not used", colour=GREY, size=2.4, alpha=0.5, label="not used"
        )
    points(ax, seen.steps[used], values[used], series="observed", colour=ACCENT, size=4.5, label="observed")


@drawn
def figure_recipes(recipes: Recipes) -> ReportFigure:
    """Loss of both recipes against compute, and the multiplier at each place asked for."""
    figure, (left, right) = sheet(
        "recipes",
        f"{recipes.names[1]} against {recipes.names[0]}",
        ["Loss against compute", "Compute multiplier"],
        height=4.2,
    )
    C, base, other = recipes.curve
    shown = (0.05 * recipes.compute.min() <= C) & (20 * recipes.compute.max() >= C)
    for draws, name, colour in ((base, recipes.names[0], GREY), (other, recipes.names[1], OURS)):
        band(left, C[shown], draws[:, shown], series=name, colour=colour, label=name)
    right.set_xlim(left.get_xlim())
    for i, compute in enumerate(recipes.compute.tolist()):
        q = recipes.quantity(i)
        low, high = q.interval(0.9)
        finite = np.isfinite([q.median, low, high]).all()
        if finite:
            error = np.array([[q.median - low], [high - q.median]])
            label = f"at {number(compute)} FLOP, P(better) = {recipes.probability_better[i]:.2f}"
            points(right, [compute], [q.median], series=label, colour=ACCENT, error=error, size=5.5, label=label)
    right.axhline(1.0, color=GREY, lw=0.9)
    for ax in (left, right):
        ax.set_xlabel("compute, FLOP")
    left.set_ylabel("expected loss, nats per token")
    right.set_ylabel("compute of the base at equal loss / compute")
    for ax in (left, right):
        log_axes(ax)
        legend_below(ax, 1)
    figure.reading = recipes.verdict + "."
    return figure
