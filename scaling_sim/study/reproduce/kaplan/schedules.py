"""Figure 22: the learning-rate schedule matters little unless the rate is too low for too long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scaling_sim.engine.cohort import Recipe
from scaling_sim.errors import DataError
from scaling_sim.report.figures.canvas import Colour, ReportFigure, colours, legend_below, line, points, sheet
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import exact, number
from scaling_sim.runs.record import RunRecord
from scaling_sim.study.reproduce.kaplan import rows
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row
from scaling_sim.training.schedule import learning_rates

if TYPE_CHECKING:
    from scaling_sim.study.reproduce.kaplan.data import Data

Array = NDArray[np.float64]

NUM_DRAWS = 2000
PAPER_LOSS = 3.75
"""Nats per token about which the points of the paper's figure 22 lie."""


@dataclass(frozen=True)
class Kind:
    """Runs that differ in their seeds only.

    Attributes
    ----------
    name : the schedule in words
    recipe : of the first run
    loss : (k,) final test losses, nats per token
    """

    name: str
    recipe: Recipe
    loss: Array

    @property
    def summed(self) -> float:
        """Learning rate summed over all updates."""
        return float(learning_rates(self.recipe, 0, self.recipe.steps).sum())

    @property
    def reaches_zero(self) -> bool:
        """Whether the last rate is below 2 % of the peak."""
        last = float(learning_rates(self.recipe, self.recipe.steps - 1, 1)[0])
        return last < 0.02 * self.recipe.peak_lr


def schedules(data: Data) -> Finding:
    """The schedule of the learning rate matters little."""
    chosen = _one_size(data.records("schedule"))
    kinds = _kinds(chosen)
    spread = _pooled_sd(kinds, data.seed)
    told = [
        Row.of("standard deviation over seeds", 100 * 0.02 / PAPER_LOSS, 100 * spread / _level(kinds), len(chosen),
               "% of the loss", f"paper: .02 (section 4.2) of {PAPER_LOSS} nats per token; .05 by figure 22, 1.3 %"),
        *_longer_row(data),
        *_difference_rows(kinds, spread, data.seed),
    ]  # fmt: skip
    ends = [kind for kind in kinds if kind.reaches_zero]
    remark = (
        f"N = {exact(float(rows.size(chosen[0])))}, {chosen[0].config.recipe.steps} updates, {len(kinds)} schedules, "
        f"seeds spread by {number(float(np.median(spread)), 2)} nats per byte. {len(ends)} of the schedules end at a "
        "rate of zero. The paper's 3M model saw 2.5e5 updates; its nats per token are not nats per byte."
    )
    return Finding("F22", "Learning-rate schedules", tuple(told), lambda: _figure(kinds, spread), remark)


def _one_size(found: tuple[RunRecord, ...]) -> list[RunRecord]:
    """The runs of the one shape and number of updates that most seeds and schedules share."""
    groups: dict[tuple[object, int], list[RunRecord]] = {}
    for record in found:
        groups.setdefault((record.config.shape, record.config.recipe.steps), []).append(record)
    most = max(groups.values(), key=len)
    if len(_kinds(most)) < 2 or len({record.config.recipe.seed for record in most}) < 2:
        raise DataError("at least two schedules of one size and length, with two seeds, are needed")
    return most


def _kinds(chosen: list[RunRecord]) -> list[Kind]:
    """Schedules by rising summed rate."""
    groups: dict[tuple[object, ...], list[RunRecord]] = {}
    for record in chosen:
        r = record.config.recipe
        groups.setdefault((r.schedule, r.decay_steps, r.horizon_steps, r.warmup_steps, r.peak_lr), []).append(record)
    kinds = [
        Kind(
            in_words(several[0].config.recipe), several[0].config.recipe, np.array([rows.last_loss(r) for r in several])
        )
        for several in groups.values()
    ]
    return sorted(kinds, key=lambda kind: kind.summed)


def _kind(several: list[RunRecord]) -> Kind:
    recipe = several[0].config.recipe
    return Kind(in_words(recipe), recipe, np.array([rows.last_loss(record) for record in several]))


def in_words(recipe: Recipe) -> str:
    """``cosine to zero``, ``linear over the last 20 %``, ``constant``."""
    if recipe.schedule == "constant":
        return "constant"
    if recipe.schedule == "decay":
        return f"linear over the last {100 * recipe.decay_steps / recipe.steps:.0f} %"
    share = recipe.steps / (recipe.horizon_steps or recipe.steps)
    return "cosine to zero" if share >= 1 else f"cosine, cut at {100 * share:.0f} %"


