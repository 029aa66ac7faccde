from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaling_sim.errors import ConfigError, DataError, DataWarning
from scaling_sim.runs.table import RunTable, parse_columns, read_runs

GOOD = "params,tokens,final_loss\n1e7,2e8,4.0\n1e8,2e9,3.0\n1e9,2e10,2.5\n"
MAPPING = {"N": "params", "loss": "final_loss"}


def write(folder: Path, text: str, name: str = "runs.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# ---------------------------------------------------------------------------------------------- formats and mappings


def test_csv_with_a_mapping(tmp_path: Path) -> None:
    table = read_runs(write(tmp_path, GOOD), MAPPING)
    assert table.N.tolist() == [1e7, 1e8, 1e9]
    assert table.tokens.tolist() == table.D.tolist() == [2e8, 2e9, 2e10]
    assert table.C.tolist() == [6 * 1e7 * 2e8, 6 * 1e8 * 2e9, 6 * 1e9 * 2e10]
    assert table.run.tolist() == ["row 2", "row 3", "row 4"]
    assert not table.curve.any()
    assert not table.stopped.any()
    assert np.isnan(table.B).all()
    assert table.num_dropped == 0


def test_all_formats_give_the_same_columns(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"params": [1e7, 1e8], "tokens": [2e8, 2e9], "final_loss": [4.0, 3.0]})
    frame.to_parquet(tmp_path / "runs.parquet")
    rows = [json.dumps(row) for row in frame.to_dict("records")]
    sources: list[Any] = [
        write(tmp_path, frame.to_csv(index=False)),
        write(tmp_path, frame.to_csv(index=False, sep=";"), "semicolon.csv"),
        write(tmp_path, frame.to_csv(index=False, sep="\t"), "runs.tsv"),
        write(tmp_path, "\ufeff" + frame.to_csv(index=False), "excel.csv"),
        write(tmp_path, "\n".join(rows), "runs.jsonl"),
        tmp_path / "runs.parquet",
        str(tmp_path / "runs.parquet"),
        frame,
        {name: frame[name].to_numpy() for name in frame},
    ]
    for source in sources:
        table = read_runs(source, "N=params,loss=final_loss")
        assert table.N.tolist() == [1e7, 1e8]
        assert table.loss.tolist() == [4.0, 3.0]
        assert table.C.tolist() == [6 * 1e7 * 2e8, 6 * 1e8 * 2e9]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO(GOOD))
    assert len(read_runs("-", MAPPING)) == 3


def test_a_run_table_is_returned_as_it_is(tmp_path: Path) -> None:
    table = read_runs(write(tmp_path, GOOD), MAPPING)
    assert read_runs(table) is table


