# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""One head's projections and causal attention of one sequence in one program; nothing of size (T, T) leaves it."""

import triton
import triton.language as tl

from scaling_sim_torch.kernels.common import (
    LOG2_E,
    load_rows,
    load_vector,
    standardise,
    standardise_backward,
    store_rows,
)


@triton.jit
def head_projections(
    normed, weights, head,
    D: tl.constexpr, D_PAD: tl.constexpr, C: tl.constexpr, C_PAD: tl.constexpr, T: tl.constexpr, T_PAD: tl.constexpr,
):  # fmt: skip
    """Queries, keys and values (T, C) of one head, in bfloat16."""
    t, columns, c = tl.arange(0, T_PAD), tl.arange(0, D_PAD), tl.arange(0, C_PAD)
    a, block = load_rows(normed, t, columns, T, D), weights + head * C * D
    q = tl.dot(a, tl.trans(load_rows(block, c, columns, C, D))).to(tl.bfloat16)
    k = tl.dot(a, tl.trans(load_rows(block + D * D, c, columns, C, D))).to(tl.bfloat16)
    v = tl.dot(a, tl.trans(load_rows(block + 2 * D * D, c, columns, C, D))).to(tl.bfloat16)
    return q, k, v


@triton.jit
def attention_weights(q, k, scale, T_PAD: tl.constexpr):
    """Causal softmax of q·kᵀ, (T, T) float32."""
    t = tl.arange(0, T_PAD)
    scores = tl.dot(q, tl.trans(k)) * (scale * LOG2_E)
    scores = tl.where(t[:, None] >= t[None, :], scores, float("-inf"))
    weights = tl.exp2(scores - tl.max(scores, 1)[:, None])
    return weights * (1.0 / tl.sum(weights, 1))[:, None]


