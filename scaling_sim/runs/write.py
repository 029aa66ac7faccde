"""A table of runs as a file that is read back identically."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from scaling_sim.errors import StoreError
from scaling_sim.runs.sources import escape

if TYPE_CHECKING:
    from scaling_sim.runs.table import RunTable


def export_columns(table: RunTable) -> dict[str, list[Any]]:
    """Cells by column: the table's rows, then one row for every name left out, its reason in the column ``dropped``."""
    left_out = [(reason, name) for reason, names in table.dropped.items() for name in names]
    columns: dict[str, list[Any]] = {
        name: values.tolist() + [_blank(values)] * len(left_out) for name, values in table.to_columns().items()
    }
    columns["run"] = table.run.tolist() + [name for _, name in left_out]
    if left_out:
        columns["dropped"] = [""] * len(table) + [reason for reason, _ in left_out]
    if table.simulated:
        columns["simulated"] = [True] * (len(table) + len(left_out))
    return columns


def _blank(values: np.ndarray[Any, Any]) -> Any:
    return {"f": math.nan, "b": False}.get(values.dtype.kind, "")


def write_csv(table: RunTable, target: Path | TextIO) -> None:
    """Floats with all their digits, NaN as an empty cell, text made harmless for spreadsheets."""
    if not isinstance(target, Path):
        return _write_rows(table, target)
    try:
        with target.open("w", encoding="utf-8", newline="") as handle:
            return _write_rows(table, handle)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror or error}; choose another file") from error


def _write_rows(table: RunTable, handle: TextIO) -> None:
    columns = export_columns(table)
    writer = csv.writer(handle, lineterminator="\n")
    writer.writerow([escape(name) for name in columns])
    writer.writerows([_cell(value) for value in row] for row in zip(*columns.values()))


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return escape(str(value))


def write_parquet(table: RunTable, path: Path) -> None:
    """The same cells in Parquet."""
    import pyarrow
    import pyarrow.parquet

    try:
        pyarrow.parquet.write_table(pyarrow.table(export_columns(table)), path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}; choose another file") from error
