"""Scalar functions that LLVM can vectorise inside the loops of other kernels."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# (Numba infers the types of kernels.)

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from scaling_sim_numba.kernels.compiler import FASTMATH, inlined

f4 = np.float32


def exp(x: Any) -> Any:
    """Exponential, clamped to the range of normal numbers; NaN stays NaN."""
    return np.exp(x)


def _exp_float32(x):
    """2^i · p(r) with x = i·ln 2 + r, |r| ≤ ln 2 / 2, and a minimax polynomial p of degree 6 (Cephes expf): 2 ulp.

    The clamps are written so that a NaN fails both tests and goes through to the polynomial.
    """
    x = f4(-87.0) if x < f4(-87.0) else x
    x = f4(88.0) if x > f4(88.0) else x
    i = np.floor(x * f4(1.4426950408889634) + f4(0.5))
    r = (x - i * f4(0.693359375)) + i * f4(2.12194440e-4)
    p = f4(1.9875691500e-4)
    p = p * r + f4(1.3981999507e-3)
    p = p * r + f4(8.3334519073e-3)
    p = p * r + f4(4.1665795894e-2)
    p = p * r + f4(1.6666665459e-1)
    p = p * r + f4(5.0000001201e-1)
    p = p * r * r + r + f4(1.0)
    return p * np.int32((np.int32(i) + np.int32(127)) << np.int32(23)).view(np.float32)


@overload(exp, jit_options={"fastmath": FASTMATH, "error_model": "numpy", "forceinline": True}, strict=False)
def _exp(x: Any) -> Any:
    if x == types.float32:
        return _exp_float32
    return lambda x: math.exp(x)


def order_key(x: Any) -> Any:
    """An integer that sorts as the real number ``x`` does: integer maxima vectorise, those of reals with NaN do not."""
    number = x if isinstance(x, np.float32) else np.float64(x)
    return _flipped(number.view(f"i{number.itemsize}"))


def order_value(key: Any, like: Any) -> Any:
    """The real number, of the type of ``like``, whose `order_key` is ``key``."""
    if isinstance(like, np.float32):
        return _flipped(np.int32(key)).view(np.float32)
    return _flipped(np.int64(key)).view(np.float64)


def _flipped(bits: Any) -> Any:
    """The bits of reals sort as integers do, but those of negative ones backwards: flip all but the sign."""
    limits = np.iinfo(bits.dtype)
    return bits ^ ((bits >> (limits.bits - 1)) & limits.max)


@overload(order_key, jit_options={"forceinline": True}, strict=False)
def _order_key(x: Any) -> Any:
    if x == types.float32:

        def key_32(x):
            bits = np.float32(x).view(np.int32)
            return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))

        return key_32

    def key_64(x):
        bits = np.float64(x).view(np.int64)
        return bits ^ ((bits >> np.int64(63)) & np.int64(0x7FFFFFFFFFFFFFFF))

    return key_64


@overload(order_value, jit_options={"forceinline": True}, strict=False)
def _order_value(key: Any, like: Any) -> Any:
    if like == types.float32:

        def value_32(key, like):
            key = np.int32(key)
            return np.int32(key ^ ((key >> np.int32(31)) & np.int32(0x7FFFFFFF))).view(np.float32)

        return value_32

    def value_64(key, like):
        return np.int64(key ^ ((key >> np.int64(63)) & np.int64(0x7FFFFFFFFFFFFFFF))).view(np.float64)

    return value_64


@inlined
def row_maximum(x_RV, row, columns):
    """Largest of the first ``columns`` numbers of a row."""
    largest = order_key(x_RV[row, 0])
    for i in range(columns):
        key = order_key(x_RV[row, i])
        largest = key if key > largest else largest
    return order_value(largest, x_RV[row, 0])