def _pooled_sd(kinds: list[Kind], seed: int) -> Array:
    """Draws of the standard deviation of a run's loss over seeds, equal for all schedules."""
    freedom = sum(len(kind.loss) - 1 for kind in kinds)
    squares = sum(float(np.sum((kind.loss - kind.loss.mean()) ** 2)) for kind in kinds)
    return np.sqrt(squares / np.random.default_rng(seed).chisquare(freedom, NUM_DRAWS))


def _longer_row(data: Data) -> list[Row]:
    """The spread of the family's seeds, sizes pooled: three times the updates, at constant rate."""
    groups: dict[int, list[RunRecord]] = {}
    for record in rows.fitted(rows.family_records(data)):
        groups.setdefault(rows.size(record), []).append(record)
    found = [np.log([rows.last_loss(r) for r in several]) for several in groups.values() if len(several) > 1]
    if not found:
        return []
    freedom, squares = sum(len(x) - 1 for x in found), sum(float(np.sum((x - x.mean()) ** 2)) for x in found)
    spread = 100 * np.sqrt(squares / np.random.default_rng(data.seed).chisquare(freedom, NUM_DRAWS))
    longest = max(r.config.recipe.steps for several in groups.values() for r in several)
    told = f"constant rate, {longest:,} updates, {len(found)} sizes pooled"
    return [Row.of("the same, of the family", None, spread, sum(map(len, found)), "% of the loss", told)]


def _level(kinds: list[Kind]) -> float:
    """Mean loss of the schedules, nats per byte."""
    return float(np.mean([kind.loss.mean() for kind in kinds]))


def _difference_rows(kinds: list[Kind], spread: Array, seed: int) -> list[Row]:
    rng = np.random.default_rng(seed + 1)
    means = {
        kind.name: kind.loss.mean() + spread / np.sqrt(len(kind.loss)) * rng.standard_normal(NUM_DRAWS)
        for kind in kinds
    }
    n = {kind.name: len(kind.loss) for kind in kinds}
    told = []
    for what, chosen in (
        ("schedules that end at zero", [k for k in kinds if k.reaches_zero]),
        ("all schedules", kinds),
    ):
        if len(chosen) > 1:
            together = np.stack([means[kind.name] for kind in chosen])
            between, number_of = np.ptp(together, axis=0), sum(n[kind.name] for kind in chosen)
            said = (
                "the paper: within ±.05 per token"
                if chosen is not kinds
                else "constant rates end higher: their noise has not died away"
            )
            paper = None if chosen is kinds else 100 * 0.1 / PAPER_LOSS
            share = 100 * between / _level(kinds)
            told.append(Row.of(f"highest less lowest mean of {what}", paper, share, number_of, "% of the loss", said))
    return told


def _figure(kinds: list[Kind], spread: Array) -> ReportFigure:
    figure, axes = sheet("schedules", "Learning-rate schedules", ["Schedules", "Final loss"], height=4.4, log="")
    sigma = float(np.median(spread))
    for kind, colour in zip(kinds, colours(len(kinds), "plasma"), strict=True):
        _curve(axes[0], kind, colour)
        points(axes[1], np.full(len(kind.loss), kind.summed), kind.loss, series=kind.name, colour=colour, size=4.5)
        axes[1].errorbar(kind.summed, kind.loss.mean(), yerr=sigma, fmt="_", ms=14, color=colour, elinewidth=1.2,
                         capsize=3, zorder=2.5)  # fmt: skip
    axes[0].set_xlabel("update")
    axes[0].set_ylabel("learning rate")
    axes[1].set_xlabel("learning rate summed over all updates")
    axes[1].set_ylabel("final test loss, nats per byte")
    log_axes(axes[1], y=False)
    legend_below(axes[0], 2)
    figure.reading = f"Dots: single seeds; bars: their mean ± one standard deviation over seeds, {sigma:.2g} nats."
    return figure


def _curve(ax: object, kind: Kind, colour: Colour) -> None:
    steps = np.unique(np.linspace(0, kind.recipe.steps - 1, 200).astype(int))
    rates = learning_rates(kind.recipe, 0, kind.recipe.steps)[steps]
    line(ax, steps + 1, rates, series=kind.name, colour=colour, label=kind.name)  # type: ignore[arg-type]
