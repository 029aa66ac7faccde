"""The command line from outside: what it prints, where, and how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import scaling_sim.cli
from scaling_sim.cli.app import app

VERBS = sorted(command.callback.__name__ for command in app.registered_commands if command.callback)


def run(*arguments: str, expect: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "80"}
    command = [sys.executable, "-m", "scaling_sim.cli", *arguments]
    outcome = subprocess.run(command, capture_output=True, text=True, env=environment, **options)
    assert outcome.returncode == expect, outcome.stderr
    return outcome


def as_json(*arguments: str, expect: int = 0, **options: Any) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(run(*arguments, "--json", expect=expect, **options).stdout)
    return facts


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "runs.csv"
    run("simulate", "--law", "chinchilla", "--seed", "3", "--out", str(path))
    return path


@pytest.fixture(scope="module")
def fit_file(simulated: Path) -> Path:
    path = simulated.with_name("fit.nc")
    run("fit", str(simulated), "--law", "chinchilla", "--out", str(path))
    return path


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.25), (0.2, 0.6)])
def test_two_simulated_sweeps_are_recovered(alpha: float, beta: float, tmp_path: Path) -> None:
    path = str(tmp_path / "runs.csv")
    run("simulate", "-p", f"alpha={alpha}", "-p", f"beta={beta}", "--seed", "1", "--out", path)
    facts = as_json("fit", path, "--law", "chinchilla")
    assert facts["simulated"] is True
    for name, truth in (("alpha", alpha), ("beta", beta)):
        low, high = facts[name]["interval90"]
        assert low <= truth <= high


@pytest.mark.parametrize(("constants", "low", "high"), [("kaplan-table6", 5e3, 2e4), ("kaplan-eq6.7", 5e4, 2e5)])
def test_the_crossover_of_published_constants(constants: str, low: float, high: float) -> None:
    facts = as_json("crossover", "--constants", constants)
    assert low <= facts["C_pf_days"]["median"] <= high
    assert facts["probability_none"] == 0


def test_predictions_of_a_fit(fit_file: Path) -> None:
    allocation = as_json("allocate", str(fit_file), "--compute", "5.76e23")
    N, D = allocation["N_parameters"]["median"], allocation["D_tokens"]["median"]
    assert pytest.approx(5.76e23, rel=0.05) == 6 * N * D
    forecast = as_json("forecast", str(fit_file), "-N", "1e9", "-D", "2e10")
    low, high = forecast["loss_nats"]["interval90"]
    assert low < forecast["loss_nats"]["median"] < high


def test_a_single_epoch_law_has_no_crossover(fit_file: Path) -> None:
    assert "no crossover from 'chinchilla'" in run("crossover", str(fit_file), expect=4).stderr


def test_the_reference_page_lists_every_verb() -> None:
    page = (Path(scaling_sim.cli.__file__).parents[2] / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert [verb for verb in VERBS if f"`scaling-sim {verb}" not in page] == []


def test_every_verb_takes_json_and_seed() -> None:
    for verb in VERBS:
        outcome = run(verb, "--json", "--seed", "1", "--no-such-option", expect=2)
        assert "no-such-option" in outcome.stderr.replace("\n", "")


def test_budgets_in_money_and_hours(fit_file: Path) -> None:
    hours = as_json(
        "allocate", str(fit_file), "--gpu-hours", "100", "--flops-per-second", "1e15", "--utilisation", "0.4"
    )
    price = ("--money", "200", "--price-per-gpu-hour", "2", "--flops-per-second", "4e14")
    assert hours["compute_flop"] == pytest.approx(as_json("allocate", str(fit_file), *price)["compute_flop"])


def test_laws_on_different_rows_are_compared_on_common_ones(fit_file: Path) -> None:
    other = fit_file.with_name("power.nc")
    run("fit", str(fit_file.with_name("runs.csv")), "--law", "power-c", "--out", str(other))
    facts = as_json("compare", str(fit_file), str(other))
    assert facts["loo"]["units_not_judged"]["chinchilla"] > 0
    assert facts["loo"]["units_not_judged"]["power-c"] == 0
    assert "chinchilla also learned from" in facts["verdict"]
    assert "two or more different laws" in run("compare", str(fit_file), expect=4).stderr


def test_laws_are_compared_on_the_rows_that_are_chosen(simulated: Path, tmp_path: Path) -> None:
    header, *rows = simulated.read_text().splitlines()
    junk = header.split(",").index("loss")
    wrong = [",".join("-1" if k == junk else cell for k, cell in enumerate(row.split(","))) for row in rows[:5]]
    mixed = tmp_path / "mixed.csv"
    kinds = [f"{row},good" for row in rows] + [f"{rows[0]},good"] + [f"{row},bad" for row in wrong]
    mixed.write_text("\n".join([f"{header},kind", *kinds]) + "\n")
    laws = ("--law", "power-c", "--law", "chinchilla")
    reading = ("--where", "kind=good", "--duplicates", "first")
    same = as_json("compare", str(mixed), *laws, *reading)
    assert same["loo"] == as_json("compare", str(simulated), *laws)["loo"]
    assert "must be positive" in run("compare", str(mixed), *laws, expect=4).stderr
    wrong_option = run("compare", str(mixed), *laws, *reading, "--option", "source=sweep", expect=2)
    assert "none of the laws power-c, chinchilla has the option 'source'" in wrong_option.stderr
    assert "they go with --law" in run("compare", str(mixed), "--where", "kind=good", expect=2).stderr


def test_methods_of_finding_the_best_size(fit_file: Path) -> None:
    facts = as_json("compare", str(fit_file), "--methods", "-C", "1e21", "-C", "1e22")
    assert facts["compute_flop"] == [1e21, 1e22]
    assert set(facts["methods"]) | set(facts["cannot_be_made"]) == {"law", "isoflop", "envelope"}
    assert 0 < facts["methods"]["law"]["exponent"]["median"] < 1
    assert facts["verdict"]
    assert "--compute goes with --methods" in run("compare", str(fit_file), "-C", "1e21", expect=2).stderr


def test_a_report_of_a_fit(fit_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert run("report", str(fit_file), "--out", str(out)).stdout.strip() == str(out)
    text = out.read_text()
    assert "imulated" in text
    assert "http://" not in text.replace("http://www.w3.org", "")


def test_results_on_stdout_progress_on_stderr(simulated: Path) -> None:
    outcome = run("runs", str(simulated), "--json")
    assert json.loads(outcome.stdout)["simulated"] is True


def test_runs_from_a_pipe(simulated: Path) -> None:
    assert as_json("runs", "-", input=simulated.read_text())["n_rows"] > 50


def test_export_round_trip(simulated: Path, tmp_path: Path) -> None:
    out = tmp_path / "again.parquet"
    run("runs", str(simulated), "--export", str(out))
    assert as_json("runs", str(out))["data_hash"] == as_json("runs", str(simulated))["data_hash"]
    assert ".csv or .parquet" in run("runs", str(simulated), "--export", str(tmp_path / "x.xls"), expect=2).stderr


def test_usage_errors_exit_with_2(fit_file: Path, tmp_path: Path) -> None:
    assert "neither a preset" in run("study", "no-such-preset", "--out", str(tmp_path), expect=2).stderr
    assert "valid" in run("crossover", "--constants", "kaplan", expect=2).stderr
    assert "one of the two" in run("allocate", "--compute", "1e20", expect=2).stderr
    run("no-such-verb", expect=2)
    for verb in (("fit", str(fit_file.with_name("runs.csv"))), ("simulate",)):
        outcome = run(*verb, "--law", "chinchila", expect=2)
        assert "chinchilla" in outcome.stderr
        assert "Traceback" not in outcome.stderr
    assert "there is no file" in run("allocate", str(tmp_path / "none.nc"), "--compute", "1e20", expect=4).stderr
    run("fit", "missing.csv", expect=4)


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot create the folder" in run("study", "laptop", "--out", str(tmp_path / "file" / "x"), expect=2).stderr


def test_a_typo_in_a_configuration_gets_a_suggestion(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('name = "x"\nminuts = 3.0\n')
    assert "did you mean `minutes`?" in run("study", str(path), "--out", str(tmp_path / "out"), expect=2).stderr


def test_every_verb_has_an_example() -> None:
    listing = run("--help").stdout
    for verb in VERBS:
        assert verb in listing
        assert "Example: scaling-sim" in run(verb, "--help").stdout


def test_listings() -> None:
    assert set(as_json("backends")) >= {"numpy", "numba", "torch", "cupy"}
    assert "chinchilla" in as_json("laws")
    rows = as_json("reproduce", "kaplan-arithmetic")["rows"]
    assert any(row["printed"] == 0.052 and abs(row["ours"] - 0.052) < 5e-4 for row in rows)
