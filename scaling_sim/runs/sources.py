"""Cells as they stand in somebody's file: CSV, JSONL, Parquet, a DataFrame or a dictionary of columns."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling_sim.errors import DataError

INJECTION = ("=", "+", "-", "@", "\t", "\r")
"""First characters that make a spreadsheet run a cell as a formula."""


@dataclass(frozen=True)
class RawTable:
    """Columns of untouched cells and a name for every row that its owner can find again."""

    columns: dict[str, Sequence[Any]]
    rows: Sequence[str]
    """``row 17`` as a spreadsheet counts it (the header is row 1), ``line 17`` of a JSONL file, ``index 17`` of a
    DataFrame."""
    origin: str


def read_raw(source: Any) -> RawTable:
    """Cells of ``source``: a path (.csv .tsv .txt .jsonl .parquet), a DataFrame or a mapping of columns.

    Raises
    ------
    DataError
        No such file, unknown kind, not text, rows of unequal length, or a broken line; with the line's number.
    """
    if isinstance(source, Mapping):
        return _from_columns(dict(source), "a dictionary of columns")
    if hasattr(source, "columns") and hasattr(source, "index"):
        return _from_dataframe(source)
    if str(source) == "-":
        return _from_text(sys.stdin.read(), "standard input")
    if not isinstance(source, (str, Path)):
        raise DataError(
            "runs must be a path, a DataFrame, a dictionary of columns, a RunStore or a RunTable, "
            f"got {type(source).__name__}"
        )
    return _from_file(Path(source))


def _from_file(path: Path) -> RawTable:
    readers = {".csv": _from_csv, ".tsv": _from_csv, ".txt": _from_csv, ".jsonl": _from_jsonl, ".ndjson": _from_jsonl}
    readers |= {".parquet": _from_parquet, ".pq": _from_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"cannot tell what {path} holds; runs are read from .csv, .tsv, .jsonl and .parquet files")
    try:
        return reader(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def _from_text(text: str, origin: str) -> RawTable:
    """CSV, or JSONL if it starts with a brace."""
    return _json_lines(text, origin) if text.lstrip().startswith("{") else _csv_lines(text, origin)


def _from_csv(path: Path) -> RawTable:
    return _csv_lines(path.read_text(encoding="utf-8-sig"), str(path))


def _csv_lines(text: str, path: str) -> RawTable:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text.partition("\n")[0]))
    lines = [(number, cells) for number, cells in enumerate(reader, start=1) if cells]
    if not lines:
        raise DataError(f"{path} is empty; it needs a header line and at least one row")
    header, body = [name.strip() for name in lines[0][1]], lines[1:]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(f"{path} has more than one column named {', '.join(map(repr, repeated))}; rename one of each")
    ragged = [f"row {number}" for number, cells in body if len(cells) != len(header)]
    if ragged:
        raise DataError(
            f"{path}: every row must have {len(header)} cells like the header; not so in {name_rows(ragged)}"
        )
    columns: dict[str, Sequence[Any]] = {
        name: [_unescape(cells[i]) for _, cells in body] for i, name in enumerate(header)
    }
    return RawTable(columns, [f"row {number}" for number, _ in body], path)


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)


def _unescape(cell: str) -> str:
    """Undo `escape`."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(INJECTION) else cell


def escape(cell: str) -> str:
    """A cell that no spreadsheet runs as a formula: dangerous first characters get an apostrophe before them."""
    return f"'{cell}" if cell.startswith(INJECTION) else cell


def _from_jsonl(path: Path) -> RawTable:
    return _json_lines(path.read_text(encoding="utf-8-sig"), str(path))


def _json_lines(text: str, path: str) -> RawTable:
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    rows = [_json_row(path, number, line) for number, line in lines]
    header = list(dict.fromkeys(name for row in rows for name in row))
    columns: dict[str, Sequence[Any]] = {name: [row.get(name) for row in rows] for name in header}
    return RawTable(columns, [f"line {number}" for number, _ in lines], path)


def _json_row(path: str, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)  # the standard reader takes NaN and Infinity, which trainers do write
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number} is not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(row, dict):
        raise DataError(f"{path}, line {number} must be one JSON object per line, got {type(row).__name__}")
    return row


def _from_parquet(path: Path) -> RawTable:
    import pyarrow
    import pyarrow.parquet

    try:
        with path.open("rb") as handle:
            # A table of runs is small: threads would only be one more thing to shut down.
            table = pyarrow.parquet.ParquetFile(handle, pre_buffer=False).read(use_threads=False)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path} is not a Parquet file: {error}") from error
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    return RawTable(columns, [f"row {i}" for i in range(1, table.num_rows + 1)], str(path))


def _from_dataframe(frame: Any) -> RawTable:
    columns = {str(name): frame[name].tolist() for name in frame.columns}
    return RawTable(columns, [f"index {label}" for label in frame.index], "a DataFrame")


def _from_columns(columns: dict[str, Any], origin: str) -> RawTable:
    cells: dict[str, Sequence[Any]] = {str(name): list(values) for name, values in columns.items()}
    lengths = {name: len(values) for name, values in cells.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"all columns must have the same length, got {lengths}")
    return RawTable(cells, [f"row {i}" for i in range(next(iter(lengths.values()), 0))], origin)


def name_rows(names: Iterable[str], most: int = 8) -> str:
    """``rows 3, 7 and 12``: at most ``most`` names, then how many more."""
    listed = [str(name) for name in names]
    kinds = {name.split(" ", 1)[0] for name in listed}
    if len(listed) > 1 and len(kinds) == 1 and all(" " in name for name in listed):
        kind = kinds.pop()
        plural = {"index": "indices"}.get(kind, f"{kind}s")
        return f"{plural} {_join([name.split(' ', 1)[1] for name in listed], most)}"
    return _join(listed, most)


def _join(names: list[str], most: int) -> str:
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
