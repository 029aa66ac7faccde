from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaling_sim.errors import DataError, DataWarning, StoreError
from scaling_sim.runs.table import FLAGS, NUMBERS, RunTable, concat, read_runs


def table(**changes: Any) -> RunTable:
    columns: dict[str, Any] = {
        "run": ["a", "b", "c"],
        "N": [1e7, 1e8, 1e9],
        "tokens": [1e9, 2e9, 4e10],
        "loss": [4.0, 3.0, 2.5],
        "lr": [0.1, math.nan, 1 / 3],
        "note": ["plain", "=1+1", "-2"],
    }
    return read_runs({**columns, **changes})


def same(first: RunTable, second: RunTable) -> bool:
    """Equal cells, flags, other columns, rows left out and origin of the numbers."""
    equal = all(
        np.array_equal(getattr(first, name), getattr(second, name), equal_nan=name in NUMBERS)
        for name in ("run", *NUMBERS, *FLAGS)
    )
    extra = set(first.extra) == set(second.extra) and all(
        np.array_equal(values, second.extra[name], equal_nan=values.dtype.kind == "f")
        for name, values in first.extra.items()
    )
    hashes = first.data_hash == second.data_hash
    return equal and extra and hashes and first.dropped == second.dropped and first.simulated == second.simulated


def test_columns_cannot_be_written_to() -> None:
    runs = table()
    with pytest.raises(ValueError, match="read-only"):
        runs.loss[0] = 1.0


def test_select_counts_what_it_leaves_out() -> None:
    runs = table()
    small = runs.select(runs.N < 5e8, "too large")
    assert small.run.tolist() == ["a", "b"]
    assert small.dropped == {"too large": ("c",)}
    assert small.extra["note"].tolist() == ["plain", "=1+1"]
    assert small.data_hash != runs.data_hash
    again = small.select(small.N < 5e7, "too large")
    assert again.dropped == {"too large": ("c", "b")}
    assert runs.select(np.ones(3, dtype=bool), "nothing") is runs
    with pytest.raises(DataError, match=r"one value per row \(3\), got int64 \(3,\)"):
        runs.select(np.array([1, 0, 1]), "indices are no mask")


def test_the_hash_is_of_the_numbers_alone() -> None:
    assert table().data_hash == table(note=["x", "y", "z"]).data_hash
    assert table().data_hash != table(loss=[4.0, 3.0, 2.5000001]).data_hash
    assert len(table().data_hash) == 16


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    runs = table(loss=[4.0, math.nan, 1 / 3], warmup=[10, 20, math.nan])
    path = tmp_path / f"runs.{suffix}"
    runs.to_csv(path) if suffix == "csv" else runs.to_parquet(path)
    assert runs.dropped == {"diverged": ("b (row 1)",)}
    assert same(read_runs(path), runs)


def test_round_trip_through_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = table(loss=[4.0, math.nan, 1 / 3])
    stream = io.StringIO()
    runs.to_csv(stream)
    monkeypatch.setattr("sys.stdin", io.StringIO(stream.getvalue()))
    assert same(read_runs("-"), runs)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    for write in (table().to_csv, table().to_parquet):
        with pytest.raises(StoreError, match=r"cannot write .*absent"):
            write(tmp_path / "absent" / "runs")


def test_warnings_point_to_the_callers_line() -> None:
    with pytest.warns(DataWarning) as caught:
        table(loss=[4.0, 3.0, 99.0])
    assert caught[0].filename == __file__


def test_round_trip_through_pandas(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    runs = table(note=["x", "y", "z"])
    runs.to_csv(tmp_path / "runs.csv")
    assert same(read_runs(pd.read_csv(tmp_path / "runs.csv")), runs)
    assert same(read_runs(runs.to_dataframe()), runs)


def test_formulas_are_made_harmless(tmp_path: Path) -> None:
    runs = table(run=["=cmd|'/C calc'!A0", "@x", "+1"], **{"=evil()": ["a", "b", "c"]})
    runs.to_csv(tmp_path / "runs.csv")
    lines = (tmp_path / "runs.csv").read_text().splitlines()
    assert lines[1].startswith("'=cmd")
    assert lines[2].startswith("'@x")
    assert lines[3].startswith("'+1")
    assert "'=1+1" in lines[2]
    assert "'=evil()" in lines[0]
    back = read_runs(tmp_path / "runs.csv")
    assert back.run.tolist() == runs.run.tolist()
    assert back.extra["note"].tolist() == ["plain", "=1+1", "-2"]


def test_html_is_escaped() -> None:
    html = table(run=["<script>", "b", "c"])._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_require_names_the_column_and_the_nearest() -> None:
    runs = read_runs({"N": [1e7], "tokens": [1e9], "loss": [3.0], "batch_size": [4.0]})
    runs.require(("N", "tokens", "C"), "chinchilla")
    with pytest.raises(DataError, match=r"critical-batch needs B: .*no column 'B'.*B=batch_size"):
        runs.require(("N", "B"), "critical-batch")


def test_concat_joins_and_refuses_shared_ids() -> None:
    first, second = table(), table(run=["d", "e", "f"], loss=[4.1, math.nan, 2.6])
    both = concat([first, second], source="two")
    assert both.run.tolist() == ["a", "b", "c", "d", "f"]
    assert both.dropped == {"diverged": ("e (row 1)",)}
    assert set(both.extra) == {"lr", "note"}
    fewer = concat([first, read_runs({"run": ["x"], "N": [1e7], "tokens": [1e9], "loss": [3.0]})])
    assert set(fewer.extra) == set()
    assert any("lr, note" in note for note in fewer.notes)
    with pytest.raises(DataError, match=r"\['a', 'b', 'c'\] stand in two"):
        concat([first, first])
    with pytest.raises(DataError, match="at least one"):
        concat([])


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(DataError, match="all columns must have the same length"):
        read_runs({"N": [1e7], "tokens": [1e9, 2e9], "loss": [3.0, 3.1]})
