"""Next runs from the command line: choose, export, make, read, fit again."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scaling_sim.inference import fit
from scaling_sim.predict.layout import Grid, log_spaced
from scaling_sim.predict.simulate import simulate
from scaling_sim.runs.table import read_runs


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pilot = Grid(N=log_spaced(3e6, 1e8, 5), tokens=None, tokens_per_parameter=log_spaced(2, 200, 4))
    runs = simulate({"law": "chinchilla"}, pilot, noise=0.002, seed=0)  # wide and clean: mixes 15 times faster
    path = tmp_path_factory.mktemp("fit") / "fit.nc"
    fit(runs, "chinchilla", seed=0, min_ess=200).save(path)
    return path


def test_a_plan_is_chosen_exported_made_and_read(
    saved: Path, facts: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    limits = ("--max-runs", "4", "--tokens-per-parameter", "5", "100")
    asked = ("design", str(saved), "--budget", "1e19", "--compute", "1e20", *limits)
    plan = facts(*asked, "--export", str(tmp_path / "plan.csv"), "--figure", str(tmp_path / "plan.svg"))
    assert plan["num_runs"] <= 4
    assert 0 < plan["cost_flop"] <= 1e19
    assert plan["sd_after"] < plan["sd_before"]
    assert sum(run["budget_share"] for run in plan["runs"]) == pytest.approx(plan["cost_flop"] / 1e19)
    assert all(4.99 < run["tokens"] / run["N_parameters"] < 100.1 for run in plan["runs"])
    assert (tmp_path / "plan.svg").read_text().startswith("<svg")
    (tmp_path / "t.py").write_text("import sys; print('loss', 2 + 1e6 / float(sys.argv[1]))")
    command = f"'{sys.executable}' '{tmp_path}/t.py' {{N}}"
    reading = ("--pattern", "loss (.*)", "--out", str(tmp_path / "o"))
    made = facts("execute", str(tmp_path / "plan.csv"), "--command", command, *reading)
    assert len(made["done"]) == plan["num_runs"]
    assert len(read_runs(made["table"])) == plan["num_runs"]


def test_other_targets_and_exports(saved: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    script, asked = tmp_path / "plan.slurm", ("-N", "1e9", "--tokens", "1e10", "--size", "1e7", "--size", "1e8")
    cli("design", str(saved), "--budget", "1e19", *asked, "--export", str(script), "--command", "train {N} {tokens}")
    assert "train 100000000 " in script.read_text()
    for arguments, message in (
        ((), "design needs one target"),
        (("--compute", "1e20", "--crossover"), "design needs one target"),
        (("--tokens", "1e9"), "needs its size"),
        (("--compute", "1e20", "--export", str(tmp_path / "x.txt")), "exported to"),
    ):
        assert message in cli("design", str(saved), "--budget", "1e19", *arguments, expect=2).stderr


def test_a_plan_of_which_nothing_is_done_exits_with_4(cli: Callable[..., Any], tmp_path: Path) -> None:
    """A failed run stops nothing, yet no table of losses is no success; one run that is done makes it one."""
    (tmp_path / "plan.csv").write_text("run,kind,N,tokens\na,final,1e6,1e7\nb,final,2e6,1e7\n")
    asked = ("execute", str(tmp_path / "plan.csv"), "--pattern", "loss (.*)", "--out", str(tmp_path / "o"))
    script = "import sys; print('loss', 'nan' if sys.argv[1] == sys.argv[2] else 3)"
    command = f"'{sys.executable}' -c \"{script}\" {{run}} "
    none = cli(*asked, "--json", expect=4)
    assert "0 of 2 runs done, 0 failed, 2 without a log" in none.stderr
    assert json.loads(none.stdout)["num_done"] == 0
    assert "0 of 2 runs done, 2 failed" in cli(*asked, "--command", command + "{run}", expect=4).stderr
    assert "1 of 2 runs done, 1 failed" in cli(*asked, "--command", command + "a").stderr
