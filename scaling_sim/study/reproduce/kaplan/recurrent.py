"""Figures 7 and 17: LSTMs and weight-shared transformers, trained by ``benchmarks/recurrent``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from scaling_sim.datasets.recurrent import RecurrentRun, RecurrentRuns, load_recurrent
from scaling_sim.errors import DataError
from scaling_sim.report.figures.canvas import OURS, PAPER, ReportFigure, colours, legend_below, line, points, sheet
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import number
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row

if TYPE_CHECKING:
    from scaling_sim.study.reproduce.kaplan.data import Data

EARLY, LATE = slice(0, 8), slice(-32, None)
"""Positions that count as early, and as late, in the context."""


def lstm(data: Data) -> Finding:
    """LSTMs beside transformers, by size and by position in the context."""
    runs = _runs(data)
    ours, theirs = runs.select("transformer"), runs.select("lstm")
    if not ours or not theirs:
        raise DataError("the recurrent runs hold no pair of a transformer and an LSTM")

    def draw() -> ReportFigure:
        figure, (left, right) = sheet(
            "lstm", "LSTMs and transformers", ["At the end of training", "By position"], height=4.4
        )
        _by_size(left, runs)
        _by_position(right, ours, theirs)
        figure.reading = "Right: loss at each position of the context, smallest and largest model of each kind."
        return figure

    rows = tuple(_lstm_rows(ours, theirs))
    return Finding("F7", "LSTMs and transformers", rows, draw, _lstm_remark(rows, runs))


def reuse(data: Data) -> Finding:
    """Transformers that go through their layers several times beside standard ones."""
    runs = _runs(data)
    shared, plain = runs.select("recurrent"), runs.select("transformer")
    if not shared or len({run.N for run in plain}) < 2:
        raise DataError("the recurrent runs hold no weight-shared transformer, or fewer than two standard ones")

    def draw() -> ReportFigure:
        titles = ["Each weight counted once", "Each weight counted as often as used"]
        figure, (left, right) = sheet("reuse", "Weights used several times", titles, height=4.4)
        for ax, times in ((left, False), (right, True)):
            points(ax, _sizes(plain, times), _losses(plain), series="standard", colour=OURS, label="standard")
            line(ax, _sizes(plain, times), _losses(plain), series="standard", colour=OURS, width=0.8, keep=False)
            kinds = sorted({run.reuse for run in shared})
            for again, colour in zip(kinds, colours(len(kinds), "plasma"), strict=True):
                some = [run for run in shared if run.reuse == again]
                text = f"used {again} times"
                points(ax, _sizes(some, times), _losses(some), series=text, colour=colour, label=text, marker="s")
            log_axes(ax)
        left.set_xlabel("non-embedding parameters N")
        right.set_xlabel("N times uses")
        left.set_ylabel("test loss, nats per byte")
        legend_below(left, 3)
        return figure

    rows = tuple(_reuse_rows(shared, plain))
    return Finding("F17", "Weight-shared transformers", rows, draw, _reuse_remark(rows, runs))


def _runs(data: Data) -> RecurrentRuns:
    """The runs that are shipped, if they were trained on this experiment's text."""
    runs = load_recurrent()
    text = runs.facts.get("corpus", {}).get("hash", "")
    if text not in data.experiment.corpora:
        raise DataError("the recurrent runs that are shipped were trained on another text than this experiment")
    return runs