@triton.jit(do_not_specialize=["batch"])
def attention_forward(
    normed, mixed, half, P, batch, qkv_at, scale,
    H: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, C: tl.constexpr, C_PAD: tl.constexpr,
    T: tl.constexpr, T_PAD: tl.constexpr,
):  # fmt: skip
    """Outputs of one head for one sequence into its columns of ``mixed`` (rows, D)."""
    sequence, head = tl.program_id(0) // H, tl.program_id(0) % H
    first_row, member = sequence.to(tl.int64) * T, (sequence // batch).to(tl.int64)
    q, k, v = head_projections(normed + first_row * D, half + member * P + qkv_at, head, D, D_PAD, C, C_PAD, T, T_PAD)
    output = tl.dot(attention_weights(q, k, scale, T_PAD).to(tl.bfloat16), v).to(tl.bfloat16)
    t, c = tl.arange(0, T_PAD), tl.arange(0, C_PAD)
    inside = (t < T)[:, None] & (c < C)[None, :]
    tl.store(mixed + (first_row + t)[:, None] * D + head * C + c[None, :], output, mask=inside)


@triton.jit(do_not_specialize=["batch"])
def attention_backward(
    normed, grad_mid, grad_qkv, half, P, batch, qkv_at, out_at, scale,
    H: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, C: tl.constexpr, C_PAD: tl.constexpr,
    T: tl.constexpr, T_PAD: tl.constexpr,
):  # fmt: skip
    """Gradient of one head's queries, keys and values, from that of the attention's residual output (bfloat16)."""
    sequence, head = tl.program_id(0) // H, tl.program_id(0) % H
    first_row, member = sequence.to(tl.int64) * T, (sequence // batch).to(tl.int64)
    q, k, v = head_projections(normed + first_row * D, half + member * P + qkv_at, head, D, D_PAD, C, C_PAD, T, T_PAD)
    t, columns, c = tl.arange(0, T_PAD), tl.arange(0, D_PAD), tl.arange(0, C_PAD)
    inside_w = (columns < D)[:, None] & (c < C)[None, :]
    out_h = half + member * P + out_at + head * C + columns[:, None] * D + c[None, :]
    w_out = tl.load(out_h, mask=inside_w, other=0.0)
    grad_output = tl.dot(load_rows(grad_mid + first_row * D, t, columns, T, D), w_out).to(tl.bfloat16)
    weights = attention_weights(q, k, scale, T_PAD)
    grad_v = tl.dot(tl.trans(weights.to(tl.bfloat16)), grad_output)
    grad_weights = tl.dot(grad_output, tl.trans(v))
    along = tl.sum(grad_weights * weights, 1)
    grad_scores = (weights * (grad_weights - along[:, None]) * scale).to(tl.bfloat16)
    grad_q = tl.dot(grad_scores, k)
    grad_k = tl.dot(tl.trans(grad_scores), q)
    inside = (t < T)[:, None] & (c < C)[None, :]
    place = grad_qkv + (first_row + t)[:, None] * (3 * D) + head * C + c[None, :]
    tl.store(place, grad_q.to(tl.bfloat16), mask=inside)
    tl.store(place + D, grad_k.to(tl.bfloat16), mask=inside)
    tl.store(place + 2 * D, grad_v.to(tl.bfloat16), mask=inside)


@triton.jit(do_not_specialize=["num_rows", "num_splits", "vector"])
def projection_backward(
    x, grad_qkv, grad_x, grad_half, sums, master, half, P, num_rows, num_splits, gain_at, qkv_at, vector,
    D: tl.constexpr, D_PAD: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Back through the projections and the layer norm into the residual stream, tile by tile of one member's rows.

    ``grad_x`` (float32) holds the residual gradient and receives the sum; ``grad_half`` its bfloat16 copy; ``sums``
    [vector, vector + 1] the gradients of gain and bias over this split.
    """
    split, member = tl.program_id(0), tl.program_id(1).to(tl.int64)
    columns = tl.arange(0, D_PAD)
    gain = load_vector(master + member * P + gain_at, columns, D)
    block = half + member * P + qkv_at
    w_q = load_rows(block, columns, columns, D, D)
    w_k = load_rows(block + D * D, columns, columns, D, D)
    w_v = load_rows(block + 2 * D * D, columns, columns, D, D)
    grad_gain, grad_bias = tl.zeros((D_PAD,), tl.float32), tl.zeros((D_PAD,), tl.float32)
    x, grad_x, grad_half = x + member * num_rows * D, grad_x + member * num_rows * D, grad_half + member * num_rows * D
    grad_qkv += member * num_rows * 3 * D
    for first in range(split * ROWS, num_rows, num_splits * ROWS):
        rows = first + tl.arange(0, ROWS)
        # Everything is asked for before the first product waits.
        total, stream = load_rows(grad_x, rows, columns, num_rows, D), load_rows(x, rows, columns, num_rows, D)
        inside = (rows < num_rows)[:, None] & (columns < D)[None, :]
        place = grad_qkv + rows[:, None] * (3 * D) + columns[None, :]
        grad_a = tl.dot(tl.load(place, mask=inside, other=0.0), w_q)
        grad_a = tl.dot(tl.load(place + D, mask=inside, other=0.0), w_k, grad_a)
        grad_a = tl.dot(tl.load(place + 2 * D, mask=inside, other=0.0), w_v, grad_a)
        normal, inverse = standardise(stream, columns, D)
        grad_gain += tl.sum(grad_a * normal, 0)
        grad_bias += tl.sum(grad_a, 0)
        total += standardise_backward(grad_a * gain[None, :], normal, inverse, columns, D)
        store_rows(grad_x, total, rows, columns, num_rows, D)
        store_rows(grad_half, total, rows, columns, num_rows, D)
    store_sums(sums, grad_gain, grad_bias, member, split, num_splits, vector, D, D_PAD)


@triton.jit
def store_sums(sums, grad_gain, grad_bias, member, split, num_splits, vector, D: tl.constexpr, D_PAD: tl.constexpr):
    """Write a split's gradients of a layer norm: ``sums`` is (vectors, M, splits, D)."""
    columns = tl.arange(0, D_PAD)
    num_members = tl.num_programs(1)
    place = sums + ((vector * num_members + member) * num_splits + split) * D + columns
    tl.store(place, grad_gain, mask=columns < D)
    tl.store(place + num_members * num_splits * D, grad_bias, mask=columns < D)
