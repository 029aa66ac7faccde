"""Our runs as each study would have made and counted them: protocols of training, and what N and C mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import DataError
from scaling_sim.model.count import flops_per_token, num_parameters
from scaling_sim.model.shape import Shape
from scaling_sim.predict.slices import Points
from scaling_sim.runs.record import CurvePoint, RunRecord
from scaling_sim.study.reproduce.kaplan.rows import family_records

if TYPE_CHECKING:
    from scaling_sim.study.reproduce.kaplan.data import Data

Array = NDArray[np.float64]

MIN_SIZES = 4
FIRST = 0.015
"""Share of a run's steps before which no point is read: all protocols then begin at one number of tokens."""


@dataclass(frozen=True)
class Count:
    """What N and C mean: parameters and training FLOP per token of a shape."""

    name: str
    words: str
    size: Callable[[Shape], float]
    cost: Callable[[Shape], float]


def _six(size: Callable[[Shape], float]) -> Callable[[Shape], float]:
    return lambda shape: 6.0 * size(shape)


def _parameters(convention: str) -> Callable[[Shape], float]:
    return lambda shape: float(num_parameters(shape, convention))


COUNTS: Mapping[str, Count] = MappingProxyType(
    {
        count.name: count
        for count in (
            Count("non-embedding", "N without embeddings, C = 6·N·tokens (Kaplan)", _parameters("non-embedding"),
                  _six(_parameters("non-embedding"))),
            Count("with head", "N and C with the head (Porian)", _parameters("non-embedding+head"),
                  _six(_parameters("non-embedding+head"))),
            Count("exact FLOP", "N without embeddings, C with head and attention", _parameters("non-embedding"),
                  lambda shape: flops_per_token(shape, "exact")),
            Count("total", "all parameters, C = 6·N·tokens (Hoffmann; Pearce & Song)", _parameters("total"),
                  _six(_parameters("total"))),
        )
    }
)  # fmt: skip
"""Ways to count, the paper's first."""


@dataclass(frozen=True)
class Protocol:
    """Runs of several sizes, made as one study made them.

    Attributes
    ----------
    name, words : str
    points : pairs of a run and a point that counts as a result
    curves : whether points of one run are its learning curve
    """

    name: str
    words: str
    points: tuple[tuple[RunRecord, CurvePoint], ...]
    curves: bool

    @property
    def num_runs(self) -> int:
        """Runs behind it."""
        return len({record.run_id for record, _ in self.points})

    @property
    def sizes(self) -> tuple[int, ...]:
        """N of its models, rising."""
        return tuple(sorted({num_parameters(record.config.shape) for record, _ in self.points}))

    def of_sizes(self, sizes: Sequence[int], name: str, words: str) -> Protocol:
        """The same with some of its sizes only."""
        kept = tuple((r, p) for r, p in self.points if num_parameters(r.config.shape) in sizes)
        return Protocol(name, words, kept, self.curves)

    def counted(self, count: Count, split: str = "test") -> Points:
        """Its results with N and C counted one way.

        Raises
        ------
        DataError
            Too few sizes.
        """
        rows = [
            (count.size(r.config.shape), count.cost(r.config.shape) * p.tokens, p.losses[split], r.run_id)
            for r, p in self.points
            if np.isfinite(p.losses.get(split, np.nan))
        ]
        sizes = {row[0] for row in rows}
        if len(sizes) < MIN_SIZES:
            raise DataError(f"{self.name}: {len(sizes)} sizes, {MIN_SIZES} needed")
        N, C, loss, run = zip(*rows, strict=True)
        _, place = np.unique(run, return_inverse=True)
        return Points(np.log(C), np.log(N), np.log(loss), place.astype(np.int64), self.curves)


def constant_rate(data: Data) -> Protocol:
    """Every point of the family's curves after the warm-up."""
    points = tuple(
        (record, point)
        for record in family_records(data)
        for point in record.curve
        if point.step >= max(2 * record.config.recipe.warmup_steps, FIRST * record.config.recipe.steps)
    )
    return Protocol("constant rate", "short warm-up, constant rate, read at every point", points, True)


def decayed(data: Data) -> Protocol:
    """Ends of the family's decay branches."""
    points = tuple((record, record.curve[-1]) for record in data.records("final", schedule="decay"))
    return Protocol("decay branches", "constant rate, then decayed to zero where the run ends", points, False)


def fixed_horizon(data: Data) -> Protocol:
    """Kaplan et al. 2020, section 2.2: long warm-up, one cosine to the end of the epoch, read wherever it is cut."""
    found = [r for r in data.records("schedule", schedule="cosine") if _is_fixed(r)]
    longest = max((r.config.recipe.steps for r in found), default=0)
    points = tuple(
        (r, p) for r in found if r.config.recipe.steps == longest for p in r.curve if p.step >= FIRST * longest
    )
    return Protocol("fixed horizon", "long warm-up, one cosine to the longest length, cut early", points, True)


def matched_horizon(data: Data) -> Protocol:
    """Ends of cosine runs whose length and warm-up were made for them (Hoffmann et al. 2022; Porian et al. 2024)."""
    found = [r for r in data.records("schedule", schedule="cosine") if r.config.recipe.horizon_steps == 0]
    points = tuple((record, record.curve[-1]) for record in found)
    return Protocol("matched horizon", "warm-up of about N tokens, a cosine of each run's own length", points, False)


def _is_fixed(record: RunRecord) -> bool:
    recipe = record.config.recipe
    return recipe.horizon_steps == recipe.steps and recipe.warmup_steps >= LONG_WARMUP * recipe.steps


LONG_WARMUP = 0.05
"""Share of the steps from which a warm-up is a long one; Kaplan et al.: 3000 of 2.5e5 steps, but of the runs cut at the
compute-optimal length much more."""
