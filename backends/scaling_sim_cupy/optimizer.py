"""AdamW over flat (M, P) arrays: learning rate, clipping and health per member, nothing waits for the host.

Suffixes: M members, P parameters of one member, K updates of a call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cupy
import numpy as np
from numpy.typing import NDArray

from scaling_sim.engine.cohort import Cohort
from scaling_sim.model.shape import DECAYED
from scaling_sim_cupy.parameters import Array, num_parameters, split_parameters

ADAM_EPSILON = 1e-8


@dataclass(frozen=True)
class Schedule:
    """What changes from update to update, computed on the host in float64 and placed on the device once per call.

    Attributes
    ----------
    update : (K, 1) uint32
        1-based numbers of the updates.
    step_size, decay : (K, M, 1)
        lr/(1 − β1^k) and lr·weight_decay.
    correction2 : (K, 1, 1)
        1 − β2^k.
    """

    update: Array
    step_size: Array
    decay: Array
    correction2: Array

    @classmethod
    def of(
        cls, cohort: Cohort, first_step: int, lr_KM: NDArray[np.float64], dtype: np.dtype[np.floating[Any]]
    ) -> Schedule:
        """The tables of ``len(lr_KM)`` updates after ``first_step``, on the current device."""
        update_K1 = first_step + 1 + np.arange(len(lr_KM))[:, None]
        step_size_KM = lr_KM / (1 - cohort.beta1**update_K1)

        def table(values: NDArray[np.floating[Any]]) -> Array:
            return cupy.asarray(values[..., None]).astype(dtype)  # cast there: a huge rate becomes inf, silently

        return cls(
            update=cupy.asarray(update_K1.astype(np.uint32)),
            step_size=table(step_size_KM),
            decay=table(lr_KM * cohort.weight_decay),
            correction2=table(1 - cohort.beta2**update_K1),
        )


def decay_mask(cohort: Cohort, dtype: np.dtype[np.floating[Any]]) -> Array | None:
    """(1, P) array: 1 where weight decay acts; None if it is switched off."""
    if cohort.weight_decay == 0:
        return None
    mask_1P = np.zeros((1, num_parameters(cohort.shape)), dtype)
    for name, piece in split_parameters(mask_1P, cohort.shape).items():
        piece[...] = name in DECAYED
    return cupy.asarray(mask_1P)


def norms(grad_MP: Array) -> Array:
    """Euclidean norm of every member's gradient, (M,), accumulated in float64."""
    return cupy.sqrt(cupy.square(grad_MP.astype(cupy.float64)).sum(axis=1))


def clip_factors(norm_M: Array, clip_norm: float) -> Array:
    """min(1, clip_norm / norm) for every member; 1 where the norm is NaN."""
    return cupy.where(norm_M > clip_norm, clip_norm / norm_M, 1.0)


def adamw(
    flat: tuple[Array, Array, Array],
    grad_MP: Array,
    healthy_M: Array,
    cohort: Cohort,
    schedule: Schedule,
    step: int,
    mask_1P: Array | None,
) -> None:
    """Update weights and both moments in place; members that are not healthy keep the bits of all three.

    m ← β1·m + (1 − β1)·g, v ← β2·v + (1 − β2)·g², and with the corrections of update k
    p ← p − lr·weight_decay·p − lr·m/(1 − β1^k) / (√(v/(1 − β2^k)) + ε) (Loshchilov and Hutter 2019, algorithm 2).

    Parameters
    ----------
    flat : (weights, adam_m, adam_v), each (M, P)
    grad_MP : (M, P) array
        Clipped gradient; anything where a member is not healthy.
    healthy_M : (M,) bool array
    step : int
        Row of ``schedule``.
    """
    weight_MP, m_MP, v_MP = flat
    healthy_M1 = healthy_M[:, None]
    new_m_MP = cohort.beta1 * m_MP + (1 - cohort.beta1) * grad_MP
    new_v_MP = cohort.beta2 * v_MP + (1 - cohort.beta2) * cupy.square(grad_MP)
    denominator_MP = cupy.sqrt(new_v_MP / schedule.correction2[step]) + ADAM_EPSILON
    change_MP = schedule.step_size[step] * (new_m_MP / denominator_MP)
    if mask_1P is not None:
        change_MP += schedule.decay[step] * mask_1P * weight_MP
    for old, new in ((m_MP, new_m_MP), (v_MP, new_v_MP), (weight_MP, weight_MP - change_MP)):
        old[...] = cupy.where(healthy_M1, new, old)
