"""What a gradient may be: one flat tensor of all members, or the pieces in which products give that of one model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Pieces = Sequence[tuple[int, Tensor]]
"""A gradient of one member: where each piece begins in the flat vector, and its numbers, bfloat16 or float32."""
Gradient = Tensor | Pieces
"""Flat (M, P) float32, or pieces."""


def squared_norms(gradient: Gradient) -> Tensor:
    """|g|² of every member, (M,) float64; summed in float32, because PyTorch copies what it sums in another type."""
    if isinstance(gradient, Tensor):
        norms_M: Tensor = torch.linalg.vector_norm(gradient, dim=1)
        return norms_M.double().square()
    norms = torch.stack([torch.linalg.vector_norm(piece, dtype=torch.float32) for _, piece in gradient])
    return norms.double().square().sum()[None]


def add(total_MP: Tensor, gradient: Gradient) -> None:
    """Add a gradient to a flat float32 tensor."""
    if isinstance(gradient, Tensor):
        total_MP += gradient
        return
    for first, piece in gradient:
        total_MP[0, first : first + piece.numel()] += piece


def flat(gradient: Gradient, like_MP: Tensor) -> Tensor:
    """A gradient as a flat float32 tensor of the size of ``like_MP``."""
    if isinstance(gradient, Tensor):
        return gradient
    total_MP = torch.zeros(like_MP.shape, device=like_MP.device)
    add(total_MP, gradient)
    return total_MP
