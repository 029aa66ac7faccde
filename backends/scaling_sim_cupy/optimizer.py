"""What changes from update to update; AdamW itself stands in ``optimizer.cu``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cupy
import numpy as np
from numpy.typing import NDArray

from scaling_sim.engine.cohort import Cohort
from scaling_sim_cupy.parameters import Array


@dataclass(frozen=True)
class Schedule:
    """Tables of K updates, computed on the host in float64 and placed on the device.

    Attributes
    ----------
    update : (K,) uint32
        1-based numbers of the updates.
    step_size, decay : (K, M) float32
        lr/(1 − β1^k) and lr·weight_decay.
    correction2 : (K,) float32
        1 − β2^k.
    """

    update: Array
    step_size: Array
    decay: Array
    correction2: Array

    @classmethod
    def of(cls, cohort: Cohort, first_step: int, lr_KM: NDArray[np.float64]) -> Schedule:
        """The tables of ``len(lr_KM)`` updates after ``first_step``, on the current device."""
        update_K = first_step + 1 + np.arange(len(lr_KM))

        def table(values: NDArray[np.floating[Any]]) -> Array:
            return cupy.asarray(np.ascontiguousarray(values, np.float32))

        with np.errstate(over="ignore"):  # a huge rate becomes inf
            return cls(
                update=cupy.asarray(update_K.astype(np.uint32)),
                step_size=table(lr_KM / (1 - cohort.beta1 ** update_K[:, None])),
                decay=table(lr_KM * cohort.weight_decay),
                correction2=table(1 - cohort.beta2**update_K),
            )
