"""A table that is written twice: as HTML for readers and as CSV for programs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scaling_sim.config import PFDAY_FLOPS
from scaling_sim.predict.quantity import Quantity


@dataclass(frozen=True)
class Range:
    """An interval in one cell, with a middle or without: one cell in HTML, two or three in CSV."""

    low: float
    high: float
    middle: float | None = None

    @classmethod
    def of(cls, quantity: Quantity, level: float = 0.9) -> Range:
        """Median and equal-tailed interval of a predicted quantity."""
        return cls(*quantity.interval(level), quantity.median)


Cell = str | float | int | bool | Range | None
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


@dataclass(frozen=True)
class Table:
    """Rows of cells; numbers stay numbers until they are shown.

    Parameters
    ----------
    name, heading : str
        For file names, and for readers.
    columns : tuple of str
        Column heads, units included.
    rows : tuple of tuple of cells
        None is an empty cell.
    note : str
        One or two sentences below the table.
    maths : bool
        Indices in the cells' text (α_N) are set as such in HTML.
    limit : int
        Rows shown in HTML; the CSV has them all.
    """

    name: str
    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    maths: bool = False
    limit: int = 400

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), self.name

    def to_csv(self) -> str:
        """Comma-separated text; a text cell that a spreadsheet would run as a formula gets an apostrophe in front."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        kinds = [_kind(row[k] for row in self.rows) for k in range(len(self.columns))]
        writer.writerow(csv_cell(name) for column, kind in zip(self.columns, kinds) for name in _names(column, kind))
        for row in self.rows:
            writer.writerow(text for cell, kind in zip(row, kinds) for text in _texts(cell, kind))
        return buffer.getvalue()

    def shown(self) -> list[list[ShownCell]]:
        """Rows for HTML, at most ``limit``."""
        return [[_shown(cell) for cell in row] for row in self.rows[: self.limit]]


class ShownCell(NamedTuple):
    """A cell for HTML: its text, smaller text below it, and whether it is right-aligned."""

    text: str
    below: str
    is_number: bool


def _shown(cell: Cell) -> ShownCell:
    if isinstance(cell, Range):
        between = interval(cell.low, cell.high)
        return ShownCell(between, "", True) if cell.middle is None else ShownCell(number(cell.middle), between, True)
    return ShownCell(show(cell), "", isinstance(cell, int | float) and not isinstance(cell, bool))


def _kind(cells: Iterable[Cell]) -> int:
    """Number of CSV columns that a column takes: 1, or 2 or 3 for intervals."""
    return max((1 if not isinstance(cell, Range) else 2 + (cell.middle is not None) for cell in cells), default=1)


def _names(column: str, kind: int) -> list[str]:
    ends = [f"{column}, low", f"{column}, high"]
    return [column] if kind == 1 else ends if kind == 2 else [column, *ends]


def _texts(cell: Cell, kind: int) -> list[str]:
    if isinstance(cell, Range):
        return [csv_cell(value) for value in (cell.middle, cell.low, cell.high)][3 - kind :]
    return [csv_cell(cell), *[""] * (kind - 1)]


def csv_cell(cell: str | float | int | bool | None) -> str:
    """Text of one CSV cell: ten digits for numbers; no formulas, no line breaks or other control characters."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, int | float):
        return str(cell) if isinstance(cell, int) else f"{cell:.10g}"
    plain = "".join(letter if letter.isprintable() else " " for letter in cell)
    return f"'{plain}" if cell.startswith(_FORMULA_STARTS) or plain.lstrip().startswith(_FORMULA_STARTS) else plain


def rows_csv(rows: Sequence[Mapping[str, str | float]], digits: int = 6) -> str:
    """CSV of dictionaries that need not have the same keys; numbers with ``digits`` significant ones."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cut = [[_cut(row.get(name), digits) for name in columns] for row in rows]
    return Table("", "", tuple(columns), tuple(tuple(row) for row in cut)).to_csv()


def _cut(cell: str | float | None, digits: int) -> str | float | None:
    return float(f"{cell:.{digits}g}") if isinstance(cell, float) else cell


def show(cell: str | float | int | bool | None) -> str:
    """A cell for human eyes."""
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return number(cell) if isinstance(cell, int | float) else cell


def number(value: float, digits: int = 3) -> str:
    """``0.0763``, ``1,536``, ``4.12×10⁶``, ``∞``: ``digits`` significant ones."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    if isinstance(value, int) and abs(value) < 100_000:
        return f"{value:,}".replace("-", "−")
    rounded = float(f"{value:.{digits - 1}e}")
    if rounded == value:  # a round number was given, not computed: no zeros that would claim precision
        return _round_number(rounded)
    exponent = math.floor(math.log10(abs(rounded)))
    if -4 < exponent < 4:
        return f"{rounded:,.{max(digits - 1 - exponent, 0)}f}".replace("-", "−")
    return f"{rounded / 10**exponent:.{digits - 1}f}×10{str(exponent).translate(_SUPERSCRIPT)}".replace("-", "−")


def _round_number(value: float) -> str:
    exponent = math.floor(math.log10(abs(value)) + 1e-12)
    if -4 < exponent < 6:
        return f"{value:,.10g}".replace("-", "−")
    factor, power = f"{value / 10.0**exponent:.6g}", f"10{str(exponent).translate(_SUPERSCRIPT)}"
    return power if factor == "1" else f"{factor}×{power}".replace("-", "−")


def exact(value: float) -> str:
    """A size or a count with all its digits up to a million, then with three: ``6,144``, ``1.24×10⁷``."""
    return f"{round(value):,}" if value == round(value) and abs(value) < 1_000_000 else number(value)


def interval(low: float, high: float, digits: int = 3) -> str:
    """``0.0712 to 0.0805``."""
    return f"{number(low, digits)} to {number(high, digits)}"


def pf_days(flops: float) -> float:
    """FLOP in PF-days, the paper's unit."""
    return flops / PFDAY_FLOPS
