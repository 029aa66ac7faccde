"""Compare the hand-written kernels with plain operations before they are trusted with a run.

Compilers err (see `scaling_sim_torch.ptxas`), and a wrong gradient looks like a poor model. One small batch per
shape and process costs the compilation that the run needs anyway.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from scaling_sim.model.init import initial_parameters
from scaling_sim.model.shape import Shape
from scaling_sim_torch.fused import FusedModel
from scaling_sim_torch.model import position_losses

TOLERANCE = 0.05
"""Largest relative error of a whole gradient; bfloat16 products give less than 0.01."""
SPREAD = 3.0
"""The check's weights are initial ones times this: attention is then far from uniform."""


ROWS = 512
"""Rows per member of the check, at least: two of the largest tiles."""


@lru_cache
def kernel_error(shape: Shape, device: torch.device, num_members: int = 2, batch: int | None = None) -> float:
    """Largest relative error of a member's gradient or losses by the kernels, against float32; NaN if not finite.

    Once as the kernels are run, and once with a single program for all tiles of a member; losses also by the kernels
    of evaluations, which keep nothing for a backward pass.
    """
    batch = batch or max(2, -(-ROWS // shape.n_ctx))
    params_MP = torch.stack([_weights(shape, seed, device) for seed in range(num_members)])
    generator = torch.Generator().manual_seed(0)
    corpus = torch.randint(0, min(shape.vocab_size, 256), (4 * shape.n_ctx,), generator=generator).to(torch.uint8)
    starts_MB = torch.randint(0, 3 * shape.n_ctx - 1, (num_members, batch), generator=generator)
    windows_MBU = corpus[starts_MB[..., None] + torch.arange(shape.n_ctx + 1)].long().to(device)
    expected_MR, expected_MP = _expected(params_MP, shape, windows_MBU)
    step, half_MP = torch.zeros(1, dtype=torch.int64, device=device), params_MP.bfloat16()
    errors = []
    for crowded, gradient in ((False, True), (True, True), (False, False)):
        model = FusedModel(shape, num_members, batch, device, gradient=gradient, crowded=crowded)
        model.read(starts_MB[None].to(device), step, corpus.to(device), 0xFF, params_MP)
        if gradient:
            losses_MR, grad_MP, _ = model.gradient(params_MP, half_MP)
            errors.append(_relative(grad_MP, expected_MP))
        else:
            losses_MR = model.losses(params_MP, half_MP)
        errors.append(_relative(losses_MR, expected_MR))
    return float(torch.cat(errors).max())


def _relative(found: Tensor, expected: Tensor) -> Tensor:
    """Norm of each row's error over that of the row."""
    error: Tensor = torch.linalg.vector_norm(found - expected, dim=1) / torch.linalg.vector_norm(expected, dim=1)
    return error


def _weights(shape: Shape, seed: int, device: torch.device) -> Tensor:
    initial = initial_parameters(shape, seed, "float32")
    scaled = [
        torch.from_numpy(value).flatten() * (1.0 if "gain" in name else SPREAD) for name, value in initial.items()
    ]
    return torch.cat(scaled).to(device)


def _expected(params_MP: Tensor, shape: Shape, windows_MBU: Tensor) -> tuple[Tensor, Tensor]:
    """Losses (M, R) and the gradient (M, P) of their mean."""
    flat_MP = params_MP.clone().requires_grad_()
    losses_MBT = position_losses(flat_MP, shape, windows_MBU[..., :-1], windows_MBU[..., 1:])
    (grad_MP,) = torch.autograd.grad(losses_MBT.mean(dim=(1, 2)).sum(), flat_MP)
    return losses_MBT.detach().flatten(1), grad_MP
