"""Sizes of tiles and numbers of warps of the hand-written kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace

from scaling_sim.model.shape import Shape

MAX_WIDTH = 128
MAX_CONTEXT = 128
MEASURED_HEAD = 32
"""Widest head among the shapes that `MEASURED` was measured with."""


@dataclass(frozen=True)
class Launch:
    """How one kernel is laid out.

    Attributes
    ----------
    rows, block : int
        Rows of a tile, columns of a block; attention takes whole sequences and ignores both.
    warps, stages : int
        Per program, and of software pipelining.
    registers : int
        Most registers per thread; 0 leaves it to the compiler.
    """

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

    def unlimited(self) -> Launch:
        """The same with as many registers as the compiler likes."""
        return replace(self, registers=0)

    def within(self, block: int) -> Launch:
        """The same with blocks that hold no more than ``block`` columns."""
        return replace(self, block=min(self.block, padded(block)))


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
    def of(cls, shape: Shape) -> Tiling:
        """What measured best on an H200 (benchmarks/reports/torch_h200_2026-11.md), no larger than the shape asks.

        Attention's limits of registers hold for heads as narrow as the measured ones: of wider ones a program holds
        more, and ptxas may find no way.
        """
        best = MEASURED[padded(shape.d_model)]
        if shape.d_head > MEASURED_HEAD:
            best = replace(best, attention=best.attention.unlimited(), attention_back=best.attention_back.unlimited())
        limits = {
            "head": shape.vocab_size, "embedding": shape.vocab_size,
            "mlp": shape.d_ff, "mlp_gradients": shape.d_ff, "mlp_back": shape.d_ff,
        }  # fmt: skip
        return replace(best, **{name: getattr(best, name).within(limit) for name, limit in limits.items()})


def padded(size: int) -> int:
    """The tile that holds ``size``: a power of two, at least 16."""
    return max(16, 1 << (size - 1).bit_length())


MEASURED = {
    16: Tiling(
        attention=Launch(0, 0, 4, 1, 168),
        attention_back=Launch(0, 0, 4, 1, 128),
        mlp=Launch(64, 64, 4, 1, 96),
        mlp_gradients=Launch(128, 64, 4, 4),
        mlp_back=Launch(128, 64, 4, 2),
        projection=Launch(128, 0, 4, 2),
        head=Launch(128, 64, 4),
        embedding=Launch(64, 128, 4),
        weights=Launch(256, 16, 4, 2),
    ),
    32: Tiling(
        attention=Launch(0, 0, 4, 1, 168),
        attention_back=Launch(0, 0, 4),
        mlp=Launch(64, 128, 4),
        mlp_gradients=Launch(128, 64, 4, 4),
        mlp_back=Launch(128, 64, 4, 2),
        projection=Launch(128, 0, 4, 2),
        head=Launch(128, 64, 4),
        embedding=Launch(64, 128, 4),
        weights=Launch(64, 32, 4, 3),
    ),
    64: Tiling(
        attention=Launch(0, 0, 4, 1, 128),
        attention_back=Launch(0, 0, 4),
        mlp=Launch(64, 32, 4, 4),
        mlp_gradients=Launch(64, 64, 4, 4),
        mlp_back=Launch(64, 64, 4, 3),
        projection=Launch(64, 0, 4, 2),
        head=Launch(64, 64, 4),
        embedding=Launch(64, 64, 4, 2),
        weights=Launch(32, 64, 4, 4),
    ),
    128: Tiling(
        attention=Launch(0, 0, 4, 1, 168),
        attention_back=Launch(0, 0, 4),
        mlp=Launch(64, 32, 4, 4),
        mlp_gradients=Launch(32, 64, 4, 4),
        mlp_back=Launch(32, 128, 4, 3),
        projection=Launch(32, 0, 4),
        head=Launch(64, 64, 4, 2),
        embedding=Launch(64, 128, 8, 3),
        weights=Launch(64, 128, 8, 3),
    ),
}
"""By padded width. For 64 members of (1, 16), (2, 32), (2, 64), (4, 128) with 64 sequences of 128 tokens each."""
