"""The log posterior in sampling coordinates, vectorised over draws."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scaling_sim.inference.likelihood import Likelihood
from scaling_sim.inference.priors import log_prior
from scaling_sim.laws.base import Coordinate, Law
from scaling_sim.laws.observations import Observations

Array = NDArray[np.float64]

BLOCK = 16_000
"""Draws times rows that are computed at once: 130 kB an array, so that temporaries stay in a core's cache."""


class LogPosterior:
    """log p(u | data) up to a constant, u = (coordinates of the law, coordinates of the noise).

    It holds no state and can be sent to another process.

    Parameters
    ----------
    law : Law
    data : Observations, as prepared by `scaling_sim.inference.design.prepare`
    """

    def __init__(self, law: Law, data: Observations) -> None:
        self.law, self.data = law, data
        self.centre = law.centre(data)
        self.likelihood = Likelihood(data)
        self.law_coordinates = law.coordinates(self.centre)
        self.coordinates: tuple[Coordinate, ...] = self.law_coordinates + self.likelihood.coordinates()

    @property
    def num_law(self) -> int:
        """Coordinates of the law; the rest are those of the noise."""
        return len(self.law_coordinates)

    def __call__(self, u: Array) -> Array:
        """(n_draws,) log posterior of ``u`` (n_draws, n_coordinates); −∞ where a formula overflows."""
        with np.errstate(all="ignore"):
            total = np.concatenate([self._log_likelihood(block) for block in self._blocks(u)])
            total += log_prior(u, self.coordinates)
        return np.where(np.isfinite(total), total, -np.inf)

    def log_prediction(self, u: Array) -> Array:
        """(n_draws, n_rows) log predictions of law coordinates ``u`` (n_draws, num_law)."""
        return np.concatenate([self._log_prediction(block) for block in self._blocks(u)])

    def natural(self, u: Array) -> dict[str, Array]:
        """Natural parameters, each (n_draws,), of draws ``u`` (n_draws, n_coordinates)."""
        return self.law.to_parameters(u[:, : self.num_law], self.centre)

    def _blocks(self, u: Array) -> list[Array]:
        """So many draws at a time that their predictions make a `BLOCK`; one empty block where there are none."""
        size = max(1, BLOCK // len(self.data))
        return [u[first : first + size] for first in range(0, max(len(u), 1), size)]

    def _log_likelihood(self, u: Array) -> Array:
        return self.likelihood.log_likelihood(self._log_prediction(u[:, : self.num_law]), u[:, self.num_law :])

    def _log_prediction(self, u: Array) -> Array:
        parameters = self.law.formula_parameters(u, self.centre)
        columns = {name: value[:, None] for name, value in parameters.items()}
        return self.law.log_response(columns, self.data.columns)
