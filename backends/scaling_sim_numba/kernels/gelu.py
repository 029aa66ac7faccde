"""GELU in its tanh form, by the logistic function s: x·½(1 + tanh u) = x·s(2u), u = √(2/π)·(x + 0.044715 x³)."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# (Numba infers the types of kernels.)

from __future__ import annotations

import math

from scaling_sim_numba.kernels.compiler import kernel
from scaling_sim_numba.kernels.scalar import exp

_SCALE = 2.0 * math.sqrt(2.0 / math.pi)
_CUBIC = 0.044715


@kernel
def gelu(x_Rf, y_Rf):
    """Write y = x·s, s = 1/(1 + exp(−2u)); turn x into the slope dy/dx = s + x·s·(1 − s)·d(2u)/dx, for the gradient."""
    real = x_Rf.dtype.type
    scale, cubic, one, three = real(_SCALE), real(_CUBIC), real(1.0), real(3.0 * _CUBIC)
    rows, columns = x_Rf.shape
    for r in range(rows):
        for i in range(columns):
            x = x_Rf[r, i]
            s = one / (one + exp(-scale * (x + cubic * x * x * x)))
            y = x * s
            y_Rf[r, i] = y
            x_Rf[r, i] = s + y * (one - s) * scale * (one + three * x * x)


@kernel
def gelu_backward(d_Rf, slope_Rf):
    """Turn dy into dx = dy·dy/dx, in place."""
    rows, columns = d_Rf.shape
    for r in range(rows):
        for i in range(columns):
            d_Rf[r, i] *= slope_Rf[r, i]
