"""The best learning rate as a power law of N and tokens (Li et al. 2025, "Step Law", arXiv 2503.04715)."""

from __future__ import annotations

from scaling_sim.laws.optimum import OptimumLaw


class LearningRate(OptimumLaw):
    """lr = scale · N^a · tokens^b, the best peak learning rate, read from sweeps of learning rate (and batch).

    Published: 1.79 · N^−.713 · tokens^.307 (Step Law); Bjorck et al. 2024 (arXiv 2409.19913) find a *negative* exponent
    of tokens at fixed batch. The difference is in the question: the best learning rate rises with the batch, and the
    best batch with tokens. Where a sweep varies the batch, too, this law is that of the joint optimum.
    """

    name = "learning-rate"
    variable = "lr"
