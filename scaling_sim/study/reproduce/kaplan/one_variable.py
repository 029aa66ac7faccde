"""Figure 1: loss against compute, data and size, each a power law where only that one limits it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from scaling_sim.laws.constants import PF_DAY
from scaling_sim.report.figures.canvas import GREY, INK, OURS, ReportFigure, band, legend_below, points, sheet
from scaling_sim.report.figures.curves import exponent_text, span
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.runs.table import table_from_records
from scaling_sim.study.reproduce.kaplan.converged import converged_records, excess, finished_records
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
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row, gathered
from scaling_sim.study.reproduce.kaplan.frontier import family_fit, frontier_points, trend
from scaling_sim.study.reproduce.kaplan.rows import (
    family_records,
    largest_model_rows,
    num_runs,
    plain_records,
    size,
    table_of,
)

if TYPE_CHECKING:
    from scaling_sim.runs.table import RunTable
    from scaling_sim.study.reproduce.kaplan.data import Data

TITLE = "Loss against compute, data and size"
TEXT = "another text, in bytes: need not agree"


def one_variable(data: Data) -> Finding:
    """Loss against compute, data and size."""
    rows, missing = gathered({title: partial(make, data) for title, (make, _) in PANELS.items()})
    return Finding("F1", TITLE, rows, lambda: _figure(data, missing), _remark(data, missing))


def _compute_rows(data: Data) -> Iterator[Row]:
    draws, n = trend(data, adjusted=True), num_runs(family_fit(data).runs)
    yield Row.of("α_C^min of L(C_min)", 0.050, draws["alpha_C_min"], n, remark="envelope, bootstrap over runs")
    yield Row.of("C_c^min", 3.1e8, draws["C_c_min"], n, "PF-days", f"{TEXT}; the paper's figures print 2.3e8")


def _data_rows(data: Data) -> Iterator[Row]:
    fit = data.fit("power-d")
    yield Row.of("α_D of L(D)", 0.095, fit.draws["alpha_D"], fit.n_used, remark=f"N = {fit.runs.N.max():,.0f}")
    yield Row.of("D_c", 5.4e13, fit.draws["D_c"], fit.n_used, "tokens", TEXT)


def _size_rows(data: Data) -> Iterator[Row]:
    fit = data.fit("power-n")
    n = fit.runs.num_runs
    yield Row.of("α_N of L(N)", 0.076, fit.draws["alpha_N"], n, remark="finished runs near convergence")
    yield Row.of("N_c", 8.8e13, fit.draws["N_c"], n, "parameters", TEXT)
    corrected = np.asarray(fit.draws["alpha_N"]) + _bias(data)
    yield Row.of(
        "α_N of L(N), what is left to converge taken off", 0.076, corrected, n, remark="by (1.6), at its median"
    )


def _remark(data: Data, missing: Mapping[str, str]) -> str:
    words = {
        "Compute": "Left: all learning curves of the family, and the least loss at each compute where a smaller and a "
        "larger size were measured too, moved to C_min by (5.5).",
        "Data": f"Middle: {_data_in_words(data)}" if "Data" not in missing else "",
        "Parameters": f"Right: {_sizes_in_words(data)}" if "Parameters" not in missing else "",
    }
    shown = [missing.get(title) or text for title, text in words.items()]
    return (
        f"{' '.join(shown)} Dashed: the paper's slopes through the middle of ours. Other ways to the exponents "
        "(F13, T5) lie outside these intervals. Some sizes were trained at the highest rate that was tried for them."
    )


def _data_in_words(data: Data) -> str:
    D = data.fit("power-d").runs.D
    return (
        "data-limited runs without dropout at their lowest loss; the law is the largest model's, of "
        f"{len(D)} amounts of data over {np.log10(D.max() / D.min()):.1f} decades, the largest of which its size "
        "limits, too: α_D errs low."
    )


def _bias(data: Data) -> float:
    """By how much the excess over convergence that is left lowers α_N: the slope of its logarithm in ln N."""
    used = converged_records(data)
    over = [np.log1p(excess(data, record)) for record in used]
    return float(np.polyfit(np.log([size(record) for record in used]), over, 1)[0])


def _sizes_in_words(data: Data) -> str:
    N = data.fit("power-n").runs.N
    left_out = len(finished_records(data)) - len(converged_records(data))
    return (
        f"the longest finished runs, N = {N.min():,.0f} to {N.max():,.0f}; {left_out} of one layer or far from "
        "convergence are hollow and not fitted. What is left above convergence grows with N, by (1.6), and lowers α_N "
        f"by about {_bias(data):.3f}."
    )


def _figure(data: Data, missing: Mapping[str, str]) -> ReportFigure:
    figure, axes = sheet("one-variable", TITLE, list(PANELS), height=4.4)
    shades = Shades(family_table(data).N)
    for ax, (title, (_, draw)) in zip(axes, PANELS.items(), strict=True):
        if title in missing:
            ax.text(0.5, 0.5, "not fitted", ha="center", va="center", transform=ax.transAxes, color=GREY)
            continue
        draw(ax, data, shades)
        log_axes(ax)
        legend_below(ax)
    axes[0].set_ylabel(LOSS)
    shades.key(figure, axes)
    return figure


def family_table(data: Data) -> RunTable:
    """All learning curves of the family as rows, one-layer models included."""
    return data.once("family table", lambda: table_of(data, family_records(data)))


def _compute(ax: Axes, data: Data, shades: Shades) -> None:
    table = family_table(data)
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
    table = table_from_records(plain_records(data))
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


PANELS = {"Compute": (_compute_rows, _compute), "Data": (_data_rows, _data), "Parameters": (_size_rows, _size)}
"""Title → what makes its rows, and what draws it."""
