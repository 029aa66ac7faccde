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
        self._gap = np.abs(np.diff(unique[:, :steps], axis=1))
        self._variance = unique[:, steps:] ** 2
        self._present = unique[:, :steps] >= 0
        self._constants = [
            np.array([lgamma((nu + n) / 2) - lgamma(nu / 2) - 0.5 * n * log(nu * pi) for n in counts]) for nu in NU
        ]

    def coordinates(self) -> tuple[Coordinate, ...]:
        """Total scale within a factor of 27 of 1 %, σ² 3 to 81 % of it, ℓ .3 to 3 e-folds of steps (90 % of the prior).

        The share is bounded away from 0 by its prior because data often say only that σ is small.
        """
        return (
            Coordinate("log_scale", Normal(log(0.01), 2.0), "log of √(σ² + τ²), the scale of errors of the log loss"),
            Coordinate("logit_independent", Normal(-1.0, 1.5), "logit of the share of σ² in σ² + τ²"),
            Coordinate("log_ell", Normal(0.0, 0.75), "log of the correlation length in ln S"),
        )

    def log_density(self, residuals: Array, u: Array) -> Array:
        """Log density of each curve and ν, (n_draws, n_curves, 3), normalised."""
        quadratic, log_det = self._quadratic(residuals, u)
        terms = [
            constant - 0.5 * log_det - 0.5 * (nu + self.length) * np.log1p(quadratic / nu)
            for nu, constant in zip(NU, self._constants, strict=True)
        ]
        return np.stack(terms, axis=-1)

    def squares(self, residuals: Array, u: Array) -> Array:
        """rᵀ Σ⁻¹ r of each curve, (n_draws, n_curves, 1): Σ does not depend on ν."""
        return self._quadratic(residuals, u)[0][:, :, None]

    def units(self) -> list[NDArray[np.int64]]:
        """The rows of each curve, in the order of ``names``."""
        return [index[index >= 0] for index in self._index]

    def log_likelihood(self, residuals: Array, u: Array) -> Array:
        """Log density of all curves for each ν, (n_draws, 3)."""
        return np.asarray(self.log_density(residuals, u).sum(axis=1))

    def natural(self, u: Array, nu: Array) -> dict[str, Array]:
        """``sigma`` and ``tau``, scales of the log loss, and ``ell``, the correlation length in ln S."""
        variance, share, ell = (value[:, 0] for value in self._scales(u))
        return {"sigma": np.sqrt(variance * share), "tau": np.sqrt(variance * (1.0 - share)), "ell": ell}

    def initial(self, residuals: Array) -> Array:
        """(3,) coordinates that fit these residuals (n_rows,) about right."""
        return np.array([np.log(max(float(np.median(np.abs(residuals))), 1e-9)), -1.0, 0.0])

    def _quadratic(self, residuals: Array, u: Array) -> tuple[Array, Array]:
        """rᵀ Σ⁻¹ r and log det Σ of each curve, (n_draws, n_curves)."""
        variance, share, ell = self._scales(u)
        return self._kalman(residuals, variance * share, variance * (1.0 - share), ell)

    def _scales(self, u: Array) -> tuple[Array, Array, Array]:
        """σ² + τ², the share of σ² in it, and ℓ, (n_draws, 1) each."""
        return np.exp(2.0 * u[:, :1]), 1.0 / (1.0 + np.exp(-u[:, 1:2])), np.exp(u[:, 2:3])

    def _kalman(self, residuals: Array, independent: Array, kept: Array, ell: Array) -> tuple[Array, Array]:
        """rᵀ Σ⁻¹ r and log det Σ of each curve, (n_draws, n_curves), for σ², τ² and ℓ (n_draws, 1).

        Predicted variances follow from the grids alone, so that only the predicted means need a step per point and
        curve.
        """
        decay = np.exp(-self._gap / ell[:, :, None])  # (n_draws, n_grids, n_points − 1)
        noise = independent[:, :, None] + self._variance
        total, gain = np.empty(noise.shape), np.empty(noise.shape)
        variance = np.broadcast_to(kept, noise.shape[:2])
        for k in range(noise.shape[2]):
            total[:, :, k] = variance + noise[:, :, k]
            gain[:, :, k] = variance / total[:, :, k]
            if k < decay.shape[2]:
                variance = kept + decay[:, :, k] ** 2 * (gain[:, :, k] * noise[:, :, k] - kept)
        log_det = np.where(self._present, np.log(total), 0.0).sum(axis=2)
        precision = np.where(self._present, 1.0 / total, 0.0)
        forget = np.moveaxis((decay * (1.0 - gain[:, :, :-1]))[:, self._grid], 2, 0).copy()
        learn = np.moveaxis((decay * gain[:, :, :-1])[:, self._grid], 2, 0).copy()
        observed = np.moveaxis(residuals[:, self._index], 2, 0).copy()  # index −1 reads some row; its precision is 0
        surprise = observed.copy()
        mean = np.zeros(observed.shape[1:])
        for k in range(len(forget)):
            mean = forget[k] * mean + learn[k] * observed[k]
            surprise[k + 1] -= mean
        quadratic = np.einsum("kdc,dck->dc", surprise**2, precision[:, self._grid])
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
