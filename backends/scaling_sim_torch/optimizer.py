"""AdamW and Adafactor over flat (M, P) tensors: rate, clipping and health per member, no waiting for the host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling_sim.engine.cohort import Cohort
from scaling_sim.engine.moments import ADAFACTOR_CLIP, ADAFACTOR_FLOOR, MATRICES, adafactor_share, moment_shapes
from scaling_sim.model.shape import DECAYED
from scaling_sim_torch.model import split_flat, split_parameters

ADAM_EPSILON = 1e-8


@dataclass(frozen=True)
class Schedule:
    """What changes from update to update, computed on the host in float64 and placed on the device once per call.

    Attributes
    ----------
    update : (K,) int64
        1-based numbers of the updates.
    step_size, decay : (K, M, 1)
        lr/(1 − β1^k), lr itself for Adafactor; lr·weight_decay.
    correction2 : (K,)
        1 − β2^k; for Adafactor the weight of the new squares.
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
        correction1, correction2 = 1 - cohort.beta1**update, 1 - cohort.beta2**update
        if cohort.optimizer == "adafactor":
            correction1, correction2 = np.ones(len(lr)), adafactor_share(update)
        tables = (lr / correction1[:, None])[..., None], (lr * cohort.weight_decay)[..., None], correction2
        step_size, decay, scale = (torch.from_numpy(np.ascontiguousarray(table)) for table in tables)
        return cls(
            torch.from_numpy(update).to(device),
            step_size.to(device, dtype),
            decay.to(device, dtype),
            scale.to(device, dtype),
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


def adafactor(
    flat: Mapping[str, Tensor],
    grad_MP: Tensor,
    healthy_M: Tensor,
    cohort: Cohort,
    rates: tuple[Tensor, Tensor, Tensor],
    factor_M: Tensor | None = None,
) -> None:
    """Update weights and moments in place, one matrix or vector at a time; see `scaling_sim.engine.moments.adafactor`.

    Parameters
    ----------
    flat : dict
        ``params`` (M, P) and the moments of `moment_shapes`, each (M, ·).
    grad_MP : tensor
        Anything where a member is not healthy.
    rates : (lr, lr·weight_decay, weight of the new squares)
        The first two (M,), the last of one element.
    factor_M : tensor, optional
        What gradients are multiplied by; 1 by default.
    """
    lr_M, decay_M, share = rates
    new_M = torch.where(healthy_M, share, 0.0).to(grad_MP.dtype)
    for name, param, grad, moments in _pieces(flat, grad_MP, cohort):
        if factor_M is not None:
            grad = grad * _wide(factor_M, grad)
        grad = torch.where(_wide(healthy_M, grad), grad, 0.0)
        change = _unit_change(grad, moments, new_M)
        rms_M = change.flatten(1).square().mean(dim=1).sqrt()
        change *= _wide(lr_M / (rms_M / ADAFACTOR_CLIP).clamp(min=1.0), change)
        if cohort.weight_decay and name in DECAYED:
            change += param * _wide(decay_M, param)
        param -= torch.where(_wide(healthy_M, change), change, 0.0)


def _unit_change(grad: Tensor, moments: list[Tensor], new_M: Tensor) -> Tensor:
    """g/√V̂ of one matrix or vector, after its moments have taken in g."""
    square = grad.square().add_(ADAFACTOR_FLOOR)
    if len(moments) == 1:
        (estimate,) = moments
        estimate.lerp_(square, _wide(new_M, estimate))
        return grad * estimate.rsqrt()
    row, column = moments
    row.lerp_(square.mean(dim=-1), _wide(new_M, row))
    column.lerp_(square.mean(dim=-2), _wide(new_M, column))
    relative = row / row.mean(dim=-1, keepdim=True)
    return grad * relative.rsqrt()[..., None] * column.rsqrt()[..., None, :]


def _wide(value_M: Tensor, like: Tensor) -> Tensor:
    """One value per member, to be broadcast against ``like`` (M, …)."""
    return value_M.view(-1, *(1,) * (like.dim() - 1))


def _pieces(
    flat: Mapping[str, Tensor], grad_MP: Tensor, cohort: Cohort
) -> Iterator[tuple[str, Tensor, Tensor, list[Tensor]]]:
    """Name, weights, gradient and moments of each matrix (M, o, i) and vector (M, d), as views."""
    params, grads = (split_parameters(one, cohort.shape) for one in (flat["params"], grad_MP))
    kept = [split_flat(flat[kind], shapes) for kind, shapes in moment_shapes(cohort).items()]
    for name, param in params.items():
        moments = [of[name] for of in kept if name in of]
        if param.dim() == (3 if name in MATRICES else 2):
            yield name, param, grads[name], moments
        else:
            for layer in range(param.shape[1]):
                yield name, param[:, layer], grads[name][:, layer], [one[:, layer] for one in moments]
