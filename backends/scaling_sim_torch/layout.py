"""Where each parameter stands in a member's flat vector."""

from __future__ import annotations

import math

from scaling_sim.model.shape import Shape


def offsets(shape: Shape) -> tuple[dict[str, int], int]:
    """Offset of each parameter by canonical name, and the length of the vector."""
    at, total = {}, 0
    for name, size in shape.parameter_shapes().items():
        at[name] = total
        total += math.prod(size)
    return at, total


def parameter_at(shape: Shape, place: int) -> str:
    """Canonical name of the parameter to which a number of a member's flat vector belongs."""
    at, _ = offsets(shape)
    return max((first, name) for name, first in at.items() if first <= place)[1]
