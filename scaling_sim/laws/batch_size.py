"""The best batch as a power law of N and tokens (Li et al. 2025, "Step Law", arXiv 2503.04715)."""

from __future__ import annotations

from scaling_sim.laws.optimum import OptimumLaw


class BatchSize(OptimumLaw):
    """B = scale · N^a · tokens^b, the best batch in tokens, read from sweeps of batch (and learning rate).

    Published: .58 · tokens^.571, without N (Step Law). This is the batch of the lowest loss at a number of tokens; the
    batch that trades steps for tokens evenly is `critical-batch`.
    """

    name = "batch-size"
    variable = "B"
