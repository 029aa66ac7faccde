"""What a scaling law is: a formula for the loss, its parameters with their priors, and the rows that it reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scaling_sim.laws.observations import Observations, final_rows, observations, unusable
from scaling_sim.runs.table import RunTable

Array = NDArray[np.float64]
Parameters = Mapping[str, Any]
"""Natural parameters by name: floats, or (n_draws, 1) arrays that broadcast against (n_rows,) columns."""
Centre = Mapping[str, float]
"""Means of the logarithms of the columns that a fit used: ``log_N``, ``log_tokens``, …, ``log_loss``."""


@dataclass(frozen=True)
class Normal:
    """Prior of one sampling coordinate: Normal(mean, sd)."""

    mean: float
    sd: float


@dataclass(frozen=True)
class Coordinate:
    """One coordinate in which the sampler moves.

    Coordinates are dimensionless and centred on the data (the log loss at the centre less the mean log loss,
    log-ratios of terms at the centre, log exponents), so that a change of units changes nothing. The prior is stated
    *on the coordinate*; no Jacobian is needed anywhere.
    """

    name: str
    prior: Normal
    meaning: str = ""


class Law(ABC):
    """A functional form of the loss.

    A user's own law is one small class: the three names, `coordinates`, `to_parameters`, `from_parameters` and either
    `loss` or `log_loss`; the how-to "A law of your own" is an example. `register_law` then makes it known by its name.

    Scale constants such as N_c = exp(log L/α) leave the range of floats where an exponent tends to 0. A law whose
    formula should hold there, too, defines `formula_parameters` in place of `to_parameters` and gives their logarithms.
    """

    name: str
    parameters: tuple[str, ...]
    """Names of the natural parameters, in the order of tables."""
    columns: tuple[str, ...]
    """Columns of `scaling_sim.runs.table.RunTable` that the formula reads, besides the response."""
    response: str = "loss"
    """What the formula predicts: the loss, or ``B_crit`` for the critical batch."""
    form: Literal["final", "curve", "early-stopped", "joint"] = "final"
    """Of what its loss is: a finished run, a point of a learning curve at constant learning rate, or a run stopped when
    its test loss no longer fell; ``joint``: of the last two, by the columns given (`kaplan`)."""
    single_epoch: bool = False
    """True if the form knows only tokens processed, so that it cannot contradict itself (no crossover)."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a law without a formula, when it is defined rather than when it is used."""
        super().__init_subclass__(**kwargs)
        if cls.loss is Law.loss and cls.log_loss is Law.log_loss and cls.log_response is Law.log_response:
            raise TypeError(f"{cls.__name__} must define loss or log_loss: a law needs a formula")
        if cls.to_parameters is Law.to_parameters and cls.formula_parameters is Law.formula_parameters:
            raise TypeError(f"{cls.__name__} must define to_parameters (or formula_parameters)")

    @abstractmethod
    def coordinates(self, centre: Centre) -> tuple[Coordinate, ...]:
        """Sampling coordinates for data with this centre."""

    def to_parameters(self, u: Array, centre: Centre) -> dict[str, Array]:
        """Natural parameters, each (n_draws,), of coordinates ``u`` (n_draws, n_coordinates); a scale may be ∞ or 0."""
        found = self.formula_parameters(u, centre)
        with np.errstate(over="ignore"):
            return {name: found[name] if name in found else np.exp(found[f"log_{name}"]) for name in self.parameters}

    def formula_parameters(self, u: Array, centre: Centre) -> dict[str, Array]:
        """Parameters as a fit hands them to the formula: natural, or as a logarithm under ``log_<name>`` (`log_of`)."""
        return self.to_parameters(u, centre)

    @abstractmethod
    def from_parameters(self, parameters: Parameters, centre: Centre) -> Array:
        """Coordinates (n_draws, n_coordinates) of natural parameters, scalar or (n_draws,): the inverse."""

    def loss(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        """Expected loss in nats per token, broadcast over parameters (n_draws, 1) and columns (n_rows,)."""
        return np.asarray(np.exp(self.log_loss(parameters, columns)))

    def log_loss(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        """Logarithm of `loss`; the laws here define this one, which neither overflows nor cancels."""
        return np.asarray(np.log(self.loss(parameters, columns)))

    def log_response(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        """Logarithm of what the fit compares with the data; the loss unless `response` says otherwise."""
        return self.log_loss(parameters, columns)

    def limits(self) -> Mapping[str, str]:
        """What the law tends to, in words, for the report."""
        return {}

    def options(self) -> dict[str, Any]:
        """Keyword arguments that make this instance again, for a saved fit."""
        return {}

    @property
    def exponents(self) -> tuple[str, ...]:
        """Those natural parameters that are exponents: the ones whose value does not depend on units."""
        return tuple(name for name in self.parameters if name.startswith(("alpha", "beta", "exponent")))

    @property
    def decreasing(self) -> tuple[str, ...]:
        """Columns in which the response must not rise."""
        return tuple(name for name in self.columns if name != "B")

    def remarks(self, draws: Mapping[str, Array]) -> tuple[str, ...]:
        """What a posterior of this law says beyond its parameters, for the notes of a fit."""
        return ()

    def missing(self, runs: RunTable) -> tuple[str, ...]:
        """What the table lacks for this law, in words; empty if it can be fitted."""
        return tuple(name for name in self.columns if not np.any(np.isfinite(getattr(runs, name))))

    def observe(self, runs: RunTable) -> Observations:
        """The rows that this law reads, each with its role, and those left out with the reason.

        The default is that of a final-loss law (`final_rows`): one row per run, never a mixture of decayed and
        undecayed learning rates.
        """
        rows = final_rows(runs, unusable(runs, self.columns), single_epoch=self.single_epoch)
        return observations(runs, rows, self.columns)

    def design(self, data: Observations) -> tuple[Mapping[str, Array], ...]:
        """Groups of columns that must vary, and not together, for the law to be identified.

        A column of one name informs one parameter; where groups share it, it need vary in one of them only.
        """
        return (data.columns,)

    def centre(self, data: Observations) -> dict[str, float]:
        """Means of the logarithms of the columns and of the response."""
        means = {f"log_{name}": float(np.mean(np.log(data.columns[name]))) for name in self.columns}
        return means | {f"log_{self.response}": float(np.mean(np.log(data.response)))}


def log_of(parameters: Parameters, name: str) -> Any:
    """Logarithm of a parameter that is given as ``log_<name>`` or by itself."""
    return parameters[f"log_{name}"] if f"log_{name}" in parameters else np.log(parameters[name])


def stack(*coordinates: Any) -> Array:
    """(n_draws, n_coordinates) array of coordinates that are scalars or (n_draws,) arrays."""
    return np.stack(
        np.broadcast_arrays(*[np.atleast_1d(np.asarray(c, dtype=np.float64)) for c in coordinates]), axis=-1
    )


def log_sum_exp(first: Any, *others: Any) -> Array:
    """log(exp(a) + exp(b) + …), broadcast; never overflows, and faster than nested ``logaddexp``."""
    largest = first
    for term in others:
        largest = np.maximum(largest, term)
    total = np.exp(first - largest)
    for term in others:
        total = total + np.exp(term - largest)
    return np.asarray(largest + np.log(total))


def log_expm1(x: Any) -> Array:
    """log(exp(x) − 1) for x > 0, without overflow."""
    return np.asarray(x + np.log(-np.expm1(-np.asarray(x, dtype=np.float64))))
