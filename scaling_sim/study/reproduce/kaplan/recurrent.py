"""Figures 7 and 17: LSTMs and weight-shared transformers, trained by ``benchmarks/recurrent`` beside a control."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from scaling_sim.datasets.recurrent import RecurrentRun, RecurrentRuns, load_recurrent
from scaling_sim.errors import DataError
from scaling_sim.report.figures.canvas import OURS, ReportFigure, colours, legend_below, line, points, sheet
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import number
from scaling_sim.study.reproduce.kaplan.drawing import LOSS
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row
from scaling_sim.study.reproduce.kaplan.paired import Measure, Noise, by_model, excess, percent_row

if TYPE_CHECKING:
    from scaling_sim.study.reproduce.kaplan.data import Data

EARLY = 8
"""Positions that count as early."""
SEEDS = "interval from repeated seeds, where there are any"


def lstm(data: Data) -> Finding:
    """LSTMs beside transformers, by size and by position in the context."""
    runs = _runs(data)
    standard, cells = _short(runs.select("transformer")), _short(runs.select("lstm"))
    if not cells or len(by_model(standard)) < 2:
        raise DataError("the recurrent runs hold no LSTM, or fewer than two transformers")
    rows = (*_size_rows(cells, standard, runs), *_long_rows(runs))
    return Finding("F7", "LSTMs and transformers", rows, lambda: _lstm_figure(runs), _lstm_remark(runs, rows))


def reuse(data: Data) -> Finding:
    """Transformers that go through their layers several times beside standard ones."""
    runs = _runs(data)
    standard, shared = _short(runs.select("transformer")), _short(runs.select("recurrent"))
    if not shared or len(by_model(standard)) < 2:
        raise DataError("the recurrent runs hold no weight-shared transformer, or fewer than two standard ones")
    rows = tuple(_reuse_rows(shared, standard, runs))
    return Finding("F17", "Weight-shared transformers", rows, lambda: _reuse_figure(runs), _basis(runs))


def _runs(data: Data) -> RecurrentRuns:
    """The shipped runs, for an experiment on the same text."""
    runs = load_recurrent()
    data.records(corpus=runs.facts["corpus"]["key"])
    return runs


def _short(runs: Sequence[RecurrentRun]) -> tuple[RecurrentRun, ...]:
    """Those of the shortest context, which most have."""
    return tuple(run for run in runs if run.n_ctx == min(other.n_ctx for other in runs))


def _long(runs: RecurrentRuns) -> tuple[RecurrentRun, ...]:
    """LSTMs and transformers of the longest context, if there is a second one."""
    found = runs.select("lstm", "transformer")
    contexts = {run.n_ctx for run in found}
    return tuple(run for run in found if len(contexts) > 1 and run.n_ctx == max(contexts))


def _all(run: RecurrentRun) -> float:
    return float(np.log(run.loss))


def _between(first: int, last: int) -> Measure:
    """ln of the mean loss at positions ``first`` to ``last``, counted from 1."""
    return lambda run: float(np.log(np.mean(run.position_losses[first - 1 : last])))


def _parameters(run: RecurrentRun) -> float:
    return run.N


def _uses(run: RecurrentRun) -> float:
    """Size of the standard model that costs as much: FLOPs per token are 6·N·reuse."""
    return run.N * run.reuse


def _size_rows(cells: Sequence[RecurrentRun], standard: Sequence[RecurrentRun], runs: RecurrentRuns) -> Iterator[Row]:
    """LSTMs over transformers at equal N: by layers, then by position."""
    noise = Noise.between_seeds(_short(runs.runs), _all)
    for layers in sorted({run.layers for run in cells}):
        some = [run for run in cells if run.layers == layers]
        name = f"loss of LSTMs of {layers} layer{'s' if layers > 1 else ''} over transformers of equal N"
        yield percent_row(name, excess(some, standard, _parameters), _all, noise, f"the paper: more; {SEEDS}")
    n_ctx = cells[0].n_ctx
    for first, last, words in ((1, EARLY, "equal"), (n_ctx // 2 + 1, n_ctx, "more")):
        measure = _between(first, last)
        noise = Noise.between_seeds(_short(runs.runs), measure)
        name = f"the same at positions {first} to {last} of {n_ctx}, all LSTMs"
        remark = f"the paper: {words} at its {'first' if first == 1 else 'late'} tokens; {SEEDS}"
        yield percent_row(name, excess(cells, standard, _parameters), measure, noise, remark)


def _long_rows(runs: RecurrentRuns) -> Iterator[Row]:
    """How much the loss still falls late in a long context: nothing, where it has reached a plateau."""
    found = _long(runs)
    for kind, words in (("lstm", "an LSTM's plateaus after fewer than 100 tokens"), ("transformer", "it falls on")):
        some = [run for run in found if run.kind == kind]
        if some:
            T = some[0].n_ctx
            before, after = _between(T // 8 + 1, T // 4), _between(T // 2 + 1, T)
            fall = -100 * np.mean([np.expm1(after(run) - before(run)) for run in some])
            name = f"fall of loss from positions {T // 8 + 1}-{T // 4} to {T // 2 + 1}-{T}, {NAMES[kind]}s"
            remark = f"the paper: {words}; no interval: one seed"
            yield Row(name, None, float(fall), None, len(some), "%", remark)


def _reuse_rows(shared: Sequence[RecurrentRun], standard: Sequence[RecurrentRun], runs: RecurrentRuns) -> Iterator[Row]:
    """Mean over sizes of the loss over the standard one, at equal N and at equal FLOPs per token."""
    noise = Noise.between_seeds(_short(runs.runs), _all)
    for equal, size, paper in (("N", _parameters, "slightly less"), ("FLOPs per token", _uses, "slightly more")):
        for times in sorted({run.reuse for run in shared}):
            some = [run for run in shared if run.reuse == times]
            name = f"loss of weights used {times} times over standard transformers of equal {equal}"
            yield percent_row(name, excess(some, standard, size), _all, noise, f"the paper: {paper}; {SEEDS}")


NAMES = {"lstm": "LSTM", "transformer": "transformer", "recurrent": "weight-shared transformer"}


def _lstm_figure(runs: RecurrentRuns) -> ReportFigure:
    shown = _long(runs) or _short(runs.select("lstm", "transformer"))
    titles = ["At the end of training", f"By position, contexts of {shown[0].n_ctx}"]
    figure, (left, right) = sheet("lstm", "LSTMs and transformers", titles, height=4.4)
    _sizes(left, _short(runs.select("transformer")), "transformer", OURS)
    cells = _short(runs.select("lstm"))
    depths = sorted({run.layers for run in cells})
    for layers, colour in zip(depths, colours(len(depths), "plasma"), strict=True):
        text = f"LSTM, {layers} layer{'s' if layers > 1 else ''}"
        _sizes(left, [run for run in cells if run.layers == layers], text, colour, "s")
    left.set_xlabel("non-embedding parameters N")
    _by_position(right, shown)
    _finish(left, right)
    return figure


def _reuse_figure(runs: RecurrentRuns) -> ReportFigure:
    titles = ["Each weight counted once", "Each weight counted as often as it is used"]
    figure, axes = sheet("reuse", "Weights used several times", titles, height=4.2)
    shared = _short(runs.select("recurrent"))
    kinds = sorted({run.reuse for run in shared})
    for ax, uses in zip(axes, (False, True), strict=True):
        _sizes(ax, _short(runs.select("transformer")), "standard", OURS)
        for times, colour in zip(kinds, colours(len(kinds), "plasma"), strict=True):
            some = [run for run in shared if run.reuse == times]
            _sizes(ax, some, f"used {times} times", colour, "s", uses=uses)
        ax.set_xlabel("N times uses (FLOPs per token / 6)" if uses else "non-embedding parameters N")
    _finish(*axes)
    return figure


def _sizes(
    ax: Axes,
    runs: Sequence[RecurrentRun],
    text: str,
    colour: str | tuple[float, float, float],
    marker: str = "o",
    *,
    uses: bool = False,
) -> None:
    """Every run as a point, the means over seeds joined."""
    x = [run.N * (run.reuse if uses else 1) for run in runs]
    points(ax, x, [run.loss for run in runs], series=text, colour=colour, label=text, marker=marker)
    groups = by_model(runs)
    means = sorted((group[0].N * (group[0].reuse if uses else 1), np.mean([r.loss for r in group])) for group in groups)
    line(ax, *np.array(means).T, series=text, colour=colour, width=0.9, keep=False)


def _by_position(ax: Axes, runs: Sequence[RecurrentRun]) -> None:
    """Loss along the context; sizes differ in the dashes."""
    dashes = dict(zip(sorted({_rank(run, runs) for run in runs}), ("-", ":", "--", "-."), strict=False))
    for run in runs:
        if run.kind in ("lstm", "transformer") and run.seed == 0 and _rank(run, runs) in dashes:
            place, loss = _smoothed(np.array(run.position_losses))
            colour = OURS if run.kind == "transformer" else colours(3, "plasma")[1]
            text = f"{NAMES[run.kind]}, N = {number(run.N, 2)}"
            line(ax, place, loss, series=text, colour=colour, label=text, dashes=dashes[_rank(run, runs)], width=1.2)
    ax.set_xlabel("position in the context")


def _rank(run: RecurrentRun, runs: Sequence[RecurrentRun]) -> int:
    """0 for the largest size of its kind, 1 for the next."""
    sizes = sorted({other.N for other in runs if other.kind == run.kind}, reverse=True)
    return sizes.index(run.N)


def _smoothed(losses: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions and mean losses in bins a quarter of an octave wide, single positions at first."""
    edges = np.unique(np.round(2.0 ** (np.arange(0, 4 * np.log2(len(losses)) + 4) / 4)).astype(int)) - 1
    edges = edges[edges < len(losses)]
    width = np.diff(np.append(edges, len(losses)))
    return edges + (width + 1) / 2, np.add.reduceat(losses, edges) / width


