"""Text of other kinds that every installation has: measured, never trained on."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from scaling_sim.data.document import Document
from scaling_sim.data.source import read_bytes

LICENCE_WORDS = ("licen", "copying", "notice")
LICENSED = (
    "arviz", "arviz-base", "arviz-stats", "contourpy", "emcee", "fonttools", "h5netcdf", "h5py", "jinja2", "kiwisolver",
    "llvmlite", "matplotlib", "msgspec", "numba", "numpy", "packaging", "pandas", "pillow", "pyarrow", "pyparsing",
    "rich", "safetensors", "scipy", "typer", "typing-extensions", "xarray",
)  # fmt: skip
"""Distributions whose licence texts are taken: our dependencies and theirs, so that other packages change nothing."""


def python_prose() -> Iterator[Document]:
    """The help topics that ship with Python: reference prose in reStructuredText, a topic a document."""
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        return
    for name in sorted(topics):
        yield Document(name, topics[name].encode("utf-8"))


def numpy_headers() -> Iterator[Document]:
    """NumPy's C headers."""
    folder = Path(np.get_include())
    for path in sorted(folder.rglob("*.h")):
        yield Document(path.relative_to(folder).as_posix(), read_bytes(path))


def licences() -> Iterator[Document]:
    """Licence texts of the installed distributions among `LICENSED`."""
    import importlib.metadata

    for name in LICENSED:
        try:
            files = importlib.metadata.files(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in sorted(files):
            path = Path(str(file.locate()))
            if _is_licence(path):
                yield Document(f"{name}/{file.name}", read_bytes(path))


def _is_licence(path: Path) -> bool:
    named = any(word in path.name.lower() for word in LICENCE_WORDS)
    return named and path.suffix in ("", ".txt", ".md", ".rst") and path.is_file()


ENVIRONMENT: dict[str, Callable[[], Iterator[Document]]] = {
    "python-prose": python_prose,
    "numpy-headers": numpy_headers,
    "licences": licences,
}
"""Held-out distributions that come with the environment, by name."""
