"""Arithmetic on somebody's columns, as a user types it: ``bs * ti * 2048``, ``(Model Size - 1e6) / 1e9``."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]

_BINARY = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?!\w)")
_OPERATOR = re.compile(r"[-+*/()]")
_PLACE = "_column"


@dataclass(frozen=True)
class Expression:
    """Numbers and columns joined by + − * / and parentheses.

    Attributes
    ----------
    tree : the parsed text, in which ``_column3`` stands for the third of `names`
    names : columns of the source that it reads, in the order of their first appearance
    """

    tree: ast.expr
    names: tuple[str, ...]

    @property
    def column(self) -> str | None:
        """The column's name if the expression is nothing but one column."""
        return self.names[0] if isinstance(self.tree, ast.Name) else None

    def evaluate(self, read: Callable[[str], Column]) -> Column:
        """Values (n,), or () if no column is named; 0/0 and x/0 are NaN and ±inf.

        Parameters
        ----------
        read : function that gives the numbers (n,) of a column
        """
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.asarray(self._value(self.tree, read), dtype=np.float64)

    def _value(self, node: ast.expr, read: Callable[[str], Column]) -> Any:
        match node:
            case ast.BinOp(left, operation, right):
                return _BINARY[type(operation)](self._value(left, read), self._value(right, read))
            case ast.UnaryOp(_, operand):
                return -self._value(operand, read)
            case ast.Name(id=place):
                return read(self.names[int(place.removeprefix(_PLACE))])
            case ast.Constant(value=float(value)):
                return np.float64(value)
        raise AssertionError(ast.dump(node))


def parse_expression(text: str, columns: Iterable[str]) -> Expression | None:
    """The expression that ``text`` is, or None if it is none over these columns.

    The longest column name that fits is taken, so that names with blanks or signs need no quotes; a text that is a
    column's whole name is that column. Backquotes force a name: ```D/N` * 2``.
    """
    names = sorted(columns, key=len, reverse=True)
    used: list[str] = []
    pieces: list[str] = []
    rest = text.strip()
    while rest:
        piece, rest = _next(rest, names, used)
        if piece is None:
            return None
        pieces.append(piece)
    try:
        tree = ast.parse(" ".join(pieces), mode="eval").body
    except SyntaxError:
        return None
    return Expression(tree, tuple(used)) if _is_arithmetic(tree) else None


def _next(text: str, names: list[str], used: list[str]) -> tuple[str | None, str]:
    """The first token of ``text`` in Python's spelling, None if it has none, and what follows."""
    quoted = re.match(r"`([^`]*)`", text)
    name = quoted[1] if quoted else next((name for name in names if _starts_with(text, name)), None)
    if name is not None:
        if name not in names:
            return None, text
        if name not in used:
            used.append(name)
        return f"{_PLACE}{used.index(name)}", text[quoted.end() if quoted else len(name) :].lstrip()
    number, sign = _NUMBER.match(text), _OPERATOR.match(text)
    if number:
        return repr(float(number[0])), text[number.end() :].lstrip()
    return (sign[0], text[1:].lstrip()) if sign else (None, text)


def _starts_with(text: str, name: str) -> bool:
    """Whether ``name`` stands at the start of ``text`` and no longer word does."""
    after = text[len(name) : len(name) + 1]
    return bool(name) and text.startswith(name) and not (name[-1:].isalnum() and (after.isalnum() or after == "_"))


def _is_arithmetic(tree: ast.expr) -> bool:
    """Nothing but + − * / on names and numbers (``a ** b`` and ``f(x)`` parse, too)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and type(node.op) not in _BINARY:
            return False
        if isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.USub):
            return False
        allowed = (ast.BinOp, ast.UnaryOp, ast.Name, ast.Constant, ast.operator, ast.unaryop, ast.expr_context)
        if not isinstance(node, allowed):
            return False
    return True
