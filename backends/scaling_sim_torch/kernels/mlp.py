# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""Everything of a layer after attention: output projection, residual, layer norm, feed-forward, residual."""

import triton
import triton.language as tl

from scaling_sim_torch.kernels.attention import store_sums
from scaling_sim_torch.kernels.common import (
    gelu_gate,
    load_rows,
    load_vector,
    standardise,
    standardise_backward,
    store_rows,
)


@triton.jit(do_not_specialize=["num_rows", "num_splits"])
def mlp_forward(
    x, mixed, mid, x_next, master, half, P, num_rows, num_splits, out_at, gain_at, bias_at, up_at, down_at,
    D: tl.constexpr, D_PAD: tl.constexpr, F: tl.constexpr, F_BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """``mid`` = x + attention output, ``x_next`` = mid + feed-forward, float32, tile by tile of a member's rows."""
    split, member = tl.program_id(0), tl.program_id(1).to(tl.int64)
    columns = tl.arange(0, D_PAD)
    weights, half = master + member * P, half + member * P
    gain, bias = load_vector(weights + gain_at, columns, D), load_vector(weights + bias_at, columns, D)
    x, mid, x_next = x + member * num_rows * D, mid + member * num_rows * D, x_next + member * num_rows * D
    mixed += member * num_rows * D
    for first in range(split * ROWS, num_rows, num_splits * ROWS):
        rows = first + tl.arange(0, ROWS)
        w_out = tl.trans(load_rows(half + out_at, columns, columns, D, D))
        stream = load_rows(x, rows, columns, num_rows, D)
        stream += tl.dot(load_rows(mixed, rows, columns, num_rows, D), w_out)
        store_rows(mid, stream, rows, columns, num_rows, D)
        normal, _inverse = standardise(stream, columns, D)
        b = (normal * gain[None, :] + bias[None, :]).to(tl.bfloat16)
        for f_first in range(0, F, F_BLOCK):
            f = f_first + tl.arange(0, F_BLOCK)
            u = tl.dot(b, tl.trans(load_rows(half + up_at, f, columns, F, D)))
            gate, _slope = gelu_gate(u)
            stream = tl.dot((u * gate).to(tl.bfloat16), tl.trans(load_rows(half + down_at, columns, f, D, F)), stream)
        store_rows(x_next, stream, rows, columns, num_rows, D)


@triton.jit(do_not_specialize=["num_rows", "num_splits", "vector"])
def mlp_backward(
    mid, grad_x, grad_half, normed, hidden, grad_hidden, grad_mid, sums, master, half,
    P, num_rows, num_splits, gain_at, bias_at, up_at, down_at, vector,
    D: tl.constexpr, D_PAD: tl.constexpr, F: tl.constexpr, F_BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Back through the feed-forward half: ``grad_x`` (float32, in place), ``grad_mid`` its bfloat16 copy, and what the
    weight gradients need: ``normed`` (rows, D), ``hidden`` = gelu(u) and ``grad_hidden`` = ∂/∂u (rows, F)."""
    split, member = tl.program_id(0), tl.program_id(1).to(tl.int64)
    columns = tl.arange(0, D_PAD)
    weights, half = master + member * P, half + member * P
    gain, bias = load_vector(weights + gain_at, columns, D), load_vector(weights + bias_at, columns, D)
    grad_gain, grad_bias = tl.zeros((D_PAD,), tl.float32), tl.zeros((D_PAD,), tl.float32)
    mid, grad_x, grad_half = (
        mid + member * num_rows * D, grad_x + member * num_rows * D, grad_half + member * num_rows * D
    )  # fmt: skip
    normed, grad_mid = normed + member * num_rows * D, grad_mid + member * num_rows * D
    hidden, grad_hidden = hidden + member * num_rows * F, grad_hidden + member * num_rows * F
    for first in range(split * ROWS, num_rows, num_splits * ROWS):
        rows = first + tl.arange(0, ROWS)
        normal, inverse = standardise(load_rows(mid, rows, columns, num_rows, D), columns, D)
        b = (normal * gain[None, :] + bias[None, :]).to(tl.bfloat16)
        store_rows(normed, b, rows, columns, num_rows, D)
        grad = load_rows(grad_half, rows, columns, num_rows, D)
        grad_b = tl.zeros((ROWS, D_PAD), tl.float32)
        for f_first in range(0, F, F_BLOCK):
            f = f_first + tl.arange(0, F_BLOCK)
            u = tl.dot(b, tl.trans(load_rows(half + up_at, f, columns, F, D)))
            gate, slope = gelu_gate(u)
            store_rows(hidden, u * gate, rows, f, num_rows, F)
            grad_u = tl.dot(grad, load_rows(half + down_at, columns, f, D, F)) * slope
            grad_u = grad_u.to(tl.bfloat16)
            store_rows(grad_hidden, grad_u, rows, f, num_rows, F)
            grad_b = tl.dot(grad_u, load_rows(half + up_at, f, columns, F, D), grad_b)
        normal, inverse = standardise(load_rows(mid, rows, columns, num_rows, D), columns, D)
        grad_gain += tl.sum(grad_b * normal, 0)
        grad_bias += tl.sum(grad_b, 0)
        total = load_rows(grad_x, rows, columns, num_rows, D)
        total += standardise_backward(grad_b * gain[None, :], normal, inverse, columns, D)
        store_rows(grad_x, total, rows, columns, num_rows, D)
        store_rows(grad_mid, total, rows, columns, num_rows, D)
    store_sums(sums, grad_gain, grad_bias, member, split, num_splits, vector, D, D_PAD)