def test_pandas_is_not_needed_to_read_a_csv(tmp_path: Path) -> None:
    code = (
        "import sys; from scaling_sim.runs import read_runs; read_runs(sys.argv[1], 'N=params,loss=final_loss'); "
        "print(sorted({'pandas', 'pyarrow', 'scipy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(write(tmp_path, GOOD))]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_parse_columns() -> None:
    assert parse_columns("N=Model Size,C=Training FLOP,loss=loss") == {
        "N": "Model Size",
        "C": "Training FLOP",
        "loss": "loss",
    }
    assert parse_columns('N = params, "loss=eval, c4", C=') == {"N": "params", "loss": "eval, c4", "C": None}
    assert parse_columns("") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("N", r"must read OURS=THEIRS.*got 'N'"),
        ("token=x", r"unknown column 'token'.*did you mean tokens\?"),
        ("n=x", r"unknown column 'n'.*did you mean N\?"),
        ("N=a,N=b", "N is given twice"),
        ("zzz=x", "known: N, D, tokens"),
    ],
)
def test_parse_columns_names_the_mistake(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_columns(text)


def test_units_constants_and_joined_ids_in_a_mapping(tmp_path: Path) -> None:
    text = "model,seed,size_m,bs,steps,bits\nsmall,0,10,512,1000,5\nsmall,1,10,512,1000,5.1\n"
    mapping = {
        "run": "model+seed",
        "N": "size_m * 1e6",
        "B": "bs*2048",
        "S": "steps",
        "loss": f"bits * {math.log(2)}",
        "warmup": 100,
        "decayed": True,
    }
    table = read_runs(write(tmp_path, text), mapping)
    assert table.run.tolist() == ["small/0", "small/1"]
    assert table.N.tolist() == [1e7, 1e7]
    assert table.tokens.tolist() == [512 * 2048 * 1000.0] * 2
    assert table.loss == pytest.approx([5 * math.log(2), 5.1 * math.log(2)])
    assert table.warmup.tolist() == [100, 100]
    assert table.decayed.all()


def test_an_exact_name_wins_over_arithmetic(tmp_path: Path) -> None:
    text = "N,tokens,loss,loss * 2\n1e7,2e8,4,3\n"
    assert read_runs(write(tmp_path, text), {"loss": "loss * 2"}).loss.tolist() == [3]


def test_other_columns_are_kept(tmp_path: Path) -> None:
    text = "N,tokens,loss,lr,name\n1e7,2e8,4,0.1,a\n1e8,2e9,3,,b\n"
    table = read_runs(write(tmp_path, text))
    assert table.extra["name"].tolist() == ["a", "b"]
    assert table.extra["lr"][0] == 0.1
    assert math.isnan(table.extra["lr"][1])


# --------------------------------------------------------------------------------------------------------- derivation


@pytest.mark.parametrize(
    ("given", "tokens", "D", "C", "note"),
    [
        ({"N": 1e7, "C": 6e16}, 1e9, 1e9, 6e16, "tokens = C/(6·N)"),
        ({"N": 1e7, "D": 1e9}, 1e9, 1e9, 6e16, "one epoch, tokens = D"),
        ({"N": 1e7, "tokens": 4e9, "D": 1e9}, 4e9, 1e9, 24e16, "C = 6·N·tokens"),
        ({"N": 1e7, "tokens": 4e9}, 4e9, 4e9, 24e16, "one epoch, D = tokens"),
        ({"N": 1e7, "B": 1e6, "S": 4e3, "D": 1e9}, 4e9, 1e9, 24e16, "tokens = B·S"),
    ],
)
def test_definitions(given: dict[str, float], tokens: float, D: float, C: float, note: str) -> None:
    table = read_runs({**{name: [value] for name, value in given.items()}, "loss": [3.0]})
    assert (table.tokens[0], table.D[0]) == pytest.approx((tokens, D))
    assert table.C[0] == pytest.approx(C)
    assert any(note in text for text in table.notes)


def test_steps_and_batch_follow_from_tokens() -> None:
    assert read_runs({"N": [1e7], "tokens": [1e9], "B": [1e6], "loss": [3.0]}).S.tolist() == [1000]
    assert read_runs({"N": [1e7], "tokens": [1e9], "S": [1e3], "loss": [3.0]}).B.tolist() == [1e6]


def test_loss_error_from_an_interval() -> None:
    table = read_runs({"N": [1e7], "tokens": [1e9], "loss": [3.0], "loss_low": [2.9], "loss_high": [3.1]})
    assert table.loss_error[0] == pytest.approx(0.1 / 1.959964, rel=1e-5)
    with pytest.raises(DataError, match="needs loss_low and loss_high"):
        read_runs({"N": [1e7], "tokens": [1e9], "loss": [3.0], "loss_low": [2.9]})


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("1e8", "-1e8"), r"N \('params'\) must not be negative.*-1e\+08 in row 3"),
        (GOOD.replace("2e9", "-5"), r"tokens must be positive.*-5 in row 3"),
        (GOOD.replace("2e9", "0"), r"tokens must be positive and finite.*0 in row 3.*remove these rows"),
        (GOOD.replace("3.0", "0"), r"loss \('final_loss'\) must be positive.*0 in row 3"),
        (GOOD.replace("3.0", "-1").replace("2.5", "-1"), r"loss .* -1 in rows 3 and 4; losses are nats"),
        (GOOD.replace("1e8", "inf"), r"N .*infinite.*row 3"),
        (
            GOOD.replace("1e8", "100M"),
            r"column N \('params'\) must hold plain numbers .*, but row 3 has '100M'",
        ),
        (GOOD.replace("2e9", ""), r"tokens is empty in row 3; fill these cells"),
        (GOOD.replace("2e9", "nan"), r"tokens is not a number in row 3"),
        ("params,tokens,final_loss\n", "has no rows"),
        ("", r"is empty; it needs a header line"),
        (GOOD + "1,2\n", r"must have 3 cells like the header.*row 5"),
        ("params,params,final_loss\n1,2,3\n", "more than one column named 'params'"),
        ("params,tokens,final_loss\n1e7,1e9,nan\n", "no usable rows: 1 diverged"),
    ],
)
def test_impossible_rows_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_runs(write(tmp_path, text), MAPPING)


