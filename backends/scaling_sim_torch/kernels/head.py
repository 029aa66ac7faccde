# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""Tied head, cross-entropy, final layer norm: loss and gradient in one pass over the vocabulary, no logits stored.

The gradient of the head's input is Σ_v softmax_v·E_v − E_target: attention with the embedding as keys and values, so
the online softmax of Milakov and Gimelshein (2018) and of FlashAttention (Dao et al. 2022) yields it with the loss.
"""

import triton
import triton.language as tl

from scaling_sim_torch.kernels.attention import store_sums
from scaling_sim_torch.kernels.common import (
    LOG2_E,
    load_rows,
    load_vector,
    standardise,
    standardise_backward,
    store_rows,
)


@triton.jit(do_not_specialize=["num_rows", "num_splits", "vector"])
def head_forward(
    x, normed, targets, losses, log_sums, grad_x, grad_half, sums, master, half,
    P, num_rows, num_splits, gain_at, vector, V, scale,
    D: tl.constexpr, D_PAD: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, GRADIENT: tl.constexpr,
):  # fmt: skip
    """Loss of each row (nats); with ``GRADIENT`` also log-sum-exp (base 2) and scale · ∂loss/∂x.

    ``normed`` is the final layer norm of ``x``.
    """
    split, member = tl.program_id(0), tl.program_id(1).to(tl.int64)
    columns = tl.arange(0, D_PAD)
    weights, embedding = master + member * P, half + member * P
    gain = load_vector(weights + gain_at, columns, D)
    grad_gain, grad_bias = tl.zeros((D_PAD,), tl.float32), tl.zeros((D_PAD,), tl.float32)
    x, grad_x, grad_half = x + member * num_rows * D, grad_x + member * num_rows * D, grad_half + member * num_rows * D
    normed, targets = normed + member * num_rows * D, targets + member * num_rows
    losses, log_sums = losses + member * num_rows, log_sums + member * num_rows
    for first in range(split * ROWS, num_rows, num_splits * ROWS):
        rows = first + tl.arange(0, ROWS)
        y = load_rows(normed, rows, columns, num_rows, D)
        if GRADIENT:
            stream = load_rows(x, rows, columns, num_rows, D)
        target = tl.load(targets + rows, mask=rows < num_rows, other=0)
        highest = tl.full((ROWS,), float("-inf"), tl.float32)
        total = tl.zeros((ROWS,), tl.float32)
        chosen = tl.zeros((ROWS,), tl.float32)
        expected = tl.zeros((ROWS, D_PAD), tl.float32)
        for v_first in range(0, V, BLOCK):
            v = v_first + tl.arange(0, BLOCK)
            rows_E = load_rows(embedding, v, columns, V, D)
            logits = tl.dot(y, tl.trans(rows_E)) * LOG2_E
            logits = tl.where((v < V)[None, :], logits, float("-inf"))
            chosen += tl.sum(tl.where(v[None, :] == target[:, None], logits, 0.0), 1)
            higher = tl.maximum(highest, tl.max(logits, 1))
            shrink = tl.exp2(highest - higher)
            share = tl.exp2(logits - higher[:, None])
            total = total * shrink + tl.sum(share, 1)
            if GRADIENT:
                expected = tl.dot(share.to(tl.bfloat16), rows_E, expected * shrink[:, None])
            highest = higher
        log_sum = highest + tl.log2(total)
        tl.store(losses + rows, (log_sum - chosen) / LOG2_E, mask=rows < num_rows)
        if GRADIENT:
            tl.store(log_sums + rows, log_sum, mask=rows < num_rows)
            inside = (rows < num_rows)[:, None] & (columns < D)[None, :]
            wanted = tl.load(embedding + target[:, None] * D + columns[None, :], mask=inside, other=0.0)
            grad_y = tl.where(inside, (expected / total[:, None] - wanted.to(tl.float32)) * scale, 0.0)
            normal, inverse = standardise(stream, columns, D)
            grad_gain += tl.sum(grad_y * normal, 0)
            grad_bias += tl.sum(grad_y, 0)
            grad = standardise_backward(grad_y * gain[None, :], normal, inverse, columns, D)
            store_rows(grad_x, grad, rows, columns, num_rows, D)
            store_rows(grad_half, grad, rows, columns, num_rows, D)
    if GRADIENT:
        store_sums(sums, grad_gain, grad_bias, member, split, num_splits, vector, D, D_PAD)


@triton.jit(do_not_specialize=["num_rows", "num_splits"])
def embedding_gradient(
    normed, tokens, targets, log_sums, grad_x, partial, half, P, num_rows, num_splits, V, scale,
    D: tl.constexpr, D_PAD: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, WITH_INPUT: tl.constexpr,
):  # fmt: skip
    """Gradient of a block of the tied embedding over one split of a member's rows.

    The head's part always; the input's part with ``WITH_INPUT``, as a product with one-hot rows (no atomics).
    """
    split, member = tl.program_id(1), tl.program_id(2).to(tl.int64)
    v, columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, D_PAD)
    rows_E = load_rows(half + member * P, v, columns, V, D)
    grad = tl.zeros((BLOCK, D_PAD), tl.float32)
    normed, grad_x = normed + member * num_rows * D, grad_x + member * num_rows * D
    tokens, targets, log_sums = tokens + member * num_rows, targets + member * num_rows, log_sums + member * num_rows
    for first in range(split * ROWS, num_rows, num_splits * ROWS):
        rows = first + tl.arange(0, ROWS)
        y = load_rows(normed, rows, columns, num_rows, D)
        log_sum = tl.load(log_sums + rows, mask=rows < num_rows, other=float("inf"))
        target = tl.load(targets + rows, mask=rows < num_rows, other=-1)
        share = tl.exp2(tl.dot(rows_E, tl.trans(y)) * LOG2_E - log_sum[None, :])
        share -= (v[:, None] == target[None, :]).to(tl.float32)
        grad = tl.dot((share * scale).to(tl.bfloat16), y, grad)
        if WITH_INPUT:
            token = tl.load(tokens + rows, mask=rows < num_rows, other=-1)
            one_hot = tl.where(v[:, None] == token[None, :], 1.0, 0.0).to(tl.bfloat16)
            grad = tl.dot(one_hot, load_rows(grad_x, rows, columns, num_rows, D).to(tl.bfloat16), grad)
    place = partial + (split * tl.num_programs(2) + member) * P
    store_rows(place, grad, v, columns, V, D)


@triton.jit(do_not_specialize=["num_rows"])
def scatter_embedding(tokens, grad_x, partial, P, num_rows, D: tl.constexpr, D_PAD: tl.constexpr, ROWS: tl.constexpr):
    """Add the input's part of the embedding gradient for large vocabularies. Atomic: the order of the sum varies."""
    member = tl.program_id(1).to(tl.int64)
    rows, columns = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, D_PAD)
    token = tl.load(tokens + member * num_rows + rows, mask=rows < num_rows, other=0)
    inside = (rows < num_rows)[:, None] & (columns < D)[None, :]
    grad = load_rows(grad_x + member * num_rows * D, rows, columns, num_rows, D)
    tl.atomic_add(partial + member * P + token[:, None] * D + columns[None, :], grad, mask=inside, sem="relaxed")
