# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""Causal attention of one head and sequence in one program; nothing of size (T, T) leaves it."""

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
def load_head(pointer, t, head, width: tl.constexpr, C: tl.constexpr, C_PAD: tl.constexpr, T: tl.constexpr):
    """Rows ``t`` of one head's columns of a matrix of ``width`` columns, (rows, C); zero outside."""
    c = tl.arange(0, C_PAD)
    inside = (t < T)[:, None] & (c < C)[None, :]
    return tl.load(pointer + t[:, None] * width + head * C + c[None, :], mask=inside, other=0.0)


@triton.jit
def store_head(pointer, value, t, head, width: tl.constexpr, C: tl.constexpr, C_PAD: tl.constexpr, T: tl.constexpr):
    """Write what `load_head` reads, in bfloat16."""
    c = tl.arange(0, C_PAD)
    inside = (t < T)[:, None] & (c < C)[None, :]
    tl.store(pointer + t[:, None] * width + head * C + c[None, :], value.to(tl.bfloat16), mask=inside)


@triton.jit(do_not_specialize=["batch"])
def attention_forward(
    normed, qkv, mixed, log_sums, half, P, batch, qkv_at, scale,
    H: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, C: tl.constexpr, C_PAD: tl.constexpr,
    T: tl.constexpr, T_PAD: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """Outputs of one head for one sequence into its columns of ``mixed`` (rows, D).

    With ``KEEP``, for the backward pass, also queries, keys and values into ``qkv`` (rows, 3D) and the log-sum-exps of
    the scores (base 2) into ``log_sums`` (rows, H).
    """
    sequence, head = tl.program_id(0) // H, tl.program_id(0) % H
    first_row, member = sequence.to(tl.int64) * T, (sequence // batch).to(tl.int64)
    t, columns, c = tl.arange(0, T_PAD), tl.arange(0, D_PAD), tl.arange(0, C_PAD)
    a, weights = load_rows(normed + first_row * D, t, columns, T, D), half + member * P + qkv_at + head * C * D
    q = tl.dot(a, tl.trans(load_rows(weights, c, columns, C, D))).to(tl.bfloat16)
    k = tl.dot(a, tl.trans(load_rows(weights + D * D, c, columns, C, D))).to(tl.bfloat16)
    v = tl.dot(a, tl.trans(load_rows(weights + 2 * D * D, c, columns, C, D))).to(tl.bfloat16)
    scores = tl.where(t[:, None] >= t[None, :], tl.dot(q, tl.trans(k)), float("-inf"))
    highest = tl.max(scores, 1) * (scale * LOG2_E)
    shares = tl.exp2(scores * (scale * LOG2_E) - highest[:, None])
    total = tl.sum(shares, 1)
    output = tl.dot(shares.to(tl.bfloat16), v) * (1.0 / total)[:, None]
    store_head(mixed + first_row * D, output, t, head, D, C, C_PAD, T)
    if KEEP:
        tl.store(log_sums + (first_row + t) * H + head, highest + tl.log2(total), mask=t < T)
        qkv += first_row * 3 * D
        store_head(qkv, q, t, head, 3 * D, C, C_PAD, T)
        store_head(qkv + D, k, t, head, 3 * D, C, C_PAD, T)
        store_head(qkv + 2 * D, v, t, head, 3 * D, C, C_PAD, T)


@triton.jit
def attention_backward(
    qkv, mixed, log_sums, grad_mixed, scale,
    H: tl.constexpr, D: tl.constexpr, C: tl.constexpr, C_PAD: tl.constexpr, T: tl.constexpr, T_BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient of one head's queries, keys and values, in place of them, from that of ``mixed`` (FlashAttention-2).

    Blocks of T_BLOCK positions, of which T fills one or two: what lies above the diagonal is not computed.
    """
    sequence, head = tl.program_id(0) // H, tl.program_id(0) % H
    first_row, t = sequence.to(tl.int64) * T, tl.arange(0, T_BLOCK)
    qkv, log_sums = qkv + first_row * 3 * D, log_sums + first_row * H + head
    mixed, grad_mixed = mixed + first_row * D, grad_mixed + first_row * D
    q, k, v, grad, log_sum, along = load_block(qkv, mixed, log_sums, grad_mixed, t, head, H, D, C, C_PAD, T)
    weights, grad_scores = attention_pair(q, k, v, grad, log_sum, along, scale, True)
    grad_q = tl.dot(grad_scores, k)
    grad_k, grad_v = tl.dot(tl.trans(grad_scores), q), tl.dot(tl.trans(weights), grad)
    store_head(qkv, grad_q * scale, t, head, 3 * D, C, C_PAD, T)
    if T > T_BLOCK:
        u = T_BLOCK + t
        q, k1, v1, grad, log_sum, along = load_block(qkv, mixed, log_sums, grad_mixed, u, head, H, D, C, C_PAD, T)
        weights, grad_scores = attention_pair(q, k, v, grad, log_sum, along, scale, False)
        grad_q = tl.dot(grad_scores, k)
        grad_k, grad_v = tl.dot(tl.trans(grad_scores), q, grad_k), tl.dot(tl.trans(weights), grad, grad_v)
        weights, grad_scores = attention_pair(q, k1, v1, grad, log_sum, along, scale, True)
        grad_q = tl.dot(grad_scores, k1, grad_q)
        store_head(qkv, grad_q * scale, u, head, 3 * D, C, C_PAD, T)
        store_head(qkv + D, tl.dot(tl.trans(grad_scores), q) * scale, u, head, 3 * D, C, C_PAD, T)
        store_head(qkv + 2 * D, tl.dot(tl.trans(weights), grad), u, head, 3 * D, C, C_PAD, T)
    store_head(qkv + D, grad_k * scale, t, head, 3 * D, C, C_PAD, T)
    store_head(qkv + 2 * D, grad_v, t, head, 3 * D, C, C_PAD, T)


@triton.jit
def load_block(
    qkv, mixed, log_sums, grad_mixed, t, head,
    H: tl.constexpr, D: tl.constexpr, C: tl.constexpr, C_PAD: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """Queries, keys, values, gradient of the output, log-sum-exps, and Σ output · its gradient of positions ``t``."""
    q = load_head(qkv, t, head, 3 * D, C, C_PAD, T)
    k = load_head(qkv + D, t, head, 3 * D, C, C_PAD, T)
    v = load_head(qkv + 2 * D, t, head, 3 * D, C, C_PAD, T)
    grad, output = load_head(grad_mixed, t, head, D, C, C_PAD, T), load_head(mixed, t, head, D, C, C_PAD, T)
    log_sum = tl.load(log_sums + t * H, mask=t < T, other=float("inf"))
    return q, k, v, grad, log_sum, tl.sum(output.to(tl.float32) * grad.to(tl.float32), 1)


@triton.jit
def attention_pair(q, k, v, grad, log_sum, along, scale, DIAGONAL: tl.constexpr):
    """Attention weights of a block of queries and one of keys, and the gradient of their scores, in bfloat16."""
    scores = tl.dot(q, tl.trans(k)) * (scale * LOG2_E) - log_sum[:, None]
    if DIAGONAL:
        t = tl.arange(0, q.shape[0])
        scores = tl.where(t[:, None] >= t[None, :], scores, float("-inf"))
    weights = tl.exp2(scores)
    grad_scores = weights * (tl.dot(grad, tl.trans(v)) - along[:, None])
    return weights.to(tl.bfloat16), grad_scores.to(tl.bfloat16)


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
