"""Figure 13: the frontier of the loss as paid for (naive) and adjusted for the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from scaling_sim.laws.constants import PF_DAY
from scaling_sim.laws.kaplan_joint import curve_parameters
from scaling_sim.predict.appendix_b import compute_exponent
from scaling_sim.predict.convert import batch_sweep_range
from scaling_sim.report.figures.canvas import ACCENT, OURS, ReportFigure, band, legend_below, points, sheet
from scaling_sim.report.figures.curves import exponent_text
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.study.reproduce.kaplan.best_size import family_batch
from scaling_sim.study.reproduce.kaplan.drawing import LOSS, Shades, power, runs_as_lines, slope_line
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row
from scaling_sim.study.reproduce.kaplan.frontier import family_fit, frontier_points, main_fit, trend
from scaling_sim.study.reproduce.kaplan.one_variable import family_table
from scaling_sim.study.reproduce.kaplan.rows import num_runs

if TYPE_CHECKING:
    from scaling_sim.study.reproduce.kaplan.data import Data

KINDS = ((False, "naive", ACCENT, 0.057), (True, "adjusted", OURS, 0.050))
"""Whether adjusted for the batch, words, colour, the paper's exponent."""
TEXT = "another text, in bytes: need not agree"


def compute_trend(data: Data) -> Finding:
    """Loss against compute as paid and adjusted for the batch."""
    p = curve_parameters(main_fit(data).draws)
    runs, naive, adjusted = num_runs(family_fit(data).runs), trend(data, adjusted=False), trend(data, adjusted=True)
    theory = compute_exponent(p["alpha_N"], p["alpha_S"], p["alpha_B"])
    pairs = min(len(naive["alpha_C_min"]), len(adjusted["alpha_C_min"]))
    ratio = naive["alpha_C_min"][:pairs] / adjusted["alpha_C_min"][:pairs]
    by_joint = trend(data, adjusted=True, joint=True)["alpha_C_min"]
    rows = (
        Row.of("α_C of the naive frontier", 0.057, naive["alpha_C_min"], runs, remark="C as paid, fixed batch"),
        Row.of("C_c, naive", 1.6e7, naive["C_c_min"], runs, "PF-days", TEXT),
        Row.of("α_C^min of the adjusted frontier", 0.050, adjusted["alpha_C_min"], runs),
        Row.of("α_C^min with B_crit of the joint law", 0.050, by_joint, runs),
        Row.of("C_c^min", 3.1e8, adjusted["C_c_min"], runs, "PF-days", TEXT),
        Row.of("naive over adjusted exponent", 1.14, ratio, runs, remark="bootstraps paired at random: errs wide"),
        Row.of("α_C^min by (1.8) from α_N, α_S, α_B", 0.052, theory, runs, remark="(6.4) prints 0.054"),
    )
    return Finding("F13", "The frontier as paid and adjusted", rows, lambda: _figure(data), _remark(data))


def _ways(data: Data) -> str:
    p = curve_parameters(main_fit(data).draws)
    theory = compute_exponent(p["alpha_N"], p["alpha_S"], p["alpha_B"])
    found = [
        trend(data, adjusted=True)["alpha_C_min"],
        trend(data, adjusted=True, joint=True)["alpha_C_min"],
        theory,
    ]
    return ", ".join(f"{float(np.median(draws)):.3f}" for draws in found)


def _remark(data: Data) -> str:
    measured = batch_sweep_range(data.fit("kaplan").runs)
    where = (
        "no batch sweep" if measured is None else f"batch sweeps at losses from {measured[0]:.2f} to {measured[1]:.2f}"
    )
    return (
        "The least loss at each compute where both a smaller and a larger size were measured, as paid at the family's "
        f"batch of {family_batch(data):,.0f} tokens, and moved to C_min by (5.5), with B_crit(L) from "
        f"{where}. Slopes are least squares over that envelope, bootstrapped over runs. The paper's fits cross inside "
        f"its data; ours are compared inside ours only. Ways to α_C^min differ by more than their intervals: "
        f"{_ways(data)}. The envelope is steeper in its lower half than in its upper. Some sizes were trained at the "
        "highest rate that was tried for them: over the rule of the library the rate rises fourfold from N = 2.5e4 to "
        "2e5, which bends the envelope, too."
    )


def _figure(data: Data) -> ReportFigure:
    title = "The frontier of the loss, as paid and adjusted for the batch"
    figure, (ax,) = sheet("compute-trend", title, ["Learning curves of the family, and both frontiers"], height=4.8)
    table = family_table(data)
    shades = Shades(table.N)
    runs_as_lines(ax, table, table.C, shades, width=0.8, alpha=0.55)
    for kind in KINDS:
        _trend(ax, data, *kind)
    ax.set_xlabel("compute, FLOP: paid (6·N·tokens), or $C_{min}$ where adjusted")
    ax.set_ylabel(LOSS)
    log_axes(ax)
    legend_below(ax, 2)
    shades.key(figure, ax)
    return figure


def _trend(ax: Axes, data: Data, adjusted: bool, words: str, colour: str, paper: float) -> None:
    C, loss, _ = frontier_points(data, adjusted=adjusted)
    points(ax, C, loss, series=words, colour=colour, size=5.0)
    draws = trend(data, adjusted=adjusted)
    x = np.geomspace(C.min() / 2, C.max() * 2, 40)
    curve = power(x, PF_DAY * draws["C_c_min"][:, None], draws["alpha_C_min"][:, None])
    text = exponent_text(r"$\alpha_C$", draws["alpha_C_min"], words)
    middle = band(ax, x, curve, series=words, colour=colour, label=text)[2]
    slope_line(ax, x, middle, -paper, f"paper, {words}: {paper:.3f}", "--" if adjusted else ":")
