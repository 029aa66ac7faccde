"""Figure 16: when training on limited data must stop, and what overfitting looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from scaling_sim.errors import DataError
from scaling_sim.laws.kaplan import min_steps
from scaling_sim.predict.overfit import stopping_step
from scaling_sim.report.figures.canvas import GREY, INK, PAPER, ReportFigure, legend_below, line, points, sheet
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import exact
from scaling_sim.runs.record import CurvePoint, RunRecord
from scaling_sim.study.reproduce.kaplan import rows
from scaling_sim.study.reproduce.kaplan.drawing import Shades
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row

if TYPE_CHECKING:
    from scaling_sim.study.reproduce.kaplan.data import Data

Array = NDArray[np.float64]
Parameters = Mapping[str, ArrayLike]

LEAST_EXCESS = 0.01
"""Relative overfitting below which L(N, D) − L(N, ∞) is noise, so that the bound says nothing."""
MORE_DATA = 10.0
"""Times the D of a run that count as unlimited beside it."""


@dataclass(frozen=True)
class Stop:
    """An early-stopped run beside the same model on much more data.

    Attributes
    ----------
    D : unique tokens
    S, B : step of the lowest test loss; tokens per step
    loss, train : test and training loss there, nats per token
    limit : lowest test loss of the same shape and dropout on at least `MORE_DATA` times the data
    dropout : whether there is any
    """

    D: float
    S: float
    B: float
    loss: float
    train: float
    limit: float
    dropout: bool


def _share(above: Array, num_stops: int, seed: int) -> Array:
    """Draws of the share of all such runs, of which ``above`` (draws,) is what these few show: Jeffreys' prior."""
    hits = above * num_stops
    return np.random.default_rng(seed).beta(hits + 0.5, num_stops - hits + 0.5)


def stopping(data: Data) -> Finding:
    """The earliest step at which training on limited data stops."""
    fit = data.fit("kaplan")
    limited = _limited(data)
    stops = _stops(data, limited)
    if not stops:
        raise DataError(
            f"no early-stopped run lies {100 * LEAST_EXCESS:.0f} % above the loss of its shape on {MORE_DATA:g} times D"
        )
    p = {name: np.asarray(values, dtype=np.float64)[:, None] for name, values in fit.draws.items()}
    measured, bound = _against_bound(stops, p)
    above = np.mean(measured >= bound, axis=1)
    chosen = _largest_shape(limited)
    told = (
        Row.of("share of early-stopped runs above the bound (5.7)", 1.0, _share(above, len(stops), data.seed),
               len(stops), "", f"{float(np.median(above)):.0%} of ours; interval: binomial, with the law's draws"),
        Row.of("S_stop over the bound, median over runs", None, np.median(measured / bound, axis=1), len(stops)),
        _gap_row(stops),
    )  # fmt: skip
    remark = (
        f"{100 * float(np.median(above)):.0f} % of the runs stop after the bound S_c·[L(N, D) − L(N, ∞)]^(−1/α_S), at "
        "B ≫ B_crit. L(N, ∞) is measured here, on at least ten times the data, while the paper takes it from its fit. "
        f"{len(limited) - sum(r.status == 'stopped' for r in limited)} of {len(limited)} data-limited runs "
        "reached their last step before the test loss had risen for long enough, and say nothing. Evaluations are "
        "log-spaced, so that S_stop is known to a fifth or so."
    )
    remark += (
        f" The gap of test and training loss is {told[-1].ours:.2f} of the overfitting, {_gap_verdict(told[-1].ours)}."
    )
    middle = {name: np.median(values) for name, values in fit.draws.items()}
    where = _against_bound(stops, {name: np.full((1, 1), value) for name, value in middle.items()})
    fresh = [r for r in _much_data(data, chosen[0]) if not r.config.early_stop]
    return Finding("F16", "When to stop", told, lambda: _figure(stops, where, chosen, fresh), remark)


def _limited(data: Data) -> tuple[RunRecord, ...]:
    """Data-limited runs of at least two layers, with and without dropout."""
    found = data.records("data", early_stop=True)
    return tuple(record for record in found if record.config.shape.n_layer >= rows.MIN_LAYERS)


def _stops(data: Data, limited: Sequence[RunRecord]) -> list[Stop]:
    stops = []
    for record in limited:
        beside = [_result(other).losses["test"] for other in _much_data(data, record)]
        if record.status != "stopped" or not beside:
            continue
        point, recipe = _result(record), record.config.recipe
        stop = Stop(
            float(record.config.unique_tokens), float(point.step), float(recipe.batch_tokens), point.losses["test"],
            point.train, min(beside), recipe.dropout > 0,
        )  # fmt: skip
        if stop.loss > (1 + LEAST_EXCESS) * stop.limit:
            stops.append(stop)
    return stops


