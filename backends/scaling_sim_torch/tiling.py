"""Sizes of tiles and numbers of warps of the hand-written kernels."""

from __future__ import annotations

from dataclasses import dataclass

from scaling_sim.model.shape import Shape

MAX_WIDTH = 128
MAX_CONTEXT = 128


@dataclass(frozen=True)
class Launch:
    """How one kernel is laid out: rows of a tile, warps, software pipeline stages, registers per thread (0: free)."""

    rows: int
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
    """Tiles of every kernel for one shape."""

    attention: Launch
    attention_back: Launch
    mlp: Launch
    mlp_back: Launch
    projection: Launch
    head: Launch
    embedding: Launch
    weights: Launch
    f_block: int
    head_block: int
    embedding_block: int
    weight_tile: int

    @classmethod
    def of(cls, shape: Shape) -> Tiling:
        """What measured best on an H200 (benchmarks/reports/torch_h200_2026-11.md)."""
        wide = padded(shape.d_model) == MAX_WIDTH
        rows = Launch(64, 8) if wide else Launch(64, 4)
        return cls(
            attention=Launch(padded(shape.n_ctx), 4),
            attention_back=Launch(padded(shape.n_ctx), 4),
            mlp=Launch(128, 8) if wide else rows,
            mlp_back=rows,
            projection=rows,
            head=Launch(128, 8, 2) if wide else Launch(64, 4, 2),
            embedding=Launch(64, 8 if wide else 4, 2),
            weights=Launch(64, 4, 3),
            f_block=min(64, padded(shape.d_ff)),
            head_block=min(64, padded(shape.vocab_size)),
            embedding_block=min(128, padded(shape.vocab_size)),
            weight_tile=min(padded(shape.d_model), 128),
        )


def padded(size: int) -> int:
    """The tile that holds ``size``: a power of two, at least 16."""
    return max(16, 1 << (size - 1).bit_length())
