# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""Gradients of the attention's matrices, and the sum of everything that was kept in parts."""

import triton
import triton.language as tl

from scaling_sim_torch.kernels.common import store_rows


@triton.jit
def outer_tile(
    left, right, place, first_out, first_in, num_rows, split, num_splits,
    OUT: tl.constexpr, IN: tl.constexpr, TILE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A tile of leftᵀ·right over one split of the rows; ``left`` is (rows, OUT), ``right`` (rows, IN)."""
    out, inner = first_out + tl.arange(0, TILE), first_in + tl.arange(0, TILE)
    total = tl.zeros((TILE, TILE), tl.float32)
    for first in range(split * ROWS, num_rows, num_splits * ROWS):
        rows = first + tl.arange(0, ROWS)
        inside = (rows < num_rows)[:, None]
        a = tl.load(left + rows[:, None] * OUT + out[None, :], mask=inside & (out < OUT)[None, :], other=0.0)
        b = tl.load(right + rows[:, None] * IN + inner[None, :], mask=inside & (inner < IN)[None, :], other=0.0)
        total = tl.dot(tl.trans(a), b, total)
    store_rows(place, total, out, inner, OUT, IN)


@triton.jit(do_not_specialize=["num_rows", "num_splits"])
def attention_gradients(
    grad_qkv, normed, grad_mid, mixed, partial, P, num_rows, num_splits, qkv_at, out_at,
    D: tl.constexpr, TILE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Both matrices of a layer's attention in one launch: axis 0 of the grid counts tiles of one, then the other."""
    tile, split, member = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    d_tiles: tl.constexpr = (D + TILE - 1) // TILE
    u_tiles: tl.constexpr = (3 * D + TILE - 1) // TILE
    place = partial + (split * tl.num_programs(2) + member) * P
    first_row = member * num_rows
    if tile < u_tiles * d_tiles:
        outer_tile(
            grad_qkv + first_row * 3 * D, normed + first_row * D, place + qkv_at, tile // d_tiles * TILE,
            tile % d_tiles * TILE, num_rows, split, num_splits, 3 * D, D, TILE, ROWS,
        )  # fmt: skip
    else:
        rest = tile - u_tiles * d_tiles
        outer_tile(
            grad_mid + first_row * D, mixed + first_row * D, place + out_at, rest // d_tiles * TILE,
            rest % d_tiles * TILE, num_rows, split, num_splits, D, D, TILE, ROWS,
        )  # fmt: skip


@triton.jit(do_not_specialize=["num_members", "num_splits", "num_sums"])
def combine(
    partial, sums, slots, grad, squares, P, num_members, num_splits, num_sums, D,
    BLOCK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Sum the parts of a block of one member's gradient; ``squares`` (M, blocks) gets the block's Σ g² in float64.

    ``slots`` says for each parameter where it stands in ``sums`` (vector · D + column), or −1 for ``partial``.
    ``PARTS`` of them are read at a time: one after another would wait for memory as often as there are parts.
    """
    block, member = tl.program_id(0), tl.program_id(1).to(tl.int64)
    p, parts = block * BLOCK + tl.arange(0, BLOCK), tl.arange(0, PARTS)
    slot = tl.load(slots + p, mask=p < P, other=-1)
    total = tl.zeros((BLOCK,), tl.float32)
    if tl.min(slot) < 0:
        for first in range(0, num_splits, PARTS):
            split = (first + parts)[:, None]
            place = partial + (split * num_members + member) * P + p[None, :]
            inside = (split < num_splits) & (p < P)[None, :] & (slot < 0)[None, :]
            total += tl.sum(tl.load(place, mask=inside, other=0.0), 0)
    if tl.max(slot) >= 0:
        vector = sums + ((slot // D * num_members + member) * num_sums) * D + slot % D
        for first in range(0, num_sums, PARTS):
            split = (first + parts)[:, None]
            inside = (split < num_sums) & (slot >= 0)[None, :]
            total += tl.sum(tl.load(vector[None, :] + split * D, mask=inside, other=0.0), 0)
    tl.store(grad + member * P + p, total, mask=p < P)
    wide = total.to(tl.float64)
    tl.store(squares + member * tl.num_programs(0) + block, tl.sum(wide * wide))
