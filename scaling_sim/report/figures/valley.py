"""How little the exact size matters: valleys about the best one, and Kaplan et al. 2020, figure 12 (B.16, B.17)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from scaling_sim.report.figures.canvas import (
    ACCENT,
    GREY,
    OURS,
    PAPER,
    NothingToShow,
    ReportFigure,
    band,
    colours,
    drawn,
    legend_below,
    line,
    sheet,
)
from scaling_sim.report.figures.curves import Array, need_fit, thinned
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import number

if TYPE_CHECKING:
    from scaling_sim.predict import Allocation
    from scaling_sim.report.data import ReportData

PUBLISHED = (0.076, 0.76)
"""α_N and α_S of Kaplan et al. 2020 (Tables 5 and 3)."""
SHARE = 0.2
"""More compute than the best size needs, at which the width of a bowl is read off, as in the paper's figure."""


@drawn
def figure_valley(data: ReportData) -> ReportFigure:
    """Loss above the best one against size, at each budget, and the sizes within 1 %."""
    plans = [one for several in data.allocations for one in several if _knows_other_sizes(one)]
    if not plans:
        raise NothingToShow("no allocation by a law that knows other sizes than the best")
    laws = list(dict.fromkeys(str(plan.header["law"]) for plan in plans))
    figure, axes = sheet("valley", "How much the size matters", [f"By {law}" for law in laws], height=3.9, log="x")
    for ax, law in zip(axes, laws, strict=True):
        own = [plan for plan in plans if plan.header["law"] == law]
        for plan, colour in zip(own, colours(len(own), "plasma"), strict=True):
            _valley(ax, plan, colour)
        line(ax, ax.get_xlim(), [1.0, 1.0], series="1 %", colour=GREY, dashes="--", width=1.0, label="1 %")
        ax.set_xlabel("parameters N")
        ax.set_ylim(0, 4)
        log_axes(ax, y=False)
        legend_below(ax)
    axes[0].set_ylabel("loss above the best one, %")
    low, high = (end.median for end in plans[-1].valley())
    figure.reading = (
        f"At {number(float(plans[-1].compute[0]))} FLOP every size from {number(low)} to {number(high)} parameters "
        "comes within 1 % of the best loss: the size may be chosen for serving or for the machine. Each draw is "
        "compared with its own best loss, so that the band also holds what is not known of the best size."
    )
    return figure


def _knows_other_sizes(plan: Allocation) -> bool:
    from scaling_sim.predict.plans import PowerPlan

    return plan.plan is not None and not isinstance(plan.plan, PowerPlan)


def _valley(ax: Axes, plan: Allocation, colour: object) -> None:
    assert plan.plan is not None
    best = plan.draws["law_alone_loss"]
    low, high = (end.median for end in plan.valley(0.04))
    middle = plan.N.median
    low = low if np.isfinite(low) and low < middle else middle / 10
    high = high if np.isfinite(high) and high > middle else middle * 10
    N = np.geomspace(low, high, 41)
    above = np.concatenate([100 * (plan.plan.at(np.array([[size]]))["loss"] / best - 1) for size in N], axis=1)
    text = f"{number(float(plan.compute[0]), 2)} FLOP"
    band(ax, N, above, series=text, colour=colour, label=text)  # type: ignore[arg-type]


@drawn
def figure_bowls(data: ReportData) -> ReportFigure:
    """Compute and steps that a model of the wrong size needs for the same loss (Kaplan fig 12, eqs B.16, B.17)."""
    from scaling_sim.predict.appendix_b import compute_penalty, step_penalty

    p = thinned(need_fit(data, "alpha_N", "alpha_S"))
    alpha_N, alpha_S = p.get("alpha_N_curve", p["alpha_N"]), p["alpha_S"]
    titles = ["Compute, $C/C_{eff}$", "Steps, $S/S_{eff}$"]
    figure, axes = sheet("bowls", "Models of the wrong size, at equal loss", titles, height=3.9)
    size = np.geomspace(0.1, 30, 121)
    for ax, penalty, limits in zip(axes, (compute_penalty, step_penalty), ((0.8, 4.0), (0.2, 10.0)), strict=True):
        band(ax, size, _shown(penalty(size, alpha_N, alpha_S)), series="ours", colour=OURS, label="ours")
        values = _shown(penalty(size, *PUBLISHED))
        text = r"Kaplan et al.: $\alpha_N$ = 0.076, $\alpha_S$ = 0.76"
        line(ax, size, values, series=text, colour=PAPER, dashes="--", width=1.2, label=text)
        line(ax, [0.1, 30], [1, 1], series="best", colour=GREY, dashes=":", width=0.9, keep=False)
        ax.set_ylim(*limits)
        ax.set_xlim(0.1, 30)
        ax.set_xlabel("size over the compute-efficient one, $N/N_{eff}$")
        log_axes(ax)
        legend_below(ax)
    line(axes[0], [0.1, 30], [1 + SHARE] * 2, series="+20 %", colour=ACCENT, dashes=":", width=1.0, keep=False)
    low, high = _ends(size, np.asarray(compute_penalty(size, np.median(alpha_N), np.median(alpha_S))))
    figure.reading = (
        f"Within 20 % of the least compute lie sizes from {low:.2f} to {high:.2g} times the best (Kaplan et al.: 0.6 "
        "to 2.2). Larger models need fewer steps; below the pole on the left no training reaches the loss. Bands hold "
        "the uncertainty of the two exponents."
    )
    return figure


def _shown(values: Array) -> Array:
    """Infinite needs as a number far above the axis, which quantiles can bear."""
    return np.where(np.isfinite(values), np.minimum(values, 1e6), 1e6)


def _ends(size: Array, penalty: Array) -> tuple[float, float]:
    inside = size[penalty <= 1 + SHARE]
    return float(inside.min()), float(inside.max())
