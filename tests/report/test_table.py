from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest

from scaling_sim.predict.quantity import Quantity
from scaling_sim.report.table import Range, Table, csv_cell, exact, interval, number, rows_csv


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\tx", "\rx", '=HYPERLINK("http://evil")'])
def test_a_spreadsheet_runs_no_cell(text: str) -> None:
    expected = "'" + text.replace("\t", " ").replace("\r", " ")
    assert csv_cell(text) == expected
    table = Table("t", "t", (text, "value"), ((text, -1.5),))
    head, row = csv.reader(io.StringIO(table.to_csv()))
    assert head[0] == row[0] == expected
    assert float(row[1]) == -1.5, "numbers stay numbers, also negative ones"


def test_harmless_text_is_kept() -> None:
    assert [csv_cell(x) for x in ("run 1", "a=b", "", None, True, 3, 0.1)] == [
        "run 1",
        "a=b",
        "",
        "",
        "true",
        "3",
        "0.1",
    ]


def test_numbers_survive_the_csv() -> None:
    values = (6.02e23, -1e-12, 1234567.0, math.inf)
    row = next(csv.reader(io.StringIO(Table("t", "t", tuple("abcd"), (values,)).to_csv().split("\n", 1)[1])))
    assert [float(text) for text in row] == list(values)


def test_an_interval_takes_its_own_columns() -> None:
    table = Table("t", "t", ("name", "x", "band"), (("a", Range(1.0, 3.0, 2.0), Range(4.0, 5.0)), ("b", None, None)))
    rows = list(csv.reader(io.StringIO(table.to_csv())))
    assert rows[0] == ["name", "x", "x, low", "x, high", "band, low", "band, high"]
    assert rows[1] == ["a", "2", "1", "3", "4", "5"]
    assert rows[2] == ["b", "", "", "", "", ""]
    assert table.shown()[0][1] == ("2", "1 to 3", True)


def test_a_quantity_becomes_its_median_and_interval() -> None:
    draws = np.concatenate([np.linspace(1, 2, 90), np.full(10, np.inf)])
    cell = Range.of(Quantity("C", draws))
    assert cell.middle is not None
    assert 1.5 < cell.middle < 1.6
    assert interval(cell.low, cell.high).endswith("to ∞")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.07634, "0.0763"),
        (0.05, "0.05"),
        (6144.2, "6,140"),
        (1e15, "10¹⁵"),
        (5.76e23, "5.76×10²³"),
        (1.2345e-7, "1.23×10⁻⁷"),
        (-2.5, "−2.5"),
        (9.9999, "10.0"),
        (0.0, "0"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (math.nan, "–"),
        (1536, "1,536"),
    ],
)
def test_numbers_are_shown_for_human_eyes(value: float, shown: str) -> None:
    assert number(value) == shown


def test_sizes_keep_their_digits() -> None:
    assert exact(6144.0) == "6,144"
    assert exact(12_345_678.0) == "1.23×10⁷"


def test_rows_of_different_keys_share_one_head() -> None:
    text = rows_csv([{"a": 1.23456789, "b": "x"}, {"a": 2.0, "c": -3.0}])
    assert text == "a,b,c\n1.23457,x,\n2,,-3\n"


def test_rows_must_match_the_head() -> None:
    with pytest.raises(AssertionError):
        Table("t", "t", ("a", "b"), ((1,),))
