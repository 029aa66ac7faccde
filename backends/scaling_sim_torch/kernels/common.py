# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""Pieces that several kernels share."""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
GELU_SLOPE = tl.constexpr(0.7978845608028654)
GELU_CUBIC = tl.constexpr(0.044715)
LN_EPSILON = tl.constexpr(1e-5)


@triton.jit
def load_vector(pointer, columns, size: tl.constexpr):
    """A parameter vector in float32, zero beyond ``size``."""
    return tl.load(pointer + columns, mask=columns < size, other=0.0).to(tl.float32)


@triton.jit
def load_rows(pointer, rows, columns, num_rows, width: tl.constexpr):
    """Tile [rows, columns] of a row-major matrix of ``width`` columns; zero outside."""
    inside = (rows < num_rows)[:, None] & (columns < width)[None, :]
    return tl.load(pointer + rows[:, None] * width + columns[None, :], mask=inside, other=0.0)


@triton.jit
def store_rows(pointer, value, rows, columns, num_rows, width: tl.constexpr):
    """Write a tile [rows, columns], in the type of ``pointer``."""
    inside = (rows < num_rows)[:, None] & (columns < width)[None, :]
    tl.store(pointer + rows[:, None] * width + columns[None, :], value.to(pointer.dtype.element_ty), mask=inside)


@triton.jit
def standardise(x, columns, D: tl.constexpr):
    """Rows of ``x`` with mean 0 and variance 1, and 1/σ; columns beyond ``D`` stay zero."""
    mean = tl.sum(x, 1) / D
    centred = tl.where((columns < D)[None, :], x - mean[:, None], 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / D + LN_EPSILON)
    return centred * inverse[:, None], inverse


@triton.jit
def layer_norm(x, gain, bias, columns, D: tl.constexpr):
    """Rows of ``x`` normalised, scaled and shifted, in bfloat16."""
    normal, _inverse = standardise(x, columns, D)
    scaled = normal * load_vector(gain, columns, D)[None, :] + load_vector(bias, columns, D)[None, :]
    return scaled.to(tl.bfloat16)


@triton.jit
def standardise_backward(grad, normal, inverse, columns, D: tl.constexpr):
    """Gradient with respect to the rows that `standardise` was given, from that with respect to its result."""
    along = tl.sum(grad * normal, 1) / D
    mean = tl.sum(grad, 1) / D
    return tl.where((columns < D)[None, :], (grad - mean[:, None] - normal * along[:, None]) * inverse[:, None], 0.0)


@triton.jit
def tanh(x):
    """By the special-function unit, off by 2⁻¹¹ of it at most; GELU by it is off by |u|·2⁻¹² at most."""
    return tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def gelu_gate(u):
    """s with gelu(u) = u·s (tanh form), and d gelu / d u."""
    square = u * u
    t = tanh(GELU_SLOPE * u * (1.0 + GELU_CUBIC * square))
    gate = 0.5 + 0.5 * t
    slope = gate + u * (1.0 - t * t) * (0.5 * GELU_SLOPE) * (1.0 + 3.0 * GELU_CUBIC * square)
    return gate, slope
