"""Which column of a source is which of ours, and its cells as numbers."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import ConfigError, DataError
from scaling_sim.runs.expression import Expression, parse_expression
from scaling_sim.runs.sources import RawTable

Column = NDArray[np.float64]
Mask = NDArray[np.bool_]

NUMBERS = ("N", "D", "tokens", "C", "B", "S", "loss", "loss_error", "loss_low", "loss_high", "warmup", "vocab_size")
"""Numeric columns that are understood. ``loss_low`` and ``loss_high`` bound a 95 % interval of the loss."""

FLAGS = ("decayed", "stopped", "curve", "simulated")
TEXTS = ("run", "dropped")
NAMES = (*NUMBERS, *FLAGS, *TEXTS)

_SYNONYMS = {
    "N": ("param", "model size", "size", "n_"),
    "D": ("tok", "data", "unique"),
    "tokens": ("tok", "data", "seen"),
    "C": ("flop", "compute"),
    "B": ("batch",),
    "S": ("step", "iteration", "update"),
    "loss": ("loss", "nll", "entropy", "bits", "bpb", "ppl", "perplexity"),
    "run": ("run", "name", "id"),
}
_MISSING = {"", "na", "n/a", "none", "null", "-"}
_DECIMAL_COMMA = re.compile(r"'-?\d+,\d+(?:[eE][-+]?\d+)?'$")
_TRUE, _FALSE = {"true", "1", "1.0", "yes", "y"}, {"false", "0", "0.0", "no", "n", ""}


def parse_columns(text: str) -> dict[str, str | None]:
    """Mapping of ``"N=Model Size,C=Training FLOP,loss=loss"``: ours to theirs.

    A name with a comma is quoted (``"loss=eval, c4"``); ``C=`` with nothing after it means: do not read C.

    Raises
    ------
    ConfigError
        A part without ``=``, an unknown name of ours, or one given twice.
    """
    mapping: dict[str, str | None] = {}
    for part in next(csv.reader([text], skipinitialspace=True), []):
        ours, equals, theirs = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise ConfigError(f"columns must read OURS=THEIRS,… such as N=params,loss=final_loss; got {part!r}")
        if ours in mapping:
            raise ConfigError(f"the column {ours} is given twice in {text!r}")
        mapping[check_name(ours)] = theirs or None
    return mapping


def check_name(ours: str) -> str:
    """``ours`` if it is a column that we know, else a ConfigError with the nearest."""
    if ours in NAMES:
        return ours
    close = difflib.get_close_matches(ours, NAMES, n=1) or [name for name in NAMES if name.lower() == ours.lower()]
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(NAMES)}"
    raise ConfigError(f"unknown column {ours!r} on the left of a column mapping; {hint} (write OURS=THEIRS)")


class Cells:
    """The columns of a source under our names, before any check of their values.

    Parameters
    ----------
    raw : RawTable
    mapping : mapping
        Ours to theirs. Theirs may be a column's name, arithmetic on columns and numbers (``"name * 1e6"``,
        ``"bs * ti * 2048"``), a number (the same for all rows), for ``run`` several names joined by ``+``, or None: do
        not read.
    """

    def __init__(self, raw: RawTable, mapping: Mapping[str, Any]) -> None:
        self.raw = raw
        self.theirs: dict[str, Any] = {
            check_name(ours): theirs for ours, theirs in mapping.items() if theirs is not None
        }
        self.automatic = [name for name in NAMES if name in raw.columns and name not in mapping]
        self.theirs |= {name: name for name in self.automatic}
        self._used: set[str] = set()

    def verify(self) -> None:
        """Raise a DataError if a column of the mapping is not there."""
        for ours in self.theirs:
            if ours in NUMBERS:
                self._expression(ours)
            elif ours in TEXTS:
                self._parts(ours)

    def __contains__(self, ours: str) -> bool:
        return ours in self.theirs

    @property
    def rest(self) -> list[str]:
        """Columns of the source that no name of ours refers to; valid once all cells were read."""
        return [name for name in self.raw.columns if name not in self._used]

    def label(self, ours: str) -> str:
        """How a message calls the column: ``N`` or ``N ('Model Size')``."""
        theirs = self.theirs.get(ours, ours)
        return ours if theirs == ours else f"{ours} ({theirs!r})"

    def numbers(self, ours: str) -> tuple[Column, Mask]:
        """Values (n,) with NaN for empty cells, and a mask of the empty ones.

        Raises
        ------
        DataError
            The column is not there, or cells are not numbers; with their rows.
        """
        expression = self._expression(ours)
        read = {name: self._floats(ours, self.raw.columns[name]) for name in expression.names}
        values = expression.evaluate(lambda name: read[name][0])
        empty = np.zeros(len(self.raw.rows), dtype=np.bool_)
        for _, holes in read.values():
            empty |= holes
        if ours != "vocab_size" and len(expression.names) == 1:  # reports want it, and what arithmetic joins, too
            self._used.update(expression.names)
        return np.broadcast_to(values, empty.shape).copy(), empty

    def _expression(self, ours: str) -> Expression:
        expression = parse_expression(str(self.theirs[ours]), self.raw.columns)
        if expression is None:
            raise self.missing(ours)
        return expression

    def _floats(self, ours: str, cells: Sequence[Any]) -> tuple[Column, Mask]:
        values = np.full(len(cells), np.nan)
        empty = np.zeros(len(cells), dtype=np.bool_)
        bad: list[str] = []
        for i, cell in enumerate(cells):
            try:
                values[i] = float(cell)
            except (TypeError, ValueError):
                empty[i] = cell is None or str(cell).strip().lower() in _MISSING
                if not empty[i]:
                    bad.append(f"{self.raw.rows[i]} has {cell!r}")
        if bad:
            points = "write decimal points instead of commas, or " * all(map(_DECIMAL_COMMA.search, bad))
            raise DataError(
                f"{self.raw.origin}: column {self.label(ours)} must hold plain numbers such as 7e9, but {_some(bad)}; "
                f"{points}correct these cells, leave them empty, or do not read the column (--columns {f'{ours}='!r})"
            )
        return values, empty

    def known(self) -> Mapping[str, Sequence[Any]]:
        """Cells by name for conditions on rows: the source's columns, then ours that the mapping gives."""
        return _Named(self)

    def keep(self, rows: Mask) -> None:
        """Leave the other rows of the source out of everything read from now on."""
        index = np.flatnonzero(rows).tolist()
        columns: dict[str, Sequence[Any]] = {n: [cells[i] for i in index] for n, cells in self.raw.columns.items()}
        self.raw = RawTable(columns, [self.raw.rows[i] for i in index], self.raw.origin)

    def flags(self, ours: str) -> Mask:
        """Booleans (n,): true/false, yes/no or 1/0."""
        theirs = self.theirs[ours]
        if theirs not in self.raw.columns:
            if str(theirs).lower() in _TRUE | _FALSE:
                return np.full(len(self.raw.rows), str(theirs).lower() in _TRUE)
            raise self.missing(ours)
        self._used.add(theirs)
        words = ["" if is_empty(cell) else str(cell).strip().lower() for cell in self.raw.columns[theirs]]
        bad = [f"{row} has {word!r}" for row, word in zip(self.raw.rows, words) if word not in _TRUE | _FALSE]
        if bad:
            raise DataError(f"{self.raw.origin}: column {self.label(ours)} must hold true or false, but {_some(bad)}")
        return np.array([word in _TRUE for word in words], dtype=np.bool_)

    def texts(self, ours: str) -> list[str]:
        """Strings, one per row; several columns are joined by a slash."""
        names = self._parts(ours)
        self._used.update(names)
        parts = [["" if is_empty(cell) else str(cell) for cell in self.raw.columns[name]] for name in names]
        return ["/".join(row) for row in zip(*parts)]

    def _parts(self, ours: str) -> list[str]:
        """Names of the columns that make up one of text."""
        theirs = self.theirs[ours]
        if isinstance(theirs, str):
            names = [theirs] if theirs in self.raw.columns else [part.strip() for part in theirs.split("+")]
        else:
            names = [str(name) for name in theirs]
        if any(name not in self.raw.columns for name in names):
            raise self.missing(ours)
        return names

    def missing(self, ours: str) -> DataError:
        """The error that a column of theirs is not there: what is, and what comes nearest."""
        theirs = self.theirs.get(ours, ours)
        return missing_column(ours, str(theirs), list(self.raw.columns), self.raw.origin)


