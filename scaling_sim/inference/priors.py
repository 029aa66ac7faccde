"""The prior: independent normals on the sampling coordinates, as each law and the noise model state them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scaling_sim.laws.base import Coordinate

Array = NDArray[np.float64]


def log_prior(u: Array, coordinates: Sequence[Coordinate]) -> Array:
    """Normalised log density (n_draws,) of coordinates ``u`` (n_draws, n_coordinates)."""
    mean, sd = moments(coordinates)
    z = (u - mean) / sd
    return np.asarray(-0.5 * np.sum(z * z, axis=1) - np.sum(np.log(sd)) - 0.5 * len(sd) * np.log(2 * np.pi))


def moments(coordinates: Sequence[Coordinate]) -> tuple[Array, Array]:
    """Prior means and standard deviations, (n_coordinates,) each."""
    return np.array([c.prior.mean for c in coordinates]), np.array([c.prior.sd for c in coordinates])


def draw_prior(coordinates: Sequence[Coordinate], size: int, rng: np.random.Generator) -> Array:
    """Draws (size, n_coordinates)."""
    mean, sd = moments(coordinates)
    return mean + sd * rng.standard_normal((size, len(sd)))
