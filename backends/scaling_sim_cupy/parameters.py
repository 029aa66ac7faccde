"""All parameters of one member side by side in one row, and views of them by name.

Suffixes: M members, P all parameters of one member.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from scaling_sim.model.shape import Shape

Array = Any
"""An array on the device; CuPy ships no types."""

Params = Mapping[str, Array]

LAYERED = ("ln1_gain", "ln1_bias", "qkv", "attn_out", "ln2_gain", "ln2_bias", "mlp_up", "mlp_down")
"""Parameters with a layer axis after the member axis."""


def num_parameters(shape: Shape) -> int:
    """P."""
    return sum(math.prod(size) for size in shape.parameter_shapes().values())


def split_parameters(flat_MP: Array, shape: Shape) -> dict[str, Array]:
    """Views (M, *shape) of a flat parameter array (of NumPy or CuPy), by canonical name."""
    shapes = shape.parameter_shapes()
    ends = list(accumulate(math.prod(size) for size in shapes.values()))
    begins = [0, *ends[:-1]]
    return {
        name: flat_MP[:, begin:end].reshape(len(flat_MP), *size)
        for (name, size), begin, end in zip(shapes.items(), begins, ends, strict=True)
    }


def layer_parameters(params: Params, layer: int) -> dict[str, Array]:
    """Views (M, ...) of one layer's parameters."""
    return {name: params[name][:, layer] for name in LAYERED}
