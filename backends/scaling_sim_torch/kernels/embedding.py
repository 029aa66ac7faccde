# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""Tokens of a batch, gathered on the device, and their embedding; the gradient of the position table."""

import triton
import triton.language as tl

from scaling_sim_torch.kernels.common import layer_norm, load_rows, store_rows


@triton.jit(do_not_specialize=["num_sequences", "batch"])
def embed(
    starts, step, corpus, tokens, targets, x, normed, master, P, num_sequences, batch, V, gain_at, bias_at,
    BITS: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, T: tl.constexpr, T_PAD: tl.constexpr,
):  # fmt: skip
    """One sequence of row ``step`` of ``starts``: inputs, targets (int32), token + position embedding (float32), and
    what the first layer norm makes of it."""
    sequence = tl.program_id(0)
    start = tl.load(starts + tl.load(step) * num_sequences + sequence)
    t, columns = tl.arange(0, T_PAD), tl.arange(0, D_PAD)
    token = tl.load(corpus + start + t, mask=t < T, other=0).to(tl.int32) & BITS
    target = tl.load(corpus + start + t + 1, mask=t < T, other=0).to(tl.int32) & BITS
    first_row = sequence.to(tl.int64) * T
    tl.store(tokens + first_row + t, token, mask=t < T)
    tl.store(targets + first_row + t, target, mask=t < T)
    weights = master + (sequence // batch).to(tl.int64) * P
    inside = (t < T)[:, None] & (columns < D)[None, :]
    embedded = tl.load(weights + token[:, None] * D + columns[None, :], mask=inside, other=0.0)
    embedded += load_rows(weights + V * D, t, columns, T, D)
    store_rows(x + first_row * D, embedded, t, columns, T, D)
    a = layer_norm(embedded, weights + gain_at, weights + bias_at, columns, D)
    store_rows(normed + first_row * D, a, t, columns, T, D)


@triton.jit(do_not_specialize=["batch", "num_splits", "num_members"])
def position_gradient(
    grad_x, partial, P, batch, num_splits, num_members, V,
    D: tl.constexpr, T: tl.constexpr, BLOCK: tl.constexpr, SEQUENCES: tl.constexpr,
):  # fmt: skip
    """Sum over the sequences of one split and member, for a block of the position table's T·D entries.

    ``SEQUENCES`` are read at a time: one after another would wait for memory as often as there are sequences.
    """
    member, split = tl.program_id(1).to(tl.int64), tl.program_id(2)
    p, some = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, SEQUENCES)
    grad_x += member * batch * T * D
    total = tl.zeros((SEQUENCES, BLOCK), tl.float32)
    for first in range(split, batch, num_splits * SEQUENCES):
        sequence = first + num_splits * some[:, None]
        inside = (sequence < batch) & (p < T * D)[None, :]
        total += tl.load(grad_x + sequence * (T * D) + p[None, :], mask=inside, other=0.0)
    place = partial + (split * num_members + member) * P + V * D
    tl.store(place + p, tl.sum(total, 0), mask=p < T * D)
