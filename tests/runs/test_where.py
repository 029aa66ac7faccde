from __future__ import annotations

from typing import Any

import pytest

from scaling_sim.errors import ConfigError, DataError
from scaling_sim.runs.table import read_runs
from scaling_sim.runs.where import parse_condition

SOURCE: dict[str, list[Any]] = {
    "id": ["a", "b", "c", "d"],
    "corpus": ["c4", "c4", "code", " code"],
    "params": [1e7, 1e8, 1e7, 1e8],
    "tokens": [1e9, 1e9, 2e9, 2e9],
    "loss": [4.0, 3.0, 3.5, "broken"],
    "done": [True, True, False, True],
    "now": ["10", "10", "5", ""],
    "end": [10, 10, 10, 10],
}


def ids(*where: str) -> list[str]:
    return read_runs(SOURCE, "run=id,N=params", where=("loss != broken", *where)).run.tolist()


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("corpus = c4", ["a", "b"]),
        ("corpus=='code'", ["c"]),
        ("corpus != c4", ["c"]),
        ("loss < 3.5", ["b"]),
        ("loss<=3.5", ["b", "c"]),
        ("now = end", ["a", "b"]),
        ("now/end >= 1", ["a", "b"]),
        ("tokens / params > 50", ["a", "c"]),
        ("N > 5e7", ["b"]),  # ours, through the mapping
        ("run = b", ["b"]),
        ("done = true", ["a", "b"]),
    ],
)
def test_rows_are_selected(where: str, kept: list[str]) -> None:
    assert ids(where) == kept


def test_what_is_left_out_is_named_by_condition_and_not_judged() -> None:
    table = read_runs(SOURCE, "run=id,N=params", where=["loss != broken", "corpus = c4"])
    assert table.dropped == {
        "not selected by loss != broken": ("d (row 3)",),
        "not selected by corpus = c4": ("c (row 2)",),
    }
    with pytest.raises(DataError, match="row 3 has 'broken'"):
        read_runs(SOURCE, "run=id,N=params")


def test_a_table_is_selected_like_a_file() -> None:
    table = read_runs(SOURCE, "run=id,N=params", where="loss != broken")
    again = read_runs(table, where=["corpus = c4", "N < 5e7"])
    assert again.run.tolist() == ["a"]
    assert again.dropped["not selected by N < 5e7"] == ("b",)


@pytest.mark.parametrize("text", ["loss", "loss ~ 3", "= 3", "loss <", ""])
def test_no_condition(text: str) -> None:
    with pytest.raises(ConfigError, match="a condition must read COLUMN = VALUE"):
        parse_condition(text)


def test_mistakes_say_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"'corpora' = … must be a column.*'id', 'corpus', 'params'"):
        ids("corpora = c4")
    with pytest.raises(DataError, match=r"no row has corpus = web; corpus holds 'c4' \(2\), 'code' \(1\)"):
        ids("corpus = web")
    with pytest.raises(DataError, match="corpus < 3 compares numbers, but rows 0, 1 and 2 hold something else"):
        ids("corpus < 3")
    with pytest.raises(ConfigError, match="is arithmetic: compare it with a number, not with 'many'"):
        ids("now/end = many")
