"""What compute buys: Kaplan et al. 2020, figures 11 (slices), 14 (best size and steps) and 15 (the contradiction)."""

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
    log_scales,
    points,
    shade_beyond,
    sheet,
)
from scaling_sim.report.figures.curves import PAPER as PAPER_EXPONENTS
from scaling_sim.report.figures.curves import (
    Array,
    efficient,
    efficient_loss,
    exponent_text,
    frontier,
    need_fit,
    need_rows,
    pinned,
    slopes,
    span,
    thinned,
)
from scaling_sim.report.figures.observed import (
    minimal_compute,
    minimal_steps,
    observed_minima,
    slice_curves,
    slice_places,
)
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import exact, number

if TYPE_CHECKING:
    from scaling_sim.predict import Crossover
    from scaling_sim.report.data import ReportData

JOINT = ("alpha_N", "N_c", "alpha_S", "S_c", "alpha_B", "B_star")


@drawn
def figure_slices(data: ReportData) -> ReportFigure:
    """Loss against size at fixed compute and at fixed steps (Kaplan fig 11)."""
    from scaling_sim.laws.kaplan import loss_ns
    from scaling_sim.laws.kaplan_joint import curve_parameters

    fit = need_fit(data, *JOINT)
    table, curve = need_rows(data, "curve")
    figure, (left, right) = sheet(
        "slices", "Slices at fixed compute and fixed steps", ["Fixed compute", "Fixed steps"], height=4.3
    )
    N, p = span(table.N[curve], 2.0, 2.0), thinned(fit)
    _slices(data, left, "C", N, lambda C: efficient_loss(N, C, p))
    _slices(data, right, "S", N, lambda S: loss_ns(N, S, curve_parameters(p)))
    left.set_ylabel("test loss, nats per token")
    figure.reading = (
        "Left: at a fixed compute there is a best size, and it grows with compute. Right: at a fixed number of steps "
        "the larger model is always better. Points are read off the learning curves between their measured points, and "
        "brought to batches far below (left) or above (right) critical."
    )
    return figure


def _slices(data: ReportData, ax: Axes, kind: str, N: Array, law: object) -> None:
    table, curve = need_rows(data, "curve")
    values = minimal_compute(data) if kind == "C" else minimal_steps(data)
    places = slice_places(table, curve, values)
    unit, symbol = (" FLOP", "C_{min}") if kind == "C" else ("", "S_{min}")
    for place, colour in zip(places, colours(len(places), "plasma"), strict=True):
        sizes, losses = slice_curves(table, curve, values, place)
        text = rf"${symbol}$ = {number(place, 2)}{unit}"
        points(ax, sizes, losses, series=text, colour=colour)
        band(ax, N, law(place), series=text, colour=colour, label=text)  # type: ignore[operator]
    ax.set_xlabel("non-embedding parameters N")
    log_axes(ax)
    legend_below(ax, 2)


@drawn
def figure_best_size(data: ReportData) -> ReportFigure:
    """Best size and steps against compute, adjusted for the batch and as paid (Kaplan fig 14)."""
    fit = need_fit(data, *JOINT)
    table, curve = need_rows(data, "curve")
    figure, (left, right) = sheet(
        "best-size",
        "The best size and number of steps",
        ["Best size, $N \\propto C^p$", "Steps at the best size, $S \\propto C^p$"],
        height=4.1,
    )
    p, batch = thinned(fit), float(np.exp(np.median(np.log(table.B[curve]))))
    C = span(table.C[curve], 1.0, 30.0, 40)
    adjusted, naive = efficient(C, p), frontier(p).solve(C, batch)
    for ax, field in ((left, "N"), (right, "S")):
        _best(ax, field, C, adjusted.N if field == "N" else adjusted.S_min, None)
        _best(ax, field, C, naive.N if field == "N" else C / (6 * naive.N * batch), batch)
        ax.set_xlabel("compute, FLOP: paid, or $C_{min}$ where adjusted")
    x, y = observed_minima(data)
    if len(x):
        points(
            left,
            x,
            y,
            series="lowest measured point of an isoFLOP slice",
            colour=OURS,
            hollow=True,
            label="measured minima",
        )
    left.set_ylabel("non-embedding parameters N")
    right.set_ylabel("parameter updates")
    for ax in (left, right):
        shade_beyond(ax, float(table.C[curve].max()))
        log_axes(ax)
        legend_below(ax)
    low, middle, high = np.quantile(slopes(C, adjusted.N), [0.05, 0.5, 0.95])
    figure.reading = (
        f"The best size grows as compute to the power {middle:.2f} (90 %: {low:.2f} to {high:.2f}; Kaplan et al.: "
        "0.73). The naive line keeps one batch size for every budget, as if it were free."
    )
    return figure


def _best(ax: Axes, field: str, C: Array, curve: Array, batch: float | None) -> None:
    naive = batch is not None
    colour = GREY if naive else OURS
    kind = f"paid, batch {exact(round(batch))} tokens" if batch is not None else "adjusted"
    text = exponent_text("p", slopes(C, curve), kind)
    middle = band(ax, C, curve, series=kind, colour=colour, label=text)[2]
    key = {("N", False): "p_N", ("N", True): "p_N_naive", ("S", False): "p_S"}.get((field, naive))
    if key:
        value = PAPER_EXPONENTS[key]
        text = f"Kaplan et al., {'as paid' if naive else 'adjusted'}: p = {value:.2f}"
        line(
            ax,
            C,
            pinned(C, middle, value),
            series=text,
            colour=PAPER,
            dashes=":" if naive else "--",
            width=1.2,
            label=text,
        )


