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
        Not even single sequences fit.
    """
    while True:
        try:
            return compute(parts), parts
        except torch.OutOfMemoryError:
            finer = next((n for n in range(parts + 1, size + 1) if size % n == 0), None)
            if finer is None:
                raise
        warnings.warn(
            f"out of memory with {parts} micro-batch(es); going on with {finer}", BackendWarning, stacklevel=2
        )
        release_memory()
        parts = finer


def release_memory() -> None:
    """Give back what PyTorch holds in reserve, and what stands in cycles: both end a capture, so not during one."""
    if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
        return
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
