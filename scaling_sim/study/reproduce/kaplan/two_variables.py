"""Figure 4: L(N, D) of early-stopped runs and L(N, S_min) of learning curves; Tables 2 and 3."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from scaling_sim.errors import DataError
from scaling_sim.laws.kaplan import loss_nd, loss_ns, min_steps
from scaling_sim.laws.kaplan_joint import curve_parameters
from scaling_sim.report.figures.canvas import ReportFigure, band, shade_beyond, sheet
from scaling_sim.report.figures.curves import central, span
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.runs.table import RunTable, table_from_records
from scaling_sim.study.reproduce.kaplan.drawing import LOSS, Shades, hollow_key, law_draws, size_points
from scaling_sim.study.reproduce.kaplan.dropout import fresh_shifts
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row, gathered
from scaling_sim.study.reproduce.kaplan.frontier import family_fit, main_fit
from scaling_sim.study.reproduce.kaplan.rows import after_transient, family_rows, limited_records, num_runs

if TYPE_CHECKING:
    from scaling_sim.inference import Posterior
    from scaling_sim.study.reproduce.kaplan.data import Data

TITLE = "Two laws of two variables"
TEXT = "another text, in bytes: need not agree"


def two_variables(data: Data) -> Finding:
    """L(N, D) and L(N, S_min), with Tables 2 and 3."""
    makers = {"dropout": _dropout_rows, "plain": _plain_rows, "curves": _curve_rows}
    rows, _ = gathered({name: partial(make, data) for name, make in makers.items()})
    return Finding("F4", TITLE, rows, lambda: _figure(data), _remark(data))


def _dropout_rows(data: Data) -> Iterator[Row]:
    fit, held = data.fit("kaplan-nd"), "10 % dropout, as in the paper"
    n, p = fit.runs.num_runs, fit.draws
    yield Row.of("α_N of L(N, D), Table 2", 0.076, p["alpha_N"], n, remark=held)
    yield Row.of("α_D of L(N, D), Table 2", 0.103, p["alpha_D"], n, remark=held)
    yield Row.of("α_N/α_D, Table 2", 0.738, p["alpha_N"] / p["alpha_D"], n, remark=held)
    yield Row.of("N_c of L(N, D), Table 2", 6.4e13, p["N_c"], n, "parameters", TEXT)
    yield Row.of("D_c of L(N, D), Table 2", 1.8e13, p["D_c"], n, "tokens", TEXT)
    yield Row("scatter about L(N, D), ln L", None, scatter(fit, "stopped"), None, n, "", "root mean square")


def _plain_rows(data: Data) -> Iterator[Row]:
    fit, held = data.fit("kaplan-nd-plain"), "without dropout"
    n, p = fit.runs.num_runs, fit.draws
    yield Row.of("α_N of L(N, D) without dropout", 0.076, p["alpha_N"], n, remark=held)
    yield Row.of("α_D of L(N, D) without dropout", 0.103, p["alpha_D"], n, remark=held)
    yield Row.of("α_N/α_D without dropout", 0.738, p["alpha_N"] / p["alpha_D"], n, remark=held)
    yield Row("scatter about it, ln L", None, scatter(fit, "stopped"), None, n, "", "root mean square")


def _curve_rows(data: Data) -> Iterator[Row]:
    fit, held = main_fit(data), "B_crit(L) from the batch sweeps, as in the paper"
    n, p = num_runs(family_fit(data).runs), curve_parameters(fit.draws)
    yield Row.of("α_N of L(N, S), Table 3", 0.077, p["alpha_N"], n, remark=held)
    yield Row.of("α_S of L(N, S), Table 3", 0.76, p["alpha_S"], n, remark=held)
    yield Row.of("N_c of L(N, S), Table 3", 6.5e13, p["N_c"], n, "parameters", TEXT)
    yield Row.of("S_c of L(N, S), Table 3", 2.1e3, p["S_c"], n, "steps", TEXT)
    yield Row("scatter about L(N, S), ln L", None, curve_scatter(data), None, n, "", "root mean square")
    joint, held = data.fit("kaplan"), "B_crit(L), L(N, D) and L(N, S) fitted at once"
    yield Row.of("α_N of the joint law", 0.077, joint.draws["alpha_N"], joint.runs.num_runs, remark=held)
    yield Row.of("α_S of the joint law", 0.76, joint.draws["alpha_S"], joint.runs.num_runs, remark=held)
    yield Row("scatter of curves about it, ln L", None, scatter(joint, "curve"), None, n, "", "root mean square")


def scatter(fit: Posterior, role: str) -> float:
    """Root mean square of ln(observed/median law) over the rows of a role."""
    use = fit.data.role == role
    residual = np.log(fit.data.response[use]) - np.median(fit.log_prediction()[:, use], axis=0)
    return float(np.sqrt(np.mean(residual**2)))


def curve_scatter(data: Data) -> float:
    """Root mean square of ln(observed/law) over the family's curves at S_min, after their transient."""
    table = after_transient(data, family_rows(data))
    p = central(main_fit(data))
    law = loss_ns(table.N, min_steps(table.loss, table.B, table.S, p), curve_parameters(p))
    return float(np.sqrt(np.mean(np.log(table.loss / law) ** 2)))


