"""Philox4x32-10, the counter-based generator of dropout masks: equal bits on every backend, no state to carry.

Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011; constants of its
section 4.2 and known answers of its Random123 library.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
"""Of counter words 0 and 2."""

KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
"""Added to the two key words after each round (golden ratio, √3 − 1)."""

NUM_ROUNDS = 10
WORD = 0xFFFFFFFF


def philox4x32(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Four random words per counter, (..., 4) uint64 array of values < 2³².

    Parameters
    ----------
    counter : (..., 4) uint64 array
        Values < 2³².
    key : tuple of two int
        Values < 2³².
    """
    word = np.uint64(WORD)
    shift = np.uint64(32)
    c0, c1, c2, c3 = (counter[..., i] for i in range(4))
    for round_number in range(NUM_ROUNDS):
        k0, k1 = (np.uint64((key[i] + round_number * KEY_STEPS[i]) & WORD) for i in range(2))
        product0 = c0 * np.uint64(MULTIPLIERS[0])
        product1 = c2 * np.uint64(MULTIPLIERS[1])
        c0, c1, c2, c3 = (
            (product1 >> shift) ^ c1 ^ k0,
            product1 & word,
            (product0 >> shift) ^ c3 ^ k1,
            product0 & word,
        )
    return np.stack([c0, c1, c2, c3], axis=-1)


def keep_threshold(rate: float) -> int:
    """Smallest random word that keeps an element: round(rate · 2³²)."""
    return round(rate * 2**32)


def seed_words(seed: int) -> tuple[int, int]:
    """Key of a member: low and high 32 bits of its seed."""
    return seed & WORD, (seed >> 32) & WORD


def dropout_mask(seed: int, step: int, site: int, rows: int, columns: int, rate: float) -> NDArray[np.bool_]:
    """Which elements are kept, (rows, columns) bool array.

    Parameters
    ----------
    seed : int
        The member's, 0 ≤ seed < 2⁶⁴.
    step : int
        Number of the update, 1-based.
    site : int
        0: embedding; 1 + 2l: attention output of layer l; 2 + 2l: its feed-forward output.
    rows, columns : int
        Positions of the batch (row = b·T + t) and model width.
    rate : float
        Share dropped, in [0, 1).
    """
    num_blocks = -(-columns // 4)
    counter = np.empty((rows, num_blocks, 4), np.uint64)
    counter[..., 0] = step
    counter[..., 1] = site
    counter[..., 2] = np.arange(rows, dtype=np.uint64)[:, None]
    counter[..., 3] = np.arange(num_blocks, dtype=np.uint64)
    words = philox4x32(counter, seed_words(seed)).reshape(rows, 4 * num_blocks)[:, :columns]
    return words >= np.uint64(keep_threshold(rate))
