"""Layer norm with gain and bias: y = (x − μ)·ρ·g + b, ρ = 1/√(σ² + 1e-5)."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# (Numba infers the types of kernels.)

from __future__ import annotations

import numpy as np

from scaling_sim_numba.kernels.compiler import kernel


@kernel
def layer_norm(x_Rd, gain, bias, statistics_2R, y_Rd):
    """Write y and, for the backward pass, μ and ρ of every row."""
    real = x_Rd.dtype.type
    rows, width = x_Rd.shape
    inverse = real(1.0) / real(width)
    for r in range(rows):
        mean = real(0.0)
        for i in range(width):
            mean += x_Rd[r, i]
        mean *= inverse
        variance = real(0.0)
        for i in range(width):
            variance += (x_Rd[r, i] - mean) * (x_Rd[r, i] - mean)
        rho = real(1.0) / np.sqrt(variance * inverse + real(1e-5))
        for i in range(width):
            y_Rd[r, i] = (x_Rd[r, i] - mean) * rho * gain[i] + bias[i]
        statistics_2R[0, r] = mean
        statistics_2R[1, r] = rho


@kernel
def layer_norm_backward(dx_Rd, dy_Rd, x_Rd, gain, statistics_2R, d_gain, d_bias):
    """Add the gradient of x to ``dx_Rd``, those of gain and bias to theirs.

    With n = (x − μ)·ρ and h = dy·g: dx = ρ·(h − mean(h) − n·mean(h·n)), dg = Σ_R dy·n, db = Σ_R dy.
    """
    real = x_Rd.dtype.type
    rows, width = x_Rd.shape
    inverse = real(1.0) / real(width)
    for r in range(rows):
        mean, rho = statistics_2R[0, r], statistics_2R[1, r]
        mean_h, mean_hn = real(0.0), real(0.0)
        for i in range(width):
            h = dy_Rd[r, i] * gain[i]
            mean_h += h
            mean_hn += h * ((x_Rd[r, i] - mean) * rho)
        mean_h *= inverse
        mean_hn *= inverse
        for i in range(width):
            n, dy = (x_Rd[r, i] - mean) * rho, dy_Rd[r, i]
            d_bias[i] += dy
            d_gain[i] += dy * n
            dx_Rd[r, i] += (dy * gain[i] - mean_h - n * mean_hn) * rho
