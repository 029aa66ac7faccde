"""A smooth random function of compute and shape of a run: what a law leaves over, and how far it may drift."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MAX_KNOTS = 30
MIN_DISTANCE = 0.1
"""Of knots, in correlation lengths: nearer ones say nothing new."""
JITTER = 1e-7


@dataclass(frozen=True)
class Scheme:
    """Constants of the discrepancy; the defaults were chosen on public sweeps, see docs/explanation/extrapolation.md.

    Attributes
    ----------
    lengths : correlation lengths in e-folds of C and of tokens/N
    amplitude : median of the prior of the discrepancy's sd (in ln loss), and sd of its logarithm
    growth : mean and sd of the prior of γ, cut at 0: errors have the scale C^(−γ/2)
    exponent_sd : prior sd of log α and log β where a floor trades off with them, narrower than that of a fit
    """

    lengths: tuple[float, float] = (10.0, 5.0)
    amplitude: tuple[float, float] = (0.045, 0.7)
    growth: tuple[float, float] = (0.03, 0.05)
    exponent_sd: float = 0.3

    def where(self, C: Array, N: Array) -> Array:
        """Places of runs, (n, 2): ln C and ln(tokens/N) = ln(C/(6N²)) in correlation lengths; 0 where N is unknown."""
        ratio = np.log(C) - np.log(6.0) - 2.0 * np.log(N)
        return np.asarray(np.stack([np.log(C), np.nan_to_num(ratio, nan=0.0)], axis=-1) / self.lengths)

    def log_prior(self, amplitude: float, growth: float) -> float:
        """Log prior of the two hyperparameters, up to a constant."""
        (median, sd), (mean, spread) = self.amplitude, self.growth
        return float(-0.5 * (np.log(amplitude / median) / sd) ** 2 - 0.5 * ((growth - mean) / spread) ** 2)


def matern(first: Array, second: Array) -> Array:
    """(n, m) correlations of a Gaussian process whose paths have two derivatives (Matérn, ν = 5/2)."""
    r = np.sqrt(5.0 * ((first[:, None] - second[None]) ** 2).sum(axis=-1))
    return np.asarray((1.0 + r + r**2 / 3.0) * np.exp(-r))


@dataclass(frozen=True)
class Smooth:
    """A Gaussian process of unit variance, by its values at knots: δ(x) = φ(x)·b + rest, b ~ Normal(0, 1).

    The rest is what the values at the knots leave open: nothing among them, everything far beyond.
    """

    knots: Array
    root: Array

    @classmethod
    def over(cls, x: Array) -> Smooth:
        """A process with knots among the rows of ``x`` (n, 2), each the farthest from those before it."""
        chosen = [int(np.argmax(x[:, 0]))]
        distance = ((x - x[chosen[0]]) ** 2).sum(axis=1)
        while len(chosen) < MAX_KNOTS and distance.max() > MIN_DISTANCE**2:
            chosen.append(int(np.argmax(distance)))
            distance = np.minimum(distance, ((x - x[chosen[-1]]) ** 2).sum(axis=1))
        knots = x[chosen]
        root = np.linalg.cholesky(matern(knots, knots) + JITTER * np.eye(len(knots)))
        return cls(knots, np.asarray(root))

    def basis(self, x: Array) -> Array:
        """φ at ``x`` (k, 2), (k, n_knots)."""
        from scipy.linalg import solve_triangular

        return np.asarray(solve_triangular(self.root, matern(self.knots, x), lower=True).T)

    def rest(self, x: Array, num: int, rng: np.random.Generator) -> Array:
        """(num, k) draws of the rest at ``x`` (k, 2)."""
        phi = self.basis(x)
        values, vectors = np.linalg.eigh(matern(x, x) - phi @ phi.T)
        return np.asarray(rng.standard_normal((num, len(x))) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T)
