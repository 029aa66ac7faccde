"""AdamW over a flat (M, P) tensor: learning rate, clipping and health per member, nothing waits for the host."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling_sim.engine.cohort import Cohort
from scaling_sim.model.shape import DECAYED
from scaling_sim_torch.model import split_parameters

ADAM_EPSILON = 1e-8


@dataclass(frozen=True)
class Schedule:
    """What changes from update to update, computed on the host in float64 and placed on the device once per call.

    Attributes
    ----------
    update : (K,) int64
        1-based numbers of the updates.
    step_size, decay : (K, M, 1)
        lr/(1 − β1^k) and lr·weight_decay.
    correction2 : (K,)
        1 − β2^k.
    """

    update: Tensor
    step_size: Tensor
    decay: Tensor
    correction2: Tensor

    @classmethod
    def of(
        cls, cohort: Cohort, first_step: int, lr: NDArray[np.float64], device: torch.device, dtype: torch.dtype
    ) -> Schedule:
        """The tables of ``len(lr)`` updates after ``first_step``."""
        update = first_step + 1 + np.arange(len(lr))
        correction1 = 1 - cohort.beta1**update
        tables = (lr / correction1[:, None])[..., None], (lr * cohort.weight_decay)[..., None], 1 - cohort.beta2**update
        step_size, decay, correction2 = (torch.from_numpy(np.ascontiguousarray(table)) for table in tables)
        return cls(
            torch.from_numpy(update).to(device),
            step_size.to(device, dtype),
            decay.to(device, dtype),
            correction2.to(device, dtype),
        )


def decay_mask(cohort: Cohort, device: torch.device, dtype: torch.dtype) -> Tensor | None:
    """(1, P) tensor: 1 where weight decay acts; None if it is switched off."""
    if cohort.weight_decay == 0:
        return None
    num_parameters = sum(int(np.prod(size)) for size in cohort.shape.parameter_shapes().values())
    mask_1P = torch.zeros(1, num_parameters, device=device, dtype=dtype)
    for name, piece in split_parameters(mask_1P, cohort.shape).items():
        piece.fill_(float(name in DECAYED))
    return mask_1P


def clip_factors(norm_M: Tensor, clip_norm: float) -> Tensor:
    """min(1, clip_norm / norm) for every member."""
    return torch.where(norm_M > clip_norm, clip_norm / norm_M, 1.0)


def adamw(
    params: tuple[Tensor, Tensor, Tensor],
    grad_MP: Tensor,
    healthy_M: Tensor,
    cohort: Cohort,
    schedule: Schedule,
    step: int,
    mask_1P: Tensor | None,
) -> None:
    """Update weights and both moments in place; members that are not healthy keep all three.

    Parameters
    ----------
    params : (weights, adam_m, adam_v), each (M, P)
    grad_MP : (M, P) tensor
        Clipped gradient; anything where a member is not healthy.
    healthy_M : (M,) bool tensor
    step : int
        Row of ``schedule``.
    """
    weight_MP, m_MP, v_MP = params
    healthy_M1 = healthy_M[:, None]
    grad_MP = torch.where(healthy_M1, grad_MP, 0.0)
    moves_M1 = healthy_M1.to(weight_MP.dtype)
    m_MP.lerp_(grad_MP, moves_M1 * (1 - cohort.beta1))
    v_MP.lerp_(grad_MP.square(), moves_M1 * (1 - cohort.beta2))
    denominator_MP = (v_MP / schedule.correction2[step]).sqrt_().add_(ADAM_EPSILON)
    change_MP = (m_MP / denominator_MP).mul_(schedule.step_size[step])
    if mask_1P is not None:
        change_MP += weight_MP * (schedule.decay[step] * mask_1P)
    torch.where(healthy_M1, weight_MP - change_MP, weight_MP, out=weight_MP)
