"""Cross-entropy of the tied head, fused with its gradient, in blocks of rows or columns: never all logits at once."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# (Numba infers the types of kernels.)

from __future__ import annotations

import numpy as np

from scaling_sim_numba.kernels.compiler import kernel
from scaling_sim_numba.kernels.product import gemm
from scaling_sim_numba.kernels.scalar import exp, order_key, order_value, row_maximum
from scaling_sim_numba.kernels.views import block, matrix, vector


@kernel
def softmax_loss(logits_RV, targets, losses, weight):
    """Write −log softmax(logits)[target] of every row; turn logits into weight·(softmax − one-hot) in place."""
    real = logits_RV.dtype.type
    rows, vocab = logits_RV.shape
    for r in range(rows):
        largest = row_maximum(logits_RV, r, vocab)
        at_target = logits_RV[r, targets[r]]
        total = real(0.0)
        for i in range(vocab):
            e = exp(logits_RV[r, i] - largest)
            logits_RV[r, i] = e
            total += e
        losses[r] = np.log(total) + (largest - at_target)
        scale = real(weight) / total
        for i in range(vocab):
            logits_RV[r, i] *= scale
        logits_RV[r, targets[r]] -= real(weight)


@kernel
def running_log_sum(logits_Rv, first, targets, largest, sums, at_target):
    """Take columns ``first ..`` of the logits into every row's largest logit m, Σ exp(logit − m) and target's logit.

    Before the first columns, m is −∞ and the sum zero.
    """
    real = logits_Rv.dtype.type
    rows, columns = logits_Rv.shape
    for r in range(rows):
        before, key = order_key(largest[r]), order_key(row_maximum(logits_Rv, r, columns))
        m = order_value(key if key > before else before, largest[r])
        total = real(0.0)
        for i in range(columns):
            total += exp(logits_Rv[r, i] - m)
        sums[r] = sums[r] * exp(largest[r] - m) + total
        largest[r] = m
        if first <= targets[r] < first + columns:
            at_target[r] = logits_Rv[r, targets[r] - first]


@kernel
def softmax_gradient(logits_Rv, first, targets, log_sums, weight):
    """Turn the columns ``first ..`` of the logits into weight·(softmax − one-hot), in place."""
    real = logits_Rv.dtype.type
    rows, columns = logits_Rv.shape
    for r in range(rows):
        for i in range(columns):
            logits_Rv[r, i] = real(weight) * exp(logits_Rv[r, i] - log_sums[r])
        if first <= targets[r] < first + columns:
            logits_Rv[r, targets[r] - first] -= real(weight)


@kernel
def head_loss(
    sizes, arena, logits, row_sums, x_Rd, embedding_Vd, targets, losses, weight, d_x_Rd, d_embedding_Vd, backward
):  # fmt: skip
    """Loss of every row from logits = x·Eᵀ; if ``backward``, also dx = d_logits·E and dE += d_logitsᵀ·x.

    Small vocabularies: some rows at a time. Large ones: all rows and some columns at a time, first for the logarithms
    of the sums, then once more for the gradient, so that E and dE pass through the cache once per chunk and not once
    per few rows; a third more products, and none for the loss alone.
    """
    if sizes.vocab_block < sizes.vocab:
        _streamed_loss(
            sizes, arena, logits, row_sums, x_Rd, embedding_Vd, targets, losses, weight, d_x_Rd, d_embedding_Vd,
            backward,
        )  # fmt: skip
        return
    rows, width = x_Rd.shape
    for first in range(0, rows, sizes.logit_rows):
        count = min(sizes.logit_rows, rows - first)
        logits_RV = matrix(arena, logits, count, sizes.vocab)
        x_block = block(x_Rd, first, 0, count, width)
        gemm(x_block, embedding_Vd.T, 0.0, logits_RV)
        softmax_loss(logits_RV, targets[first : first + count], losses[first : first + count], weight)
        if backward:
            gemm(logits_RV, embedding_Vd, 0.0, block(d_x_Rd, first, 0, count, width))
            gemm(logits_RV.T, x_block, 1.0, d_embedding_Vd)


@kernel
def _streamed_loss(
    sizes, arena, logits, row_sums, x_Rd, embedding_Vd, targets, losses, weight, d_x_Rd, d_embedding_Vd, backward
):  # fmt: skip
    """`head_loss` by blocks of columns."""
    real = x_Rd.dtype.type
    rows, width = x_Rd.shape
    largest, sums = vector(arena, row_sums, rows), vector(arena, row_sums + rows, rows)
    largest[:], sums[:] = real(-np.inf), real(0.0)
    for first in range(0, sizes.vocab, sizes.vocab_block):
        count = min(sizes.vocab_block, sizes.vocab - first)
        logits_Rv = matrix(arena, logits, rows, count)
        gemm(x_Rd, block(embedding_Vd, first, 0, count, width).T, 0.0, logits_Rv)
        running_log_sum(logits_Rv, first, targets, largest, sums, losses)
    for r in range(rows):
        sums[r] = np.log(sums[r]) + largest[r]
        losses[r] = sums[r] - losses[r]
    if not backward:
        return
    for first in range(0, sizes.vocab, sizes.vocab_block):
        count = min(sizes.vocab_block, sizes.vocab - first)
        logits_Rv = matrix(arena, logits, rows, count)
        columns_vd = block(embedding_Vd, first, 0, count, width)
        gemm(x_Rd, columns_vd.T, 0.0, logits_Rv)
        softmax_gradient(logits_Rv, first, targets, sums, weight)
        gemm(logits_Rv, columns_vd, 0.0 if first == 0 else 1.0, d_x_Rd)
        gemm(logits_Rv.T, x_Rd, 1.0, block(d_embedding_Vd, first, 0, count, width))
