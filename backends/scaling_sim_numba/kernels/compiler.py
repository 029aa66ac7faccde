"""How kernels are compiled: flags, the compiler cache, and what happens where the cache cannot be used."""

from __future__ import annotations

import functools
import hashlib
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

from scaling_sim.errors import BackendWarning

F = TypeVar("F", bound=Callable[..., Any])

FASTMATH = {"contract", "reassoc", "nsz", "arcp", "afn"}
"""Reordering and contraction; not ``nnan`` and ``ninf``, which delete the checks that find a diverged member."""

_OPTIONS: dict[str, Any] = {"fastmath": FASTMATH, "nogil": True, "error_model": "numpy", "boundscheck": False}


def kernel(function: F) -> F:
    """Compile ``function`` when first used, as part of the entry point that calls it.

    Only entry points are cached (`cached_kernel`). Numba decides from an entry point's own file alone whether its cache
    is stale, and would not notice an edited kernel in another file.
    """
    compiled: F = numba.njit(**_OPTIONS)(function)
    return compiled


def inlined(function: F) -> F:
    """Like `kernel`, but always inlined by LLVM: for the scalars inside a vector loop."""
    compiled: F = numba.njit(forceinline=True, **_OPTIONS)(function)
    return compiled


def cached_kernel(function: F) -> F:
    """Compile an entry point and keep the machine code on disk; where that cannot be, warn and compile in memory."""
    try:
        compiled: F = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError as error:
        _warn_uncached(str(error))
        compiled = numba.njit(**_OPTIONS)(function)
    return compiled


def cached_routine(function: Callable[..., Any], signature: Any) -> int:
    """The address of ``function`` compiled now as a C function, from the cache where possible."""
    options = {name: value for name, value in _OPTIONS.items() if name != "nogil"}
    try:
        return int(numba.cfunc(signature, cache=True, **options)(function).address)
    except (RuntimeError, OSError, EOFError, pickle.PickleError) as error:
        if isinstance(error, RuntimeError) and "cannot cache" not in str(error):
            raise
        _warn_uncached(str(error))
        return int(numba.cfunc(signature, **options)(function).address)


def compile_for(entry: Any, signature: Any) -> None:
    """Compile ``entry`` for ``signature``, from the cache where possible; a broken cache costs time, not the run."""
    try:
        entry.compile(signature)
    except (OSError, EOFError, pickle.PickleError) as error:
        from numba.core.caching import NullCache

        _warn_uncached(str(error))
        entry._cache = NullCache()
        entry.compile(signature)


def _warn_uncached(reason: str) -> None:
    warnings.warn(
        f"the compiler cache cannot be used ({reason}): kernels are compiled in memory, about half a minute in every "
        "process; set NUMBA_CACHE_DIR to a writable folder",
        BackendWarning,
        stacklevel=4,
    )


@functools.cache
def source_fingerprint() -> str:
    """Hash of every source file of this package: part of the cache key, so that no stale machine code is ever run."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
