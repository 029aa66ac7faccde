"""Initial weights: equal on every backend, decided here."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

from scaling_sim.errors import ConfigError
from scaling_sim.model.shape import Shape

STANDARD_DEVIATION = 0.02
"""Of every embedding and matrix before residual scaling."""

RESIDUAL_OUTPUTS = ("attn_out", "mlp_down")
"""Matrices that write into the residual stream; scaled by 1/√(2·n_layer), one factor per write."""


def initial_parameters(shape: Shape, seed: int, dtype: DTypeLike = np.float64) -> dict[str, NDArray[np.floating]]:
    """Initial value of every parameter, by its canonical name.

    Embeddings and matrices are N(0, 0.02²), those of `RESIDUAL_OUTPUTS` times 1/√(2·n_layer); gains are 1, biases 0.
    Drawn in float64 from Philox keyed by (seed, index of the parameter), then cast: a parameter's numbers do not depend
    on the others, and every precision starts from the same point.

    Parameters
    ----------
    shape : Shape
    seed : int
        0 ≤ seed < 2**64.
    dtype : dtype
        Of the arrays returned.

    Raises
    ------
    ConfigError
        The seed is out of range.
    """
    if not 0 <= seed < 2**64:
        raise ConfigError(f"seed must lie in 0..2**64 - 1, got {seed}")
    return {
        name: _initial(shape, name, size, seed, index).astype(dtype, copy=False)
        for index, (name, size) in enumerate(shape.parameter_shapes().items())
    }


def initial_members(
    shape: Shape, seeds: Sequence[int], dtype: DTypeLike = np.float64
) -> list[dict[str, NDArray[np.floating]]]:
    """`initial_parameters` of several models; those of one seed (runs that differ in their learning rates) are drawn
    once and share their arrays."""
    drawn = {seed: initial_parameters(shape, seed, dtype) for seed in dict.fromkeys(seeds)}
    return [drawn[seed] for seed in seeds]


def _initial(shape: Shape, name: str, size: tuple[int, ...], seed: int, index: int) -> NDArray[np.float64]:
    if name.endswith("_gain"):
        return np.ones(size)
    if name.endswith("_bias"):
        return np.zeros(size)
    key = np.array([seed, index], dtype=np.uint64)
    draws = np.random.Generator(np.random.Philox(key=key)).standard_normal(size)
    scale = STANDARD_DEVIATION
    if name in RESIDUAL_OUTPUTS:
        scale /= math.sqrt(2 * max(shape.n_layer, 1))
    return draws * scale
