"""The same runs under several counts of N and C: exponents of the best size, and the best sizes, side by side."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from scaling_sim.predict.quantity import Quantity
from scaling_sim.report.figures.canvas import (
    ACCENT,
    GREY,
    OURS,
    PAPER,
    NothingToShow,
    ReportFigure,
    drawn,
    legend_below,
    points,
    sheet,
)
from scaling_sim.report.figures.dots import dot, name_rows, within_reason
from scaling_sim.report.table import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from scaling_sim.predict.definitions import Definitions
    from scaling_sim.report.data import ReportData

PUBLISHED = (("Kaplan et al.", 0.73), ("Hoffmann et al.", 0.50))
"""Exponents of N* by Kaplan et al. 2020, (6.1), and Hoffmann et al. 2022, approach 1."""
LABEL = 36
"""Letters of a line of a row's name."""
MAPPED = "the law of all parameters, seen without embeddings (Pearce & Song 2024)"


@drawn
def figure_definitions(data: ReportData | Definitions) -> ReportFigure:
    """Exponent of N* and N* at the largest budget by every definition, with 90 % intervals and Pearce-Song's mapping.

    Raises
    ------
    NothingToShow
        No allocation's runs can be counted in more than one way.
    """
    found = _definitions(data)
    rows = list(found.rows.values())
    names = [fill(row.words, LABEL) for row in rows] + [fill(MAPPED, LABEL)] * (found.mapped is not None)
    titles = ["Exponent of N* against cost", "Best size at the largest budget"]
    height = 1.9 + 0.52 * len(names)
    figure, (left, right) = sheet("definitions", "The best size by other definitions", titles, height=height, log="")
    for k, row in enumerate(rows):
        dot(left, k, row.exponent, series=row.name, colour=OURS)
    if found.mapped is not None:
        dot(left, len(rows), found.mapped, series="Pearce-Song mapping", colour=ACCENT)
    for (words, value), dashes in zip(PUBLISHED, ("--", ":"), strict=True):
        left.axvline(value, color=GREY, lw=1.0, ls=dashes, zorder=1, label=f"{words}: {value:.2f}")
    name_rows(left, names)
    left.set_xlabel("a in N* ∝ cost to the power a")
    legend_below(left)
    cut = _sizes(right, found, len(names))
    figure.reading = (
        f"{found.verdict} Sizes are for {number(float(found.compute[-1]))} FLOP as the first row counts, and for what "
        f"that row's best model costs by the other counts.{cut}"
    )
    return figure


def _definitions(data: ReportData | Definitions) -> Definitions:
    from scaling_sim.predict.definitions import Definitions

    if isinstance(data, Definitions):
        return data
    why = "there is no allocation whose runs could be counted in several ways"
    for plans in data.allocations:
        if not isinstance(plans.definitions, str):
            return plans.definitions
        why = plans.definitions
    raise NothingToShow(why)


def _sizes(ax: Axes, found: Definitions, num_rows: int) -> str:
    """N* as each row counts it, and the same model as the smallest count has it; what the axis leaves out, in words."""
    ax.set_xscale("log")
    for k, row in enumerate(found.rows.values()):
        counted, small = (Quantity("N", draws[:, -1]) for draws in (row.N, row.small))
        dot(ax, k, counted, series=row.name, colour=OURS, label=None if k else "as the row counts it")
        if not np.allclose(counted.draws, small.draws, rtol=1e-6):
            dot(ax, k + 0.24, small, series=f"{row.name}, smallest count", colour=PAPER, hollow=True)
    points(ax, [], [], series="", colour=PAPER, hollow=True, size=6.0, label="the same model by the smallest count")
    name_rows(ax, [""] * num_rows)
    ax.set_xlabel("N*, parameters")
    legend_below(ax)
    return " Bars that touch the edge go on beyond it." if within_reason(ax) else ""