def _losses(runs: Sequence[RecurrentRun]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([run.loss for run in runs])


def _sizes(runs: Sequence[RecurrentRun], times: bool = False) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([run.N * (run.reuse if times else 1) for run in runs], dtype=float)


def _by_size(ax: Axes, runs: RecurrentRuns) -> None:
    plain = runs.select("transformer")
    points(ax, _sizes(plain), _losses(plain), series="transformer", colour=OURS, label="transformer")
    line(ax, _sizes(plain), _losses(plain), series="transformer", colour=OURS, width=0.8, keep=False)
    depths = sorted({run.layers for run in runs.select("lstm")})
    for layers, colour in zip(depths, colours(len(depths), "plasma"), strict=True):
        some, text = runs.select("lstm", layers=layers), f"LSTM, {layers} layer{'s' if layers > 1 else ''}"
        points(ax, _sizes(some), _losses(some), series=text, colour=colour, label=text, marker="s")
        line(ax, _sizes(some), _losses(some), series=text, colour=colour, width=0.8, keep=False)
    ax.set_xlabel("non-embedding parameters N")
    ax.set_ylabel("test loss, nats per byte")
    log_axes(ax)
    legend_below(ax, 2)


def _by_position(ax: Axes, ours: Sequence[RecurrentRun], theirs: Sequence[RecurrentRun]) -> None:
    for name, runs, colour in (("transformer", ours, OURS), ("LSTM", theirs, PAPER)):
        for run, dashes in ((runs[0], ":"), (runs[-1], "-")):
            if run.position_losses:
                place = np.arange(1, len(run.position_losses) + 1)
                text = f"{name}, N = {number(run.N, 2)}"
                line(ax, place, run.position_losses, series=text, colour=colour, label=text, dashes=dashes, width=1.1)
    ax.set_xlabel("position in the context")
    ax.set_ylabel("test loss, nats per byte")
    log_axes(ax)
    legend_below(ax, 2)


def _lstm_rows(ours: Sequence[RecurrentRun], theirs: Sequence[RecurrentRun]) -> Iterator[Row]:
    """Losses of the nearest sizes, early and late in the context."""
    for run in theirs:
        near = min(ours, key=lambda other: abs(np.log(other.N / run.N)))
        for words, where in (("the first 8 positions", EARLY), ("the last 32 positions", LATE)):
            if run.position_losses and near.position_losses:
                ratio = np.mean(run.position_losses[where]) / np.mean(near.position_losses[where])
                which = f"LSTM, {run.layers} layers, N = {number(run.N, 2)}, over transformer, N = {number(near.N, 2)}"
                yield Row(
                    f"{which}, {words}", None, 100 * (float(ratio) - 1), None, 2, "%",
                    "one run each; paper: equal early, the transformer better late",
                )  # fmt: skip


def _reuse_rows(shared: Sequence[RecurrentRun], plain: Sequence[RecurrentRun]) -> Iterator[Row]:
    """Loss of each against the power law through the standard models."""
    slope, level = np.polyfit(np.log(_sizes(plain)), np.log(_losses(plain)), 1)
    for run in shared:
        for words, size, sign in (
            ("per parameter", run.N, "slightly better"),
            ("per FLOP", run.N * run.reuse, "slightly worse"),
        ):
            away = 100 * np.expm1(np.log(run.loss) - level - slope * np.log(size))
            label = f"loss {words} over standard models, N = {number(run.N, 2)} used {run.reuse} times"
            yield Row(label, None, float(away), None, 1 + len(plain), "%", f"one run; the paper: {sign}")


def _lstm_remark(rows: Sequence[Row], runs: RecurrentRuns) -> str:
    early = [row.ours for row in rows if "first" in row.quantity]
    late = [row.ours for row in rows if "last" in row.quantity]
    if not early or not late:
        return _basis(runs)
    return (
        f"LSTMs lie {np.mean(early):+.1f} % from transformers of similar size at the first positions and "
        f"{np.mean(late):+.1f} % at the last, on average over {len(early)} models. {_basis(runs)}"
    )


def _reuse_remark(rows: Sequence[Row], runs: RecurrentRuns) -> str:
    by_size = [row.ours for row in rows if "per parameter" in row.quantity]
    by_cost = [row.ours for row in rows if "per FLOP" in row.quantity]
    return (
        f"Used several times, weights give {np.mean(by_size):+.1f} % of loss per parameter and "
        f"{np.mean(by_cost):+.1f} % per FLOP, on average over {len(by_size)} models. {_basis(runs)}"
    )


def _basis(runs: RecurrentRuns) -> str:
    edge = sum(run.rate_at_edge for run in runs.runs)
    at_edge = f" {edge} of {len(runs.runs)} had their best learning rate at the end of its sweep." if edge else ""
    missing = f" Not run: {', '.join(runs.dropped)}." if runs.dropped else ""
    return f"Contexts of {runs.runs[0].n_ctx} bytes, one seed each.{at_edge}{missing}"