def _much_data(data: Data, record: RunRecord) -> list[RunRecord]:
    """Runs of the same shape and dropout at constant rate, on much more data."""
    found: list[RunRecord] = []
    shape, dropout = record.config.shape, record.config.recipe.dropout
    with suppress(DataError):
        found += data.records("data", "curve", "fresh", schedule="constant", dropout=dropout)
    batch = record.config.recipe.batch_tokens
    return [
        other
        for other in found
        if other.config.shape == shape
        and other.config.recipe.batch_tokens == batch
        and other.config.unique_tokens >= MORE_DATA * record.config.unique_tokens
    ]


def _result(record: RunRecord) -> CurvePoint:
    assert record.result is not None
    return record.result


def _against_bound(stops: Sequence[Stop], p: Parameters) -> tuple[Array, Array]:
    """(n, k) S_stop at B ≫ B_crit (5.4) and its bound (5.7)."""
    loss, limit, B, S = (np.array([getattr(stop, name) for stop in stops]) for name in ("loss", "limit", "B", "S"))
    return min_steps(loss, B, S, p), np.asarray(stopping_step(loss, limit, p))


def _gap_row(stops: Sequence[Stop]) -> Row:
    """Test less training loss at the stop, over what limited data really cost; of models without dropout, if any."""
    plain = [stop for stop in stops if not stop.dropout] or list(stops)
    ratio = [(stop.loss - stop.train) / (stop.loss - stop.limit) for stop in plain]
    middle = float(np.median(ratio))
    told = f"median over runs, no interval; {_gap_verdict(middle)}"
    quantity = "(L_test − L_train) over (L_test − L_∞) at the stop"
    return Row(quantity, None, middle, None, len(ratio), "", told)


def _gap_verdict(ratio: float) -> str:
    """Whether the gap overstates overfitting, as in the paper's figure 16."""
    if ratio > 1:
        return "above 1: the gap overstates overfitting, as in the paper"
    return "not above 1: that the gap overstates overfitting, as in the paper, did not reproduce"


def _largest_shape(limited: Sequence[RunRecord]) -> list[RunRecord]:
    """Data-limited runs of the largest model, by rising D, one of each.

    Without dropout where such runs exist: the training loss then is that of the same model as the test loss.
    """
    least = min(record.config.recipe.dropout for record in limited)
    plain = [record for record in limited if record.config.recipe.dropout == least]
    largest = max(map(rows.size, plain))
    found = {record.config.unique_tokens: record for record in plain if rows.size(record) == largest}
    return [found[D] for D in sorted(found)]


def _figure(
    stops: Sequence[Stop], where: tuple[Array, Array], chosen: Sequence[RunRecord], fresh: Sequence[RunRecord]
) -> ReportFigure:
    titles = ["Early stopping against the bound", f"Test and training loss, N = {exact(float(rows.size(chosen[0])))}"]
    figure, axes = sheet("stopping", "When to stop", titles, height=4.6)
    D = np.array([stop.D for stop in stops])
    shades = Shades([*D.tolist(), *(float(r.config.unique_tokens) for r in chosen)], "D")
    _bound_panel(axes[0], stops, where, shades)
    for record in fresh[:1]:
        line(axes[1], *_course(record), series="fresh data", colour=GREY, label="test, data that never repeat")
    for record in chosen:
        _pair(axes[1], record, shades)
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


def _bound_panel(ax: Axes, stops: Sequence[Stop], where: tuple[Array, Array], shades: Shades) -> None:
    measured, bound = where[0][0], where[1][0]
    for stop, y, x in zip(stops, measured, bound, strict=True):
        series = f"D = {stop.D:g}, {'with' if stop.dropout else 'without'} dropout"
        points(ax, [x], [y], series=series, colour=shades(stop.D), size=5.5, hollow=not stop.dropout)
    points(ax, [], [], series="key", colour=INK, size=5.5, label="dropout 0.1")
    points(ax, [], [], series="key", colour=INK, size=5.5, hollow=True, label="no dropout")
    low, high = min(bound.min(), measured.min()), max(bound.max(), measured.max())
    ends = np.array([low / 1.5, high * 1.5])
    line(ax, ends, ends, series="(5.7)", colour=PAPER, dashes="--", width=1.2, label="the bound (5.7)")
    ax.set_xlabel(r"$S_c\,[L(N, D) - L(N, \infty)]^{-1/\alpha_S}$, updates")
    ax.set_ylabel("$S_{stop}$ at $B \\gg B_{crit}$, updates")


def _course(record: RunRecord, train: bool = False) -> tuple[list[int], list[float]]:
    """Steps and losses after twice the warm-up."""
    shown = [point for point in record.curve if point.step >= max(2 * record.config.recipe.warmup_steps, 1)]
    return [point.step for point in shown], [point.train if train else point.losses["test"] for point in shown]


def _pair(ax: Axes, record: RunRecord, shades: Shades) -> None:
    D, best = float(record.config.unique_tokens), _result(record)
    line(ax, *_course(record), series=f"test, D = {D:g}", colour=shades(D), width=1.3)
    line(ax, *_course(record, train=True), series=f"training, D = {D:g}", colour=shades(D), dashes=":", width=1.2)
    if record.status == "stopped":
        points(ax, [best.step], [best.losses["test"]], series="stop", colour=shades(D), hollow=True, size=5.5)
