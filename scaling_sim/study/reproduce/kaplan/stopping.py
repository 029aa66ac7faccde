"""Figure 16: when training on limited data must stop, and what overfitting looks like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from scaling_sim.errors import DataError
from scaling_sim.laws.kaplan import min_steps
from scaling_sim.predict.overfit import converged_loss, stopping_step
from scaling_sim.report.figures.canvas import GREY, INK, PAPER, ReportFigure, legend_below, line, points, sheet
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import exact
from scaling_sim.runs.record import CurvePoint, RunRecord
from scaling_sim.study.reproduce.kaplan import rows
from scaling_sim.study.reproduce.kaplan.drawing import Shades
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row

if TYPE_CHECKING:
    from scaling_sim.runs.table import RunTable
    from scaling_sim.study.reproduce.kaplan.data import Data

Array = NDArray[np.float64]

LEAST_EXCESS = 0.01
"""Relative overfitting below which L(N, D) − L(N, ∞) is the law's own error, so that the bound says nothing."""


def stopping(data: Data) -> Finding:
    """The earliest step at which training on limited data stops."""
    fit = data.fit("kaplan")
    table = rows.table_of(data, rows.fitted(rows.stopped_records(data)))
    p = {name: np.asarray(values, dtype=np.float64)[:, None] for name, values in fit.draws.items()}
    measured, bound, known = _against_bound(table, p)
    n = int(known.sum())
    if not n:
        raise DataError(f"no early-stopped run lies {100 * LEAST_EXCESS:.0f} % above the converged loss of its size")
    ratio = measured[:, known] / bound[:, known]
    told = [
        Row.of("share of early-stopped runs above the bound (5.7)", 1.0, np.mean(ratio >= 1, axis=1), n, "",
               "the paper's points lie on or above it"),
        Row.of("S_stop over the bound, median over runs", None, np.median(ratio, axis=1), n),
    ]  # fmt: skip
    chosen = curves_of_one_size(data)
    fresh = [r for r in rows.family_records(data) if rows.size(r) == rows.size(chosen[0])]
    told += _gap_rows(fresh, chosen)
    left_out = (
        f" {len(table) - n} runs within {100 * LEAST_EXCESS:.0f} % of the converged loss of their size are left out: "
        "there the bound is the difference of two nearly equal numbers."
    )
    remark = (
        f"{100 * float(np.median(np.mean(ratio >= 1, axis=1))):.0f} % of the runs stop after the bound S_c·[L(N, D) − "
        "L(N, ∞)]^(−1/α_S), steps moved to B ≫ B_crit. S_stop is the step of the lowest evaluated loss, and "
        f"evaluations are log-spaced.{left_out if len(table) > n else ''}"
    )
    where = _against_middle(table, fit.draws)
    return Finding("F16", "When to stop", tuple(told), lambda: _figure(table, where, known, chosen, fresh), remark)


def _against_bound(table: RunTable, p: dict[str, Array]) -> tuple[Array, Array, NDArray[np.bool_]]:
    """(n, k) S_stop at B ≫ B_crit (5.4) and its bound (5.7); (k,) runs that overfit enough for it to say something."""
    converged = converged_loss(table.N, p)
    known = np.median(table.loss / converged, axis=0) > 1 + LEAST_EXCESS
    return min_steps(table.loss, table.B, table.S, p), stopping_step(table.loss, converged, p), known


def _against_middle(table: RunTable, draws: object) -> tuple[Array, Array]:
    middle = {name: np.median(values) for name, values in draws.items()}  # type: ignore[attr-defined]
    measured, bound, _ = _against_bound(table, {name: np.full((1, 1), value) for name, value in middle.items()})
    return measured[0], bound[0]


def curves_of_one_size(data: Data) -> tuple[RunRecord, ...]:
    """Data-limited runs of the size with most of them, the larger one if two have as many, by rising D.

    Without dropout where such runs exist: the training loss then is that of the same model as the test loss.
    """
    try:
        found = rows.stopped_records(data, dropout=0.0)
    except DataError:
        found = rows.stopped_records(data)
    sizes = [rows.size(record) for record in found]
    most = max(set(sizes), key=lambda N: (sizes.count(N), N))
    return tuple(sorted((r for r in found if rows.size(r) == most), key=lambda r: r.config.unique_tokens))


