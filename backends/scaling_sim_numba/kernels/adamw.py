"""AdamW with bias correction (Loshchilov and Hutter, 2019), one block of the flat vectors at a time."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# (Numba infers the types of kernels.)

from __future__ import annotations

import numpy as np

from scaling_sim_numba.kernels.compiler import kernel
from scaling_sim_numba.kernels.views import vector

_EPSILON = 1e-8


@kernel
def adamw(params, moment1, moment2, grads, start, size, clip, lr, decay, beta1, beta2, step):
    """p ← p·(1 − lr·decay) − lr·m̂/(√v̂ + ε), with m̂ and v̂ the corrected moments of the gradient times ``clip``."""
    real = params.dtype.type
    p, g = vector(params, start, size), vector(grads, start, size)
    m, v = vector(moment1, start, size), vector(moment2, start, size)
    factor, keep, rate, epsilon = real(clip), real(1.0 - lr * decay), real(lr), real(_EPSILON)
    b1, b2, c1, c2 = real(beta1), real(beta2), real(1.0 - beta1), real(1.0 - beta2)
    correct1, correct2 = real(1.0 / (1.0 - beta1**step)), real(1.0 / (1.0 - beta2**step))
    for i in range(size):
        gradient = factor * g[i]
        m_i = b1 * m[i] + c1 * gradient
        v_i = b2 * v[i] + c2 * gradient * gradient
        m[i], v[i] = m_i, v_i
        p[i] = keep * p[i] - rate * (correct1 * m_i) / (np.sqrt(correct2 * v_i) + epsilon)


@kernel
def sum_buffers(buffers, count, start, size):
    """Add buffers 1 .. count − 1 to buffer 0, in this order; returns Σ g² of the block in float64."""
    total = vector(buffers[0], start, size)
    for j in range(1, count):
        other = vector(buffers[j], start, size)
        for i in range(size):
            total[i] += other[i]
    squares = 0.0
    for i in range(size):
        squares += np.float64(total[i]) * np.float64(total[i])
    return squares
