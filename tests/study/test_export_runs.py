"""Planned runs as a table, a Slurm array and sweep files: what a reader of each makes of them."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from scaling_sim.errors import ConfigError
from scaling_sim.model.count import num_parameters
from scaling_sim.predict.candidates import Candidate
from scaling_sim.predict.design import PlannedRun
from scaling_sim.runs.table import read_runs
from scaling_sim.study.config import read_study
from scaling_sim.study.export_runs import export_runs, nearest_shape, plan_csv
from scaling_sim.study.external import execute, read_plan
from scaling_sim.study.jobs import study_jobs
from scaling_sim.study.logs import LogFormat

FINAL = PlannedRun("final-1", Candidate("final", 1e6, 6 * 1e6 * 3e7, tokens=3e7, B=2e4, S=1500.0), 0)
SECOND = PlannedRun("final-2", Candidate("final", 1e6, 6 * 1e6 * 6e7, tokens=6e7, B=2e4, S=3000.0), 0)
CURVE = PlannedRun("curve-1", Candidate("curve", 4e6, 6 * 4e6 * 8e7, tokens=8e7, B=2e4, S=4000.0), 0)
STOPPED = PlannedRun("stopped-1", Candidate("stopped", 1e6, 6 * 1e6 * 2e7, D=1e6, B=2e4), 0)
TRAINER = """import sys
print(sys.argv[1:])
print("final loss", 2 + 1e6 / float(sys.argv[2]))
sys.exit(sys.argv[1] == "final-2")
"""
RUNS = [FINAL, SECOND, CURVE, STOPPED]


def test_a_plan_is_read_back_as_it_was(tmp_path: Path) -> None:
    (path,) = export_runs(RUNS, tmp_path / "plan.csv")
    for run, row in zip(RUNS, read_plan(path), strict=True):
        assert row == {name: value for name, value in run.values().items() if value is not None}


@pytest.mark.parametrize("name", ["=cmd|'/c calc'!A1", "+1", "-1", "@x"])
def test_no_cell_of_a_plan_is_a_formula(name: str) -> None:
    (row,) = list(csv.DictReader(plan_csv([replace(FINAL, run=name)]).splitlines()))
    assert row["run"] == f"'{name}"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_tasks_of_a_slurm_array_make_their_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words with spaces, quotes and shell syntax arrive as they are, and the logs are read by `execute`."""
    monkeypatch.chdir(tmp_path)
    Path("train it.py").write_text(TRAINER)
    command = f"'{sys.executable}' 'train it.py' {{run}} {{N}} \"$(touch pwned); it's & {{tokens}}\""
    (path,) = export_runs([FINAL, SECOND], "plan.slurm", command=command, out="my runs")
    for task in ("0", "1"):
        environment = {**os.environ, "SLURM_ARRAY_TASK_ID": task}
        code = subprocess.run(["bash", str(path)], env=environment, check=False).returncode
        assert code == int(task)
    assert not Path("pwned").exists()
    assert "['final-1', '1000000', \"$(touch pwned); it's & 30000000\"]" in Path("my runs/final-1/log.txt").read_text()
    found = execute([FINAL.values(), SECOND.values()], None, LogFormat.of(pattern="final loss (.*)"), "my runs")
    assert found.failed == {"final-2": "ended with code 1"}
    assert read_runs(found.table).loss.tolist() == [3.0]
    assert "#SBATCH --array=0-1\n" in path.read_text()
    outside = subprocess.run(["bash", str(path)], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert "start this with sbatch" in outside.stderr


def test_a_line_break_cannot_end_a_line_of_the_script() -> None:
    for given in ({"command": "train\n#SBATCH --x", "out": "a"}, {"command": "train", "out": "a\nrm b"}):
        with pytest.raises(ConfigError, match="control characters"):
            export_runs([FINAL], "plan.slurm", **given)


def test_sweep_files_hold_the_planned_runs(tmp_path: Path) -> None:
    paths = export_runs(RUNS, tmp_path / "next.toml", n_ctx=32)
    assert len(paths) == 2
    studies = {round(num_parameters(s.shapes[0])): s for s in map(read_study, paths)}
    small, large = (studies[N] for N in sorted(studies))
    assert num_parameters(small.shapes[0]) == pytest.approx(1e6, rel=0.1)
    jobs = study_jobs(small, "hash", 10**9, lambda shape: 1e-3)
    ends = sorted(job.config.recipe.batch_tokens * job.config.recipe.steps for job in jobs if "final" in job.purposes)
    assert ends == pytest.approx([3e7, 6e7], rel=0.01)
    (data,) = [job.config for job in jobs if "data" in job.purposes]
    assert (data.unique_tokens, data.early_stop) == (1_000_000, True)
    (curve,) = study_jobs(large, "hash", 10**9, lambda shape: 1e-3)
    assert curve.config.recipe.batch_tokens * curve.config.recipe.steps == pytest.approx(8e7, rel=0.01)
    assert large.data is None


def test_runs_of_one_size_keep_their_batches(tmp_path: Path) -> None:
    """A curve at another batch says what the critical batch is: in one file with the rest it would lose it."""
    other = PlannedRun("curve-2", replace(CURVE.candidate, B=3.2e5, S=250.0), 0)
    paths = export_runs([CURVE, other], tmp_path / "next.toml", n_ctx=32)
    assert [path.name.partition("-batch-")[2] for path in paths] == ["20000.toml", "320000.toml"]
    for path, run in zip(paths, (CURVE, other), strict=True):
        (job,) = study_jobs(read_study(path), "hash", 10**9, lambda shape: 1e-3)
        assert (job.config.recipe.batch_tokens, job.config.recipe.steps) == (run.candidate.B, run.candidate.S)


def test_the_curve_of_a_size_with_stopped_runs_alone_ends_within_its_warm_up(tmp_path: Path) -> None:
    (path,) = export_runs([STOPPED], tmp_path / "next.toml")
    curves = read_study(path).curves
    assert curves.steps < 2 * curves.warmup_steps  # no fit reads it


@pytest.mark.parametrize("N", [500.0, 2.4e3, 1e5, 1e7, 1.3e8, 7e9, 1.75e11])
def test_shapes_are_near_the_sizes_asked_for(N: float) -> None:
    shape = nearest_shape(N, 64, 256)
    assert num_parameters(shape) == pytest.approx(N, rel=0.25 if N < 1e4 else 0.06)
    assert N < 1e6 or 20 < shape.d_model / shape.n_layer < 200


def test_exports_that_cannot_be_made_say_why(tmp_path: Path) -> None:
    for path, runs, message in (
        ("plan.txt", RUNS, r"exported to .csv, .slurm \(or .sh\) or .toml, got 'plan.txt'"),
        ("plan.csv", [], "no runs to export"),
        ("plan.slurm", RUNS, "needs the training command"),
        ("plan.toml", [replace(FINAL, candidate=replace(FINAL.candidate, B=None))], "needs the tokens per step"),
        ("plan.toml", [replace(FINAL, candidate=replace(FINAL.candidate, B=3e6))], "within twice its warm-up"),
    ):
        with pytest.raises(ConfigError, match=message):
            export_runs(runs, tmp_path / path)
