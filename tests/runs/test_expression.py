from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling_sim.runs.expression import parse_expression

CELLS = {
    "bs": [1.0, 2.0],
    "ti": [3.0, 4.0],
    "Model Size": [5.0, 6.0],
    "D/N": [7.0, 8.0],
    "D": [1.0, 1.0],
    "N": [2.0, 4.0],
}


def value(text: str) -> list[float] | None:
    expression = parse_expression(text, CELLS)
    if expression is None:
        return None
    return np.broadcast_to(expression.evaluate(lambda name: np.array(CELLS[name])), 2).tolist()


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("bs * ti * 2048", [6144, 16384]),
        ("bs*ti+1", [4, 9]),
        ("bs*(ti+1)", [4, 10]),
        ("(Model Size - 1e0) / .5", [8, 10]),
        ("-bs - -ti", [2, 2]),
        ("D/N*2", [14, 16]),  # the longest column name that fits
        ("D / N", [0.5, 0.25]),
        ("`D`/`N`", [0.5, 0.25]),
        ("1e6", [1e6, 1e6]),
        ("bs/(bs-bs)", [np.inf, np.inf]),
    ],
)
def test_arithmetic(text: str, values: list[float]) -> None:
    assert value(text) == values


@pytest.mark.parametrize(
    "text",
    ["", "bs**2", "f(bs)", "bs ti", "bss", "bs*", "2 bs", "(bs", "bs)", "bs.real", "`no`", "__import__", "bs;ti"],
)
def test_what_is_no_arithmetic_on_these_columns(text: str) -> None:
    assert value(text) is None


def test_names_are_reported_once_in_order() -> None:
    expression = parse_expression("ti*bs + ti", CELLS)
    assert expression is not None
    assert (expression.names, expression.column) == (("ti", "bs"), None)


@given(st.recursive(st.sampled_from(["bs", "ti", "2", "0.5"]), lambda inner: st.tuples(
    inner, st.sampled_from("+-*"), inner).map(lambda parts: f"({' '.join(parts)})"), max_leaves=8))  # fmt: skip
def test_it_agrees_with_python(text: str) -> None:
    cells = {name: np.array(CELLS[name]) for name in ("bs", "ti")}
    assert value(text) == np.broadcast_to(eval(text, {}, cells), 2).tolist()
