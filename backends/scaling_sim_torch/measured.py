"""How fast this backend trains, as measured; the placement of a sweep compares these rows with other backends'."""

from __future__ import annotations

from scaling_sim.engine.cohort import Precision
from scaling_sim.engine.throughput import Measured
from scaling_sim.model.shape import Shape

MILLIONS: dict[tuple[Precision, int], tuple[float, float, float, float]] = {
    ("bfloat16", 64): (434, 161, 95.2, 17.5),
    ("bfloat16", 1): (82.0, 54.5, 31.7, 10.8),
}
"""Precision and members → million tokens per second at (1, 16), (2, 32), (2, 64), (4, 128) with V = 256, T = 128, 64
sequences per member, one H200 (benchmarks/reports/torch_h200_2026-11.md)."""

SHAPES = ((1, 16, 1), (2, 32, 2), (2, 64, 2), (4, 128, 4))

MEASURED = tuple(
    Measured(Shape(n_layer=n, d_model=d, n_head=h, n_ctx=128, vocab_size=256), members, 64, precision, 1e6 * rate)
    for (precision, members), rates in MILLIONS.items()
    for (n, d, h), rate in zip(SHAPES, rates, strict=True)
)