class _Named(Mapping[str, Sequence[Any]]):
    """Columns of a source under its names and under ours; its own name wins, and ours is read when it is asked for."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._ours = [name for name in cells.theirs if name not in cells.raw.columns and name not in FLAGS]

    def __getitem__(self, name: str) -> Sequence[Any]:
        if name not in self._ours:
            return self._cells.raw.columns[name]
        return self._cells.texts(name) if name in TEXTS else self._cells.numbers(name)[0].tolist()

    def __iter__(self) -> Iterator[str]:
        yield from self._cells.raw.columns
        yield from self._ours

    def __len__(self) -> int:
        return len(self._cells.raw.columns) + len(self._ours)


def missing_column(ours: str, theirs: str, available: Sequence[str], origin: str) -> DataError:
    """A DataError that lists the columns of ``origin`` and suggests the nearest."""
    near = nearest_columns(ours, theirs, available)
    hint = f"; perhaps {near}" if near else ""
    wanted = f"column {theirs!r}" if theirs == ours else f"column {theirs!r} (for {ours})"
    return DataError(f"{origin} has no {wanted}; its columns are {', '.join(map(repr, available)) or 'none'}{hint}")


def nearest_columns(ours: str, theirs: str, available: Sequence[str]) -> str:
    """The mapping that was perhaps meant, ``--columns 'tokens=toks'``, for a column that is not there; or "".

    Names like the one asked for come first, then those that hold a word used for what is meant.
    """
    lower = {name.lower(): name for name in available}
    close = [lower[name] for name in difflib.get_close_matches(theirs.lower(), lower, n=3, cutoff=0.6)]
    close += [name for name in available if any(word in name.lower() for word in _SYNONYMS.get(ours, ()))]
    listed = " or ".join(f"{ours}={name}" for name in list(dict.fromkeys(close))[:3])
    return f"--columns {listed!r}" if close else ""


def is_empty(cell: Any) -> bool:
    """Whether a cell holds nothing; pandas writes NaN for that."""
    return cell is None or cell != cell


def _some(bad: Sequence[str], most: int = 5) -> str:
    return "; ".join(bad[:most]) + (f"; and {len(bad) - most} more" if len(bad) > most else "")
