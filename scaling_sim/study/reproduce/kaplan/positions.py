"""Figures 20 and 21: how the loss falls along the context, by size, along training, and with a short context."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import DataError, DesignError
from scaling_sim.predict.positions import PositionLaw, bin_means, position_law
from scaling_sim.report.figures.canvas import INK, ReportFigure, band, line, points, sheet
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import exact, number
from scaling_sim.runs.record import RunRecord, position_edges
from scaling_sim.study.reproduce.kaplan import rows
from scaling_sim.study.reproduce.kaplan.drawing import Shades
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row
from scaling_sim.study.reproduce.kaplan.straight import line_draws, mean_draws

if TYPE_CHECKING:
    from scaling_sim.study.reproduce.kaplan.data import Data

Array = NDArray[np.float64]

LARGEST = {"a": 2.3, "b": 5.4, "c": 0.62}
"""L_T = a + b·T^-c of the largest model in figure 20 of Kaplan et al. 2020."""
SMALLEST_C = 0.47
"""Of the smallest model there, read off the figure."""


def by_size(found: Sequence[RunRecord]) -> dict[float, tuple[Array, int]]:
    """N → mean loss of each bin of positions at the end, over seeds (k,), and their number; by rising N.

    Raises
    ------
    DataError
        No run kept its losses by position.
    """
    groups: dict[float, list[tuple[float, ...]]] = {}
    for record in found:
        if record.curve[-1].positions:
            groups.setdefault(float(rows.size(record)), []).append(record.curve[-1].positions)
    if not groups:
        raise DataError("no run kept its losses by position in the context")
    return {N: (np.mean(groups[N], axis=0), len(groups[N])) for N in sorted(groups)}


def along_context(data: Data) -> Finding:
    """The loss falls along the context as a power of the position."""
    family = rows.family_records(data)
    ends = by_size(family)
    n_ctx = family[0].config.shape.n_ctx
    laws = {N: position_law(loss, n_ctx, seed=data.seed) for N, (loss, _) in ends.items()}
    record = max((r for r in family if r.curve[-1].positions), key=rows.size)
    first, last = next(iter(laws)), next(reversed(laws))
    runs = {N: count for N, (_, count) in ends.items()}
    told = [
        Row.of(f"exponent c of the largest size, N = {exact(last)}", LARGEST["c"], laws[last].draws["c"], runs[last]),
        Row.of(f"exponent c of the smallest size, N = {exact(first)}", SMALLEST_C, laws[first].draws["c"], runs[first],
               "", "the paper's is read off its figure"),
        Row.of("limit a of the largest size", LARGEST["a"] / rows.CHARACTERS, laws[last].draws["a"], runs[last],
               "nats per byte", "paper: 2.3 per token of 4.3 characters"),
        Row.of("amplitude b of the largest size", LARGEST["b"] * rows.CHARACTERS ** (LARGEST["c"] - 1),
               laws[last].draws["b"], runs[last], "nats per byte", "paper: 5.4 per token, by tokens; converted"),
    ]  # fmt: skip
    told.append(_later_row(ends[last], n_ctx, data.seed))
    with suppress(DesignError):
        trend = line_draws(np.log10(list(laws)), [float(np.median(law.draws["c"])) for law in laws.values()])[1]
        remark = "the paper: from .47 to .62 over its sizes"
        told.append(Row.of("rise of c per decade of N", None, trend, len(laws), "", remark))
    told += _order_rows(record)
    misfit = float(np.median([np.median(law.error) for law in laws.values()]))
    remark = (
        f"Bins depart from a + b·T^-c by {number(misfit, 2)} nats (standard deviation) over positions 1 to {n_ctx}; "
        "they have doubling widths, and the law's means over them are fitted. Position 1 knows one byte only, and is "
        "measured at one place of each window: the exponent without it is told beside. A position is a byte here, and "
        f"the context ends at {n_ctx} of them, about {n_ctx // 4} of the paper's tokens.{_trend(told)}"
    )
    return Finding("F20", "Loss along the context", tuple(told), lambda: _context_figure(laws, record), remark)


def _later_row(end: tuple[Array, int], n_ctx: int, seed: int) -> Row:
    """The exponent where the first position is left out."""
    loss, num = end
    law = position_law(loss[1:], edges=position_edges(n_ctx)[1:], seed=seed)
    remark = "of the largest size; the paper's includes the first position"
    return Row.of("exponent c without position 1", LARGEST["c"], law.draws["c"], num, "", remark)


def _trend(told: Sequence[Row]) -> str:
    """What to make of c falling with size, if it does."""
    rise = next((row for row in told if row.quantity.startswith("rise of c")), None)
    if rise is None or rise.interval90 is None or rise.interval90[1] > 0:
        return ""
    return (
        " Unlike in the paper, c falls with size: the smallest models use the last few bytes only, so that their loss "
        "is flat after them, which a large c says."
    )


def _order_rows(record: RunRecord) -> list[Row]:
    """Whether short range is learned first: what was still to be learned after warm-up, last positions over second."""
    tokens, losses = _trajectory(record)
    if len(tokens) < 3:
        return []
    left = losses[0] - losses[-1]
    told = f"N = {exact(float(rows.size(record)))}, from {number(tokens[0], 2)} bytes to the end; above 1 where short "
    quantity = "loss still to fall after warm-up, last positions over position 2"
    return [Row(quantity, None, float(left[-1] / left[1]), None, 1, "", f"{told}range is learned first")]


def _trajectory(record: RunRecord) -> tuple[Array, Array]:
    """Tokens (n,) and losses of the bins (n, k) of the points after twice the warm-up."""
    shown = [p for p in record.curve if p.positions and p.step >= 2 * record.config.recipe.warmup_steps]
    return np.array([p.tokens for p in shown], dtype=float), np.array([p.positions for p in shown])


def _context_figure(laws: dict[float, PositionLaw], record: RunRecord) -> ReportFigure:
    titles = ["By size, at the end", f"Along training, N = {exact(float(rows.size(record)))}"]
    figure, axes = sheet("along-context", "Loss along the context", titles, height=4.5)
    shades = Shades(list(laws))
    for N, law in laws.items():
        T = np.geomspace(1, law.edges[-1], 60)
        series, draws = f"a + b·T^-c, N = {N:g}", law.at(T)
        if N in (min(laws), max(laws)):
            band(axes[0], T, draws, series=series, colour=shades(N), width=1.1)
        else:
            line(axes[0], T, np.median(draws, axis=0), series=series, colour=shades(N), width=1.1)
        points(axes[0], _places(law), law.loss, series=f"measured, N = {N:g}", colour=shades(N), size=3.6)
    axes[0].set_xlabel("position T in the context, bytes")
    axes[0].set_ylabel("test loss at that position, nats per byte")
    shades.key(figure, axes[0])
    tokens, losses = _trajectory(record)
    names = bin_names(record.config.shape.n_ctx)
    ramp = Shades(2.0 ** np.arange(len(names)), "T")
    for k, name in enumerate(names):
        line(axes[1], tokens, losses[:, k], series=f"positions {name}", colour=ramp(2.0**k), width=1.3, label=name)
    axes[1].set_xlabel("tokens processed")
    axes[1].legend(title="positions", loc="lower left", ncols=2, title_fontsize=8.2)
    for ax in axes:
        log_axes(ax)
    figure.reading = "Points stand where the law takes its mean over their bin; bands of the two outermost sizes."
    return figure


def _places(law: PositionLaw) -> Array:
    """(k,) positions at which T^-c is the mean over the bin."""
    c = float(np.median(law.draws["c"]))
    return np.asarray(bin_means(law.edges, c)[0] ** (-1 / c))


def bin_names(n_ctx: int) -> list[str]:
    """``1``, ``2``, ``3–4``, …"""
    pairs = pairwise(position_edges(n_ctx))
    return [str(b) if b == a + 1 else f"{a + 1}–{b}" for a, b in pairs]


def short_context(data: Data) -> Finding:
    """The loss of each position against size, with long and with short context."""
    family = rows.family_records(data)
    n_ctx = family[0].config.shape.n_ctx
    ours = {N: loss for N, (loss, _) in by_size(family).items()}
    short = _short(data)
    names = bin_names(n_ctx)
    told = []
    for k in (0, 1, len(names) - 1):
        slope = line_draws(np.log(list(ours)), np.log([loss[k] for loss in ours.values()]), seed=data.seed)[1]
        paper, said = (0.0, "the paper: no better with size") if k == 0 else (None, "")
        told.append(Row.of(f"exponent of the loss of positions {names[k]} in N", paper, -slope, len(family), "", said))
    told += _advantage(ours, short, _reading_errors(data), data.seed)
    return Finding("F21", "Positions against size", tuple(told), lambda: _short_figure(ours, short, n_ctx), _said(told))


def _short(data: Data) -> dict[int, dict[float, Array]]:
    """n_ctx → N → losses by bin, of the runs with a short context; empty without any."""
    found: dict[int, list[RunRecord]] = {}
    with suppress(DataError):
        for record in data.records("context"):
            found.setdefault(record.config.shape.n_ctx, []).append(record)
    short = {}
    for n_ctx, several in found.items():
        with suppress(DataError):
            short[n_ctx] = {N: loss for N, (loss, _) in by_size(several).items()}
    return short


def _reading_errors(data: Data) -> dict[int, Array]:
    """n_ctx → standard error (bins,) of the difference of two bin means read on different windows, nats.

    Windows of the two contexts begin at other places, the same ones for all sizes: that error does not average out.
    A record knows the standard error of its mean loss over windows; its tokens taken as independent gives a token's
    standard deviation, rather too large a one.
    """
    errors = {}
    with suppress(DataError):
        for record in data.records("context"):
            n_ctx, windows = record.config.shape.n_ctx, max(record.config.eval_sequences, 1)
            token = record.curve[-1].errors.get("test", 0.0) * np.sqrt(windows * n_ctx)
            errors[n_ctx] = token * np.sqrt(2 / (windows * np.diff(position_edges(n_ctx))))
    return errors


def _advantage(
    ours: dict[float, Array], short: dict[int, dict[float, Array]], errors: dict[int, Array], seed: int
) -> list[Row]:
    """Loss of the long context less that of the short one, in the bins that both have, as a mean over sizes."""
    told, rng = [], np.random.default_rng(seed)
    for n_ctx, sizes in short.items():
        both = [N for N in sizes if N in ours]
        for k, name in enumerate(bin_names(n_ctx)):
            gain = [float(ours[N][k] - sizes[N][k]) for N in both]
            if len(gain) < 2:
                continue
            quantity = f"loss of positions {name}, long less short context ({n_ctx})"
            said = "above 0: a short context learns them better, as in the paper for the earliest"
            draws = mean_draws(gain, seed=seed)
            draws += errors[n_ctx][k] * rng.standard_normal(len(draws))
            told.append(Row.of(quantity, None, draws, 2 * len(gain), "nats", said))
    return told


def _said(told: Sequence[Row]) -> str:
    gains = [row for row in told if "less short" in row.quantity and row.interval90 is not None]
    if not gains:
        return "No model with a short context was trained: only the long one is shown."
    better = [row for row in gains if row.interval90 is not None and row.interval90[0] > 0]
    worse = [row for row in gains if row.interval90 is not None and row.interval90[1] < 0]
    return (
        f"Models of a short context are better on {len(better)} of its {len(gains)} bins of positions and worse on "
        f"{len(worse)} (90 % intervals exclude 0; they hold the spread over sizes and that of the windows, which "
        "are others for each context). Both saw the same number of bytes."
    )


def _short_figure(ours: dict[float, Array], short: dict[int, dict[float, Array]], n_ctx: int) -> ReportFigure:
    figure, (ax,) = sheet("short-context", "Loss by position against size", [""], height=4.8)
    names = bin_names(n_ctx)
    ramp = Shades(2.0 ** np.arange(len(names)), "T")
    for k, name in enumerate(names):
        values = [loss[k] for loss in ours.values()]
        line(ax, list(ours), values, series=f"positions {name}", colour=ramp(2.0**k), width=1.2, label=name, keep=False)
        points(ax, list(ours), values, series=f"positions {name}", colour=ramp(2.0**k), size=3.6)
    for length, sizes in short.items():
        for k, name in enumerate(bin_names(length)):
            values = [loss[k] for loss in sizes.values()]
            colour = ramp(2.0**k)
            line(ax, list(sizes), values, series="short", colour=colour, dashes="--", width=1.2, keep=False)
            points(ax, list(sizes), values, series=f"positions {name}, context {length}", colour=colour, hollow=True)
        points(ax, [], [], series="key", colour=INK, hollow=True, label=f"context of {length}")
    ax.set_xlabel("non-embedding parameters N")
    ax.set_ylabel("test loss at those positions, nats per byte")
    log_axes(ax)
    ax.legend(title=f"positions of {n_ctx}", loc="upper left", bbox_to_anchor=(1.01, 1.0), title_fontsize=8.2)
    return figure
