"""Loss against compute as paid and as it would be at small batches (Kaplan et al. 2020, figure 13)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scaling_sim.report.figures.canvas import (
    GREY,
    OURS,
    ReportFigure,
    band,
    drawn,
    legend_below,
    points,
    shade_beyond,
    sheet,
)
from scaling_sim.report.figures.curves import efficient, need_fit, need_rows, span, thinned
from scaling_sim.report.figures.ticks import log_axes

if TYPE_CHECKING:
    from scaling_sim.report.data import ReportData


@drawn
def figure_adjusted(data: ReportData) -> ReportFigure:
    """Every measured point at C and S, and at C_min and S_min; hollow where no batch sweep measured B_crit."""
    from scaling_sim.predict.convert import convert

    fit = need_fit(data, "alpha_N", "N_c", "alpha_S", "S_c", "alpha_B", "B_star")
    table, rows = need_rows(data, "curve")
    found = convert(fit, table)
    use = rows & np.isfinite(found.C_min)
    figure, axes = sheet("adjusted", "What the batch costs", ["Compute", "Steps"], height=4.1)
    pairs = ((table.C, found.C_min, "C", "FLOP"), (table.S, found.S_min, "S", "steps"))
    for ax, (paid, least, symbol, unit) in zip(axes, pairs, strict=True):
        points(ax, paid[use], table.loss[use], series=f"{symbol} paid", colour=GREY, size=2.4, alpha=0.5,
               label=f"{symbol}, as paid")  # fmt: skip
        for marked, hollow in ((use & ~found.outside, False), (use & found.outside, True)):
            text = f"${symbol}_{{min}}$" + (", $B_{crit}$ not measured there" if hollow else "")
            if marked.any():
                points(ax, least[marked], table.loss[marked], series=text, colour=OURS, size=2.8, hollow=hollow,
                       label=text)  # fmt: skip
        ax.set_xlabel(unit)
    C = span(found.C_min[use], 1.0, 10.0, 40)
    band(
        axes[0], C, efficient(C, thinned(fit)).loss, series="L(C_min)", colour=OURS, label="$L(C_{min})$, the frontier"
    )
    shade_beyond(axes[0], float(found.C_min[use].max()))
    axes[0].set_ylabel("test loss, nats per token")
    for ax in axes:
        log_axes(ax)
        legend_below(ax)
    share = float(np.mean(found.outside[use]))
    covered = "no batch sweep measured B_crit" if found.measured is None else (
        f"B_crit was measured at losses from {found.measured[0]:.2f} to {found.measured[1]:.2f}"
    )  # fmt: skip
    figure.reading = (
        "Each point is moved left to what the same loss would cost at a batch far below (compute) or above (steps) the "
        f"critical one. {covered[0].upper()}{covered[1:]}; {share:.0%} of the points lie outside. Nothing is fitted to "
        "moved points."
    )
    return figure
