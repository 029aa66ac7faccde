"""Cross-entropy of the tied head, fused with its gradient and blocked over rows: a batch's logits are never held."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# (Numba infers the types of kernels.)

from __future__ import annotations

import numpy as np

from scaling_sim_numba.kernels.compiler import kernel
from scaling_sim_numba.kernels.product import gemm
from scaling_sim_numba.kernels.scalar import exp, row_maximum
from scaling_sim_numba.kernels.views import block, matrix


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
def head_loss(sizes, arena, logits, x_Rd, embedding_Vd, targets, losses, weight, d_x_Rd, d_embedding_Vd, backward):
    """Loss of every row from logits = x·Eᵀ; if ``backward``, also dx = d_logits·E and dE += d_logitsᵀ·x."""
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
