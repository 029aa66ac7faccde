# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""Softmax cross-entropy of rows of logits: loss and gradient in one launch, the gradient in place of the logits."""

import triton
import triton.language as tl

from scaling_sim_torch.kernels.common import LOG2_E


@triton.jit(do_not_specialize=["first_target", "target_stride"])
def cross_entropy(
    logits, targets, losses, num_rows, first_target, target_stride, V, scale,
    BLOCK: tl.constexpr, GRADIENT: tl.constexpr,
):  # fmt: skip
    """Loss (nats) of one row in float32; with ``GRADIENT`` the row becomes (softmax − one-hot)·scale.

    Row r of member m stands at m · num_rows + r of ``logits`` and has its target and loss at
    m · target_stride + first_target + r.
    """
    row, member = tl.program_id(0), tl.program_id(1).to(tl.int64)
    logits += (member * num_rows + row) * V
    at = member * target_stride + first_target + row
    target = tl.load(targets + at)
    highest, total = float("-inf"), 0.0
    for first in range(0, V, BLOCK):
        v = first + tl.arange(0, BLOCK)
        z = tl.load(logits + v, mask=v < V, other=float("-inf")).to(tl.float32) * LOG2_E
        higher = tl.maximum(highest, tl.max(z))
        total = total * tl.exp2(highest - higher) + tl.sum(tl.exp2(z - higher))
        highest = higher
    log_sum = highest + tl.log2(total)
    chosen = tl.load(logits + target).to(tl.float32) * LOG2_E
    tl.store(losses + at, (log_sum - chosen) / LOG2_E)
    if GRADIENT:
        tl.debug_barrier()  # the target's logit has been read
        for first in range(0, V, BLOCK):
            v = first + tl.arange(0, BLOCK)
            z = tl.load(logits + v, mask=v < V, other=0.0).to(tl.float32) * LOG2_E
            share = tl.exp2(z - log_sum) - tl.where(v == target, 1.0, 0.0)
            tl.store(logits + v, (share * scale).to(logits.dtype.element_ty), mask=v < V)
