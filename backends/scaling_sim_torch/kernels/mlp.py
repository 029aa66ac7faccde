# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""Everything of a layer after attention: output projection, residual, layer norm, feed-forward, residual.

Backward in two launches: by blocks of hidden units (their two weight gradients stay in registers over all rows, and
only ∂/∂u is written), then by rows. One launch for both would hold too much at once and spill at d_model 128.
"""

import triton
import triton.language as tl

from scaling_sim_torch.kernels.attention import store_sums
from scaling_sim_torch.kernels.common import (
    gelu_gate,
    layer_norm,
    load_rows,
    load_vector,
    standardise,
    standardise_backward,
    store_rows,
)


@triton.jit(do_not_specialize=["num_rows", "num_splits"])
def mlp_forward(
    x, mixed, mid, normed, x_next, normed_next, master, half, P, num_rows, num_splits,
    out_at, gain_at, bias_at, up_at, down_at, gain_next_at, bias_next_at,
    D: tl.constexpr, D_PAD: tl.constexpr, F: tl.constexpr, F_BLOCK: tl.constexpr, ROWS: tl.constexpr,
    KEEP: tl.constexpr,
):  # fmt: skip
    """``x_next`` = mid + feed-forward (float32), where mid = x + attention output, tile by tile of a member's rows.

    ``normed_next`` is what the next layer norm makes of it; ``mid`` (float32) and its layer norm ``normed`` are
    written with ``KEEP``, for the backward pass.
    """
    split, member = tl.program_id(0), tl.program_id(1).to(tl.int64)
    columns = tl.arange(0, D_PAD)
    weights, half = master + member * P, half + member * P
    x, mid, x_next = x + member * num_rows * D, mid + member * num_rows * D, x_next + member * num_rows * D
    mixed, normed = mixed + member * num_rows * D, normed + member * num_rows * D
    normed_next += member * num_rows * D
    for first in range(split * ROWS, num_rows, num_splits * ROWS):
        rows = first + tl.arange(0, ROWS)
        w_out = tl.trans(load_rows(half + out_at, columns, columns, D, D))
        stream = load_rows(x, rows, columns, num_rows, D)
        stream += tl.dot(load_rows(mixed, rows, columns, num_rows, D), w_out)
        b = layer_norm(stream, weights + gain_at, weights + bias_at, columns, D)
        if KEEP:
            store_rows(mid, stream, rows, columns, num_rows, D)
            store_rows(normed, b, rows, columns, num_rows, D)
        for f_first in range(0, F, F_BLOCK):
            f = f_first + tl.arange(0, F_BLOCK)
            u = tl.dot(b, tl.trans(load_rows(half + up_at, f, columns, F, D)))
            gate, _slope = gelu_gate(u)
            stream = tl.dot((u * gate).to(tl.bfloat16), tl.trans(load_rows(half + down_at, columns, f, D, F)), stream)
        store_rows(x_next, stream, rows, columns, num_rows, D)
        a = layer_norm(stream, weights + gain_next_at, weights + bias_next_at, columns, D)
        store_rows(normed_next, a, rows, columns, num_rows, D)


@triton.jit(do_not_specialize=["num_rows", "num_splits"])
def mlp_gradients(
    normed, grad_half, grad_hidden, partial, half, P, num_rows, num_splits, up_at, down_at,
    D: tl.constexpr, D_PAD: tl.constexpr, F: tl.constexpr, F_BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Of a block of hidden units: gradients of their weights over one split of the rows, and ``grad_hidden`` (rows, F)
    = ∂/∂u. ``grad_half`` is the gradient of the layer's output, ``normed`` the feed-forward's input.

    Hidden units come first in all products, so that u and ∂/∂u feed the next ones from registers.
    """
    split, member = tl.program_id(1), tl.program_id(2).to(tl.int64)
    f, columns = tl.program_id(0) * F_BLOCK + tl.arange(0, F_BLOCK), tl.arange(0, D_PAD)
    w_up = load_rows(half + member * P + up_at, f, columns, F, D)
    w_down = tl.trans(load_rows(half + member * P + down_at, columns, f, D, F))
    up, down = tl.zeros((F_BLOCK, D_PAD), tl.float32), tl.zeros((F_BLOCK, D_PAD), tl.float32)
    normed, grad_half = normed + member * num_rows * D, grad_half + member * num_rows * D
    grad_hidden += member * num_rows * F
    for first in range(split * ROWS, num_rows, num_splits * ROWS):
        rows = first + tl.arange(0, ROWS)
        b = load_rows(normed, rows, columns, num_rows, D)
        grad = load_rows(grad_half, rows, columns, num_rows, D)
        u = tl.dot(w_up, tl.trans(b))
        gate, slope = gelu_gate(u)
        grad_u = (tl.dot(w_down, tl.trans(grad)) * slope).to(tl.bfloat16)
        store_rows(grad_hidden, tl.trans(grad_u), rows, f, num_rows, F)
        down = tl.dot((u * gate).to(tl.bfloat16), grad, down)
        up = tl.dot(grad_u, b, up)
    place = partial + (split * tl.num_programs(2) + member) * P
    store_rows(place + up_at, up, f, columns, F, D)
    store_rows(place + down_at, tl.trans(down), columns, f, D, F)


