"""Straight lines through a few points, with their posterior; for trends that no law of the library describes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_sim.errors import DesignError

Array = NDArray[np.float64]


def line_draws(x: ArrayLike, y: ArrayLike, *, num: int = 1000, seed: int = 0) -> tuple[Array, Array]:
    """Draws (num,) of the height at the mean of ``x`` and of the slope of y = height + slope·(x − mean).

    Independent normal errors of unknown scale, flat priors: both are t-distributed about least squares.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    spread = float(np.sum((x - x.mean()) ** 2))
    if len(x) < 3 or not spread > 0:
        raise DesignError(f"a line with its uncertainty needs three places at least, got {len(np.unique(x))}")
    slope = float(np.sum((x - x.mean()) * y) / spread)
    rest = float(np.sum((y - y.mean() - slope * (x - x.mean())) ** 2))
    rng = np.random.default_rng(seed)
    error = np.sqrt(rest / rng.chisquare(len(x) - 2, num))
    height = y.mean() + error / np.sqrt(len(x)) * rng.standard_normal(num)
    return height, slope + error / np.sqrt(spread) * rng.standard_normal(num)


def mean_draws(y: ArrayLike, *, num: int = 1000, seed: int = 0) -> Array:
    """Draws (num,) of the mean of values (k,), k ≥ 2: t-distributed about their average."""
    y = np.asarray(y, dtype=np.float64)
    if len(y) < 2:
        raise DesignError(f"a mean with its uncertainty needs two values at least, got {len(y)}")
    scale = y.std(ddof=1) / np.sqrt(len(y))
    return np.asarray(y.mean() + scale * np.random.default_rng(seed).standard_t(len(y) - 1, num))
