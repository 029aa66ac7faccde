"""What dropout does to early-stopped runs, and to runs whose data never repeat: L(N, D) is measured with it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from scaling_sim.errors import DataError
from scaling_sim.report.figures.canvas import ReportFigure, line, points, sheet
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.study.reproduce.kaplan.drawing import Shades, hollow_key
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row
from scaling_sim.study.reproduce.kaplan.rows import DROPOUT, last_loss, limited_records, settled, size

if TYPE_CHECKING:
    from scaling_sim.runs.record import RunRecord
    from scaling_sim.study.reproduce.kaplan.data import Data


Key = tuple[int, int]
"""N and D."""
Shifts = Mapping[Key, float]
"""Loss with dropout over loss without, less 1."""


def dropout(data: Data) -> Finding:
    """What dropout does to early-stopped runs and to fresh data."""
    limited: Shifts = {}
    falling: Collection[Key] = ()
    with suppress(DataError):
        dropped, plain = limited_records(data), limited_records(data, 0.0)
        limited, falling = shifts(dropped, plain), still_falling((*dropped, *plain))
    fresh: Shifts = {}
    with suppress(DataError):
        fresh = fresh_shifts(data)
    if not limited and not fresh:
        raise DataError("no pair of runs differs in dropout alone")
    rows = (
        *(_row(f"shift on D = {D:,}, N = {N:,}", s, (N, D) in falling) for (N, D), s in limited.items()),
        *(_row(f"shift on fresh data, N = {N:,}", s, False) for (N, _), s in fresh.items()),
    )
    title = "What 10 % dropout does to the loss"
    return Finding(
        "F9 dropout", title, rows, lambda: _figure(limited, fresh, falling), _remark(limited, fresh, falling)
    )


def _row(words: str, shift: float, falling: bool) -> Row:
    still = "; a loss still fell when its run ended" if falling else ""
    return Row(words, None, shift, None, 2, "share of loss", f"no interval: one seed each{still}")


def fresh_shifts(data: Data) -> Shifts:
    """Shifts of runs of one pass over all data."""
    records = data.records("fresh", early_stop=False, schedule="constant")
    plain = [record for record in records if record.config.recipe.dropout == 0]
    return shifts([record for record in records if record.config.recipe.dropout == DROPOUT], plain)


def shifts(dropped: Iterable[RunRecord], plain: Iterable[RunRecord]) -> Shifts:
    """Relative difference of the results of pairs of one shape and D, by N and D; means over seeds."""
    with_dropout, without = _results(dropped), _results(plain)
    return {key: with_dropout[key] / without[key] - 1 for key in sorted(set(with_dropout) & set(without))}


def still_falling(records: Iterable[RunRecord]) -> Collection[Key]:
    """Where a run that nothing stopped was not done when it ended."""
    return {(size(record), record.config.unique_tokens) for record in records if not settled(record)}


def _results(records: Iterable[RunRecord]) -> dict[Key, float]:
    found: dict[Key, list[float]] = {}
    for record in records:
        result = record.result
        loss = result.losses["test"] if record.config.early_stop and result is not None else last_loss(record)
        found.setdefault((size(record), record.config.unique_tokens), []).append(loss)
    return {key: float(np.mean(losses)) for key, losses in found.items()}


def _remark(limited: Shifts, fresh: Shifts, falling: Collection[Key]) -> str:
    parts = ["L(N, D) is measured with 10 % dropout, as in the paper, and the learning curves without."]
    if limited:
        values, open_ends = limited.values(), sum(key in falling for key in limited)
        parts.append(
            f"On subsets of the text that repeat, dropout changes the lowest loss by {min(values):+.1%} to "
            f"{max(values):+.1%}. In {open_ends} of {len(values)} pairs a loss still fell when its run ended "
            f"(hollow), so that slower training counts as well. One seed each: single points scatter.{_ends(limited)}"
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


def _ends(limited: Shifts) -> str:
    """Which sizes were not trained without dropout on all the data that others were."""
    most = max(D for _, D in limited)
    ends = {N: max(D for n, D in limited if n == N) for N in sorted({N for N, _ in limited})}
    return "".join(f" N = {N:,} has no pair beyond D = {D:,}." for N, D in ends.items() if most > D)


def _figure(limited: Shifts, fresh: Shifts, falling: Collection[Key]) -> ReportFigure:
    figure, (ax,) = sheet(
        "dropout", "What 10 % dropout does to the loss", ["Loss with dropout over loss without"], height=4.2
    )
    ax.set_yscale("linear")
    shades = Shades([N for N, _ in (*limited, *fresh)])
    for N in sorted({N for N, _ in (*limited, *fresh)}):
        _one_size(ax, N, limited, fresh, falling, shades)
    ax.axhline(0, color="#9aa3af", lw=0.8)
    ax.plot([], [], "o-", color="#6b7280", ms=4.5, label="D repeated bytes, at the lowest loss")
    hollow_key(ax, "a loss still fell when its run ended")
    ax.plot([], [], "D", color="#6b7280", ms=5.5, label="one pass over fresh data")
    ax.set_xlabel("unique tokens D (bytes)")
    ax.set_ylabel("change of the test loss, %")
    log_axes(ax, y=False)
    ax.legend(loc="best")
    shades.key(figure, ax)
    return figure


def _one_size(ax: Axes, N: int, limited: Shifts, fresh: Shifts, falling: Collection[Key], shades: Shades) -> None:
    colour = shades(float(N))
    for chosen, marker, unfinished in ((limited, "o", falling), (fresh, "D", ())):
        keys = [key for key in chosen if key[0] == N]
        if len(keys) > 1:
            x, y = [D for _, D in keys], [100 * chosen[key] for key in keys]
            line(ax, x, y, series=f"N = {N}", colour=colour, width=1.2, keep=False)
        for hollow in (False, True):
            some = [key for key in keys if (key in unfinished) == hollow]
            x, y = [D for _, D in some], [100 * chosen[key] for key in some]
            points(ax, x, y, series=f"N = {N}", colour=colour, marker=marker, size=5.5, hollow=hollow)
