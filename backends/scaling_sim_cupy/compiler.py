"""From sources and sizes to kernels: NVRTC through CuPy, which keeps the result on disk.

Sizes are constants of the compiled text, so that loops unroll and activations stay in registers: one compilation per
shape, precision, type of tokens and with or without dropout. Its parts compile side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import cupy

from scaling_sim_cupy.layout import Layout

MODEL = ("precision", "tiles", "layers", "memory", "attention", "cross_entropy", "block", "model")
"""Sources in the order in which they build on each other."""

PARTS: Mapping[str, Sequence[str]] = {
    "train": (*MODEL, "train"),
    "evaluate": (*MODEL, "evaluate"),
    "optimizer": ("precision", "optimizer"),
}
"""What is compiled on its own, and from which sources; NVRTC compiles in as many threads as it is asked from."""

KERNELS = {"train": ("train",), "evaluate": ("evaluate",), "optimizer": ("reduce_gradients", "pack", "adamw")}
"""The kernels of each part."""

TOKEN_TYPES = {"uint8": "unsigned char", "uint16": "unsigned short", "uint32": "unsigned int"}

BLOCK = 256
"""Threads of the optimiser's kernels; ``BLOCK`` in optimizer.cu."""


@cache
def source(part: str) -> str:
    """The sources of a part as one text."""
    folder = Path(__file__).parent / "kernels"
    return "\n".join((folder / f"{name}.cu").read_text(encoding="utf-8") for name in PARTS[part])


def options(layout: Layout, token_type: str, dropout: bool) -> tuple[str, ...]:
    """What every part is compiled with."""
    macros = layout.macros() | {
        "TOKEN": TOKEN_TYPES[token_type],
        "DROPOUT": int(dropout),
        "RESIDENT": layout.resident,
    }
    return ("-std=c++17", *(f"-D{name}={value}" for name, value in macros.items()))


def compiled(layout: Layout, token_type: str, dropout: bool, device: int) -> dict[str, Any]:
    """Every kernel by name."""
    settings = options(layout, token_type, dropout)

    def compile_part(part: str) -> dict[str, Any]:
        with cupy.cuda.Device(device):  # each thread has a current device of its own
            module = cupy.RawModule(code=source(part), options=settings)
            kernels = {name: module.get_function(name) for name in KERNELS[part]}
            for kernel in kernels.values():  # the first of them compiles the part
                kernel.max_dynamic_shared_size_bytes = 0 if part == "optimizer" else layout.shared_bytes
        return kernels

    with ThreadPoolExecutor(len(PARTS)) as pool:
        return {name: kernel for part in pool.map(compile_part, PARTS) for name, kernel in part.items()}


class Kernels:
    """The kernels of one layout, ready to be queued on the current stream."""

    def __init__(self, layout: Layout, token_type: str, dropout: bool, device: int) -> None:
        self._layout = layout
        self._by_name = compiled(layout, token_type, dropout, device)

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
    return Kernels(layout, token_type, dropout, device)
