"""How much device memory a cohort takes, before any of it is taken."""

from __future__ import annotations

import math

from scaling_sim.engine.cohort import Cohort
from scaling_sim.model.shape import Shape

USABLE_SHARE = 0.8
"""Of the card's memory; the rest is left to the CUDA context, the tokens and the gaps of the memory pool."""

COPIES_OF_PARAMETERS = 12
"""Weights, two moments, gradient, and the update's temporaries (the norm is taken in float64)."""

COPIES_OF_LOGITS = 5
"""Logits, log-probabilities, their exponential, one-hot targets, gradient."""


def required_bytes(cohort: Cohort, item_bytes: int) -> int:
    """Upper estimate of what one update of the whole cohort holds at once.

    M·(12·P + R·w) numbers of ``item_bytes`` each: P parameters, R = B·T rows, and per row
    w = 5·V + n_layer·(10·D + 2·F + H·T) + 12·D + 6·F + 4·H·T: logits, what the layers keep for the backward pass, and
    the temporaries of one layer.
    """
    shape = cohort.shape
    num_parameters = sum(math.prod(size) for size in shape.parameter_shapes().values())
    num_rows = cohort.batch_sequences * shape.n_ctx
    numbers = COPIES_OF_PARAMETERS * num_parameters + num_rows * _numbers_per_row(shape)
    return len(cohort.members) * numbers * item_bytes


def _numbers_per_row(shape: Shape) -> int:
    attention = shape.n_head * shape.n_ctx
    kept = shape.n_layer * (10 * shape.d_model + 2 * shape.d_ff + attention)
    passing = 12 * shape.d_model + 6 * shape.d_ff + 4 * attention
    return COPIES_OF_LOGITS * shape.vocab_size + kept + passing


def why_too_large(cohort: Cohort, item_bytes: int, total_bytes: int, device: str) -> str | None:
    """None if ``cohort`` fits into a card of ``total_bytes``, else one sentence with both numbers and the cure."""
    needed = required_bytes(cohort, item_bytes)
    if needed <= USABLE_SHARE * total_bytes:
        return None
    shape = cohort.shape
    return (
        f"one update takes about {needed / 2**30:.1f} GiB ({len(cohort.members)} members × "
        f"{cohort.batch_sequences * shape.n_ctx} tokens × vocabulary {shape.vocab_size} and {shape.n_layer} layers), "
        f"{device} has {total_bytes / 2**30:.1f} GiB of which {USABLE_SHARE:.0%} are used; "
        "train fewer members together, take a smaller batch or vocabulary, or backend 'torch'"
    )
