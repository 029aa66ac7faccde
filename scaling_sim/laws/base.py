"""What a scaling law is: a formula for the loss, its parameters with their priors, and the columns that it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Parameters = Mapping[str, Any]
"""Natural parameters by name: floats, or (n_draws, 1) arrays that broadcast against (n_rows,) columns."""


@dataclass(frozen=True)
class Normal:
    """Prior of one sampling coordinate: Normal(mean, sd)."""

    mean: float
    sd: float


@dataclass(frozen=True)
class Coordinate:
    """One coordinate in which the sampler moves.

    Coordinates are centred on the data (log amplitudes at the mean of log N and log tokens, log exponents), so that a change
    of units changes nothing. The prior is stated *on the coordinate*; no Jacobian is needed anywhere.
    """

    name: str
    prior: Normal


class Law(ABC):
    """A functional form of the loss.

    A user's own law is a subclass with five members; `scaling_sim.laws.chinchilla` is the shortest example.
    """

    name: ClassVar[str]
    parameters: ClassVar[tuple[str, ...]]
    """Names of the natural parameters, in the order of tables."""
    columns: ClassVar[tuple[str, ...]]
    """Columns of `scaling_sim.runs.table.RunTable` that the formula reads, besides ``loss``."""
    single_epoch: ClassVar[bool] = False
    """True if the form knows only tokens processed, so that it cannot contradict itself (no crossover)."""

    @abstractmethod
    def coordinates(self, centre: Mapping[str, float]) -> tuple[Coordinate, ...]:
        """Sampling coordinates for data whose mean log columns are ``centre`` (``log_N``, ``log_tokens``, …, ``log_loss``)."""

    @abstractmethod
    def to_parameters(self, u: Array, centre: Mapping[str, float]) -> dict[str, Array]:
        """Natural parameters, each (n_draws,), of coordinates ``u`` (n_draws, n_coordinates)."""

    @abstractmethod
    def from_parameters(self, parameters: Parameters, centre: Mapping[str, float]) -> Array:
        """Coordinates (n_draws, n_coordinates) of natural parameters: the inverse of `to_parameters`."""

    @abstractmethod
    def loss(self, parameters: Parameters, columns: Mapping[str, Array]) -> Array:
        """Expected loss in nats per token, broadcast over parameters (n_draws, 1) and columns (n_rows,)."""

    def limits(self) -> Mapping[str, str]:
        """What the law tends to, in words, for the report."""
        return {}
