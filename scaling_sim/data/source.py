"""Where text comes from: the Python standard library, or the user's files."""

from __future__ import annotations

import glob
import json
import os
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scaling_sim.data.document import Document, pieces
from scaling_sim.errors import DataError

STDLIB_EXCLUDED = frozenset(
    {"test", "tests", "idle_test", "idlelib", "site-packages", "dist-packages", "pydoc_data", "__pycache__"}
)
"""Folders of the standard library left out: tests, IDLE, what pip installed, and the held-out prose."""

TEXT_SUFFIXES = (".txt", ".md", ".text", ".py", ".rst")
BLOCK_BYTES = 1 << 20
"""Text files are read in blocks, so that one larger than memory can be read."""

READERS = "txt (and md, rst, py), jsonl, parquet"


def stdlib_folder() -> Path:
    """Folder of the running Python's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def stdlib_documents(folder: Path | None = None) -> Iterator[Document]:
    """Every .py file of the standard library outside `STDLIB_EXCLUDED`, sorted by path; one file is one document.

    Raises
    ------
    DataError
        The library is not there as files (a frozen or zipped Python).
    """
    folder = stdlib_folder() if folder is None else folder
    paths = sorted(_python_files(folder))
    if not paths:
        raise DataError(
            "source 'stdlib' needs the Python standard library as .py files, found none; "
            'use source = "files" with paths = ["..."]'
        )
    for path in paths:
        yield Document(path.relative_to(folder).as_posix(), read_bytes(path))


def _python_files(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in STDLIB_EXCLUDED]
        yield from (Path(parent, name) for name in files if name.endswith(".py"))


def expand_paths(patterns: Sequence[str]) -> tuple[Path, ...]:
    """Files named by ``patterns`` (paths, folders or globs, ``**`` allowed), sorted, each once.

    A folder stands for the readable files directly and deeper inside it.

    Raises
    ------
    DataError
        No pattern was given, or one matches nothing; the message names it.
    """
    if not patterns:
        raise DataError("source 'files' needs paths, got none; for example paths = [\"books/*.txt\"]")
    found: set[Path] = set()
    for pattern in patterns:
        found.update(_expand(pattern))
    return tuple(sorted(found))


def _expand(pattern: str) -> set[Path]:
    path = Path(pattern)
    if path.is_dir():
        matches = {file for file in path.rglob("*") if file.is_file() and _kind(file) is not None}
    elif path.exists():
        matches = {path}
    else:
        matches = {Path(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_file()}
    if not matches:
        raise DataError(f"no file matches {pattern!r}; readable are {READERS}")
    return matches


def _kind(path: Path) -> str | None:
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return "jsonl"
    if suffix in (".parquet", ".pq"):
        return "parquet"
    return "text" if suffix in TEXT_SUFFIXES else None


def file_documents(paths: Sequence[Path], text_field: str = "text", piece_bytes: int = 65536) -> Iterator[Document]:
    """Documents of ``paths``.

    A record of a jsonl or parquet file is one document (its ``text_field``). Any other file is taken as text, raw bytes
    and all; one longer than ``piece_bytes`` is cut at the ends of lines into documents of about that length, so that a
    single large file can be split too.

    Raises
    ------
    DataError
        A file cannot be read, a line is not JSON, a record has no such field, or it does not hold text.
    """
    for path in paths:
        kind = _kind(path)
        if kind == "jsonl":
            yield from _jsonl_documents(path, text_field)
        elif kind == "parquet":
            yield from _parquet_documents(path, text_field)
        else:
            yield from _text_documents(path, piece_bytes)


def read_bytes(path: Path) -> bytes:
    """Content of a file; a `DataError` that names it where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _text_documents(path: Path, piece_bytes: int) -> Iterator[Document]:
    rest = b""
    try:
        with path.open("rb") as file:
            while block := file.read(max(piece_bytes, BLOCK_BYTES)):
                *whole, rest = pieces(rest + block, piece_bytes)
                yield from (Document(str(path), piece) for piece in whole)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if rest:
        yield Document(str(path), rest)


def _jsonl_documents(path: Path, text_field: str) -> Iterator[Document]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _record_document(f"{path}, line {number}", _parsed(line, path, number), text_field)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _parsed(line: bytes, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}, line {number} is not JSON: {error}") from error


def _record_document(name: str, record: Any, text_field: str) -> Document:
    if not isinstance(record, dict):
        raise DataError(f"{name} must be a JSON object with a field {text_field!r}, got {type(record).__name__}")
    if text_field not in record:
        raise DataError(f"{name} has no field {text_field!r}; it has: {', '.join(map(str, record))}; set text_field")
    return Document(name, _encoded(name, record[text_field], text_field))


def _encoded(name: str, text: Any, text_field: str) -> bytes:
    if not isinstance(text, str):
        raise DataError(f"{name}: field {text_field!r} must be text, got {type(text).__name__}")
    return text.encode("utf-8", errors="surrogatepass")


def _parquet_documents(path: Path, text_field: str) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            if text_field not in table.schema_arrow.names:
                columns = ", ".join(table.schema_arrow.names)
                raise DataError(f"{path} has no column {text_field!r}; it has: {columns}; set text_field")
            row = 0
            for batch in table.iter_batches(columns=[text_field], batch_size=1024):
                for text in batch.column(0).to_pylist():
                    yield Document(f"{path}, row {row}", _encoded(f"{path}, row {row}", text, text_field))
                    row += 1
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path} as parquet: {error}") from error