def test_row_numbers_count_blank_lines_as_a_spreadsheet_does(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="in row 5"):
        read_runs(write(tmp_path, "N,tokens,loss\n1e7,1e9,3\n\n\n1e7,1e9,-3\n"))


def test_row_names_of_other_sources(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    bad = {"N": [1e7, 1e7], "tokens": [1e9, 2e9], "loss": [3.0, -3.0]}
    with pytest.raises(DataError, match="index b"):
        read_runs(pd.DataFrame(bad, index=["a", "b"]))
    lines = [json.dumps({name: bad[name][i] for name in bad}) for i in range(2)]
    with pytest.raises(DataError, match="line 3"):
        read_runs(write(tmp_path, f"{lines[0]}\n\n{lines[1]}\n", "runs.jsonl"))
    with pytest.raises(DataError, match="line 2 is not JSON"):
        read_runs(write(tmp_path, f"{lines[0]}\n{{broken\n", "broken.jsonl"))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"N": "parms"}, r"no column 'parms' \(for N\); its columns are 'params', 'tokens', 'final_loss'.*N=params"),
        ({"N": "params"}, r"no column 'loss'; its columns are .*loss=final_loss"),
        ({"N": "params", "loss": "final_loss", "run": "a+b"}, r"no column 'a\+b' \(for run\)"),
    ],
)
def test_a_missing_column_lists_what_there_is(tmp_path: Path, mapping: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_runs(write(tmp_path, GOOD), mapping)


def test_a_table_with_nothing_but_losses_is_refused() -> None:
    with pytest.raises(DataError, match=r"no column 'N'.*N=n_params"):
        read_runs({"n_params": [1e7], "loss": [3.0]})


@pytest.mark.parametrize("name", ["absent.csv", "absent.parquet", "absent.jsonl"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"cannot read .*absent.*No such file"):
        read_runs(tmp_path / name)


def test_files_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot tell what .*runs\.pkl holds"):
        read_runs(write(tmp_path, "x", "runs.pkl"))
    with pytest.raises(DataError, match="is not a Parquet file"):
        read_runs(write(tmp_path, "this is text", "runs.parquet"))
    (tmp_path / "latin.csv").write_bytes(b"N,tokens,loss\n1e7,1e9,3\xff\n")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read_runs(tmp_path / "latin.csv")
    with pytest.raises(DataError, match=r"holds no runs\.sqlite"):
        read_runs(tmp_path)
    with pytest.raises(DataError, match="got int"):
        read_runs(3)


def test_losses_that_are_not_finite_are_diverged_and_empty_ones_unfinished(tmp_path: Path) -> None:
    text = "N,tokens,loss\n1e7,1e9,3\n1e7,2e9,nan\n1e7,3e9,inf\n1e7,4e9,\n"
    table = read_runs(write(tmp_path, text))
    assert len(table) == 1
    assert table.dropped == {"no loss yet": ("row 5",), "diverged": ("row 3", "row 4")}


def test_a_model_without_layers_is_kept_and_counted() -> None:
    table = read_runs({"N": [0, 1e7], "tokens": [1e9, 1e9], "loss": [5.0, 3.0]})
    assert table.counts()["N = 0"] == 1
    assert any("1 rows have N = 0" in note for note in table.notes)
    with pytest.raises(DataError, match=r"undefined for N = 0 in row 0"):
        read_runs({"N": [0, 1e7], "C": [1e9, 1e9], "loss": [5.0, 3.0]})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"N": [1e9, 1e9], "tokens": [1e10, 20.0], "loss": [3.0, 3.0]}, r"millions or billions.*in row 1$"),
        (
            {"N": [2.6, 0.4], "tokens": [112.0, 24], "loss": [2.2, 2.7]},
            r"are N and tokens in billions.*in rows 0 and 1$",
        ),
        (
            {"N": [2.6, 0.4], "C": [1e21, 1e20], "loss": [2.2, 2.7]},
            r"is N in billions.*N=their_name \* 1e9.*rows 0 and 1$",
        ),
        (
            {"N": [70.0, 400], "tokens": [1e9, 1e10], "loss": [2.7, 2.2]},
            r"is N in millions or billions\?.*rows 0 and 1$",
        ),
        ({"N": [1e9], "tokens": [1e10], "loss": [17.0]}, r"bits .*perplexity.*in row 0"),
        ({"N": [1e9], "tokens": [1e10], "C": [6e13], "loss": [3.0]}, r"C is more than 2×.*about 1e6.*in row 0"),
        ({"N": [1e9], "tokens": [1e10], "C": [1.4e20], "loss": [3.0]}, r"C is more than 2× away .*in row 0"),
    ],
)
def test_wrong_units_warn_and_keep_the_rows(columns: dict[str, list[float]], message: str) -> None:
    with pytest.warns(DataWarning, match=message):
        table = read_runs(columns)
    assert len(table) == len(columns["N"])
    assert any("in row" in note for note in table.notes)


