"""Laws of final losses (Chinchilla and its kin): the fit, isoFLOP valleys, and what a budget should buy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scaling_sim.report.figures.canvas import (
    ACCENT,
    GREY,
    OURS,
    NothingToShow,
    ReportFigure,
    band,
    drawn,
    legend_below,
    points,
    shade_beyond,
    sheet,
)
from scaling_sim.report.figures.curves import Array, coloured, exponent_text, slopes, span, thinned
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from scaling_sim.inference import Posterior
    from scaling_sim.report.data import ReportData

SUPPORTED = frozenset({"N", "tokens", "D"})

BESIDE = 1.15
"""Budgets of a second law are drawn this factor to the right, so that its bars do not hide the first's."""


def final_fit(data: ReportData) -> Posterior:
    """The first fit of a final-loss law in N and tokens.

    Raises
    ------
    NothingToShow
        There is none.
    """
    for fit in data.fits.values():
        read = set(fit.law.columns)
        if fit.law.response == "loss" and {"N", "tokens"} <= read <= SUPPORTED:
            return fit
    raise NothingToShow("no law of final losses in N and tokens was fitted")


def _loss(fit: Posterior, N: Array | float, tokens: Array | float, D: Array | float | None = None) -> Array:
    """Loss of every draw, (n_draws, n): one epoch unless ``D`` is given."""
    N, tokens = np.broadcast_arrays(np.asarray(N, dtype=float), np.asarray(tokens, dtype=float))
    unique = tokens if D is None else np.broadcast_to(np.asarray(D, dtype=float), N.shape)
    return np.asarray(fit.law.loss(thinned(fit), {"N": N, "tokens": tokens, "D": unique}), dtype=float)


@drawn
def figure_final_fit(data: ReportData) -> ReportFigure:
    """Final loss against tokens for bands of model size, and against size for bands of compute."""
    fit = final_fit(data)
    seen = fit.data
    figure, (left, right) = sheet(
        "final-fit", f"The {fit.law_name} fit", ["Loss against tokens", "IsoFLOP valleys"], height=4.4
    )
    N, tokens, loss = seen.columns["N"], seen.columns["tokens"], seen.response
    everything = np.ones(len(loss), dtype=bool)
    grid = span(tokens, 1.2, 3.0)
    for group, colour in coloured(N, everything, "N"):
        points(left, tokens[group.rows], loss[group.rows], series=group.label, colour=colour, size=3.6)
        band(left, grid, _loss(fit, group.value, grid), series=group.label, colour=colour, label=group.label, width=1.1)
    compute = 6 * N * tokens
    for group, colour in coloured(compute, everything, "C", "plasma"):
        sizes = span(N[group.rows], 1.5, 1.5)
        points(right, N[group.rows], loss[group.rows], series=group.label, colour=colour, size=3.6)
        curve = _loss(fit, sizes, group.value / (6 * sizes))
        band(right, sizes, curve, series=group.label, colour=colour, label=f"{group.label} FLOP", width=1.1)
    left.set_xlabel("training tokens")
    left.set_ylabel("loss, nats per token")
    right.set_xlabel("parameters N")
    shade_beyond(left, float(tokens.max()))
    for ax in (left, right):
        log_axes(ax)
        legend_below(ax, 2)
    binned = (
        " Sizes and budgets are binned, and a line is drawn for the middle of each bin."
        if len(np.unique(N)) > 7
        else ""
    )
    figure.reading = "Points are runs, lines the fitted law with its 50 and 90 % bands." + binned
    return figure


@drawn
def figure_allocation(data: ReportData) -> ReportFigure:
    """Best N and D against compute, with bands, and the runs that were made."""
    from scaling_sim.predict.allocate import allocate

    fit = final_fit(data)
    seen = fit.data
    N, tokens = seen.columns["N"], seen.columns["tokens"]
    C = span(6 * N * tokens, 1.0, 1e3, 40)
    plan = allocate(fit, compute=C, backtest=None)
    figure, axes = sheet("allocation", "What a budget should buy", ["Best size", "Best number of tokens"], height=3.9)
    for ax, name, own in zip(axes, ("N", "D"), (N, tokens), strict=True):
        points(ax, 6 * N * tokens, own, series="runs", colour=GREY, size=2.6, alpha=0.5, label="runs")
        text = exponent_text(rf"${name} \propto C^p$, p", slopes(C, plan.draws[name]))
        band(ax, C, plan.draws[name], series=f"best {name}", colour=OURS, label=text)
        _budgets(ax, data, name, fit.law_name)
        shade_beyond(ax, float((6 * N * tokens).max()))
        ax.set_xlabel("compute, FLOP")
        log_axes(ax)
        ax.legend(loc="upper left")
    axes[0].set_ylabel("parameters N")
    axes[1].set_ylabel("training tokens")
    low, middle, high = np.quantile(slopes(C, plan.draws["N"]), [0.05, 0.5, 0.95])
    figure.reading = (
        f"The best size grows as compute to the power {middle:.3f} (90 %: {low:.3f} to {high:.3f}). The band holds the "
        "uncertainty of the parameters only: beyond the data the form itself may be wrong."
    )
    return figure


def _budgets(ax: Axes, data: ReportData, name: str, own_law: str) -> None:
    """Mark the budgets that were asked for, by each law in its colour."""
    for plan in data.allocations:
        law = str(plan.header["law"])
        colour = OURS if law == own_law else ACCENT
        for k, one in enumerate(plan):
            middle = one.quantity(name).median
            low, high = one.quantity(name).interval(0.9)
            compute = float(one.compute[0]) * (1.0 if law == own_law else BESIDE)
            error = np.array([[middle - low], [high - middle]])
            points(
                ax,
                [compute],
                [middle],
                series=f"{law}, {number(float(one.compute[0]))} FLOP",
                colour=colour,
                error=error,
                size=6,
                hollow=True,
                label=f"by {law}" if k == 0 else None,
            )
