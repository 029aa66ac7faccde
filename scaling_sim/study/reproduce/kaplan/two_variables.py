"""Figure 4: L(N, D) of early-stopped runs and L(N, S_min) of learning curves; Tables 2 and 3."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from scaling_sim.laws.kaplan import loss_nd, loss_ns, min_steps
from scaling_sim.laws.kaplan_joint import curve_parameters
from scaling_sim.report.figures.canvas import ReportFigure, band, shade_beyond, sheet
from scaling_sim.report.figures.curves import central, span
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.runs.table import RunTable, table_from_records
from scaling_sim.study.reproduce.kaplan.drawing import LOSS, Shades, hollow_key, law_draws, size_points
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row
from scaling_sim.study.reproduce.kaplan.rows import MIN_UPDATES, num_runs, stopped_records

if TYPE_CHECKING:
    from scaling_sim.inference import Posterior
    from scaling_sim.study.reproduce.kaplan.data import Data

TEXT = "another text, in bytes: need not agree"


def two_variables(data: Data) -> Finding:
    """L(N, D) and L(N, S_min), with Tables 2 and 3."""
    nd, joint = data.fit("kaplan-nd"), data.fit("kaplan")
    few, many = nd.runs.num_runs, num_runs(joint.runs, "curve")
    p, q = nd.draws, joint.draws
    rows = (
        Row.of("α_N of L(N, D), Table 2", 0.076, p["alpha_N"], few),
        Row.of("α_D of L(N, D), Table 2", 0.103, p["alpha_D"], few),
        Row.of("α_N/α_D", 0.738, p["alpha_N"] / p["alpha_D"], few),
        Row.of("N_c of L(N, D), Table 2", 6.4e13, p["N_c"], few, "parameters", TEXT),
        Row.of("D_c of L(N, D), Table 2", 1.8e13, p["D_c"], few, "tokens", TEXT),
        Row.of("α_N of L(N, S), Table 3", 0.077, q["alpha_N"], many),
        Row.of("α_S of L(N, S), Table 3", 0.76, q["alpha_S"], many),
        Row.of("N_c of L(N, S), Table 3", 6.5e13, q["N_c"], many, "parameters", TEXT),
        Row.of("S_c of L(N, S), Table 3", 2.1e3, q["S_c"], many, "steps", TEXT),
        Row("scatter about L(N, D), ln L", None, _scatter(nd, "stopped"), None, few, "", "root mean square"),
        Row("scatter about L(N, S), ln L", None, _scatter(joint, "curve"), None, many, "", "root mean square"),
    )
    return Finding("F4", "Two laws of two variables", rows, lambda: _figure(data), _remark(data, nd, joint))


def _scatter(fit: Posterior, role: str) -> float:
    """Root mean square of ln(observed/median law) over the rows of a role."""
    use = fit.data.role == role
    residual = np.log(fit.data.response[use]) - np.median(fit.log_prediction()[:, use], axis=0)
    return float(np.sqrt(np.mean(residual**2)))


def _remark(data: Data, nd: Posterior, joint: Posterior) -> str:
    few, many = (np.quantile(fit.draws["alpha_N"], [0.05, 0.95]) for fit in (nd, joint))
    agree = "agree about α_N" if few[0] <= many[1] and many[0] <= few[1] else "disagree about α_N"
    return (
        f"Left: (1.5) fitted to {nd.runs.num_runs} early-stopped runs with 10 % dropout; hollow are those of one layer "
        f"or of fewer than {MIN_UPDATES} updates per epoch, which are not fitted. Right: (1.6) with one α_N "
        f"for both, fitted to {num_runs(joint.runs, 'curve')} learning curves after warm-up, steps counted as at "
        f"batches far above critical. The two kinds of runs {agree}. L(N, D) scatters by "
        f"{_scatter(nd, 'stopped'):.1%} about its law, "
        f"L(N, S) by {_scatter(joint, 'curve'):.1%}."
    )


def _figure(data: Data) -> ReportFigure:
    titles = ["Early-stopped runs, $L(N, D)$", "Learning curves, $L(N, S_{min})$"]
    figure, axes = sheet("two-variables", "Two laws of two variables", titles, height=4.2)
    shades = Shades(np.concatenate([data.fit("kaplan").runs.N, table_from_records(stopped_records(data)).N]))
    _by_data(axes[0], data, shades)
    _by_steps(axes[1], data.fit("kaplan"), shades)
    axes[0].set_ylabel(LOSS)
    shades.key(figure, axes)
    return figure


def _by_data(ax: Axes, data: Data, shades: Shades) -> None:
    fit, table = data.fit("kaplan-nd"), table_from_records(stopped_records(data))
    used = np.isin(table.run, fit.runs.run)
    size_points(ax, shades, table.N[~used], table.D[~used], table.loss[~used], hollow=True)
    size_points(ax, shades, table.N[used], table.D[used], table.loss[used])
    D, p = span(table.D, 1.3, 4.0), law_draws(fit)
    for N in np.unique(table.N[used]):
        band(ax, D, loss_nd(N, D, p), series=f"N = {N:.0f}", colour=shades(float(N)), width=1.2)
    ax.set_xlabel("unique tokens D (bytes)")
    shade_beyond(ax, float(table.D.max()))
    log_axes(ax)
    hollow_key(ax)
    ax.legend(loc="lower left")


def _by_steps(ax: Axes, fit: Posterior, shades: Shades) -> None:
    table = one_curve_per_size(fit.runs)
    steps = min_steps(table.loss, table.B, table.S, central(fit))
    size_points(ax, shades, table.N, steps, table.loss, size=2.6, alpha=0.6)
    S, p = span(steps, 1.1, 3.0), curve_parameters(law_draws(fit))
    for N in np.unique(table.N):
        band(ax, S, loss_ns(N, S, p), series=f"N = {N:.0f}", colour=shades(float(N)), width=1.2)
    ax.set_xlabel("steps at batches far above critical, $S_{min}$")
    shade_beyond(ax, float(steps.max()))
    log_axes(ax)


def one_curve_per_size(table: RunTable) -> RunTable:
    """The rows of one learning curve of each size, the first of its longest."""
    chosen = set[str]()
    for N in np.unique(table.N[table.curve]):
        rows = np.flatnonzero(table.curve & (table.N == N))
        batches, counts = np.unique(table.B[rows], return_counts=True)
        common = rows[table.B[rows] == batches[np.argmax(counts)]]
        chosen.add(str(table.run[common[np.argmax(table.tokens[common])]]))
    return table.select(np.isin(table.run, list(chosen)) & table.curve, "another run of its size")