def test_units_within_the_rules_do_not_warn() -> None:
    read_runs({"N": [1e9], "tokens": [1.01e7], "C": [1.1e17], "loss": [15.9]})
    exact = {"N": [1e5], "tokens": [1e9], "C": [4.3 * 6e14], "C_exact": [4.3 * 6e14], "loss": [3.0]}
    read_runs(exact)
    with pytest.warns(DataWarning, match="C is more than 2×"):
        read_runs({**exact, "C_exact": [6e14]})


def test_a_few_tiny_models_are_no_wrong_unit() -> None:
    read_runs({"N": [0, 500, 5e3, 1e4], "tokens": [1e5] * 4, "loss": [5.0, 4.0, 3.5, 3.0]})
    read_runs({"N": [500, 800], "tokens": [1e6, 2e6], "loss": [4.0, 3.5]})


def test_the_vocabulary_sharpens_the_loss_warning() -> None:
    columns = {"N": [1e6], "tokens": [1e8], "loss": [8.5]}
    read_runs(columns)
    with pytest.warns(DataWarning, match=r"1\.5 ln\(vocabulary\)"):
        read_runs(columns, vocab_size=256)


def checkpoints(**more: Any) -> dict[str, list[Any]]:
    """Two runs of four checkpoints each."""
    tokens = [1e9, 2e9, 3e9, 4e9]
    curves = {"N": [1e7] * 4 + [1e8] * 4, "tokens": tokens * 2, "loss": [4.0, 3.8, 3.81, 3.7, 3.5, 3.3, 3.2, 3.1]}
    return {**curves, **more}


