"""Dropout masks of a whole cohort in one kernel: Philox4x32-10, equal bit for bit to `scaling_sim.engine.philox`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cupy
import numpy as np

from scaling_sim.engine.cohort import Member
from scaling_sim.engine.philox import KEY_STEPS, MULTIPLIERS, NUM_ROUNDS, keep_threshold, seed_words
from scaling_sim_cupy.parameters import Array

_factors = cupy.ElementwiseKernel(
    "raw uint32 update, uint32 site, int64 num_rows, int64 num_columns, "
    "raw uint32 low, raw uint32 high, raw uint64 threshold, raw T scale",
    "raw T factor",
    f"""
    // One thread per counter, that is per four neighbouring columns of one row.
    const long long num_blocks = (num_columns + 3) / 4;
    const long long block = i % num_blocks;
    const long long line = i / num_blocks;
    const long long member = line / num_rows;
    unsigned int c0 = update[0], c1 = site, c2 = line % num_rows, c3 = block;
    unsigned int k0 = low[member], k1 = high[member];
    for (int turn = 0; turn < {NUM_ROUNDS}; ++turn) {{
        const unsigned int high0 = __umulhi({MULTIPLIERS[0]}u, c0), low0 = {MULTIPLIERS[0]}u * c0;
        const unsigned int high1 = __umulhi({MULTIPLIERS[1]}u, c2), low1 = {MULTIPLIERS[1]}u * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += {KEY_STEPS[0]}u;
        k1 += {KEY_STEPS[1]}u;
    }}
    const unsigned int words[4] = {{c0, c1, c2, c3}};
    for (int word = 0; word < 4; ++word) {{
        const long long column = 4 * block + word;
        if (column < num_columns) {{
            const bool keep = (unsigned long long)words[word] >= threshold[member];
            factor[line * num_columns + column] = keep ? scale[member] : T(0);
        }}
    }}
    """,
    "scaling_sim_dropout_factors",
)


@dataclass(frozen=True)
class DropoutKeys:
    """What a cohort's masks are drawn from: one key, threshold and scale per member, on the device.

    Attributes
    ----------
    low, high : (M,) uint32
        Words of the seed.
    threshold : (M,) uint64
        Smallest random word that keeps an element (2³² where the rate rounds up to 1: one bit more than a word).
    scale : (M,) in the dtype of the activations
        1/(1 − rate).
    """

    low: Array
    high: Array
    threshold: Array
    scale: Array

    @classmethod
    def of(cls, members: Sequence[Member], dtype: np.dtype[np.floating[Any]]) -> DropoutKeys | None:
        """Keys of ``members`` on the current device; None if no member drops anything."""
        if not any(member.dropout for member in members):
            return None
        words = [seed_words(member.seed) for member in members]
        return cls(
            low=cupy.asarray(np.array([low for low, _ in words], np.uint32)),
            high=cupy.asarray(np.array([high for _, high in words], np.uint32)),
            threshold=cupy.asarray(np.array([keep_threshold(member.dropout) for member in members], np.uint64)),
            scale=cupy.asarray(np.array([1 / (1 - member.dropout) for member in members], dtype)),
        )


@dataclass(frozen=True)
class Dropout:
    """The masks of one update; ``update`` is its 1-based number as a (1,) uint32 array on the device."""

    keys: DropoutKeys
    update: Array

    def factor(self, site: int, num_rows: int, num_columns: int) -> Array:
        """What activations are multiplied with, (M, rows, columns): 0 where dropped, 1/(1 − rate) where kept."""
        keys = self.keys
        factor_MRD = cupy.empty((len(keys.low), num_rows, num_columns), keys.scale.dtype)
        num_counters = len(keys.low) * num_rows * (-(-num_columns // 4))
        _factors(
            self.update, site, num_rows, num_columns, keys.low, keys.high, keys.threshold, keys.scale, factor_MRD,
            size=num_counters,
        )  # fmt: skip
        return factor_MRD


def drop(x_MRD: Array, dropout: Dropout | None, site: int) -> tuple[Array, Array | None]:
    """``x_MRD`` times its factor, and the factor; unchanged and None without dropout."""
    if dropout is None:
        return x_MRD, None
    factor_MRD = dropout.factor(site, x_MRD.shape[1], x_MRD.shape[2])
    return x_MRD * factor_MRD, factor_MRD


def drop_backward(grad_MRD: Array, factor_MRD: Array | None) -> Array:
    """Gradient before the factor was applied."""
    return grad_MRD if factor_MRD is None else grad_MRD * factor_MRD
