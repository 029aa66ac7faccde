"""One run's curve given its first part: the joint Gaussian of parameters, discrepancy and the run's own errors.

With m the log loss that a law and its discrepancy expect, the log loss of one run at step S is

    y(S) = m(S) + u(S) + e(S),    cov u = τ²·exp(−|Δ ln S|/ℓ)/λ,    var e = (σ² + measurement error²)/λ,

λ ~ Gamma(ν/2, ν/2) once for the run: the likelihood that a fit gives every curve (`scaling_sim.inference.curves`).
Draws of m are an ensemble whose mean and covariance are known; given (σ, τ, ℓ, λ) everything is Gaussian, and each draw
is moved to the observed points by Matheron's rule. Draws of (σ, τ, ℓ, λ) are weighted by the density of what was seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scaling_sim.predict.source import Array

Places = NDArray[np.signedinteger]

RARE = (1e-4, 10.0)
"""Range of λ from which half its proposals come, evenly in the logarithm: runs of errors far above the usual."""
JITTER = 1e-12


@dataclass(frozen=True)
class RunErrors:
    """Draws of the errors of one run, (n,) each: scale √(σ² + τ²) at its place, σ²'s share of it, ℓ and ν.

    ``level_only``: λ scales u, and e keeps its usual size.
    """

    scale: Array
    share: Array
    ell: Array
    nu: Array
    level_only: bool = False

    def take(self, rows: Places) -> RunErrors:
        """These draws."""
        scale, share, ell, nu = (np.asarray(values)[rows] for values in (self.scale, self.share, self.ell, self.nu))
        return replace(self, scale=scale, share=share, ell=ell, nu=nu)

    def lasting(self) -> RunErrors:
        """The same for a run whose level is odd and stays so: ℓ = ∞, and λ scales u alone: e cannot explain it."""
        return replace(self, ell=np.full_like(self.ell, np.inf), level_only=True)

    def level(self, log_S: Array, rng: np.random.Generator) -> Array:
        """(n, k) draws of u at ascending log steps (k,), for λ = 1: a Markov process along the curve."""
        n, gaps = len(self.scale), np.diff(log_S)
        path = np.empty((n, len(log_S)))
        path[:, 0] = rng.standard_normal(n)
        for k, gap in enumerate(gaps.tolist()):
            keep = np.exp(-gap / self.ell)
            path[:, k + 1] = keep * path[:, k] + np.sqrt(1.0 - keep**2) * rng.standard_normal(n)
        return np.asarray(path * (self.scale * np.sqrt(1.0 - self.share))[:, None])

    def point(self, measured: Array, rng: np.random.Generator) -> Array:
        """(n, k) draws of e for λ = 1; ``measured`` (k,) are standard errors of the log loss."""
        size = np.sqrt((self.scale**2 * self.share)[:, None] + measured**2)
        return np.asarray(size * rng.standard_normal(size.shape))

    def level_covariance(self, first: Array, second: Array) -> Array:
        """(n, k, j) covariance of u between two sets of log steps, for λ = 1."""
        distance = np.abs(first[:, None] - second[None])
        return np.asarray(
            (self.scale**2 * (1 - self.share))[:, None, None] * np.exp(-distance / self.ell[:, None, None])
        )

    def covariance(self, log_S: Array, measured: Array, precision: Array | float = 1.0) -> Array:
        """(n, k, k) covariance of u + e at log steps (k,); ``precision`` is λ."""
        each = np.broadcast_to(precision, self.scale.shape)
        independent = (self.scale**2 * self.share)[:, None] + measured**2
        independent = independent / self.points(each)[:, None]
        level = self.level_covariance(log_S, log_S) / each[:, None, None]
        return np.asarray(level + independent[:, :, None] * np.eye(len(log_S)))

    def points(self, precision: Array) -> Array:
        """(n,) what scales the precision of e, where λ is ``precision``."""
        return np.ones_like(precision) if self.level_only else precision

    def precision(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """(n,) proposals of λ, half of them far out, and the logarithm of prior over proposal."""
        from scipy.stats import gamma

        n, (low, high) = len(self.nu), np.log(RARE)
        usual = rng.gamma(self.nu / 2) * 2 / self.nu
        chosen = np.where(rng.random(n) < 0.5, usual, np.exp(rng.uniform(low, high, n)))
        log_prior = gamma.logpdf(chosen, self.nu / 2, scale=2 / self.nu)
        inside = (np.log(chosen) >= low) & (np.log(chosen) <= high)
        flat = np.where(inside, -np.log(chosen) - np.log(high - low), -np.inf)
        return chosen, np.asarray(log_prior - np.logaddexp(log_prior, flat) - np.log(0.5))


@dataclass(frozen=True)
class Conditioned:
    """Draws of a run's curve given its first part.

    Attributes
    ----------
    path : (n, g) draws of m + u, ln nats, at the places asked for
    point : (n,) draws of one error e there
    replicated : (n, k) draws of the observed points as they were expected before they were seen
    """

    path: Array
    point: Array
    replicated: Array


def condition(
    mean: Array, log_S: Array, seen: Places, y: Array, measured: Array, errors: RunErrors, seed: int
) -> Conditioned:
    """Draws of the curve at all places given log losses ``y`` (k,) at some of them.

    Parameters
    ----------
    mean : (n, g) joint draws of m
    log_S : (g,) ascending log steps
    seen : (k,) places of the observed points among them
    measured : (k,) standard errors of the observed log losses
    errors : n draws
    """
    rng = np.random.default_rng([seed, 2])
    n, at = len(mean), log_S[seen]
    away = mean - mean.mean(axis=0)
    cross = away.T @ away[:, seen] / (n - 1)  # (g, k)
    precision, log_weight = errors.precision(rng)
    total = errors.covariance(at, measured, precision) + cross[seen] + JITTER * np.eye(len(at))
    log_weight = log_weight + _log_density(y - mean[:, seen].mean(axis=0), total)
    chosen = _resample(log_weight, rng)
    drawn, root = errors.take(chosen), np.sqrt(precision[chosen])[:, None]
    root_points = np.sqrt(errors.points(precision[chosen]))[:, None]
    level = drawn.level(log_S, rng) / root
    simulated = (mean + level)[:, seen] + drawn.point(measured, rng) / root_points
    missing = np.linalg.solve(total[chosen], (y - simulated)[:, :, None])
    gain = cross + drawn.level_covariance(log_S, at) / precision[chosen][:, None, None]
    path = mean + level + (gain @ missing)[:, :, 0]
    point = drawn.point(np.zeros(1), rng)[:, 0] / root_points[:, 0]
    return Conditioned(path, point, _replicated(mean[:, seen], at, measured, errors, rng))


def _replicated(mean: Array, log_S: Array, measured: Array, errors: RunErrors, rng: np.random.Generator) -> Array:
    """(n, k) log losses of runs like those of the fit."""
    size = 1.0 / np.sqrt(rng.gamma(errors.nu / 2) * 2 / errors.nu)[:, None]
    return np.asarray(mean + size * (errors.level(log_S, rng) + errors.point(measured, rng)))


def _log_density(away: Array, covariance: Array) -> Array:
    """(n,) log Gaussian density of ``away`` (k,) under covariances (n, k, k), up to a constant."""
    root = np.linalg.cholesky(covariance)
    white = np.linalg.solve(root, np.broadcast_to(away, root.shape[:2])[:, :, None])[:, :, 0]
    return np.asarray(-0.5 * (white**2).sum(axis=1) - np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1))


def _resample(log_weight: Array, rng: np.random.Generator) -> Places:
    """(n,) places, each as often as its weight says (systematic), in random order."""
    weight = np.exp(log_weight - log_weight.max())
    at = (np.arange(len(weight)) + rng.random()) / len(weight)
    places = np.searchsorted(np.cumsum(weight) / weight.sum(), at)
    return np.asarray(rng.permutation(np.minimum(places, len(weight) - 1)))


def surprise(y: Array, replicated: Array) -> tuple[float, float, float]:
    """Posterior predictive p-values of a curve so far: of its whole shape, of being this much worse, or better.

    The first is the share of replicated curves at least as far from their mean (Mahalanobis), the others those of
    curves whose generalised mean error is at least as high, or as low.
    """
    mean, n = replicated.mean(axis=0), len(replicated)
    inverse = np.linalg.inv(np.cov(replicated.T).reshape(len(y), len(y)) + JITTER * np.eye(len(y)))
    each = replicated - mean
    distance = np.einsum("ij,jk,ik->i", each, inverse, each)
    level = inverse.sum(axis=0)
    far = int((distance >= (y - mean) @ inverse @ (y - mean)).sum())
    worse = int((each @ level >= (y - mean) @ level).sum())
    return (1 + far) / (1 + n), (1 + worse) / (1 + n), (1 + n - worse) / (1 + n)
