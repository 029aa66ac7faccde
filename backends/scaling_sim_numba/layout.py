"""Where everything lies: sizes, offsets into the flat parameter vector, offsets into one thread's scratch arena.

They are plain named tuples of integers, so that kernels take them as run-time arguments.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from scaling_sim.model.shape import DECAYED, Shape

CHUNK_ROWS = 128
"""Rows (sequence · T + position) that a thread works on at once: long enough for products, short enough for caches."""

WIDE, WIDE_CHUNK_ROWS = 128, 512
"""From this width gradients no longer fit in cache, and clearing and adding a buffer costs as much as 33 rows."""

QUERY_BLOCK = 128
"""Queries whose attention scores are held at once."""

LOGITS = 1 << 18
"""Logits held at once: all columns of at least `MIN_LOGIT_ROWS` rows, or a block of columns of all rows of a chunk."""

MIN_LOGIT_ROWS = 64
MIN_VOCAB_BLOCK = 64

KEPT_PROBABILITIES = 1 << 20
"""Attention probabilities kept from the forward for the backward pass of a chunk; beyond, they are computed again."""

UPDATE_BLOCK = 4096
"""Parameters per unit of reduction and update: fixed, so that the bits do not depend on the number of threads."""

ALIGNMENT = 16
"""Arena offsets are multiples of this many numbers (64 bytes in float32)."""


class Sizes(NamedTuple):
    """Sizes of one model and of its chunks."""

    layers: int
    width: int
    heads: int
    hidden: int
    context: int
    vocab: int
    chunk: int
    query_block: int
    logit_rows: int
    vocab_block: int
    """Rows and columns of the logits held at once: `vocab_block` is ``vocab``, or `logit_rows` is a chunk's rows."""
    keep: int
    """1 if attention probabilities are kept for the backward pass, 0 if they are computed again."""


class Offsets(NamedTuple):
    """Start of each parameter in the flat vector, in the order of `Shape.parameter_shapes`; ``total`` is its length."""

    token_embedding: int
    position_embedding: int
    ln1_gain: int
    ln1_bias: int
    qkv: int
    attn_out: int
    ln2_gain: int
    ln2_bias: int
    mlp_up: int
    mlp_down: int
    ln_f_gain: int
    ln_f_bias: int
    total: int


class Arena(NamedTuple):
    """Scratch of one thread: first what each layer keeps, in ``layer`` numbers per layer, then the rest."""

    x: int
    normed1: int
    qkv: int
    attended: int
    middle: int
    normed2: int
    up: int
    """What goes into the activation function, then the slope of that function there."""
    activated: int
    statistics: int
    """Mean and inverse deviation of both layer norms, 4·R."""
    probabilities: int
    layer: int
    x_final: int
    normed_final: int
    statistics_final: int
    logits: int
    row_sums: int
    """Largest logit and sum of exponentials of every row, 2·R."""
    d_x: int
    d_narrow: int
    """(R, d): gradient of whatever comes back from a matrix of the layer."""
    d_wide: int
    """(R, max(3d, f)): gradient of qkv or of the feed-forward activations."""
    d_branch: int
    """(R, d): gradient of a residual branch, where dropout makes it differ from ``d_x``."""
    scores: int
    """Two query blocks: probabilities where they are not kept, and their gradient."""
    total: int


def sizes_of(shape: Shape, batch_sequences: int) -> Sizes:
    """Sizes for the kernels; the chunk depends on shape and batch alone, never on threads, so that the bits do not."""
    rows = WIDE_CHUNK_ROWS if shape.d_model >= WIDE else CHUNK_ROWS
    chunk = max(1, min(rows // shape.n_ctx, batch_sequences))
    query_block = min(shape.n_ctx, QUERY_BLOCK)
    kept = shape.n_layer * chunk * shape.n_head * attention_numbers(shape.n_ctx, query_block)
    logit_rows, vocab_block = logits_block(chunk * shape.n_ctx, shape.vocab_size)
    return Sizes(
        layers=shape.n_layer,
        width=shape.d_model,
        heads=shape.n_head,
        hidden=shape.d_ff,
        context=shape.n_ctx,
        vocab=shape.vocab_size,
        chunk=chunk,
        query_block=query_block,
        logit_rows=logit_rows,
        vocab_block=vocab_block,
        keep=int(kept <= KEPT_PROBABILITIES),
    )


def logits_block(rows: int, vocab: int) -> tuple[int, int]:
    """Rows and columns of the logits that are held at once."""
    if LOGITS // vocab >= min(rows, MIN_LOGIT_ROWS):
        return min(rows, LOGITS // vocab), vocab
    return rows, min(vocab, max(MIN_VOCAB_BLOCK, LOGITS // rows // MIN_VOCAB_BLOCK * MIN_VOCAB_BLOCK))


def attention_numbers(context: int, query_block: int) -> int:
    """Probabilities of one head and sequence: each query block sees the keys up to its own end."""
    ends = [min(start + query_block, context) for start in range(0, context, query_block)]
    return sum((end - start) * end for start, end in zip(range(0, context, query_block), ends, strict=True))


def offsets_of(shape: Shape) -> Offsets:
    """Offsets into the flat parameter vector."""
    lengths = [math.prod(size) for size in shape.parameter_shapes().values()]
    return Offsets(*(sum(lengths[:index]) for index in range(len(lengths) + 1)))


def arena_of(sizes: Sizes) -> Arena:
    """Offsets into a thread's scratch; its length does not depend on the batch."""
    rows, width = sizes.chunk * sizes.context, sizes.width
    kept = sizes.chunk * sizes.heads * attention_numbers(sizes.context, sizes.query_block) if sizes.keep else 0
    narrow, wide = rows * width, rows * sizes.hidden
    layer = _pack([narrow, narrow, 3 * narrow, narrow, narrow, narrow, wide, wide, 4 * rows, kept])
    rest = _pack(
        [
            narrow,
            narrow,
            2 * rows,
            sizes.logit_rows * sizes.vocab_block,
            2 * rows,
            narrow,
            narrow,
            max(3 * narrow, wide),
            narrow,
            2 * sizes.query_block * sizes.context,
        ]
    )
    behind = sizes.layers * layer[-1]
    return Arena(*layer, *(behind + offset for offset in rest))


def _pack(lengths: list[int]) -> list[int]:
    """Aligned start of each piece, and the length of all."""
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + -(-length // ALIGNMENT) * ALIGNMENT)
    return starts


def update_blocks(shape: Shape) -> list[tuple[int, int, int]]:
    """(start, length, decayed) of the blocks in which parameters are reduced and updated; none spans two parameters."""
    blocks: list[tuple[int, int, int]] = []
    first = 0
    for name, size in shape.parameter_shapes().items():
        last = first + math.prod(size)
        starts = range(first, last, UPDATE_BLOCK)
        blocks += [(start, min(UPDATE_BLOCK, last - start), int(name in DECAYED)) for start in starts]
        first = last
    return blocks
