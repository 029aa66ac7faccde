"""What did not fit is computed in smaller parts, aloud: an estimate of memory may be wrong, a run must not be lost."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

from scaling_sim.errors import BackendWarning

T = TypeVar("T")


def in_parts(compute: Callable[[int], T], parts: int, size: int) -> tuple[T, int]:
    """``compute(parts)``, or with the next finer division of ``size`` as long as memory runs out.

    Parameters
    ----------
    compute : callable
        Called with a number of equal parts; changes nothing that a second call would not overwrite.
    parts : int
        Where to begin; a divisor of ``size``.
    size : int
        Sequences to be divided; equal to ``parts`` where they must stay together.

    Returns
    -------
    result, parts
        With how many it worked: begin there next time.

    Raises
    ------
    torch.OutOfMemoryError
        Not even single sequences fit; or a graph is being captured, which a second attempt would spoil.
    """
    while True:
        try:
            return compute(parts), parts
        except torch.OutOfMemoryError:
            if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
                raise
            finer = next((n for n in range(parts + 1, size + 1) if size % n == 0), None)
            if finer is None:
                raise
        warnings.warn(
            f"out of memory with {parts} micro-batch(es); going on with {finer}", BackendWarning, stacklevel=2
        )
        release_memory()
        parts = finer


class Room:
    """How many sequences are computed at a time: as many as are given, fewer once memory has run out."""

    def __init__(self, sequences: int) -> None:
        self.sequences = sequences

    def __call__(self, compute: Callable[[int], T], size: int) -> T:
        """``compute`` of as few equal parts of ``size`` sequences as there is room for; more if memory runs out.

        One sequence has one part, and so has what must stay together.
        """
        first = next(n for n in range(1, size + 1) if size % n == 0 and size <= n * self.sequences)
        result, parts = in_parts(compute, first, size)
        if parts > first:
            self.sequences = size // parts
        return result


def release_memory() -> None:
    """Give back what PyTorch holds in reserve, and what stands in cycles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
