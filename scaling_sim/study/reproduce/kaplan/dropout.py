"""What dropout does to early-stopped runs, and to runs whose data never repeat: L(N, D) is measured with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from scaling_sim.errors import DataError
from scaling_sim.report.figures.canvas import ReportFigure, line, points, sheet
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.study.reproduce.kaplan.drawing import Shades
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row
from scaling_sim.study.reproduce.kaplan.rows import DROPOUT, last_loss, limited_records, size

if TYPE_CHECKING:
    from scaling_sim.runs.record import RunRecord
    from scaling_sim.study.reproduce.kaplan.data import Data

Shifts = Mapping[tuple[int, int], float]
"""(N, D) → loss with dropout over loss without, less 1."""


def dropout(data: Data) -> Finding:
    """What dropout does to early-stopped runs and to fresh data."""
    limited: Shifts = {}
    with suppress(DataError):
        limited = shifts(limited_records(data), limited_records(data, 0.0))
    fresh: Shifts = {}
    with suppress(DataError):
        fresh = fresh_shifts(data)
    if not limited and not fresh:
        raise DataError("no pair of runs differs in dropout alone")
    rows = (
        *_mean("mean shift of data-limited runs, stopped or not", limited),
        *_mean("mean shift on fresh data", fresh),
        *(Row(f"shift on D = {D:,}, N = {N:,}", None, s, None, 2, "share of loss") for (N, D), s in limited.items()),
        *(Row(f"shift on fresh data, N = {N:,}", None, s, None, 2, "share of loss") for (N, _), s in fresh.items()),
    )
    title = "What 10 % dropout does to the loss"
    return Finding("F9 dropout", title, rows, lambda: _figure(limited, fresh), _remark(limited, fresh))


def _mean(words: str, found: Shifts) -> Iterator[Row]:
    """Mean over pairs."""
    values = np.array(list(found.values()))
    if len(values) > 1:
        remark = "no interval: one seed each, and a trend in N and D"
        yield Row(words, None, float(values.mean()), None, 2 * len(values), "share of loss", remark)


def fresh_shifts(data: Data) -> Shifts:
    """Shifts of runs of one pass over all data."""
    records = data.records("fresh", early_stop=False, schedule="constant")
    plain = [record for record in records if record.config.recipe.dropout == 0]
    return shifts([record for record in records if record.config.recipe.dropout == DROPOUT], plain)


def shifts(dropped: Iterable[RunRecord], plain: Iterable[RunRecord]) -> Shifts:
    """Relative difference of the results of pairs of one shape and D, by N and D; means over seeds."""
    with_dropout, without = _results(dropped), _results(plain)
    return {key: with_dropout[key] / without[key] - 1 for key in sorted(set(with_dropout) & set(without))}


def _results(records: Iterable[RunRecord]) -> dict[tuple[int, int], float]:
    found: dict[tuple[int, int], list[float]] = {}
    for record in records:
        result = record.result
        loss = result.losses["test"] if record.config.early_stop and result is not None else last_loss(record)
        found.setdefault((size(record), record.config.unique_tokens), []).append(loss)
    return {key: float(np.mean(losses)) for key, losses in found.items()}


def _remark(limited: Shifts, fresh: Shifts) -> str:
    parts = ["L(N, D) is measured with 10 % dropout, as in the paper, and the learning curves without."]
    if limited:
        low, high = min(limited.values()), max(limited.values())
        by = f"{low:+.1%} to {high:+.1%}"
        parts.append(
            f"On subsets of the text that repeat, dropout changes the lowest loss by {by}; most of "
            "these runs had not overfitted when they ended, so that slower training counts as well."
        )
    if fresh:
        words = ", ".join(f"{shift:+.1%} at N = {N:,}" for (N, _), shift in fresh.items())
        parts.append(
            f"On data that never repeat it changes the loss after one pass by {words}: by so much L(N, D) lies off the "
            "learning curves for a reason that is not overfitting. The paper did not report this shift."
        )
    else:
        parts.append("There are no pairs on data that never repeat.")
    return " ".join(parts)


def _figure(limited: Shifts, fresh: Shifts) -> ReportFigure:
    figure, (ax,) = sheet(
        "dropout", "What 10 % dropout does to the loss", ["Loss with dropout over loss without"], height=4.2
    )
    ax.set_yscale("linear")
    shades = Shades([N for N, _ in (*limited, *fresh)])
    for N in sorted({N for N, _ in (*limited, *fresh)}):
        _one_size(ax, N, limited, fresh, shades)
    ax.axhline(0, color="#9aa3af", lw=0.8)
    ax.plot([], [], "o-", color="#6b7280", ms=4.5, label="D repeated bytes, at the lowest loss")
    ax.plot([], [], "D", color="#6b7280", ms=5.5, label="one pass over fresh data")
    ax.set_xlabel("unique tokens D (bytes)")
    ax.set_ylabel("change of the test loss, %")
    log_axes(ax, y=False)
    ax.legend(loc="best")
    shades.key(figure, ax)
    return figure


def _one_size(ax: Axes, N: int, limited: Shifts, fresh: Shifts, shades: Shades) -> None:
    colour = shades(float(N))
    for chosen, marker in ((limited, "o"), (fresh, "D")):
        x = np.array([D for n, D in chosen if n == N], dtype=float)
        y = np.array([100 * shift for (n, _), shift in chosen.items() if n == N])
        if len(x) > 1:
            line(ax, x, y, series=f"N = {N}", colour=colour, width=1.2, keep=False)
        points(ax, x, y, series=f"N = {N}", colour=colour, marker=marker, size=5.5)
