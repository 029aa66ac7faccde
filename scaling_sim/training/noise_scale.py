"""Gradient noise scale along a run: how large a batch is still useful.

McCandlish, Kaplan, Amodei et al. 2018 (arXiv 1812.06162), appendix A.1.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

NOISE_DECAY = 0.75
"""Weight kept by the older measurements at each new one. Measurements are log-spaced, so this averages over a fixed
range of ln(step): about four measurements."""


def two_batch_estimate(
    small_sq: NDArray[np.float64], big_sq: NDArray[np.float64], small: float, big: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unbiased |G|² and tr(Σ) from squared gradient norms at two batch sizes, each (M,).

    ::

        |G|²  = (B_big·|G_big|² − B_small·|G_small|²) / (B_big − B_small)
        tr(Σ) = (|G_small|² − |G_big|²) / (1/B_small − 1/B_big)

    Parameters
    ----------
    small_sq : (M, n) float array
        |g_i|² of each small batch; their mean is |G_small|².
    big_sq : (M,) float array
        |mean_i g_i|², the squared norm at the big batch.
    small, big : float
        Batch sizes in tokens, big = n·small, n ≥ 2.
    """
    mean_small = small_sq.mean(axis=1)
    gradient_sq = (big * big_sq - small * mean_small) / (big - small)
    trace = (mean_small - big_sq) / (1.0 / small - 1.0 / big)
    return gradient_sq, trace


class NoiseAverage(msgspec.Struct):
    """B_simple = tr(Σ)/|G|² of one run, in tokens, from separately averaged numerators and denominators.

    The ratio of single estimates is biased, and |G|² of one measurement may be negative; the ratio of averages is used.
    """

    trace: float = 0.0
    gradient_sq: float = 0.0
    count: int = 0

    def add(self, gradient_sq: float, trace: float) -> None:
        """Take in one measurement; one that is not finite is left out."""
        if not (math.isfinite(gradient_sq) and math.isfinite(trace)):
            return
        weight = NOISE_DECAY if self.count else 0.0
        self.trace = weight * self.trace + (1.0 - weight) * trace
        self.gradient_sq = weight * self.gradient_sq + (1.0 - weight) * gradient_sq
        self.count += 1

    @property
    def noise_scale(self) -> float | None:
        """Tokens; None without a measurement or while the averaged |G|² (or tr Σ) is not positive."""
        if self.count == 0 or self.gradient_sq <= 0 or self.trace <= 0:
            return None
        return self.trace / self.gradient_sq
