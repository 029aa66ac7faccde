"""Figure 1: loss against compute, data and size, each a power law where only that one limits it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from scaling_sim.laws.constants import PF_DAY
from scaling_sim.report.figures.canvas import INK, OURS, ReportFigure, band, legend_below, points, sheet
from scaling_sim.report.figures.curves import exponent_text, span
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.runs.table import table_from_records
from scaling_sim.study.reproduce.kaplan.converged import converged_records, finished_records
from scaling_sim.study.reproduce.kaplan.drawing import (
    LOSS,
    Shades,
    hollow_key,
    law_draws,
    power,
    runs_as_lines,
    size_points,
    slope_line,
)
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row
from scaling_sim.study.reproduce.kaplan.frontier import family_fit, frontier_points, trend
from scaling_sim.study.reproduce.kaplan.rows import family_records, largest_model_rows, num_runs, stopped_records

if TYPE_CHECKING:
    from scaling_sim.study.reproduce.kaplan.data import Data

TEXT = "another text, in bytes: need not agree"


def one_variable(data: Data) -> Finding:
    """Loss against compute, data and size."""
    trends, by_data, by_size = trend(data, adjusted=True), data.fit("power-d"), data.fit("power-n")
    families, points_used = num_runs(family_fit(data).runs), by_size.runs.num_runs
    N_max = float(by_data.runs.N.max())
    rows = (
        Row.of("α_C^min of L(C_min)", 0.050, trends["alpha_C_min"], families, remark="envelope, bootstrap over runs"),
        Row.of("C_c^min", 3.1e8, trends["C_c_min"], families, "PF-days", f"{TEXT}; the paper's figures print 2.3e8"),
        Row.of("α_D of L(D)", 0.095, by_data.draws["alpha_D"], by_data.n_used, remark=f"model of N = {N_max:,.0f}"),
        Row.of("D_c", 5.4e13, by_data.draws["D_c"], by_data.n_used, "tokens", TEXT),
        Row.of("α_N of L(N)", 0.076, by_size.draws["alpha_N"], points_used, remark="finished runs near convergence"),
        Row.of("N_c", 8.8e13, by_size.draws["N_c"], points_used, "parameters", TEXT),
    )
    return Finding("F1", "Loss against compute, data and size", rows, lambda: _figure(data), _remark(data))


def _remark(data: Data) -> str:
    N = data.fit("power-n").runs.N
    left_out = len(finished_records(data)) - len(converged_records(data))
    return (
        "Each law is fitted where only its own variable limits the loss. Left: all learning curves of the family, and "
        "the least loss at each compute where a smaller and a larger size were measured too, moved to C_min by (5.5). "
        "Middle: early-stopped runs on subsets of the text; the law is that of the largest model. Right: the longest "
        f"finished runs, N = {N.min():,.0f} to {N.max():,.0f}; {left_out} finished runs of one layer or far from "
        "convergence are hollow and not fitted, as in the paper's appendix D.7. Dashed: the paper's slopes through the "
        "middle of ours."
    )


def _figure(data: Data) -> ReportFigure:
    titles = ["Compute", "Data", "Parameters"]
    figure, axes = sheet("one-variable", "Loss against compute, data and size", titles, height=4.4)
    table = data.once("family table", lambda: table_from_records(family_records(data)))
    shades = Shades(table.N)
    _compute(axes[0], data, shades)
    _data(axes[1], data, shades)
    _size(axes[2], data, shades)
    for ax in axes:
        log_axes(ax)
        legend_below(ax)
    axes[0].set_ylabel(LOSS)
    shades.key(figure, axes)
    return figure


def _compute(ax: Axes, data: Data, shades: Shades) -> None:
    table = data.once("family table", lambda: table_from_records(family_records(data)))
    runs_as_lines(ax, table, table.C, shades, width=0.7, alpha=0.6)
    C, loss, _ = frontier_points(data, adjusted=True)
    points(ax, C, loss, series="envelope", colour=INK, size=3.4, label="envelope, at $C_{min}$")
    draws = trend(data, adjusted=True)
    x = np.geomspace(C.min() / 2, C.max() * 2, 40)
    curve = power(x, PF_DAY * draws["C_c_min"][:, None], draws["alpha_C_min"][:, None])
    text = exponent_text(r"$\alpha_C^{min}$", draws["alpha_C_min"], "")
    middle = band(ax, x, curve, series="L(C_min)", colour=OURS, label=text)[2]
    slope_line(ax, x, middle, -0.050, "paper: 0.050")
    ax.set_xlabel("compute C = 6·N·tokens, FLOP")


def _data(ax: Axes, data: Data, shades: Shades) -> None:
    table = table_from_records(stopped_records(data))
    fit, used = data.fit("power-d"), largest_model_rows(data)
    other = ~np.isin(table.run, used.run)
    size_points(ax, shades, table.N[other], table.D[other], table.loss[other], size=3.0, alpha=0.45)
    size_points(ax, shades, used.N, used.D, used.loss, size=5.0)
    x, p = span(used.D), law_draws(fit)
    text = exponent_text(r"$\alpha_D$", fit.draws["alpha_D"], "")
    middle = band(ax, x, power(x, p["D_c"], p["alpha_D"]), series="L(D)", colour=OURS, label=text)[2]
    slope_line(ax, x, middle, -0.095, "paper: 0.095")
    ax.set_xlabel("unique tokens D (bytes)")


def _size(ax: Axes, data: Data, shades: Shades) -> None:
    fit = data.fit("power-n")
    table = table_from_records(finished_records(data))
    last = table.select(np.isin(table.run, fit.runs.run, invert=True), "fitted")
    ends = last.select(last.tokens >= 0.99 * last.tokens.max(), "earlier points")
    size_points(ax, shades, ends.N, ends.N, ends.loss, hollow=True)
    used = fit.data.row[fit.data.row >= 0]
    size_points(ax, shades, fit.runs.N[used], fit.runs.N[used], fit.runs.loss[used])
    x, p = span(fit.runs.N[used]), law_draws(fit)
    text = exponent_text(r"$\alpha_N$", fit.draws["alpha_N"], "")
    middle = band(ax, x, power(x, p["N_c"], p["alpha_N"]), series="L(N)", colour=OURS, label=text)[2]
    slope_line(ax, x, middle, -0.076, "paper: 0.076")
    hollow_key(ax)
    ax.set_xlabel("non-embedding parameters N")
