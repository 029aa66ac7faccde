"""Independent Student-t errors of the log loss."""

from __future__ import annotations

from math import lgamma, log, pi

import numpy as np
from numpy.typing import NDArray

from scaling_sim.laws.base import Coordinate, Normal

Array = NDArray[np.float64]

NU = np.array([3.0, 5.0, 30.0])
"""Degrees of freedom; equal prior weight, summed over in the likelihood."""
MEDIAN_ABS = np.array([0.76489233, 0.72668684, 0.68275569])
"""Median of |t| for each ν: with the scale fixed at s/MEDIAN_ABS, s is the median absolute error whatever ν is."""


class StudentErrors:
    """Errors r = log(response) − log(prediction) of independent rows: r ~ t_ν with squared scale (s/m_ν)² + e².

    s, the median absolute error, is fitted; e is the measured standard error of the log response where known; ν is 3,
    5 or 30.

    Parameters
    ----------
    error : (n,) array, measured standard error of the log response, NaN or 0 if unknown
    """

    def __init__(self, error: Array) -> None:
        known = np.nan_to_num(error, nan=0.0)
        self._size = len(error)
        self._variance = known**2 if np.any(known > 0) else None

    def coordinates(self) -> tuple[Coordinate, ...]:
        """Median absolute error .04 % to 27 % (90 % of the prior)."""
        return (Coordinate("log_scale", Normal(log(0.01), 2.0), "log of the median absolute error of the log loss"),)

    def log_density(self, residuals: Array, u: Array) -> Array:
        """Log density of each row and ν, (n_draws, n_rows, 3), normalised."""
        constant = [lgamma((nu + 1) / 2) - lgamma(nu / 2) - 0.5 * log(nu * pi) for nu in NU]
        terms = []
        for nu, c, variance in zip(NU, constant, self._variances(u), strict=True):
            kernel = np.log(1.0 + residuals**2 / (nu * variance))
            terms.append(c - 0.5 * np.log(variance) - 0.5 * (nu + 1) * kernel)
        return np.stack(terms, axis=-1)

    def squares(self, residuals: Array, u: Array) -> Array:
        """r² over the squared scale, (n_draws, n_rows, 3)."""
        return np.stack([residuals**2 / variance for variance in self._variances(u)], axis=-1)

    def units(self) -> list[NDArray[np.int64]]:
        """Each row by itself."""
        return list(np.arange(self._size)[:, None])

    def log_likelihood(self, residuals: Array, u: Array) -> Array:
        """Log density of all rows for each ν, (n_draws, 3): `log_density` summed over rows, in less time."""
        if self._variance is not None:
            return np.asarray(self.log_density(residuals, u).sum(axis=1))
        squares = residuals**2
        n, total = residuals.shape[1], np.empty((len(u), len(NU)))
        for k, (nu, variance) in enumerate(zip(NU, self._variances(u), strict=True)):
            constant = lgamma((nu + 1) / 2) - lgamma(nu / 2) - 0.5 * log(nu * pi)
            kernel = np.log(1.0 + squares * (1.0 / (nu * variance))).sum(axis=1)
            total[:, k] = n * (constant - 0.5 * np.log(variance[:, 0])) - 0.5 * (nu + 1) * kernel
        return total

    def natural(self, u: Array, nu: Array) -> dict[str, Array]:
        """``sigma``, the t scale of log-loss errors that were measured exactly, for each draw's own ν."""
        return {"sigma": np.exp(u[:, 0]) / MEDIAN_ABS[np.searchsorted(NU, nu)]}

    def initial(self, residuals: Array) -> Array:
        """(1,) coordinates that fit these residuals (n_rows,) about right."""
        return np.array([np.log(max(float(np.median(np.abs(residuals))), 1e-12))])

    def _variances(self, u: Array) -> list[Array]:
        scale = np.exp(2.0 * u[:, :1])
        extra = 0.0 if self._variance is None else self._variance
        return [scale / m**2 + extra for m in MEDIAN_ABS]