@pytest.mark.parametrize("name", ["run_name", "exp", "wandb id"])
def test_checkpoints_without_a_run_id_look_like_learning_curves(name: str) -> None:
    columns = checkpoints(**{name: ["a"] * 4 + ["b"] * 4})
    with pytest.warns(DataWarning, match=rf"rows 0, 1, 2 and 1 more.*looks like learning curves.*map run={name}"):
        table = read_runs(columns)
    assert len(table) == 8
    assert any("looks like learning curves" in note for note in table.notes)
    read_runs(columns, {"run": name})


def test_checkpoints_by_whole_numbers_look_like_learning_curves() -> None:
    with pytest.warns(DataWarning, match=r"8 rows repeat 2 values of the column 'run_id'.*map run=run_id"):
        read_runs(checkpoints(run_id=[7] * 4 + [8] * 4))


@pytest.mark.parametrize("name", ["step", "global_step", "iteration", "Train steps"])
def test_checkpoints_by_step_look_like_learning_curves(name: str) -> None:
    columns = checkpoints(**{name: [100, 200, 300, 400] * 2})
    with pytest.warns(DataWarning, match=rf"8 rows repeat one N 2 times, by the column '{name}'.*give each run an id"):
        read_runs(columns)
    read_runs({**columns, "run": [0] * 4 + [1] * 4})


def test_sweeps_do_not_look_like_learning_curves() -> None:
    read_runs(checkpoints(size=["10M"] * 4 + ["100M"] * 4))  # a grid whose column of text names the model
    read_runs(checkpoints(run_name=list("abcdefgh")))
    read_runs(checkpoints(run_name=["a", "b"] * 4))  # one id, two sizes: no run
    read_runs(checkpoints(total_steps=[100, 200, 300, 400] * 2))  # the lengths of runs
    read_runs(checkpoints(run_name=[0.5] * 4 + [1.5] * 4))  # no whole numbers: a setting
    rises = checkpoints(run_name=["a"] * 4 + ["b"] * 4)
    read_runs({**rises, "loss": rises["loss"][::-1]})


def test_repeated_run_ids(tmp_path: Path) -> None:
    text = "run,N,tokens,loss\na,1e7,1e9,3\nb,1e7,1e9,3.1\na,1e7,1e9,3.2\n"
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=r"1 rows repeat a run id .*row 4.*'a'.*duplicates='first'"):
        read_runs(path)
    first, last = read_runs(path, duplicates="first"), read_runs(path, duplicates="last")
    assert first.loss.tolist() == [3, 3.1]
    assert last.loss.tolist() == [3.1, 3.2]
    assert first.dropped == {"repeated run id and step": ("a (row 4)",)}
    with pytest.raises(ConfigError, match="'refuse', 'first' or 'last'"):
        read_runs(path, duplicates="maybe")  # type: ignore[arg-type]


def test_one_run_id_is_one_model() -> None:
    with pytest.raises(DataError, match="one run id must be one model, but row 1 give another N"):
        read_runs({"run": ["a", "a"], "N": [1e7, 1e8], "tokens": [1e9, 2e9], "loss": [3.0, 2.9]})


def test_equal_rows_warn_but_equal_cells_with_other_seeds_do_not() -> None:
    columns: dict[str, list[Any]] = {"N": [1e7, 1e7], "tokens": [1e9, 1e9], "loss": [3.0, 3.0]}
    with pytest.warns(DataWarning, match="row 1 equal earlier rows in every column"):
        assert len(read_runs(columns)) == 2
    assert len(read_runs({**columns, "seed": [0, 1]})) == 2


# ------------------------------------------------------------------------------------------------------------- curves


def curve(**changes: Any) -> dict[str, Any]:
    steps = [50, 100, 200, 400]
    return {
        "run": ["a"] * 4,
        "N": [1e7] * 4,
        "B": [1e6] * 4,
        "S": steps,
        "loss": [6.0, 5.0, 4.0, 3.5],
        "warmup": [100] * 4,
        **changes,
    }