@triton.jit(do_not_specialize=["num_rows", "num_splits", "vector"])
def mlp_backward(
    mid, grad_hidden, grad_x, grad_mid, grad_mixed, sums, master, half, P, num_rows, num_splits, gain_at, up_at,
    out_at, vector,
    D: tl.constexpr, D_PAD: tl.constexpr, F: tl.constexpr, F_BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """From ∂/∂u through the feed-forward's first product and the layer norm: added to ``grad_x`` (float32, in place).

    ``grad_mid`` is its bfloat16 copy, ``grad_mixed`` the gradient of the attention's output before its projection.
    """
    split, member = tl.program_id(0), tl.program_id(1).to(tl.int64)
    columns = tl.arange(0, D_PAD)
    gain, w_up = load_vector(master + member * P + gain_at, columns, D), half + member * P + up_at
    grad_gain, grad_bias = tl.zeros((D_PAD,), tl.float32), tl.zeros((D_PAD,), tl.float32)
    mid, grad_x, grad_mid = (
        mid + member * num_rows * D,
        grad_x + member * num_rows * D,
        grad_mid + member * num_rows * D,
    )
    grad_hidden, grad_mixed = grad_hidden + member * num_rows * F, grad_mixed + member * num_rows * D
    w_out = load_rows(half + member * P + out_at, columns, columns, D, D)
    for first in range(split * ROWS, num_rows, num_splits * ROWS):
        rows = first + tl.arange(0, ROWS)
        total, stream = load_rows(grad_x, rows, columns, num_rows, D), load_rows(mid, rows, columns, num_rows, D)
        grad_b = tl.zeros((ROWS, D_PAD), tl.float32)
        for f_first in range(0, F, F_BLOCK):
            f = f_first + tl.arange(0, F_BLOCK)
            grad_u = load_rows(grad_hidden, rows, f, num_rows, F)
            grad_b = tl.dot(grad_u, load_rows(w_up, f, columns, F, D), grad_b)
        normal, inverse = standardise(stream, columns, D)
        grad_gain += tl.sum(grad_b * normal, 0)
        grad_bias += tl.sum(grad_b, 0)
        total += standardise_backward(grad_b * gain[None, :], normal, inverse, columns, D)
        store_rows(grad_x, total, rows, columns, num_rows, D)
        store_rows(grad_mid, total, rows, columns, num_rows, D)
        store_rows(grad_mixed, tl.dot(total.to(tl.bfloat16), w_out), rows, columns, num_rows, D)
    store_sums(sums, grad_gain, grad_bias, member, split, num_splits, vector, D, D_PAD)
