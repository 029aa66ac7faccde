"""The parts of a block, forward and backward, for all members at once.

Suffixes name axes: M members, R rows (B sequences × T positions), D d_model, V vocabulary, I and O inputs and outputs
of a matrix. ``grad_x`` is the derivative of the loss with respect to ``x``. No operation mixes members.
"""

from __future__ import annotations

import math

import cupy

from scaling_sim_cupy.parameters import Array

LN_EPSILON = 1e-5
GELU_SLOPE = math.sqrt(2 / math.pi)
GELU_CUBIC = 0.044715


def linear(x_MRI: Array, weight_MOI: Array) -> Array:
    """x·Wᵀ, (M, R, O)."""
    return cupy.matmul(x_MRI, weight_MOI.swapaxes(1, 2))


def weight_gradient(grad_MRO: Array, x_MRI: Array) -> Array:
    """Gradient of W in x·Wᵀ: the sum over rows of grad ⊗ x, (M, O, I)."""
    return cupy.matmul(grad_MRO.swapaxes(1, 2), x_MRI)


def layer_norm(x_MRD: Array, gain_MD: Array, bias_MD: Array) -> tuple[Array, tuple[Array, Array]]:
    """(x − mean)/√(variance + ε)·gain + bias, with the normalised value and 1/√(variance + ε)."""
    centred_MRD = x_MRD - x_MRD.mean(axis=-1, keepdims=True)
    variance_MR1 = cupy.square(centred_MRD).mean(axis=-1, keepdims=True)
    inverse_MR1 = 1 / cupy.sqrt(variance_MR1 + LN_EPSILON)
    normal_MRD = centred_MRD * inverse_MR1
    return normal_MRD * gain_MD[:, None] + bias_MD[:, None], (normal_MRD, inverse_MR1)


def layer_norm_backward(grad_y_MRD: Array, gain_MD: Array, cache: tuple[Array, Array]) -> tuple[Array, Array, Array]:
    """Gradients of input (M, R, D), gain and bias (M, D).

    With n the normalised value and s = grad_y·gain: grad_x = (s − mean(s) − n·mean(s·n))/√(variance + ε).
    """
    normal_MRD, inverse_MR1 = cache
    scaled_MRD = grad_y_MRD * gain_MD[:, None]
    along_MR1 = (scaled_MRD * normal_MRD).mean(axis=-1, keepdims=True)
    grad_x_MRD = inverse_MR1 * (scaled_MRD - scaled_MRD.mean(axis=-1, keepdims=True) - normal_MRD * along_MR1)
    return grad_x_MRD, (grad_y_MRD * normal_MRD).sum(axis=1), grad_y_MRD.sum(axis=1)


def gelu(x: Array) -> Array:
    """x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))) (Hendrycks and Gimpel 2016, eq. 2)."""
    return 0.5 * x * (1 + _gelu_tanh(x))


def gelu_slope(x: Array) -> Array:
    """Derivative of `gelu`: (1 + t)/2 + x/2·(1 − t²)·√(2/π)·(1 + 3·0.044715·x²), t the hyperbolic tangent."""
    tanh = _gelu_tanh(x)
    inner_slope = GELU_SLOPE * (1 + 3 * GELU_CUBIC * cupy.square(x))
    return 0.5 * (1 + tanh) + 0.5 * x * (1 - cupy.square(tanh)) * inner_slope


def _gelu_tanh(x: Array) -> Array:
    return cupy.tanh(GELU_SLOPE * x * (1 + GELU_CUBIC * cupy.square(x)))


def softmax(x: Array) -> Array:
    """exp(x)/Σ exp(x) along the last axis."""
    exponential = cupy.exp(x - x.max(axis=-1, keepdims=True))
    exponential /= exponential.sum(axis=-1, keepdims=True)
    return exponential


def log_softmax(x: Array) -> Array:
    """Logarithm of `softmax`: x − log Σ exp(x)."""
    shifted = x - x.max(axis=-1, keepdims=True)
    shifted -= cupy.log(cupy.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def one_hot(ids_MR: Array, vocab_size: int, dtype: Array) -> Array:
    """(M, R, V): 1 at each row's id."""
    return (ids_MR[..., None] == cupy.arange(vocab_size)).astype(dtype)