def _gap_rows(fresh: list[RunRecord], chosen: tuple[RunRecord, ...]) -> list[Row]:
    """Test less training loss at the stop, over what limited data really cost against the family's run."""
    if not fresh:
        return []
    best = min(rows.last_loss(record) for record in fresh)
    results = [_result(record) for record in chosen]
    ratios = [(loss - train) / (loss - best) for loss, train in results if loss > best * (1 + LEAST_EXCESS)]
    if not ratios:
        return []
    told = "above 1: the gap overstates overfitting, as in the paper"
    middle = float(np.median(ratios))
    return [Row("(L_test − L_train) over (L_test − L_∞) at the stop", None, middle, None, len(ratios), "", told)]


def _result(record: RunRecord) -> tuple[float, float]:
    assert record.result is not None
    return record.result.losses["test"], record.result.train


def _figure(
    table: RunTable,
    where: tuple[Array, Array],
    known: NDArray[np.bool_],
    chosen: tuple[RunRecord, ...],
    fresh: list[RunRecord],
) -> ReportFigure:
    titles = ["Early stopping against the bound", f"Test and training loss, N = {exact(float(rows.size(chosen[0])))}"]
    figure, axes = sheet("stopping", "When to stop", titles, height=4.6)
    shades = Shades([*table.D.tolist(), *(float(r.config.unique_tokens) for r in chosen)], "D")
    measured, bound = where
    for D in np.unique(table.D):
        own = known & (table.D == D)
        if own.any():
            points(axes[0], bound[own], measured[own], series=f"D = {D:g}", colour=shades(float(D)), size=5)
    ends = np.array([min(bound[known].min(), measured[known].min()) / 1.5, measured[known].max() * 1.5])
    line(axes[0], ends, ends, series="(5.7)", colour=PAPER, dashes="--", width=1.2, label="the bound (5.7)")
    axes[0].set_xlabel(r"$S_c\,[L(N, D) - L(N, \infty)]^{-1/\alpha_S}$, updates")
    axes[0].set_ylabel("$S_{stop}$ at $B \\gg B_{crit}$, updates")
    for record in chosen:
        _pair(axes[1], record, shades)
    for record in fresh[:1]:
        shown = _after_warmup(record)
        line(axes[1], [point.step for point in shown], [point.losses["test"] for point in shown], series="fresh data",
             colour=GREY, width=1.2, label="test, data that never repeat")  # fmt: skip
    line(axes[1], [], [], series="key", colour=INK, label="test", keep=False)
    line(axes[1], [], [], series="key", colour=INK, dashes=":", label="training", keep=False)
    axes[1].set_xlabel("parameter updates S")
    axes[1].set_ylabel("loss, nats per byte")
    for ax in axes:
        log_axes(ax)
        legend_below(ax, 2)
    shades.key(figure, axes)
    figure.reading = "Left: each point is an early-stopped run. Right: the circle marks the lowest test loss."
    return figure


def _after_warmup(record: RunRecord) -> list[CurvePoint]:
    return [point for point in record.curve if point.step >= max(2 * record.config.recipe.warmup_steps, 1)]


def _pair(ax: Axes, record: RunRecord, shades: Shades) -> None:
    D = float(record.config.unique_tokens)
    shown = _after_warmup(record)
    steps = [point.step for point in shown]
    line(ax, steps, [point.losses["test"] for point in shown], series=f"test, D = {D:g}", colour=shades(D), width=1.3)
    line(ax, steps, [point.train for point in shown], series=f"training, D = {D:g}", colour=shades(D), dashes=":",
         width=1.2)  # fmt: skip
    if record.result is not None and record.result in shown:
        place = [record.result.step], [record.result.losses["test"]]
        points(ax, *place, series="stop", colour=shades(D), hollow=True, size=5.5)
