"""Who trains a shape on a GPU: decided here, so that runs which are compared have the same arithmetic.

A sweep of its own would take the faster backend for each shape, without regard to dropout, for which torch has neither
kernels nor compiled blocks.
"""

from __future__ import annotations

from scaling_sim.model.shape import Shape

NARROW = 64
"""Widest model that the CuPy kernels take."""
MOST_VOCABULARY = 1024
"""Largest vocabulary that they take."""
MOST_STACKED_WIDTH = 1024
"""Layers times d_model whose gains and biases they still hold beside a sequence of 128 positions."""
STACKED_ABOVE = 128
"""d_model above which the torch backend compiles blocks, anew for every number of members."""


def path_of(shape: Shape) -> str:
    """``cupy``; ``fused``: the hand-written kernels of torch; or ``stacked``: its compiled blocks. In bfloat16."""
    if shape.vocab_size <= MOST_VOCABULARY and _fits_cupy(shape):
        return "cupy"
    return "fused" if shape.n_layer and shape.d_model <= STACKED_ABOVE else "stacked"


def backend_of(shape: Shape) -> str:
    """Name of the backend of its path."""
    return "cupy" if path_of(shape) == "cupy" else "torch"


def _fits_cupy(shape: Shape) -> bool:
    """Whether it is narrow, also with all heads padded to 16, and not too deep."""
    widest = max(shape.d_model, shape.n_head * -(-shape.d_head // 16) * 16)
    return widest <= NARROW and shape.n_layer * shape.d_model <= MOST_STACKED_WIDTH