@drawn
def figure_crossover(data: ReportData) -> ReportFigure:
    """L(C_min) and L(D(C_min)) with bands, and where they cross (Kaplan fig 15)."""
    if data.crossover is None:
        raise NothingToShow(data.crossover_refusal or "no crossover was computed")
    from scaling_sim.laws.kaplan import loss_nd

    fit = need_fit(data, *JOINT, "alpha_D", "D_c")
    table, curve = need_rows(data, "curve")
    figure, (top, low) = _stacked()
    cross = np.asarray(data.crossover.C.draws, dtype=float)
    measured = table.C[curve]
    C = np.geomspace(measured.min(), _right_end(cross, measured.max()), 80)
    p = thinned(fit)
    best = efficient(C, p)
    band(
        top, C, best.loss, series="L(C_min)", colour=OURS, label="$L(C_{min})$: what compute-efficient training reaches"
    )
    text = "$L(D(C_{min}))$: the least that its data allow"
    band(top, C, loss_nd(np.inf, best.D, p), series="L(D(C_min))", colour=PAPER, label=text)
    top.set_ylabel("test loss, nats per token")
    _tension_lines(top, data.crossover, C)
    _crossing_density(low, cross, C)
    for ax in (top, low):
        ax.set_xlim(C[0], C[-1])
        shade_beyond(ax, float(measured.max()), "beyond the data" if ax is top else "")
    log_axes(top)
    top.tick_params(labelbottom=False)
    top.legend(loc="upper right")
    log_axes(low, y=False)
    figure.reading = _crossing_text(data.crossover)
    return figure


def _tension_lines(ax: Axes, result: Crossover, C: Array) -> None:
    """Median C_min from which one pass has fewer data than either rule asks for, where it lies on the axis."""
    rules = [(result.printed_tension, GREY, ":", "one pass has fewer than $5000\\,N^{0.74}$ tokens")]
    if result.tension is not result.printed_tension:
        words = f"one pass overfits by more than {result.tension.threshold:.0%}"
        rules.insert(0, (result.tension, ACCENT, "--", words))
    low, high = ax.get_ylim()
    top = low * (high / low) ** 0.93  # below the words about the shading
    for tension, colour, dashes, words in rules:
        if C[0] < (place := tension.C.median) < C[-1]:
            series = f"tension by {tension.rule}"
            line(ax, [place, place], [low, top], series=series, colour=colour, dashes=dashes, width=1.1, label=words)
    ax.set_ylim(low, high)


def _stacked() -> tuple[ReportFigure, tuple[Axes, Axes]]:
    figure = ReportFigure("crossover", "The loss that compute allows, and the loss that its data allow", 5.2)
    grid = figure.add_gridspec(2, 1, height_ratios=[3.2, 1])
    top, low = figure.add_subplot(grid[0], label="laws"), figure.add_subplot(grid[1], label="crossing")
    log_scales(top, "xy")
    log_scales(low, "x")
    return figure, (top, low)


def _right_end(cross: Array, measured: float) -> float:
    """Far enough to show most crossings, were most draws to have one; else six decades beyond the runs."""
    from scaling_sim.predict.quantity import quantile

    wanted = 30 * quantile(cross, 0.75)
    return float(np.clip(wanted, 100 * measured, 1e14 * measured)) if np.isfinite(wanted) else 1e6 * measured


def _crossing_density(ax: Axes, cross: Array, C: Array) -> None:
    """Density of log10 C* over all draws, so that its area is the share of draws that cross inside the axis."""
    edges = np.linspace(np.log10(C[0]), np.log10(C[-1]), 61)
    found = np.log10(cross[np.isfinite(cross)])
    counts, _ = np.histogram(found, bins=edges)
    share = counts / cross.size / np.diff(edges)
    ax.stairs(share, 10**edges, fill=True, color=ACCENT, alpha=0.35, lw=0)
    ax.stairs(share, 10**edges, color=ACCENT, lw=1.1)
    figure = ax.get_figure(root=True)
    assert isinstance(figure, ReportFigure)
    figure.record(ax, "density of log10 C*", "density", 10 ** ((edges[:-1] + edges[1:]) / 2), y=share)
    beyond, none = (
        np.count_nonzero(found > edges[-1]) / cross.size,
        float(np.mean(~np.isfinite(cross))),
    )
    text = f"no crossing: {none:.1%} of draws" + (f"\nbeyond this axis: {beyond:.1%}" if beyond > 5e-4 else "")
    ax.text(0.01, 0.93, text, transform=ax.transAxes, ha="left", va="top", fontsize=8.2)
    ax.set_xlabel("compute at batches far below critical, $C_{min}$, FLOP")
    ax.set_ylabel("density of\nlog₁₀ C*")
    ax.set_ylim(0, float(share.max()) * 1.25 or 1.0)
    ax.set_yticks([])


def _crossing_text(result: Crossover) -> str:
    low, high = result.C.interval(0.9)
    middle, share = result.C.median, result.probability_none
    if not np.isfinite(middle):
        return f"{share:.0%} of the draws have no crossing: the runs do not say where the laws contradict one another."
    decades = result.decades_beyond_runs.median
    place = (
        f"This lies {decades:.1f} decades beyond the largest run" if np.isfinite(decades) else "The runs are unknown"
    )
    doubt = f" The runs do not determine it: {result.not_determined}." if result.not_determined else ""
    return (
        f"The two laws contradict one another at about {number(middle)} FLOP (90 %: {number(low)} to {number(high)}); "
        f"{share:.1%} of the draws have no crossing. {place}, so it is a statement about the laws rather than a "
        f"forecast.{doubt}"
    )
