"""The likelihood of a law's observations: Student-t errors for each role, correlated along learning curves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling_sim.inference.curves import CurveErrors
from scaling_sim.inference.student import NU, StudentErrors
from scaling_sim.laws.base import Coordinate
from scaling_sim.laws.observations import Observations

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Part:
    """Rows of one role and their errors; ``first`` is the place of its coordinates among those of the noise."""

    role: str
    rows: NDArray[np.int64]
    errors: StudentErrors | CurveErrors
    first: int

    @property
    def noise(self) -> slice:
        return slice(self.first, self.first + len(self.errors.coordinates()))

    @property
    def units(self) -> list[NDArray[np.int64]]:
        return [self.rows[places] for places in self.errors.units()]


class Likelihood:
    """Probability of the observed log responses given a law's log predictions.

    Rows of each role have errors of their own scale and their own ν ∈ {3, 5, 30}, over which the likelihood sums
    (equal prior weights): log p = Σ_role log mean_ν p(rows | ν). Rows of role "curve" are correlated along each curve.
    """

    def __init__(self, data: Observations) -> None:
        self.log_response = np.log(data.response)
        error = data.error / data.response
        self.parts: list[_Part] = []
        for role in np.unique(data.role):
            rows = np.flatnonzero(data.role == role)
            errors = (
                CurveErrors(data.run[rows], np.log(data.columns["S"][rows]), error[rows])
                if role == "curve"
                else StudentErrors(error[rows])
            )
            self.parts.append(_Part(str(role), rows, errors, self.num_coordinates))

    @property
    def num_coordinates(self) -> int:
        """Coordinates of the noise model."""
        return sum(len(part.errors.coordinates()) for part in self.parts)

    def coordinates(self) -> tuple[Coordinate, ...]:
        """Noise coordinates, named after their role if there are several."""
        return tuple(
            Coordinate(c.name + self._suffix(part), c.prior, c.meaning)
            for part in self.parts
            for c in part.errors.coordinates()
        )

    def log_likelihood(self, log_prediction: Array, noise: Array) -> Array:
        """(n_draws,) log likelihood of predictions (n_draws, n_rows) and noise coordinates (n_draws, k)."""
        residuals = self.log_response - log_prediction
        total = np.zeros(len(noise))
        for part in self.parts:
            total += _log_mean(part.errors.log_likelihood(residuals[:, part.rows], noise[:, part.noise]))
        return total

    def draw_noise(self, log_prediction: Array, noise: Array, rng: np.random.Generator) -> dict[str, Array]:
        """Noise parameters of each draw, with ν drawn from its distribution given the rest."""
        residuals = self.log_response - log_prediction
        natural: dict[str, Array] = {}
        for part in self.parts:
            nu = self._draw_nu(part, residuals, noise, rng)
            values = part.errors.natural(noise[:, part.noise], nu) | {"nu": nu}
            natural |= {name + self._suffix(part): value for name, value in values.items()}
        return natural

    def pointwise(self, log_prediction: Array, noise: Array) -> Array:
        """(n_draws, n_units) log density of each unit (a row, or a whole curve; see `units`) by itself.

        Each unit's density is averaged over ν with the weights that all data give it.
        """
        residuals = self.log_response - log_prediction
        densities = []
        for part in self.parts:
            r, u = residuals[:, part.rows], noise[:, part.noise]
            by_nu = part.errors.log_density(r, u) + _log_nu_weights(part, r, u)[:, None, :]
            densities.append(np.logaddexp.reduce(by_nu, axis=-1))
        return np.concatenate(densities, axis=1)

    def outlier_probability(self, log_prediction: Array, noise: Array, times: float) -> Array:
        """(n_units,) probability that a unit's own error scale exceeds ``times`` that of the rest, draws averaged.

        A Student-t is a Normal whose precision λ is drawn from Gamma(ν/2, ν/2), once for each unit, so that a unit's
        own scale is σ/√λ. Given its n residuals, with q = rᵀ Σ⁻¹ r, λ ~ Gamma((ν + n)/2, (ν + q)/2): P(λ < 1/times²).
        """
        from scipy.special import gammainc

        residuals = self.log_response - log_prediction
        found = []
        for part in self.parts:
            r, u = residuals[:, part.rows], noise[:, part.noise]
            squares, sizes = part.errors.squares(r, u), np.array([len(unit) for unit in part.units])[:, None]
            tail = gammainc(0.5 * (NU + sizes), 0.5 * (NU + squares) / times**2)
            found.append(np.mean(np.sum(tail * np.exp(_log_nu_weights(part, r, u))[:, None, :], axis=-1), axis=0))
        return np.concatenate(found)

    def units(self) -> list[NDArray[np.int64]]:
        """Rows of each independent unit, in the order of `pointwise`: single rows, and whole curves."""
        return [unit for part in self.parts for unit in part.units]

    def initial_noise(self, log_prediction: Array) -> Array:
        """(num_coordinates,) noise coordinates about right for one prediction (n_rows,)."""
        residuals = self.log_response - log_prediction
        return np.concatenate([part.errors.initial(residuals[part.rows]) for part in self.parts])

    def _suffix(self, part: _Part) -> str:
        return f"_{part.role}" if len(self.parts) > 1 else ""

    def _draw_nu(self, part: _Part, residuals: Array, noise: Array, rng: np.random.Generator) -> Array:
        cumulative = np.cumsum(np.exp(_log_nu_weights(part, residuals[:, part.rows], noise[:, part.noise])), axis=1)
        choice = (rng.random((len(noise), 1)) * cumulative[:, -1:] > cumulative).sum(axis=1)
        return np.asarray(NU[choice])


def _log_nu_weights(part: _Part, residuals: Array, noise: Array) -> Array:
    """(n_draws, 3) log probability of each ν given all residuals of the part."""
    weights = part.errors.log_likelihood(residuals, noise)
    weights = weights - weights.max(axis=1, keepdims=True)
    return np.asarray(weights - np.log(np.exp(weights).sum(axis=1, keepdims=True)))


def _log_mean(by_nu: Array) -> Array:
    """log of the mean over the last axis of exp."""
    largest = by_nu.max(axis=-1)
    return np.asarray(largest + np.log(np.mean(np.exp(by_nu - largest[..., None]), axis=-1)))
