"""What the kernels do not take, each with its number and the way out; decided before any of it is computed."""

from __future__ import annotations

from scaling_sim.engine.cohort import Cohort
from scaling_sim_cupy.layout import Layout

PRECISIONS = ("float32", "bfloat16")

MAX_WIDTH = 64
"""Of the residual stream: a warp holds 16 rows of it in registers, twice in the backward pass."""

MAX_CONTEXT = 256
"""A CTA has a warp per 16 positions, and shared memory holds queries, keys and values of all of them."""

MAX_VOCABULARY = 1024
"""Beyond it most of the time goes into the head, where large matrix products are better served by 'torch'."""

MAX_SHARED_BYTES = 232448
"""Shared memory that one CTA may have (compute capability 9.0)."""

USABLE_SHARE = 0.8
"""Of the card's memory; the rest is left to the CUDA context, the tokens and the gaps of the memory pool."""

MOST_CTAS = 8 * 132
"""CTAs of one launch, unless there are more members: 8 per multiprocessor of a card of today."""

COPIES_OF_PARAMETERS = 4
"""Weights, two moments, gradient."""


def why_precision(precision: str) -> str | None:
    """None for a precision that the kernels exist in."""
    if precision in PRECISIONS:
        return None
    return f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}; backend 'torch' has float64"


def why_out_of_range(layout: Layout) -> str | None:
    """None for a shape that one CTA can hold, else one sentence with both numbers and the way out."""
    shape = layout.shape
    for name, size, largest in (
        ("d_model", shape.d_model, MAX_WIDTH),
        ("n_ctx", shape.n_ctx, MAX_CONTEXT),
        ("vocab_size", shape.vocab_size, MAX_VOCABULARY),
        ("padded width of all heads", layout.widths["U"], MAX_WIDTH),
    ):
        if size > largest:
            return f"{name} must be at most {largest}, got {size}; backend 'torch' takes larger models"
    if layout.shared_bytes > MAX_SHARED_BYTES:
        return (
            f"one sequence takes {layout.shared_bytes} bytes of shared memory, there are {MAX_SHARED_BYTES}; "
            f"take a shorter context than {shape.n_ctx}{', bfloat16' if layout.exact else ''} or backend 'torch'"
        )
    return None


def required_bytes(cohort: Cohort, layout: Layout) -> int:
    """Upper estimate of what one update of the whole cohort holds at once.

    Per member four copies of its parameters and its packed operands; per CTA (at most one per sequence, and no more
    than `MOST_CTAS` or one per member) packed results and what the backward pass needs.
    """
    num_members = len(cohort.members)
    per_member = 4 * COPIES_OF_PARAMETERS * layout.num_parameters + layout.operand_bytes * layout.packed_size
    num_ctas = min(num_members * cohort.batch_sequences, max(num_members, MOST_CTAS))
    return num_members * per_member + num_ctas * (4 * layout.results_size + layout.kept_bytes)


def why_too_large(cohort: Cohort, layout: Layout, total_bytes: int, device: str) -> str | None:
    """None if ``cohort`` fits into a card of ``total_bytes``, else one sentence with both numbers and the cure."""
    needed = required_bytes(cohort, layout)
    if needed <= USABLE_SHARE * total_bytes:
        return None
    return (
        f"one update takes about {needed / 2**30:.1f} GiB ({len(cohort.members)} members of "
        f"{layout.num_parameters} parameters), {device} has {total_bytes / 2**30:.1f} GiB of which "
        f"{USABLE_SHARE:.0%} are used; train fewer members together"
    )