def test_a_constant_rate_curve_is_masked_and_flagged() -> None:
    table = read_runs(curve(), decayed=False)
    assert table.S.tolist() == [200, 400]
    assert table.curve.all()
    assert table.dropped == {"before twice the warm-up": ("a (row 0)", "a (row 1)")}
    assert table.row_names() == ("a@200", "a@400")


def test_a_curve_of_unknown_schedule_is_not_flagged_and_says_so() -> None:
    table = read_runs(curve())
    assert not table.curve.any()
    assert any("decayed=False says that the rate was constant" in note for note in table.notes)


def test_decayed_points_and_repeated_data_are_no_curve() -> None:
    decayed = read_runs(curve(decayed=[False, False, False, True]))
    assert decayed.curve.tolist() == [True, False]
    repeated = read_runs(curve(D=[1e9] * 4, S=[500, 900, 1500, 3000]), decayed=False)
    assert repeated.curve.tolist() == [True, True, False, False]


def test_a_short_single_run_warns_of_another_regime() -> None:
    with pytest.warns(DataWarning, match="row 0 ended before twice the warm-up"):
        read_runs({"N": [1e7], "B": [1e6], "S": [150], "warmup": [100], "loss": [3.0]})


def test_flags_come_from_columns_when_present() -> None:
    table = read_runs({"N": [1e7] * 3, "tokens": [1e9, 2e9, 3e9], "loss": [3.0] * 3, "stopped": ["yes", "no", 1]})
    assert table.stopped.tolist() == [True, False, True]
    with pytest.raises(DataError, match="stopped must hold true or false, but row 0 has 'maybe'"):
        read_runs({"N": [1e7], "tokens": [1e9], "loss": [3.0], "stopped": ["maybe"]})


# --------------------------------------------------------------------------------------------------- public data sets


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("file", "columns", "rows"),
    [
        ("epoch/svg_extracted_data.csv", "N=Model Size,C=Training FLOP,loss=loss", 245),
        ("takano/df.csv", "", 234),
        ("gadre/runs.csv", "run=name,loss=loss_c4_val,loss_low=lo95_c4_val,loss_high=hi95_c4_val", 104),
        (
            "gemstone/wandb_df_for_fitting_hot_100b+.jsonl",
            "run=run_name,N=params_active_precise,S=step,loss=final_loss",
            770,
        ),
        ("step_law/dense_lr_bs_loss.csv", "run=exp_name,B=bs * 2048,S=ti,loss=smooth loss", 1911),
        (
            "misfitting/scaling_results.csv",
            "run=model+sweep+peak_lr+total_steps+total_epochs,S=current_steps,tokens=D,D=,C=C_6ND",
            4837,
        ),
    ],
)
def test_public_data_sets_are_read_whole(shared_data: Path, file: str, columns: str, rows: int) -> None:
    table = read_runs(shared_data / file, columns, duplicates="first")
    assert len(table) == rows
    assert table.num_dropped == (15 if "misfitting" in file else 0)  # rows that repeat another one
    assert np.isfinite(table.C).all()


@pytest.mark.shared_data
def test_repeated_checkpoints_are_refused_by_row(shared_data: Path) -> None:
    columns = "run=model+sweep+peak_lr+total_steps,S=current_steps,tokens=D,D="
    with pytest.raises(DataError, match="36 rows repeat a run id"):
        read_runs(shared_data / "misfitting/scaling_results.csv", columns)


def test_the_repr_counts_everything() -> None:
    table: RunTable = read_runs({"N": [1e7, 1e7], "tokens": [1e9, 2e9], "loss": [3.0, math.nan]}, name="ours")
    assert repr(table) == "RunTable(ours: 1 rows, 1 runs, 1 dropped)"
