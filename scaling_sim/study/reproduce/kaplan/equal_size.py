"""Runs of different shapes at equal length, and what is left of their losses once N is made equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import DataError
from scaling_sim.model.count import num_parameters
from scaling_sim.model.shape import Shape

if TYPE_CHECKING:
    from scaling_sim.runs.record import RunRecord
    from scaling_sim.study.reproduce.kaplan.data import Data

Array = NDArray[np.float64]

SEED_SCATTER = 0.02 / 3
"""Relative scatter of the loss between seeds where no shape was trained twice: .02 nats (Kaplan et al. 2020, section
4.2) of about 3."""
SAME_LENGTH = 0.02
LEAST_ASPECT = 4.0
"""d_model/n_layer below which a shape is deeper than any of the paper's (its narrowest is 768/207 = 3.7)."""
GROUP = 1.3
"""Ratio of N up to which shapes count as one size."""


@dataclass(frozen=True)
class Shapes:
    """Shapes trained for one number of tokens, seeds averaged; (n,) each.

    Attributes
    ----------
    shapes : the n shapes
    N : non-embedding parameters;  N_total : all
    log_loss : ln L, mean over seeds;  seeds : number of them;  apart : highest less lowest
    scatter : standard deviation of ln L between seeds;  freedom : its degrees of freedom, 0 if taken from the paper
    tokens : processed by each run
    """

    shapes: tuple[Shape, ...]
    N: Array
    N_total: Array
    log_loss: Array
    seeds: Array
    apart: Array
    scatter: float
    freedom: int
    tokens: float

    def take(self, keep: NDArray[np.bool_]) -> Shapes:
        """The shapes where ``keep`` holds."""
        return self.at(np.flatnonzero(keep))

    def at(self, kept: NDArray[np.intp]) -> Shapes:
        """The shapes at these places, in this order."""
        columns = {name: getattr(self, name)[kept] for name in ("N", "N_total", "log_loss", "seeds", "apart")}
        return replace(self, shapes=tuple(self.shapes[k] for k in kept), **columns)

    def field(self, name: str) -> Array:
        """A number of every shape: n_layer, d_model, d_ff, n_head."""
        return np.array([getattr(shape, name) for shape in self.shapes], dtype=float)

    @property
    def num_runs(self) -> int:
        """Runs behind the means."""
        return int(self.seeds.sum())

    def quantile(self, level: float) -> float:
        """Of the noise of one run over ``scatter``: Student's t, or normal where the scatter is given."""
        from scipy.stats import norm, t

        return float(t.ppf(level, self.freedom) if self.freedom else norm.ppf(level))


def shapes_of(data: Data, split: str = "test") -> Shapes:
    """Every shape of the shape system at the end of its run, the runs of most frequent length.

    Raises
    ------
    DataError
        There are no such runs.
    """
    records = [r for r in data.records("shape") if split in r.curve[-1].losses]
    if not records:
        raise DataError(f"no run of the shape system was evaluated on {split!r}")
    lengths = np.array([record.curve[-1].tokens for record in records], dtype=float)
    common = float(np.median(lengths))
    records = [r for r, n in zip(records, lengths, strict=True) if abs(n / common - 1) < SAME_LENGTH]
    return grouped(records, split)


def grouped(records: Sequence[RunRecord], split: str = "test") -> Shapes:
    """Mean log losses of the last points by shape."""
    found: dict[Shape, list[float]] = {}
    for record in records:
        found.setdefault(record.config.shape, []).append(float(np.log(record.curve[-1].losses[split])))
    shapes = tuple(found)
    freedom = sum(len(losses) - 1 for losses in found.values())
    squares = sum(float(np.sum((np.array(losses) - np.mean(losses)) ** 2)) for losses in found.values())
    return Shapes(
        shapes,
        np.array([num_parameters(shape) for shape in shapes], dtype=float),
        np.array([num_parameters(shape, "matrices") for shape in shapes], dtype=float),
        np.array([np.mean(losses) for losses in found.values()]),
        np.array([len(losses) for losses in found.values()], dtype=float),
        np.array([np.ptp(losses) for losses in found.values()]),
        (squares / freedom) ** 0.5 if freedom and squares > 0 else SEED_SCATTER,
        freedom if squares > 0 else 0,
        float(records[0].curve[-1].tokens),
    )


def groups_of_size(found: Shapes, least: int = 4) -> list[Shapes]:
    """Shapes of nearly equal N, at least ``least`` of them, by N; neighbours within `GROUP` of the smallest."""
    groups, order = [], np.argsort(found.N)
    order = order[found.N[order] > 0]
    while order.size:
        near = found.N[order] <= GROUP * found.N[order[0]]
        if near.sum() >= least:
            keep = np.zeros(len(found.N), dtype=bool)
            keep[order[near]] = True
            groups.append(found.take(keep))
            order = order[~near]
        else:
            order = order[1:]
    return groups


@dataclass(frozen=True)
class SizeSlope:
    """ln L of one family of shapes as a quadratic in ln N: the baseline that takes a mismatch of N out of a loss."""

    coefficients: Array
    centre: float

    @classmethod
    def of(cls, found: Shapes) -> SizeSlope:
        """Fitted to the shapes of two layers or more with d_ff = 4·d_model and d_model ≥ 4·n_layer."""
        width = found.field("d_model")
        use = (found.field("n_layer") >= 2) & (found.field("d_ff") == 4 * width)
        use &= width >= LEAST_ASPECT * found.field("n_layer")
        log_N = np.log(np.where(use, found.N, 1.0))[use]
        if len(np.unique(log_N.round(2))) < 3:
            raise DataError("the baseline L(N) needs at least three sizes of two layers or more at equal length")
        centre = float(log_N.mean())
        return cls(np.polyfit(log_N - centre, found.log_loss[use], 2), centre)

    def __call__(self, N: Array) -> Array:
        """ln L of the baseline."""
        return np.asarray(np.polyval(self.coefficients, np.log(N) - self.centre))

    def corrected(self, found: Shapes, N: float) -> Array:
        """ln L of every shape, had it ``N`` parameters."""
        return np.asarray(found.log_loss - self(found.N) + self(np.array(N)))