def _remark(data: Data) -> str:
    nd, joint, curves = data.fit("kaplan-nd"), data.fit("kaplan"), num_runs(family_fit(data).runs)
    return (
        f"Left: (1.5) fitted to {nd.runs.num_runs} data-limited runs with 10 % dropout, each at its lowest test loss; "
        "hollow, not fitted, are those of one layer and those whose loss was still falling when they ended. "
        f"{_cost(data)}Right: {curves} learning curves of models of at least two layers with the joint law, steps "
        "counted as at batches far above critical by (5.4); the pale start of each curve is not fitted. L(N, D) "
        f"scatters by {scatter(nd, 'stopped'):.1%} about its law, L(N, S) by {scatter(joint, 'curve'):.1%}, or by "
        f"{curve_scatter(data):.1%} with B_crit(L) from the batch sweeps, the paper's way, which Table 3 has first."
    )


def _cost(data: Data) -> str:
    """What dropout costs on fresh data, where that was measured."""
    try:
        found = fresh_shifts(data)
    except DataError:
        return ""
    if not found:
        return ""
    words = ", ".join(f"{shift:+.1%} at N = {N:,}" for (N, _), shift in found.items())
    return f"Dropout alone changes the loss by {words}, which bends α_N; the table has the fit without dropout, too. "


def _figure(data: Data) -> ReportFigure:
    titles = ["Data-limited runs, $L(N, D)$", "Learning curves, $L(N, S_{min})$"]
    figure, axes = sheet("two-variables", TITLE, titles, height=4.2)
    shades = Shades(np.concatenate([data.fit("kaplan").runs.N, table_from_records(limited_records(data)).N]))
    _by_data(axes[0], data, shades)
    _by_steps(axes[1], data, shades)
    axes[0].set_ylabel(LOSS)
    shades.key(figure, axes)
    return figure


def _by_data(ax: Axes, data: Data, shades: Shades) -> None:
    fit, table = data.fit("kaplan-nd"), table_from_records(limited_records(data))
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


def _by_steps(ax: Axes, data: Data, shades: Shades) -> None:
    fit, table = data.fit("kaplan"), one_curve_per_size(family_rows(data))
    steps = min_steps(table.loss, table.B, table.S, central(fit))
    late = np.min(after_transient(data, table).S) <= table.S
    for rows, alpha in ((~late, 0.2), (late, 0.65)):
        size_points(ax, shades, table.N[rows], steps[rows], table.loss[rows], size=2.6, alpha=alpha)
    S, p = span(steps[late], 3.0, 3.0), curve_parameters(law_draws(fit))
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
