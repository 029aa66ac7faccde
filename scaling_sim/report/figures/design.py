"""The next runs: which, where among those made, and what each is expected to do for the target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scaling_sim.report.figures.canvas import (
    ACCENT,
    GREY,
    OURS,
    NothingToShow,
    ReportFigure,
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
    from matplotlib.axes import Axes

    from scaling_sim.predict.design import Design
    from scaling_sim.report.data import ReportData

KINDS = {"final": ("finished run", OURS), "curve": ("learning curve", OURS), "stopped": ("early-stopped run", ACCENT)}


@drawn
def figure_design(data: ReportData) -> ReportFigure:
    """Size and tokens of the next runs beside those made, and the target's error as they are made."""
    plan = data.design
    if plan is None or not plan.purchases:
        raise NothingToShow("no next runs were chosen")
    titles = ["Which runs, and where", "What they do for the target"]
    figure, (left, right) = sheet("design", "The next runs", titles, height=4.2, log="")
    log_scales(left, "xy")
    _where(left, data, plan)
    _effect(right, plan)
    figure.reading = (
        f"{len(plan.purchases)} runs for {number(plan.cost)} FLOP are expected to bring the error of {plan.target} "
        f"({plan.scale}) from {number(plan.sd_before)} to {number(plan.sd_after)}. A larger mark is a dearer run."
    )
    return figure


def _where(ax: Axes, data: ReportData, plan: Design) -> None:
    table = data.table
    if table is not None:
        last = {name: row for row, name in enumerate(table.run.tolist())}
        rows = np.array(list(last.values()))
        made = rows[(table.N[rows] > 0) & (table.tokens[rows] > 0)]
        points(ax, table.N[made], table.tokens[made], series="made", colour=GREY, label="made", hollow=True, size=3.6)
    dearest = max(p.candidate.cost for p in plan.purchases)
    labelled = set[str]()
    for candidate in dict.fromkeys(p.candidate for p in plan.purchases):
        label, colour = KINDS[candidate.kind]
        share = np.sqrt(candidate.cost / dearest)
        points(
            ax,
            [candidate.N],
            [candidate.tokens or candidate.D or np.nan],
            series=label,
            colour=colour,
            label=None if label in labelled else f"next: {label}",
            size=float(4 + 8 * share),
            alpha=0.7,
        )
        labelled.add(label)
    ax.set_xlabel("parameters N")
    ax.set_ylabel("tokens (early-stopped: unique)")
    log_axes(ax)
    legend_below(ax, 3)


def _effect(ax: Axes, plan: Design) -> None:
    cost = np.cumsum([0.0, *(p.candidate.cost for p in plan.purchases)]) / plan.budget
    sd = np.array([plan.sd_before, *(p.sd_after for p in plan.purchases)])
    line(ax, cost, sd, series="target error", colour=OURS)
    points(ax, cost, sd, series="after each run", colour=OURS, size=4.0)
    ax.set_xlabel(f"share of the budget of {number(plan.budget)} FLOP")
    ax.set_ylabel(f"expected error of {plan.target}")
    ax.set_ylim(0.0, 1.08 * float(sd.max()))
    ax.set_xlim(-0.02, 1.05)
