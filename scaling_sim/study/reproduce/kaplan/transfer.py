"""Figure 8: losses on other distributions run parallel to that on the training distribution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from scaling_sim.errors import DataError
from scaling_sim.predict.offsets import PREFIX, Offset, offsets
from scaling_sim.predict.phase import Phase, phase_effect
from scaling_sim.predict.quantity import Quantity
from scaling_sim.report.figures.canvas import (
    INK,
    Colour,
    ReportFigure,
    colours,
    legend_below,
    line,
    points,
    sheet,
)
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.runs.table import RunTable, table_from_records
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row
from scaling_sim.study.reproduce.kaplan.rows import family_records

if TYPE_CHECKING:
    from scaling_sim.study.reproduce.kaplan.data import Data

Array = NDArray[np.float64]

NUM_DRAWS = 2000
OWN = ("validation", "train", "test")
LEAST_SIZES = 4
UNIT = "nats per byte"
PARALLEL = 0.1
"""Share by which an exponent may differ from that of the training distribution for lines to count as parallel."""


@dataclass(frozen=True)
class Growth:
    """ln(L'/L) = level + slope·ln N of one text at the end of training.

    Attributes
    ----------
    split : str
    level, slope : (n_draws,) draws, ``level`` at the mean ln N
    centre : that mean
    exponent : draws of −d ln L'/d ln N
    nats : draws of d(L' − L)/d log10 N
    share : draws of that exponent over the one of the training distribution
    misfit : largest relative distance of a size's mean loss from the power law
    """

    split: str
    level: Array
    slope: Array
    centre: float
    exponent: Array
    nats: Array
    share: Array
    misfit: float


def transfer(data: Data) -> Finding:
    """Loss on other texts against N, and against the loss on the training distribution."""
    table = table_from_records(family_records(data), source=data.source)
    splits = [name.removeprefix(PREFIX) for name in table.extra if name.startswith(PREFIX)]
    splits = [name for name in splits if name not in OWN]
    if not splits:
        raise DataError("the runs carry no losses on other texts")
    ends = last_rows(table)
    growth = [growth_of(ends, name, data.seed) for name in splits]
    phases = [phase_effect(table, name, seed=data.seed) for name in splits]
    own = offsets(ends, seed=data.seed).splits

    def draw() -> ReportFigure:
        titles = ["At the end of training", "Along training and at its end"]
        figure, (left, right) = sheet("transfer", "Losses on other texts", titles, height=4.6)
        shades = colours(len(splits), "plasma")
        _against_size(left, ends, growth, shades)
        _against_loss(right, table, ends, splits, shades)
        figure.reading = (
            "Left: power laws in N, one for each text. Right: large points are models at the end of training, small "
            "ones a single large model on its way there; the diagonal is the training distribution itself."
        )
        return figure

    rows = _rows(growth, phases, own, ends)
    return Finding("F8", "Losses on other texts", rows, draw, _remark(growth, phases))


def last_rows(table: RunTable) -> RunTable:
    """The last row of each curve that went through the most tokens."""
    most = table.tokens > 0.98 * table.tokens.max()
    ends = table.select(most, "not the end of a full run")
    if len(np.unique(ends.N)) < LEAST_SIZES:
        raise DataError(f"at least {LEAST_SIZES} sizes must be trained equally long")
    return ends


def growth_of(ends: RunTable, split: str, seed: int = 0) -> Growth:
    """Least squares with a bootstrap over sizes; seeds of one size stay together."""
    other = np.asarray(ends.extra[PREFIX + split], dtype=np.float64)
    use = np.isfinite(other) & (other > 0)
    sizes, place = np.unique(ends.N[use], return_inverse=True)
    if len(sizes) < LEAST_SIZES:
        raise DataError(f"fewer than {LEAST_SIZES} sizes carry the loss on {split}")
    count = np.bincount(place)
    gap = np.bincount(place, np.log(other[use] / ends.loss[use])) / count
    level = np.bincount(place, np.log(other[use])) / count
    x = np.log(sizes)
    rows = np.random.default_rng([seed, 8]).integers(len(sizes), size=(NUM_DRAWS, len(sizes)))
    rows = rows[np.ptp(x[rows], axis=1) > 0]
    centre = float(x.mean())
    u = x[rows] - centre
    away = u - u.mean(axis=1, keepdims=True)
    squares = np.sum(away**2, axis=1)
    nats = np.bincount(place, other[use] - ends.loss[use]) / count
    line = np.polyval(np.polyfit(x, level, 1), x)
    slope, fall, rise = (np.sum(away * y[rows], axis=1) / squares for y in (gap, level, nats))
    return Growth(
        split,
        gap[rows].mean(axis=1) - slope * u.mean(axis=1),
        slope,
        centre,
        -fall,
        rise * np.log(10),
        fall / (fall - slope),
        float(np.max(np.abs(np.expm1(level - line)))),
    )


def _against_size(ax: Axes, ends: RunTable, growth: list[Growth], shades: list[Colour]) -> None:
    grid = np.geomspace(ends.N.min(), ends.N.max(), 30)
    points(ax, ends.N, ends.loss, series="training distribution", colour=INK, label="training distribution", size=4)
    for one, colour in zip(growth, shades, strict=True):
        other = np.asarray(ends.extra[PREFIX + one.split], dtype=float)
        points(ax, ends.N, other, series=one.split, colour=colour, label=one.split, size=4)
        known = np.isfinite(other)
        slope, level = np.polyfit(np.log(ends.N[known]), np.log(other[known]), 1)
        line(ax, grid, np.exp(level) * grid**slope, series=f"{one.split}, power law", colour=colour, width=1.0)
    slope, level = np.polyfit(np.log(ends.N), np.log(ends.loss), 1)
    line(ax, grid, np.exp(level) * grid**slope, series="training distribution, power law", colour=INK, width=1.0)
    ax.set_xlabel("non-embedding parameters N")
    ax.set_ylabel("loss, nats per byte")
    log_axes(ax)
    legend_below(ax, 3)


def _against_loss(ax: Axes, table: RunTable, ends: RunTable, splits: list[str], shades: list[Colour]) -> None:
    largest = np.unique(table.run[table.N.max() == table.N])[0]
    along = np.flatnonzero(table.run == largest)
    along = along[np.argsort(table.tokens[along])]
    for split, colour in zip(splits, shades, strict=True):
        other = np.asarray(table.extra[PREFIX + split], dtype=float)
        line(ax, table.loss[along], other[along], series=f"{split}, one run", colour=colour, width=0.8, alpha=0.7)
        points(ax, table.loss[along], other[along], series=f"{split}, one run", colour=colour, size=2.2)
        final = np.asarray(ends.extra[PREFIX + split], dtype=float)
        points(ax, ends.loss, final, series=f"{split}, end", colour=colour, hollow=True, size=5)
    span = np.array([ends.loss.min(), ends.loss.max()])
    line(ax, span, span, series="training distribution", colour=INK, dashes=":", width=1.0)
    ax.set_xlim(span[0] * 0.95, span[1] * 1.1)
    shown = np.concatenate([np.asarray(ends.extra[PREFIX + s], dtype=float) for s in splits])
    ax.set_ylim(span[0] * 0.95, np.nanmax(shown) * 1.1)
    ax.set_xlabel("loss on the training distribution, nats per byte")
    ax.set_ylabel("loss on the other text, nats per byte")
    log_axes(ax)


def _rows(growth: list[Growth], phases: list[Phase], own: Mapping[str, Offset], ends: RunTable) -> tuple[Row, ...]:
    rows = []
    for one, phase in zip(growth, phases, strict=True):
        n = ends.num_runs
        rows.append(
            Row.of(f"{one.split}: α_N of the loss at the end", None, one.exponent, n, "", "bootstrap over sizes")
        )
        rows.append(
            Row.of(f"{one.split}: α_N over that on the training distribution", 1.0, one.share, n, "",
                   "bootstrap over sizes; 1 where the lines are parallel, as the paper shows them")
        )  # fmt: skip
        rows.append(
            Row.of(f"{one.split}: growth of the offset, d ln(L'/L)/d ln N", None, one.slope, n, "",
                   "bootstrap over sizes; the paper: near-constant, slowly growing, without a number")
        )  # fmt: skip
        rows.append(
            Row.of(f"{one.split}: change of L' − L per decade of N", None, one.nats, n, UNIT, "bootstrap over sizes")
        )
        if one.split in own:
            offset = own[one.split]
            rows.append(
                Row.of(f"{one.split}: slope of ln L' on ln L at the end", None, offset.slope, offset.num_runs, "",
                       "generalised least squares; 1 where the offset in log loss does not change")
            )  # fmt: skip
        rows.append(
            Row.of(f"{one.split}: effect of ten times the tokens at equal loss", 0.0,
                   Quantity("phase", 100 * np.expm1(phase.effect.draws)), phase.num_runs, "%",
                   "bootstrap over runs; 0 if the loss on the training distribution says all, as the paper finds")
        )  # fmt: skip
    return tuple(rows)


def _remark(growth: list[Growth], phases: list[Phase]) -> str:
    said = []
    for one in growth:
        low, high = np.quantile(one.share, [0.05, 0.95])
        parallel = max(abs(low - 1), abs(high - 1)) < PARALLEL
        words = "parallel" if parallel else f"{np.median(one.share):.2f} times as steep ({low:.2f} to {high:.2f})"
        said.append(f"{one.split} {words}")
    moved = [p for p in phases if not p.effect.interval()[0] <= 0 <= p.effect.interval()[1]]
    phase = (
        "Not reproduced: at equal loss on the training distribution ten times the tokens change the loss on "
        + ", ".join(f"{p.split} by {100 * np.expm1(p.effect.median):+.1f} %" for p in moved)
        + ", so that size or phase of training matter a little beyond that loss (right)."
        if moved
        else "Reproduced: the loss on the training distribution says all, whatever size and phase of training (right)."
    )
    alike = sum("parallel" in words for words in said)
    seen = "Reproduced" if alike == len(said) else "Reproduced in part" if alike else "Not reproduced"
    worst = max(growth, key=lambda one: one.misfit)
    return (
        f"{seen}: the paper finds lines parallel to that of the training distribution, ours are {'; '.join(said)}. "
        f"Straight lines miss the losses by up to {100 * worst.misfit:.0f} % ({worst.split}). {phase} Our training "
        "text is documentation and small; novels, a dictionary and source code are further from it than Wikipedia and "
        "books are from the paper's web pages."
    )
