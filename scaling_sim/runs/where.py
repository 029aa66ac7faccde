"""Conditions on rows, as a user types them: ``train_data = c4``, ``loss < 3.44``, ``current_steps = total_steps``."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import ConfigError, DataError
from scaling_sim.runs.expression import Expression, parse_expression
from scaling_sim.runs.sources import name_rows

Mask = NDArray[np.bool_]
Cells = Mapping[str, Sequence[Any]]

_CONDITION = re.compile(r"((?:`[^`]*`|[^`<>=!])+)(==|!=|<=|>=|=|<|>)(.*)", re.DOTALL)
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "=": operator.eq, "!=": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """One comparison that every row of a fit must meet.

    Attributes
    ----------
    left : column, or arithmetic on columns
    sign : one of = == != < <= > >=
    right : the same, or for = and != a text
    """

    left: str
    sign: str
    right: str

    @property
    def reason(self) -> str:
        """How `RunTable.dropped` calls the rows that do not meet it."""
        return f"not selected by {self.left} {self.sign} {self.right}"

    def mask(self, cells: Cells, rows: Sequence[str], origin: str) -> Mask:
        """(n,) rows that meet the condition; an empty cell meets none but !=.

        Parameters
        ----------
        cells : columns by name, (n,) each
        rows : how messages call the rows

        Raises
        ------
        ConfigError
            A column that is not there.
        DataError
            < or > on cells that are not numbers, or no row that meets the condition.
        """
        left = parse_expression(self.left, cells)
        if left is None:
            raise ConfigError(
                f"the left of {self.left!r} {self.sign} … must be a column, or arithmetic on columns and numbers; "
                f"the columns of {origin} are {', '.join(map(repr, cells))}"
            )
        compared = self._numbers(left, cells, rows, origin)
        mask = np.asarray(self._texts(left, cells) if compared is None else compared, dtype=np.bool_)
        if not mask.any():
            raise DataError(f"{origin}: no row has {self.left} {self.sign} {self.right}{_what_there_is(left, cells)}")
        return mask

    def _numbers(self, left: Expression, cells: Cells, rows: Sequence[str], origin: str) -> Any:
        """The comparison of two numbers in each row, or None if this is one of texts."""
        right = parse_expression(self.right, cells)
        try:
            if right is None:
                raise ValueError(f"{self.right!r} is neither a number nor a column")
            values = [side.evaluate(lambda name: _floats(cells[name], rows)) for side in (left, right)]
        except ValueError as error:
            if self.sign in ("=", "==", "!="):
                return None
            raise DataError(f"{origin}: {self.left} {self.sign} {self.right} compares numbers, but {error}") from None
        return np.broadcast_to(_COMPARE[self.sign](*values), len(rows))

    def _texts(self, left: Expression, cells: Cells) -> list[bool]:
        if left.column is None:
            raise ConfigError(f"{self.left!r} is arithmetic: compare it with a number, not with {self.right!r}")
        wanted = self.right.strip("\"'")
        others = cells[self.right] if self.right in cells else [wanted] * len(cells[left.column])
        equal = [_text(cell) == _text(other) for cell, other in zip(cells[left.column], others)]
        return equal if self.sign != "!=" else [not same for same in equal]


def parse_condition(text: str) -> Condition:
    """The condition that ``text`` states.

    Raises
    ------
    ConfigError
        No comparison in it.
    """
    found = _CONDITION.fullmatch(text.strip())
    sides = (found[1].strip(), found[3].strip()) if found else ("", "")
    if found is None or not all(sides):
        raise ConfigError(
            f"a condition must read COLUMN = VALUE (or != < <= > >=), such as train_data=c4 or loss<3.5; got {text!r}"
        )
    return Condition(sides[0], found[2], sides[1])


def parse_conditions(where: str | Sequence[str]) -> list[Condition]:
    """All conditions of a text or of several; a row must meet each."""
    return [parse_condition(text) for text in ([where] if isinstance(where, str) else where)]


def _floats(cells: Sequence[Any], rows: Sequence[str]) -> NDArray[np.float64]:
    """Numbers (n,), NaN for empty cells; a ValueError names the rows that hold something else."""
    values, bad = np.full(len(cells), np.nan), []
    for i, cell in enumerate(cells):
        try:
            values[i] = float(cell)
        except (TypeError, ValueError):
            if cell is not None and str(cell).strip():
                bad.append(i)
    if bad:
        raise ValueError(f"{name_rows([rows[i] for i in bad])} hold something else, such as {cells[bad[0]]!r}")
    return values


def _text(cell: Any) -> str:
    """A cell as it is compared: true and True, 7 and 7.0 of a JSON file are what a user types."""
    return str(cell).lower() if isinstance(cell, (bool, np.bool_)) else "" if cell is None else str(cell).strip()


def _what_there_is(left: Expression, cells: Cells, most: int = 6) -> str:
    """The values of a column, most frequent first, for a message."""
    if left.column is None:
        return ""
    counts = Counter(_text(cell) for cell in cells[left.column])
    listed = ", ".join(f"{value!r} ({count})" for value, count in counts.most_common(most))
    more = f" and {len(counts) - most} more" if len(counts) > most else ""
    return f"; {left.column} holds {listed}{more}"
