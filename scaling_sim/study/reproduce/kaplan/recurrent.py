"""Figures 7 and 17: LSTMs and weight-shared transformers, trained by ``benchmarks/recurrent`` beside a control."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from scaling_sim.datasets.recurrent import RecurrentRun, RecurrentRuns, load_recurrent
from scaling_sim.errors import DataError
from scaling_sim.report.figures.canvas import OURS, ReportFigure, colours, legend_below, line, points, sheet
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import number
from scaling_sim.runs.record import position_edges
from scaling_sim.study.reproduce.kaplan.drawing import LOSS
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row
from scaling_sim.study.reproduce.kaplan.paired import (
    NAMES,
    Contrast,
    Measure,
    Noise,
    by_model,
    excess,
    log_loss,
    longest,
    percent_row,
    shortest,
)
from scaling_sim.study.reproduce.kaplan.recurrent_remarks import basis, lstm_verdict, reuse_verdict, slow_start

if TYPE_CHECKING:
    from scaling_sim.study.reproduce.kaplan.data import Data

Size = Callable[[RecurrentRun], float]
EARLY = 8
"""Positions that count as early."""


def lstm(data: Data) -> Finding:
    """LSTMs beside transformers, by size and by position in the context."""
    runs = recurrent_runs(data)
    standard, cells = shortest(runs.select("transformer")), shortest(runs.select("lstm"))
    if not cells or len(by_model(standard)) < 2:
        raise DataError("the recurrent runs hold no LSTM, or fewer than two transformers")
    sizes, long = tuple(_size_rows(cells, standard, runs)), tuple(_long_rows(runs))
    remark = f"{lstm_verdict(sizes, long)} {slow_start(runs, long)} {basis(runs, 'lstm', 'transformer')}"
    return Finding("F7", "LSTMs and transformers", (*sizes, *long), lambda: _lstm_figure(runs), remark)


def reuse(data: Data) -> Finding:
    """Transformers that go through their layers several times beside standard ones."""
    runs = recurrent_runs(data)
    standard, shared = shortest(runs.select("transformer")), shortest(runs.select("recurrent"))
    if not shared or len(by_model(standard)) < 2:
        raise DataError("the recurrent runs hold no weight-shared transformer, or fewer than two standard ones")
    rows = tuple(_reuse_rows(shared, standard, runs))
    remark = f"{reuse_verdict(rows)} {basis(runs, 'transformer', 'recurrent')}"
    return Finding("F17", "Weight-shared transformers", rows, lambda: _reuse_figure(runs), remark)


def recurrent_runs(data: Data) -> RecurrentRuns:
    """The shipped runs, for an experiment on the same text."""
    runs = load_recurrent()
    data.records(corpus=runs.facts["corpus"]["key"])
    return runs


def _between(first: int, last: int) -> Measure:
    """ln of the mean loss at positions ``first`` to ``last``, counted from 1."""
    return lambda run: float(np.log(np.mean(run.position_losses[first - 1 : last])))


def _parameters(run: RecurrentRun) -> float:
    return run.N


def _uses(run: RecurrentRun) -> float:
    """Size of the standard model that costs as much: FLOPs per token are 6·N·reuse."""
    return run.N * run.reuse


def _fall(run: RecurrentRun) -> float:
    """ln of the mean loss in the last half of the context over that in its second eighth."""
    T = run.n_ctx
    return _between(T // 2 + 1, T)(run) - _between(T // 8 + 1, T // 4)(run)


def _row(name: str, contrast: Contrast, measure: Measure, runs: RecurrentRuns, said: str) -> Row:
    """A contrast with the noise that the pairs of seeds show in the same measure."""
    noise = Noise.between_seeds(shortest(runs.runs), measure)
    basis = f"interval: noise between seeds, {noise.freedom} pairs" if noise.freedom else "no interval: one seed"
    return percent_row(name, contrast, measure, noise, f"{said}; {basis}")


def _by_size(runs: Sequence[RecurrentRun], standard: Sequence[RecurrentRun], size: Size) -> str:
    """The differences of single models, by N."""
    parts = [excess([run for run in runs if run.N == N], standard, size) for N in sorted({run.N for run in runs})]
    told = [f"{100 * np.expm1(part.of(log_loss)):+.1f}" for part in parts if part.runs]
    return f"by rising N {', '.join(told)} %"


def _size_rows(cells: Sequence[RecurrentRun], standard: Sequence[RecurrentRun], runs: RecurrentRuns) -> Iterator[Row]:
    """LSTMs over transformers at equal N: by layers, then by position."""
    for layers in sorted({run.layers for run in cells}):
        some = [run for run in cells if run.layers == layers]
        name = f"loss of LSTMs of {layers} layer{'s' if layers > 1 else ''} over transformers of equal N"
        said = f"the paper: more; {_by_size(some, standard, _parameters)}"
        yield _row(name, excess(some, standard, _parameters), log_loss, runs, said)
    n_ctx = cells[0].n_ctx
    for first, last, words in ((1, EARLY, "equal at its first"), (n_ctx // 2 + 1, n_ctx, "more at its late")):
        name = f"the same at positions {first} to {last} of {n_ctx}, all LSTMs"
        contrast = excess(cells, standard, _parameters)
        yield _row(name, contrast, _between(first, last), runs, f"the paper: {words} tokens")


def _long_rows(runs: RecurrentRuns) -> Iterator[Row]:
    """Early and late in a long context; how the loss falls late; and whether long contexts were learned."""
    found = longest(runs)
    cells, standard = (tuple(run for run in found if run.kind == kind) for kind in ("lstm", "transformer"))
    if not cells or not standard:
        return
    T = found[0].n_ctx
    narrow = "seeds of short contexts; rates chosen on the plateau can shift it by more"
    for N in sorted({run.N for run in cells}):
        contrast = _pair([run for run in cells if run.N == N], standard)
        for first, last, words in ((1, EARLY, "equal"), (T // 2 + 1, T, "more")):
            measure = _between(first, last)
            name = f"LSTM over transformer at positions {first} to {last} of {T}, N = {number(N, 2)}"
            noise = Noise.between_seeds(shortest(runs.runs), _between(first, last) if first == 1 else log_loss)
            yield percent_row(name, contrast, measure, noise, f"the paper: {words}; {noise.freedom} pairs, {narrow}")
    for some, words in ((cells, "an LSTM's plateaus after fewer than 100 tokens"), (standard, "it falls on")):
        name = f"change of loss from positions {T // 8 + 1}-{T // 4} to {T // 2 + 1}-{T}, {NAMES[some[0].kind]}s"
        yield _row(name, _mean(some), _fall, runs, f"the paper: {words}")
    for some in (cells, standard):
        short = [run for run in shortest(runs.runs) if (run.kind, run.layers) == (some[0].kind, some[0].layers)]
        n_ctx = short[0].n_ctx
        name = f"{NAMES[some[0].kind]}s of {T} positions over those of {n_ctx}, at the first {n_ctx}"
        said = "same size and updates; other windows of the test text"
        yield _row(name, _pair(some, short), _between(1, n_ctx), runs, said)


def _mean(runs: Sequence[RecurrentRun]) -> Contrast:
    """The mean itself: its measure is a difference already."""
    return Contrast(tuple(runs), np.full(len(runs), 1 / len(runs)))


def _pair(runs: Sequence[RecurrentRun], standard: Sequence[RecurrentRun]) -> Contrast:
    """Each model against the standard one nearest in size: the same N but for a few percent."""
    nearest = [min(by_model(standard), key=lambda group: abs(np.log(group[0].N / run.N))) for run in runs]
    against = [(other, -1 / len(runs) / len(group)) for group in nearest for other in group]
    weights = [1 / len(runs)] * len(runs) + [weight for _, weight in against]
    return Contrast((*runs, *(other for other, _ in against)), np.array(weights))


def _reuse_rows(shared: Sequence[RecurrentRun], standard: Sequence[RecurrentRun], runs: RecurrentRuns) -> Iterator[Row]:
    """Mean over sizes of the loss over the standard one, at equal N and at equal FLOPs per token; then by size."""
    for equal, size, paper in (("N", _parameters, "slightly less"), ("FLOPs per token", _uses, "slightly more")):
        for times in sorted({run.reuse for run in shared}):
            some = [run for run in shared if run.reuse == times]
            name = f"loss of weights used {times} times over standard transformers of equal {equal}"
            said = f"the paper: {paper}; {_by_size(some, standard, size)}"
            yield _row(name, excess(some, standard, size), log_loss, runs, said)
    for N in sorted({run.N for run in shared}):
        some = [run for run in shared if run.N == N]
        name = f"the same at equal N = {number(N, 2)}, mean over uses"
        yield _row(name, excess(some, standard, _parameters), log_loss, runs, "the paper: slightly less")


def _lstm_figure(runs: RecurrentRuns) -> ReportFigure:
    shown = longest(runs) or shortest(runs.select("lstm", "transformer"))
    short = shortest(runs.select("lstm", "transformer"))[0].n_ctx
    titles = [f"Contexts of {short}", f"By position, contexts of {shown[0].n_ctx}, 2 layers"]
    figure, (left, right) = sheet("lstm", "LSTMs and transformers", titles, height=4.4)
    _sizes(left, shortest(runs.select("transformer")), "transformer", OURS)
    cells = shortest(runs.select("lstm"))
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
    shared = shortest(runs.select("recurrent"))
    kinds = sorted({run.reuse for run in shared})
    for ax, uses in zip(axes, (False, True), strict=True):
        _sizes(ax, shortest(runs.select("transformer")), "standard", OURS)
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
    """Mean losses in bins of doubling width; sizes differ in the dashes."""
    edges = np.array(position_edges(runs[0].n_ctx))
    middle = np.sqrt((edges[:-1] + 1) * edges[1:])
    for kind, marker in (("transformer", "o"), ("lstm", "s")):
        chosen = [run for run in runs if (run.kind, run.layers, run.seed) == (kind, 2, 0)]
        some = sorted(chosen, key=lambda run: run.N)[-2:]
        for run, dashes in zip(some, (":", "-")[2 - len(some) :], strict=True):
            colour = OURS if kind == "transformer" else colours(3, "plasma")[1]
            text = f"{NAMES[kind]}, N = {number(run.N, 2)}"
            loss = np.add.reduceat(run.position_losses, edges[:-1]) / np.diff(edges)
            line(ax, middle, loss, series=text, colour=colour, label=text, dashes=dashes, width=1.2)
            points(ax, middle, loss, series=text, colour=colour, marker=marker, size=3)
    ax.set_xlabel("position in the context, bytes")


def _finish(left: Axes, right: Axes) -> None:
    left.set_ylabel(LOSS)
    for ax in (left, right):
        log_axes(ax)
        legend_below(ax, 2)
