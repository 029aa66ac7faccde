"""Dropout masks from Philox4x32-10, the counter-based generator that all backends share (see the engine's protocol).

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# (Numba infers the types of kernels.)

from __future__ import annotations

import numpy as np

from scaling_sim_numba.kernels.compiler import inlined, kernel

_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)


@inlined
def philox(key_0, key_1, c_0, c_1, c_2, c_3):
    """Four random 32-bit words for one key and counter; all are uint64 numbers below 2³²."""
    for _ in range(10):
        product_0, product_1 = _MULTIPLIER_0 * c_0, _MULTIPLIER_1 * c_2
        c_0, c_1 = (product_1 >> _SHIFT) ^ c_1 ^ key_0, product_1 & _LOW
        c_2, c_3 = (product_0 >> _SHIFT) ^ c_3 ^ key_1, product_0 & _LOW
        key_0, key_1 = (key_0 + _WEYL_0) & _LOW, (key_1 + _WEYL_1) & _LOW
    return c_0, c_1, c_2, c_3


@kernel
def dropout(x_Rd, dropout_of_member, step, site, first_row):
    """Multiply ``x_Rd`` by the mask of (step, site): 1 / (1 − rate) where kept, else 0.

    The word of column c is number c % 4 of the counter (step, site, row, c // 4); kept where it reaches the threshold.
    """
    real = x_Rd.dtype.type
    scale, zero = real(1.0 / (1.0 - dropout_of_member.rate)), real(0.0)
    threshold = np.uint64(dropout_of_member.threshold)
    key_0, key_1 = np.uint64(dropout_of_member.key_low), np.uint64(dropout_of_member.key_high)
    rows, columns = x_Rd.shape
    for r in range(rows):
        for group in range((columns + 3) // 4):
            words = philox(key_0, key_1, np.uint64(step), np.uint64(site), np.uint64(first_row + r), np.uint64(group))
            for lane in range(min(4, columns - 4 * group)):
                x_Rd[r, 4 * group + lane] *= scale if words[lane] >= threshold else zero
