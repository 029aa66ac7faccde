"""The laws of one and two variables against the runs: Kaplan et al. 2020, figures 1, 4 and 9."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from scaling_sim.report.figures.canvas import (
    GREY,
    OURS,
    PAPER,
    NothingToShow,
    ReportFigure,
    band,
    drawn,
    legend_below,
    line,
    points,
    shade_beyond,
    sheet,
)
from scaling_sim.report.figures.curves import PAPER as PAPER_EXPONENTS
from scaling_sim.report.figures.curves import (
    Array,
    central,
    coloured,
    efficient,
    exponent_text,
    learning_curves,
    need_fit,
    need_rows,
    pinned,
    slopes,
    span,
    thinned,
)
from scaling_sim.report.figures.observed import minimal_steps
from scaling_sim.report.figures.ticks import log_axes

if TYPE_CHECKING:
    from scaling_sim.report.data import ReportData


@drawn
def figure_power_laws(data: ReportData) -> ReportFigure:
    """Loss against compute, data and parameters, each with the law in its limit (Kaplan fig 1)."""
    need_rows(data, "any")
    figure, axes = sheet(
        "power-laws", "Loss against compute, data and size", ["Compute", "Data", "Parameters"], height=4.2
    )
    shown = [panel(data, ax) for panel, ax in zip((_compute_panel, _data_panel, _size_panel), axes, strict=True)]
    if not any(shown):
        raise NothingToShow("no fitted law of compute, data or parameters")
    for ax, name, ok in zip(
        axes, ("compute C, FLOP", "unique tokens D", "non-embedding parameters N"), shown, strict=True
    ):
        ax.set_xlabel(name)
        if not ok:
            ax.text(0.5, 0.5, "not fitted", ha="center", va="center", transform=ax.transAxes, color=GREY)
            ax.set(xticks=[], yticks=[])
    axes[0].set_ylabel("test loss, nats per token")
    figure.reading = (
        "Each panel shows the loss when only one thing limits it: our runs, the fitted law with its 50 and 90 % bands, "
        "and the slope that Kaplan et al. found on web text with far larger models (dashed, put through the middle of "
        "ours)."
    )
    return figure


def _compute_panel(data: ReportData, ax: Axes) -> bool:
    table, _ = need_rows(data, "any")
    fit = data.fit_with("alpha_N", "alpha_S", "alpha_B")
    if fit is None or not table.curve.any():
        return _single_law(data, ax, "alpha_C", "C_c", table.C, r"$\alpha_C$")
    for group, colour in coloured(table.N, table.curve):
        for k, rows in enumerate(learning_curves(table, np.isin(np.arange(len(table)), group.rows))):
            line(
                ax,
                table.C[rows],
                table.loss[rows],
                series=group.label,
                colour=colour,
                width=0.9,
                alpha=0.75,
                keep=k < 40,
            )
    C = span(table.C[table.curve], 1.0, 1.0, 40)
    curve = efficient(C, thinned(fit)).loss
    text = exponent_text(r"$\alpha_C^{min}$", -slopes(C, curve))
    middle = band(ax, C, curve, series="L(C_min)", colour=OURS, label=text)[2]
    _paper(ax, C, middle, r"\alpha_C^{min}", "alpha_C")
    return _finish(ax)


def _data_panel(data: ReportData, ax: Axes) -> bool:
    from scaling_sim.laws.kaplan import loss_nd

    table, _ = need_rows(data, "any")
    fit = data.fit_with("alpha_N", "N_c", "alpha_D", "D_c")
    if fit is None or not table.stopped.any():
        return _single_law(data, ax, "alpha_D", "D_c", table.D, r"$\alpha_D$")
    for group, colour in coloured(table.N, table.stopped):
        points(ax, table.D[group.rows], table.loss[group.rows], series=group.label, colour=colour)
    D = span(table.D[table.stopped])
    curve = loss_nd(np.inf, D, thinned(fit))
    text = exponent_text(r"$\alpha_D$", fit.draws["alpha_D"])
    middle = band(ax, D, curve, series="L(D), N infinite", colour=OURS, label=text)[2]
    _paper(ax, D, middle, r"\alpha_D", "alpha_D")
    return _finish(ax)


def _size_panel(data: ReportData, ax: Axes) -> bool:
    from scaling_sim.laws.kaplan import loss_nd, loss_ns
    from scaling_sim.laws.kaplan_joint import curve_parameters

    table, _ = need_rows(data, "any")
    fit = data.fit_with("alpha_N", "N_c", "alpha_S") or data.fit_with("alpha_N", "N_c")
    if fit is None:
        return False
    keep = table.curve if table.curve.any() else np.ones(len(table), dtype=bool)
    for group, colour in coloured(table.N, keep):
        best = group.rows[np.argmin(table.loss[group.rows])]
        points(ax, table.N[[best]], table.loss[[best]], series="lowest loss reached", colour=colour, hollow=True)
    N = span(table.N[keep])
    p = curve_parameters(thinned(fit))
    text = exponent_text(r"$\alpha_N$", p["alpha_N"])
    # both laws tend to the same L(N): (1.6) for endless steps, (1.5) for endless data
    curve = loss_ns(N, np.inf, p) if "alpha_S" in p else loss_nd(N, np.inf, {"alpha_D": p["alpha_N"], "D_c": 1.0} | p)
    middle = band(ax, N, curve, series="L(N), steps infinite", colour=OURS, label=text)[2]
    _paper(ax, N, middle, r"\alpha_N", "alpha_N")
    ax.plot([], [], "o", mfc="white", mec=GREY, ms=4.5, label="lowest loss reached so far")
    return _finish(ax)


def _single_law(data: ReportData, ax: Axes, exponent: str, scale: str, x: Array, symbol: str) -> bool:
    """A panel for a one-variable power law (X_c/X)^α fitted on its own."""
    fit = data.fit_with(exponent, scale)
    if fit is None or "alpha_N" in fit.draws:
        return False
    grid, p = span(x), thinned(fit)
    points(ax, getattr(fit.runs, fit.law.columns[0]), fit.runs.loss, series="runs", colour=GREY)
    curve = (p[scale] / grid) ** p[exponent]
    middle = band(ax, grid, curve, series=fit.law_name, colour=OURS, label=exponent_text(symbol, fit.draws[exponent]))[
        2
    ]
    _paper(ax, grid, middle, symbol.strip("$"), exponent)
    return _finish(ax)


@drawn
def figure_two_variables(data: ReportData) -> ReportFigure:
    """L(N, D) and L(N, S_min) against the runs (Kaplan fig 4)."""
    panels = [("Data-limited runs, $L(N, D)$", _nd_panel), ("Learning curves, $L(N, S_{min})$", _ns_panel)]
    figure, axes = sheet("two-variables", "Two laws of two variables", [title for title, _ in panels], height=4.2)
    shown = [draw(data, ax) for (_, draw), ax in zip(panels, axes, strict=True)]
    if not any(shown):
        raise NothingToShow("neither L(N, D) nor L(N, S_min) was fitted")
    for ax, ok in zip(axes, shown, strict=True):
        if not ok:
            figure.delaxes(ax)
    table, _ = need_rows(data, "any")
    sizes = coloured(table.N, table.stopped | table.curve)
    handles = [Line2D([], [], color=colour) for _, colour in sizes]
    figure.legend(handles, [group.label for group, _ in sizes], loc="outside lower center", ncols=min(len(sizes), 6))
    axes[0].set_ylabel("test loss, nats per token")
    figure.reading = (
        "Left: more data stop helping a model of a given size. Right: the same for more steps, counted as if the batch "
        "had been far above critical. Lines are one joint fit with 50 and 90 % bands; points are runs."
    )
    return figure


def _nd_panel(data: ReportData, ax: Axes) -> bool:
    from scaling_sim.laws.kaplan import loss_nd

    fit, table = data.fit_with("alpha_N", "N_c", "alpha_D", "D_c"), data.table
    if fit is None or table is None or not table.stopped.any():
        return False
    D = span(table.D[table.stopped], 1.5, 4.0)
    for group, colour in coloured(table.N, table.stopped):
        points(ax, table.D[group.rows], table.loss[group.rows], series=group.label, colour=colour)
        band(ax, D, loss_nd(group.value, D, thinned(fit)), series=group.label, colour=colour, label=group.label)
    ax.set_xlabel("unique tokens D")
    shade_beyond(ax, table.D[table.stopped].max())
    return _finish(ax, legend=False)


def _ns_panel(data: ReportData, ax: Axes) -> bool:
    from scaling_sim.laws.kaplan import loss_ns
    from scaling_sim.laws.kaplan_joint import curve_parameters

    fit, table = data.fit_with("alpha_N", "N_c", "alpha_S", "S_c"), data.table
    if fit is None or table is None or not table.curve.any():
        return False
    steps = minimal_steps(data)
    S = span(steps[table.curve], 1.1, 3.0)
    for group, colour in coloured(table.N, table.curve):
        points(ax, steps[group.rows], table.loss[group.rows], series=group.label, colour=colour, size=2.6, alpha=0.55)
        band(
            ax,
            S,
            loss_ns(group.value, S, curve_parameters(thinned(fit))),
            series=group.label,
            colour=colour,
            label=group.label,
        )
    ax.set_xlabel("steps at batches far above critical, $S_{min}$")
    shade_beyond(ax, float(np.nanmax(steps[table.curve])))
    return _finish(ax, legend=False)


@drawn
def figure_overfitting(data: ReportData) -> ReportFigure:
    """Loss against size for each amount of data, and the collapse of the overfitting (Kaplan fig 9)."""
    fit = need_fit(data, "alpha_N", "N_c", "alpha_D", "D_c")
    need_rows(data, "stopped")
    titles = ["Loss for each amount of data", "Overfitting falls on one curve"]
    figure, (left, right) = sheet("overfitting", "How much data a size needs", titles, height=4.2)
    right.set_yscale("linear")
    _plateaus(data, left)
    _collapse(data, right)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    low, middle, high = np.quantile(fit.draws["alpha_N"] / fit.draws["alpha_D"], [0.05, 0.5, 0.95])
    figure.reading = (
        "Right: the loss above what endless data would give depends on N and D only through N^(α_N/α_D)/D, so data "
        f"must grow as N^{middle:.2f} (90 %: {low:.2f} to {high:.2f}; Kaplan et al.: 0.74) to keep overfitting "
        "constant."
    )
    return figure


def _plateaus(data: ReportData, ax: Axes) -> None:
    from scaling_sim.laws.kaplan import loss_nd

    fit = need_fit(data, "alpha_N", "N_c", "alpha_D", "D_c")
    table, stopped = need_rows(data, "stopped")
    N = span(table.N[stopped], 1.6, 4.0)
    for group, colour in coloured(np.where(stopped, table.D, np.nan), stopped, "D", "plasma"):
        points(ax, table.N[group.rows], table.loss[group.rows], series=group.label, colour=colour)
        band(ax, N, loss_nd(N, group.value, thinned(fit)), series=group.label, colour=colour, label=group.label)
    ax.set_xlabel("non-embedding parameters N")
    ax.set_ylabel("test loss, nats per token")
    shade_beyond(ax, table.N[stopped].max())
    _finish(ax, legend=False)


def _collapse(data: ReportData, ax: Axes) -> None:
    from scaling_sim.laws.kaplan import loss_nd

    fit = need_fit(data, "alpha_N", "N_c", "alpha_D", "D_c")
    table, stopped = need_rows(data, "stopped")
    centre = central(fit)
    ratio = centre["alpha_N"] / centre["alpha_D"]
    for group, colour in coloured(np.where(stopped, table.D, np.nan), stopped, "D", "plasma"):
        size, loss = table.N[group.rows], table.loss[group.rows]
        excess = loss / loss_nd(size, np.inf, centre) - 1
        points(ax, size**ratio / table.D[group.rows], 100 * excess, series=group.label, colour=colour)
    x = span(table.N[stopped] ** ratio / table.D[stopped])
    N = float(np.exp(np.mean(np.log(table.N[stopped]))))
    draws = thinned(fit)
    curve = 100 * (loss_nd(N, N**ratio / x, draws) / loss_nd(N, np.inf, draws) - 1)
    band(ax, x, curve, series="law", colour=OURS)
    ax.axhline(0, color="#9aa3af", lw=0.8)
    ax.set_xlabel(rf"$N^{{{ratio:.2f}}}/D$")
    ax.set_ylabel(r"loss above that of endless data, %")
    log_axes(ax, y=False)


def _paper(ax: Axes, x: Array, middle: Array, symbol: str, key: str) -> None:
    value = PAPER_EXPONENTS[key]
    text = rf"Kaplan et al.: ${symbol}$ = {value:.3f}"
    line(
        ax,
        x,
        pinned(x, middle, -value),
        series="Kaplan et al., slope",
        colour=PAPER,
        label=text,
        dashes="--",
        width=1.2,
    )


def _finish(ax: Axes, legend: bool = True) -> bool:
    log_axes(ax)
    if legend:
        legend_below(ax)
    return True
