"""What the kernels draw dropout masks from; the generator itself stands in ``layers.cu``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cupy
import numpy as np

from scaling_sim.engine.cohort import Member
from scaling_sim.engine.philox import keep_threshold, seed_words
from scaling_sim_cupy.parameters import Array


@dataclass(frozen=True)
class DropoutKeys:
    """One key, threshold and scale per member, on the device.

    Attributes
    ----------
    low, high : (M,) uint32
        Words of the seed.
    threshold : (M,) uint64
        Smallest random word that keeps an element (2³² where the rate rounds up to 1: one bit more than a word).
    scale : (M,) float32
        1/(1 − rate).
    """

    low: Array
    high: Array
    threshold: Array
    scale: Array

    @classmethod
    def of(cls, members: Sequence[Member], rates: Sequence[float]) -> DropoutKeys:
        """Keys of ``members`` on the current device; rate 0 keeps everything as it is."""
        words = [seed_words(member.seed) for member in members]
        return cls(
            low=cupy.asarray(np.array([low for low, _ in words], np.uint32)),
            high=cupy.asarray(np.array([high for _, high in words], np.uint32)),
            threshold=cupy.asarray(np.array([keep_threshold(rate) for rate in rates], np.uint64)),
            scale=cupy.asarray(np.array([1 / (1 - rate) for rate in rates], np.float32)),
        )
