"""Correlated errors along a learning curve: one multivariate Student-t per curve."""

from __future__ import annotations

from math import lgamma, log, pi

import numpy as np
from numpy.typing import NDArray

from scaling_sim.inference.student import NU
from scaling_sim.laws.base import Coordinate, Normal

Array = NDArray[np.float64]

MAX_POINTS = 16
"""Points of one curve that are fitted; more are thinned to this many, evenly in log S."""


class CurveErrors:
    """Errors of the points of one curve: multivariate t_ν with scale matrix Σ_ij = (σ² + e_i²) δ_ij + τ² exp(−|Δ ln
    S|/ℓ).

    The exponential kernel is that of a Markov process, so that det Σ and rᵀ Σ⁻¹ r follow from a Kalman recursion along
    the curve: linear in its points, vectorised over draws and curves; curves with one grid share their variances.

    Parameters
    ----------
    run : (n,) str, which curve a row belongs to
    log_S : (n,) array, log steps
    error : (n,) array, measured standard error of the log loss, NaN or 0 if unknown
    """

    parameters = ("sigma", "tau", "ell")

    def __init__(self, run: NDArray[np.str_], log_S: Array, error: Array) -> None:
        self.names, which = np.unique(run, return_inverse=True)
        order = np.lexsort((log_S, which))
        counts = np.bincount(which)
        self.length = counts
        position = np.arange(len(run)) - np.repeat(np.cumsum(counts) - counts, counts)
        self._index = np.full((len(counts), counts.max()), -1)
        self._index[which[order], position] = order
        padded_S = np.where(self._index < 0, np.nan, log_S[self._index])
        padded_e = np.where(self._index < 0, np.nan, np.nan_to_num(error, nan=0.0)[self._index])
        grids = np.concatenate([np.round(padded_S - padded_S[:, :1], 9), padded_e], axis=1)
        unique, self._grid = np.unique(np.nan_to_num(grids, nan=-1.0), axis=0, return_inverse=True)
        steps = self._index.shape[1]
        self._gap = np.diff(unique[:, :steps], axis=1)
        self._variance = unique[:, steps:] ** 2
        self._present = unique[:, :steps] >= 0

    def coordinates(self) -> tuple[Coordinate, ...]:
        """σ within a factor of 27 of .3 %, τ of 1 %, ℓ of 5 of one e-fold of steps (90 % of the prior)."""
        return (
            Coordinate("log_sigma", Normal(log(0.003), 2.0), "log scale of independent errors of the log loss"),
            Coordinate("log_tau", Normal(log(0.01), 2.0), "log scale of errors that a curve keeps"),
            Coordinate("log_ell", Normal(0.0, 1.0), "log of the correlation length in ln S"),
        )

    def log_density(self, residuals: Array, u: Array) -> Array:
        """Log density of each curve and ν, (n_draws, n_curves, 3), normalised."""
        quadratic, log_det = self._kalman(residuals, *np.exp(u.T[:3, :, None]))
        terms = []
        for nu in NU:
            constant = np.array([lgamma((nu + n) / 2) - lgamma(nu / 2) - 0.5 * n * log(nu * pi) for n in self.length])
            terms.append(constant - 0.5 * log_det - 0.5 * (nu + self.length) * np.log1p(quadratic / nu))
        return np.stack(terms, axis=-1)

    def log_likelihood(self, residuals: Array, u: Array) -> Array:
        """Log density of all curves for each ν, (n_draws, 3)."""
        return np.asarray(self.log_density(residuals, u).sum(axis=1))

    def natural(self, u: Array, nu: Array) -> dict[str, Array]:
        """``sigma`` and ``tau``, scales of the log loss, and ``ell``, the correlation length in ln S."""
        return dict(zip(self.parameters, np.exp(u.T), strict=True))

    def initial(self, residuals: Array) -> Array:
        """(3,) coordinates that fit these residuals (n_rows,) about right."""
        scale = np.log(max(float(np.median(np.abs(residuals))), 1e-9))
        return np.array([scale - 1.0, scale, 0.0])

    def _kalman(self, residuals: Array, sigma: Array, tau: Array, ell: Array) -> tuple[Array, Array]:
        """rᵀ Σ⁻¹ r and log det Σ of each curve, (n_draws, n_curves); scales are (n_draws, 1)."""
        padded = residuals[:, self._index]  # index −1 reads some row; its weight is 0
        level, prior = sigma**2, tau**2
        variance, mean = np.broadcast_to(prior, (len(residuals), len(self._variance))), 0.0
        quadratic, log_det = np.zeros((len(residuals), len(self.length))), np.zeros(variance.shape)
        decay = np.exp(-self._gap / ell[..., None])
        for k in range(self._index.shape[1]):
            here = self._present[:, k]
            noise = level + self._variance[:, k]
            total = variance + noise
            surprise = padded[:, :, k] - mean
            quadratic += surprise**2 * np.where(here, 1.0 / total, 0.0)[:, self._grid]
            log_det += np.where(here, np.log(total), 0.0)
            if k < decay.shape[2]:
                factor = decay[:, :, k]
                mean = factor[:, self._grid] * (mean + (variance / total)[:, self._grid] * surprise)
                variance = prior + factor**2 * (variance * noise / total - prior)
        return quadratic, log_det[:, self._grid]


def thinned(run: NDArray[np.str_], log_S: Array, max_points: int = MAX_POINTS) -> NDArray[np.int64]:
    """Indices, in order, of at most ``max_points`` rows per curve: those nearest to points even in log S."""
    keep = []
    for name in np.unique(run):
        points = np.flatnonzero(run == name)
        points = points[np.argsort(log_S[points], kind="stable")]
        if len(points) > max_points:
            target = np.linspace(log_S[points[0]], log_S[points[-1]], max_points)
            points = points[np.unique(np.argmin(np.abs(log_S[points][:, None] - target), axis=0))]
        keep.append(points)
    return np.sort(np.concatenate(keep)) if keep else np.zeros(0, dtype=np.int64)
