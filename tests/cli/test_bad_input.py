"""What each bad input gets, from the command line: an answer that names the rows, never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

Rows = list[tuple[Any, ...]]


def loss(N: float, tokens: float) -> float:
    return 1.8 + 400 / N**0.34 + 1500 / tokens**0.36


GRID = [(N, tokens, loss(N, tokens)) for N, tokens in product((1e7, 1e8, 1e9), (1e9, 1e10, 1e11))]


def changed(row: int, **cells: Any) -> Rows:
    """The grid with other cells in one of its rows; row 2 is the first, as a spreadsheet counts."""
    rows = [dict(zip(("N", "tokens", "loss"), cells)) for cells in GRID]
    rows[row - 2] |= cells
    return [tuple(values.values()) for values in rows]


REFUSED: list[tuple[str, str, Rows, str]] = [
    ("three points", "N,tokens,loss", GRID[:3], "chinchilla has 5 parameters and needs at least 7 points, got 3"),
    ("one N", "N,tokens,loss", [(1e8, t * k, loss(1e8, t * k)) for _, t, _ in GRID[:3] for k in (1, 2, 4)],
     "cannot identify alpha: N must vary, got a range of ×1 over 9 points"),
    ("one D", "N,tokens,loss", [(N * k, 1e10, loss(N * k, 1e10)) for N, _, _ in GRID[::3] for k in (1, 2, 4)],
     "cannot identify beta: tokens must vary"),
    ("collinear", "N,tokens,loss", [(10.0**k, 20 * 10.0**k, loss(10.0**k, 20 * 10.0**k)) for k in range(6, 15)],
     "cannot tell alpha from beta: log N and log tokens are collinear"),
    ("a loss of -1", "N,tokens,loss", changed(4, loss=-1.0), "must be positive, but it is -1 in row 4; losses are"),
    ("a loss of 0", "N,tokens,loss", changed(4, loss=0), "loss must be positive, but it is 0 in row 4"),
    ("negative N", "N,tokens,loss", changed(5, N=-1e7), "must not be negative or infinite, but it is -1e+07 in row 5"),
    ("zero tokens", "N,tokens,loss", changed(10, tokens=0), "must be positive and finite, but it is 0 in row 10"),
    ("negative tokens", "N,tokens,loss", changed(10, tokens=-1), "but it is -1 in row 10"),
    ("a word for a number", "N,tokens,loss", changed(3, N="10M"), "must hold plain numbers such as 7e9, but row 3 has"),
    ("decimal commas", "N,tokens,loss", [(N, t, f"{y:.3f}".replace(".", ",")) for N, t, y in GRID],
     "write decimal points instead of commas"),
    ("misspelt tokens", "N,tokenz,loss", GRID, "has none, perhaps --columns 'tokens=tokenz'"),
    ("short for tokens", "N,toks,loss", GRID, "has none, perhaps --columns 'tokens=toks'"),
    ("bits instead of a loss", "N,tokens,val_bits", GRID, "perhaps --columns 'loss=val_bits'"),
    ("an empty N", "N,tokens,loss", changed(3, N=""), "N is empty in row 3; fill these cells"),
    ("a run twice", "run,N,tokens,loss", [("a", *GRID[0]), *((f"r{i}", *row) for i, row in enumerate(GRID)),
     ("a", *GRID[0])], "1 rows repeat a run id (and step): row 12, for example 'a'"),
    ("a run of two models", "run,N,tokens,loss", [("a", 1e7, 1e9, 3.0), ("a", 1e8, 1e10, 2.9)],
     "one run id must be one model, but row 3 give another N"),
    ("no loss column", "N,tokens,final", GRID, "has no column 'loss'; its columns are 'N', 'tokens', 'final'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("header", "rows", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_refused_with_the_rows_and_a_cure(
    header: str, rows: Rows, message: str, cli: Any, table: Callable[..., str]
) -> None:
    outcome = cli("fit", table(header, rows), expect=4)
    assert outcome.stderr.startswith("error: ")
    assert message in outcome.stderr
    assert outcome.stdout == ""


def test_the_point_estimate_refuses_like_the_posterior(cli: Any, table: Callable[..., str]) -> None:
    assert "needs at least 7 points, got 3" in cli("fit", table(*REFUSED[0][1:3]), "--point", expect=4).stderr


def scaled(**factors: float) -> Rows:
    return [tuple(value * factors.get(name, 1.0) for name, value in zip(("N", "tokens", "loss"), row)) for row in GRID]


WARNED: list[tuple[str, str, Rows, tuple[str, ...], str]] = [
    ("D in billions", "N,tokens,loss", scaled(tokens=1e-9), (),
     "fewer than one unique token per 100 parameters"),
    ("C in PF-days", "N,tokens,loss,C", [(*row, row[0] * row[1] * 6 / 8.64e19) for row in GRID], (),
     "C is more than 2× away from 6·N·tokens"),
    ("N in millions", "N,tokens,loss,C", [(N / 1e6, t, y, 6 * N * t) for N, t, y in GRID], (),
     "C is more than 2× away from 6·N·tokens (a factor of about 1e6)"),
    ("a column called bits", "N,tokens,val_bits", scaled(loss=1.4427), ("--columns", "loss=val_bits"),
     "the column 'val_bits' is named like bits; it is read as it stands in rows 2, 3, 4 and 6 more"),
    ("perplexities", "N,tokens,ppl", GRID, ("--columns", "loss=ppl"), "is named like a perplexity"),
    ("a loss of bits at the start of a curve", "N,tokens,loss", changed(2, loss=8.0),
     ("--columns", "vocab_size=256"), "the loss is near log2(vocabulary), that of an untrained model in bits"),
    ("a sum over tokens", "N,tokens,loss", changed(2, loss=900.0), ("--columns", "vocab_size=256"),
     "the loss is above 1.5 ln(vocabulary), worse than guessing: is it in bits"),
    ("a row pasted twice", "N,tokens,loss", [*GRID, GRID[3]], (),
     "row 11 equal earlier rows in every column and count twice"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("header", "rows", "options", "message"), [case[1:] for case in WARNED], ids=[case[0] for case in WARNED]
)
def test_kept_with_a_warning_that_names_the_unit(
    header: str, rows: Rows, options: tuple[str, ...], message: str, cli: Any, table: Callable[..., str]
) -> None:
    outcome = cli("runs", table(header, rows), *options)
    warned = [line for line in outcome.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 1
    assert message in warned[0]
    assert "row" in warned[0].partition(message)[2] + message
    assert message in outcome.stdout  # and among the notes of the table


def test_bits_without_a_vocabulary_give_the_same_exponents(facts: Any, table: Callable[..., str]) -> None:
    """Nothing in the numbers tells them apart; what does not depend on the unit comes out the same."""
    nats, bits = (facts("fit", table("N,tokens,loss", rows), "--point") for rows in (GRID, scaled(loss=1.442695)))
    for name in ("alpha", "beta"):
        assert bits["parameters"][name] == pytest.approx(nats["parameters"][name], rel=1e-5)
    assert bits["parameters"]["E"] == pytest.approx(1.442695 * nats["parameters"]["E"], rel=1e-5)


def test_diverged_and_unfinished_runs_are_left_out_and_counted(facts: Any, table: Callable[..., str]) -> None:
    rows = [*GRID, (1e8, 1e9, "nan"), (1e8, 2e9, "inf"), (1e8, 3e9, "")]
    found = facts("fit", table("N,tokens,loss", rows), "--point")
    assert found["dropped"] == {"no loss yet": ["row 13"], "diverged": ["row 11", "row 12"]}
    assert (found["n_used"], found["n_dropped"]) == (9, 3)


def test_other_seeds_of_one_cell_are_kept(facts: Any, table: Callable[..., str]) -> None:
    rows = [(seed, *row) for seed in (0, 1) for row in GRID]
    assert facts("fit", table("seed,N,tokens,loss", rows), "--point")["n_used"] == 18


def test_a_model_without_layers_is_counted(facts: Any, table: Callable[..., str]) -> None:
    found = facts("fit", table("N,tokens,loss", [*GRID, (0, 1e9, 5.0)]), "--point")
    assert found["dropped"] == {"N is 0: outside a power law of N": ["row 11"]}


def test_under_a_decade_is_noted(facts: Any, table: Callable[..., str]) -> None:
    rows = [(N, t, loss(N, t)) for N, t in product((1e8, 2e8, 4e8), (1e9, 1e10, 1e11))]
    notes = facts("fit", table("N,tokens,loss", rows), "--point")["notes"]
    assert "N spans 0.60 decades, less than one: alpha rests on a short range" in notes


def test_names_are_harmless_in_spreadsheets_and_reports(cli: Any, table: Callable[..., str], tmp_path: Path) -> None:
    names = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "<script>alert(1)</script>", "a", "b", "c", "d"]
    source = table("run,N,tokens,loss", [(name, *row) for name, row in zip(names, GRID)])
    out = tmp_path / "out.csv"
    cli("runs", source, "--export", str(out))
    cells = [line.split(",")[0].strip('"') for line in out.read_text().splitlines()]
    assert not [cell for cell in cells if cell[:1] in "=+-@"]
    again = tmp_path / "again.csv"
    cli("runs", str(out), "--export", str(again))
    assert again.read_text() == out.read_text()


@pytest.mark.parametrize("name", ["runs.pkl", "model.pt", "runs.tar.gz"])
def test_files_that_could_run_code_are_never_opened(name: str, cli: Any, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.")
    assert "runs are read from .csv, .tsv, .jsonl and .parquet" in cli("fit", str(tmp_path / name), expect=4).stderr


@pytest.mark.parametrize(
    ("options", "message", "code"),
    [
        (("--where", "loss"), "a condition must read COLUMN = VALUE", 2),
        (("--where", "corpus=c4"), "the left of 'corpus' = … must be a column, or arithmetic on columns", 2),
        (("--where", "loss<many"), "compares numbers, but 'many' is neither a number nor a column", 4),
        (("--where", "N>1e12"), "no row has N > 1e12", 4),
        (("--columns", "tokens=tokns*1e6"), "no column 'tokns*1e6' (for tokens)", 4),
        (("--duplicates", "some"), "duplicates must be 'refuse', 'first' or 'last', got 'some'", 2),
        (("--option", "floor"), "--option must read NAME=VALUE", 2),
        (("--option", "floor=true"), "chinchilla has no such options: floor", 2),
        (("--point", "--delta", "-1"), "delta, the threshold of the Huber loss, must be positive", 2),
        (("--delta", "1e-4"), "it goes with --point", 2),
        (("--point", "--out", "fit.nc"), "--out saves draws and --point makes none", 2),
    ],
)
def test_options_that_cannot_be_understood(
    options: tuple[str, ...], message: str, code: int, cli: Any, table: Callable[..., str]
) -> None:
    assert message in cli("fit", table("N,tokens,loss", GRID), *options, expect=code).stderr


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        ("N,tokens,loss", (1e200, 1e200, 3.0), "C, as it follows from the other columns, lies above 1.8e308 in row 2"),
        ("N,B,S,loss", (1e9, 1e200, 1e200, 3.0), "tokens, as it follows from the other columns, lies above 1.8e308"),
        ("N,C,loss", (1e200, 1e-150, 3.0), "tokens, as it follows from the other columns, lies below 1e-323"),
    ],
)
def test_products_beyond_the_range_of_floats_name_their_rows(
    header: str, row: tuple[float, ...], words: str, table: Callable[..., str], cli: Any
) -> None:
    rest = [[1e8] * (len(row) - 1) + [3.0 - 0.1 * k] for k in range(3)]
    error = cli("fit", table(header, [row, *rest]), expect=4).stderr
    assert words in error
    assert "overflow encountered" not in error
