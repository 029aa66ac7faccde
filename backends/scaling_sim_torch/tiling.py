"""Sizes of tiles and numbers of warps of the hand-written kernels."""

from __future__ import annotations

from dataclasses import dataclass

from scaling_sim.model.shape import Shape

MAX_WIDTH = 128
MAX_CONTEXT = 128


@dataclass(frozen=True)
class Launch:
    """How one kernel is laid out: rows of a tile, columns of a block, warps, stages of software pipelining, registers
    per thread (0: as many as it takes)."""

    rows: int
    block: int
    warps: int
    stages: int = 1
    registers: int = 0

    @property
    def options(self) -> dict[str, int]:
        """What Triton is told."""
        limit = {"maxnreg": self.registers} if self.registers else {}
        return {"num_warps": self.warps, "num_stages": self.stages, **limit}


@dataclass(frozen=True)
class Tiling:
    """Tiles of every kernel for one shape; a block is of hidden units, of the vocabulary, or of a weight matrix."""

    attention: Launch
    attention_back: Launch
    mlp: Launch
    mlp_gradients: Launch
    mlp_back: Launch
    projection: Launch
    head: Launch
    embedding: Launch
    weights: Launch

    @classmethod
    def of(cls, shape: Shape, num_sequences: int) -> Tiling:
        """What measured best on an H200 (benchmarks/reports/torch_h200_2026-11.md)."""
        wide = padded(shape.d_model) == MAX_WIDTH
        sequence, hidden, vocab = padded(shape.n_ctx), padded(shape.d_ff), padded(shape.vocab_size)
        return cls(
            attention=Launch(sequence, 0, 4),
            attention_back=Launch(sequence, 0, 4),
            mlp=Launch(128, min(64, hidden), 8, 2) if wide else Launch(64, min(64, hidden), 4, 2),
            mlp_gradients=Launch(64, min(64, hidden), 8 if wide else 4, 2),
            mlp_back=Launch(64, min(64, hidden), 8 if wide else 4, 2),
            projection=Launch(64, 0, 8 if wide else 4),
            head=Launch(128, min(64, vocab), 8, 2) if wide else Launch(64, min(64, vocab), 4, 2),
            embedding=Launch(64, min(128, vocab), 8 if wide else 4, 2),
            weights=Launch(64, min(padded(shape.d_model), 128), 4, 3),
        )


def padded(size: int) -> int:
    """The tile that holds ``size``: a power of two, at least 16."""
    return max(16, 1 << (size - 1).bit_length())
