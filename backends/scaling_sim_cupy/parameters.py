"""All parameters of one member side by side in one row, and views of them by name.

Suffixes: M members, P all parameters of one member.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

from scaling_sim.model.shape import Shape

Array = Any
"""An array on the device; CuPy ships no types."""


def parameter_offsets(shape: Shape) -> dict[str, int]:
    """Where each parameter begins in a flat row; ``end`` is P, the number of parameters."""
    shapes = shape.parameter_shapes()
    return dict(zip((*shapes, "end"), accumulate(map(math.prod, shapes.values()), initial=0), strict=True))


def split_parameters(flat_MP: Array, shape: Shape) -> dict[str, Array]:
    """Views (M, *shape) of a flat parameter array (of NumPy or CuPy), by canonical name."""
    begins, shapes = parameter_offsets(shape), shape.parameter_shapes()
    return {
        name: flat_MP[:, begins[name] : begins[name] + math.prod(size)].reshape(len(flat_MP), *size)
        for name, size in shapes.items()
    }
