"""What compiled code needs around it: a cache that outlives the process, and room for many shapes."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

SETTING = "SCALING_SIM_CACHE"
"""Environment variable: folder of compiled kernels; by default ``scaling_sim`` in the user's cache folder."""
FOLDERS = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
"""Variables of the compilers, left alone where they are set, and our folders for them."""
MOST_SHAPES = 1024
"""Versions of one function that torch.compile keeps; its default of 8 leaves the ninth one uncompiled."""


def prepare_compilers() -> None:
    """Keep compiled code between runs, and compile every shape. Call it before anything is compiled."""
    for variable, folder in cache_folders().items():
        os.environ.setdefault(variable, folder)
    from torch._dynamo import config

    config.recompile_limit = max(config.recompile_limit, MOST_SHAPES)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, MOST_SHAPES)


def cache_folders() -> dict[str, str]:
    """Variable → folder; empty where the cache folder cannot be written, so that the compilers' own defaults serve."""
    root = _root()
    try:
        for folder in FOLDERS.values():
            (root / folder).mkdir(parents=True, exist_ok=True)
    except OSError:
        return {}
    return {variable: str(root / folder) for variable, folder in FOLDERS.items()} if os.access(root, os.W_OK) else {}


def note(what: str, number: int) -> None:
    """Keep a choice with the compiled code, so that a resumed run computes as it did before."""
    file = _file(what)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}")
        part.write_text(str(number), encoding="ascii")
        part.replace(file)
    except OSError:
        return


def noted(what: str, *, below: int) -> int | None:
    """The choice kept under this name; None without one from 0 to ``below`` − 1."""
    try:
        number = int(_file(what).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return number if 0 <= number < below else None


def _root() -> Path:
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scaling_sim"
    return Path(os.environ.get(SETTING) or default)


def _file(what: str) -> Path:
    return _root() / "choices" / f"{sha256(what.encode()).hexdigest()[:32]}.txt"