def _finish(left: Axes, right: Axes) -> None:
    left.set_ylabel(LOSS)
    for ax in (left, right):
        log_axes(ax)
        legend_below(ax, 2)


def _lstm_remark(runs: RecurrentRuns, rows: Sequence[Row]) -> str:
    late = [row for row in rows if "fall of loss" in row.quantity]
    falls = " and ".join(f"{row.ours:.1f} %" for row in late)
    said = f"Late in the longer context the loss of LSTMs and transformers still falls by {falls}. " if late[1:] else ""
    return f"{said}A hundred tokens of the paper are some 400 bytes of ours. {_basis(runs)}"


def _basis(runs: RecurrentRuns) -> str:
    """What the numbers rest on."""
    edge, first = sum(run.rate_at_edge for run in runs.runs), runs.runs[0]
    tokens = number(first.steps * first.batch_tokens, 2)
    sentences = [
        f"{len(runs.runs)} runs of {tokens} bytes each, outside the library's backends; the learning rate of each is "
        f"the best of {len(first.sweep)} in a short sweep."
    ]
    if edge:
        sentences.append(
            f"For {edge} of them it was at the edge of those tried: they are not tuned, and differences of a few "
            "percent can come from that."
        )
    if len({run.seed for run in runs.runs}) == 1:
        sentences.append("One seed each, so that there is no interval.")
    if runs.dropped:
        sentences.append(f"{len(runs.dropped)} planned runs were not made.")
    return " ".join(sentences)
