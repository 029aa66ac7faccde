# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""The end of an update: loss, norm, health and clipping of each member, then AdamW over the flat parameters."""

import triton
import triton.language as tl


@triton.jit
def square_sums(grad, squares, P, BLOCK: tl.constexpr):
    """Σ g² over every n-th block of a member's gradient in float64, (M, n) for the n programs of a member."""
    first, member, num = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.num_programs(0)
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(first * BLOCK, P, num * BLOCK):
        p = start + tl.arange(0, BLOCK)
        wide = tl.load(grad + member * P + p, mask=p < P, other=0.0).to(tl.float64)
        total += wide * wide
    tl.store(squares + member * num + first, tl.sum(total))


@triton.jit(do_not_specialize=["num_rows", "num_blocks"])
def judge(losses, squares, healthy, factor, record, step, num_rows, num_blocks, clip_norm, BLOCK: tl.constexpr):
    """Mean loss (float64) and norm of one member; NaN is recorded and ``factor`` is NaN once either is not finite."""
    member, lanes = tl.program_id(0), tl.arange(0, BLOCK)
    loss, square = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64)
    for first in range(0, num_rows, BLOCK):
        row = first + lanes
        loss += tl.load(losses + member.to(tl.int64) * num_rows + row, mask=row < num_rows, other=0.0)
    for first in range(0, num_blocks, BLOCK):
        block = first + lanes
        square += tl.load(squares + member * num_blocks + block, mask=block < num_blocks, other=0.0)
    mean, norm = tl.sum(loss) / num_rows, tl.sqrt(tl.sum(square))
    infinite = float("inf")
    fine = (tl.load(healthy + member) != 0) & (tl.abs(mean) < infinite) & (norm < infinite)
    tl.store(healthy + member, fine.to(tl.uint8))
    clipped = tl.where(norm > clip_norm, clip_norm / norm, 1.0).to(tl.float32)
    tl.store(factor + member, tl.where(fine, clipped, float("nan")))
    tl.store(record + tl.load(step) * tl.num_programs(0) + member, tl.where(fine, mean, float("nan")))


@triton.jit(do_not_specialize=["num_members"])
def update(
    master, half, adam_m, adam_v, grad, factor, decayed, step_size, decay, correction2, step, P, num_members,
    gain1, gain2, epsilon, BLOCK: tl.constexpr, DECAY: tl.constexpr,
):  # fmt: skip
    """AdamW (Loshchilov and Hutter 2019) of a block of one member; a NaN factor leaves the member as it is.

    Of one member ``P`` parameters may be a part, at which all pointers begin; ``grad`` is float32 or bfloat16. Weights
    decay nowhere (``DECAY`` 0), where ``decayed`` says so (1), or all (2).
    """
    member = tl.program_id(1).to(tl.int64)
    clip = tl.load(factor + member)
    if clip == clip:
        row = tl.load(step)
        size, shrink = tl.load(step_size + row * num_members + member), tl.load(decay + row * num_members + member)
        p = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = p < P
        at = member * P + p
        g = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32) * clip
        m, v = tl.load(adam_m + at, mask=inside, other=0.0), tl.load(adam_v + at, mask=inside, other=0.0)
        w = tl.load(master + at, mask=inside, other=0.0)
        m += (g - m) * gain1
        v += (g * g - v) * gain2
        change = size * m / (tl.sqrt(v / tl.load(correction2 + row)) + epsilon)
        if DECAY == 1:
            change += w * (shrink * tl.load(decayed + p, mask=inside, other=0).to(tl.float32))
        if DECAY == 2:
            change += w * shrink
        w -= change
        tl.store(adam_m + at, m, mask=inside)
        tl.store(adam_v + at, v, mask=inside)
        tl.store(master + at, w, mask=inside)
        tl.store(half + at, w.to(tl.bfloat16), mask=inside)
