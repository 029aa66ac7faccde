"""From sources and sizes to kernels: NVRTC through CuPy, which keeps the result on disk.

Sizes are constants of the compiled text, so that loops unroll and activations stay in registers: one compilation per
shape, precision, type of tokens and with or without dropout.
"""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import cupy

from scaling_sim_cupy.layout import Layout

SOURCES = ("precision", "tiles", "layers", "memory", "attention", "cross_entropy", "block", "model", "optimizer")
"""In the order in which they build on each other."""

TOKEN_TYPES = {"uint8": "unsigned char", "uint16": "unsigned short", "uint32": "unsigned int"}

BLOCK = 256
"""Threads of the optimiser's kernels; ``BLOCK`` in optimizer.cu."""


@cache
def source() -> str:
    """All kernels as one text."""
    folder = Path(__file__).parent / "kernels"
    return "\n".join((folder / f"{name}.cu").read_text(encoding="utf-8") for name in SOURCES)


def options(layout: Layout, token_type: str, dropout: bool) -> tuple[str, ...]:
    """What the text is compiled with."""
    macros = layout.macros() | {
        "TOKEN": TOKEN_TYPES[token_type],
        "DROPOUT": int(dropout),
        "RESIDENT": layout.resident,
    }
    return ("-std=c++17", *(f"-D{name}={value}" for name, value in macros.items()))


class Kernels:
    """The kernels of one layout, ready to be queued on the current stream."""

    def __init__(self, layout: Layout, token_type: str, dropout: bool) -> None:
        module = cupy.RawModule(code=source(), options=options(layout, token_type, dropout))
        self._layout = layout
        self._by_name = {
            name: module.get_function(name) for name in ("train", "evaluate", "reduce_gradients", "pack", "adamw")
        }
        for name in ("train", "evaluate"):
            self._by_name[name].max_dynamic_shared_size_bytes = layout.shared_bytes

    def sequences(self, name: str, num_ctas: int, num_members: int, arguments: tuple[Any, ...]) -> None:
        """Queue ``train`` or ``evaluate``: ``num_ctas`` per member share its sequences."""
        self._by_name[name](
            (num_ctas, num_members), (self._layout.num_threads,), arguments, shared_mem=self._layout.shared_bytes
        )

    def parameters(self, name: str, num_members: int, arguments: tuple[Any, ...]) -> None:
        """Queue a kernel of one thread per parameter."""
        self._by_name[name]((num_blocks(self._layout), num_members), (BLOCK,), arguments)


def num_blocks(layout: Layout) -> int:
    """Blocks per member of the optimiser's kernels."""
    return -(-layout.num_parameters // BLOCK)


@lru_cache(maxsize=64)
def kernels(layout: Layout, token_type: str, dropout: bool, device: int) -> Kernels:
    """Compiled once per process and device."""
    return Kernels(layout, token_type, dropout)
