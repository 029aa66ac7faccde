from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import scaling_sim as ss
from scaling_sim.errors import ConfigError, StoreError
from scaling_sim.runs import RunRecord, RunStore
from scaling_sim.study import load_study, plan_study, report_on, run_study
from scaling_sim.study.config import read_study
from scaling_sim.study.plan import StudyPlan, first_sizes


@pytest.fixture(scope="module")
def finished(study_file: Path, tmp_path_factory: pytest.TempPathFactory) -> ss.Study:
    return ss.study(str(study_file), out=str(tmp_path_factory.mktemp("out") / "study"))


def losses(folder: Path) -> dict[str, list[float]]:
    with RunStore(folder / "runs.sqlite") as store:
        return {r.run_id: [point.losses["test"] for point in r.curve] for r in store.records()}


def test_a_study_leaves_everything_a_reader_needs(finished: ss.Study) -> None:
    assert finished.status_counts() == {"done": 12}
    assert finished.report_path.stat().st_size > 100_000
    facts = json.loads((finished.folder / "predictions.json").read_text())
    assert facts["fits"]["chinchilla"]["n_used"] == 9
    assert facts["simulated"] is False
    assert {path.name for path in (finished.folder / "tables").iterdir()} == {
        "runs.csv",
        "left_out.csv",
        "parameters_chinchilla.csv",
        "allocation_chinchilla.csv",
    }


def test_the_table_of_runs_is_clean(finished: ss.Study) -> None:
    rows = ss.read_runs(finished.folder / "tables" / "runs.csv")
    assert len(rows) == len(finished.runs)
    assert rows.decayed.tolist() == finished.runs.decayed.tolist()
    left_out = (finished.folder / "tables" / "left_out.csv").read_text().splitlines()
    assert len(left_out) == 1 + sum(len(names) for names in finished.runs.dropped.values())


def test_curves_and_final_losses_are_kept_apart(finished: ss.Study) -> None:
    assert finished.runs.decayed.sum() == 9
    assert not (finished.runs.decayed & finished.runs.curve).any()
    assert finished.fits["chinchilla"].roles == {"final": 9}


def test_the_same_command_again_trains_and_draws_nothing(finished: ss.Study, study_file: Path) -> None:
    before = finished.report_path.stat().st_mtime_ns
    said: list[str] = []
    again = run_study(study_file, finished.folder, say=said.append)
    assert again.to_json() == finished.to_json()
    assert finished.report_path.stat().st_mtime_ns == before
    assert not [line for line in said if line.startswith(("fitting", "writing"))]


def test_a_finished_study_can_be_opened(finished: ss.Study) -> None:
    opened = load_study(finished.folder)
    assert opened.runs.data_hash == finished.runs.data_hash
    assert len(repr(opened)) < 2000
    assert repr(opened).endswith(str(finished.report_path))


def test_a_killed_study_ends_where_an_undisturbed_one_does(
    finished: ss.Study, study_file: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "scaling_sim.cli", "sweep", str(study_file), "--out", str(tmp_path / "killed")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    store = tmp_path / "killed" / "runs.sqlite"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if store.exists() and any(record.status == "done" for record in _peek(store)):
            break
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert any(record.status != "done" for record in _peek(store)), "killed too late to show anything"
    subprocess.run(command, check=True, capture_output=True)
    assert losses(tmp_path / "killed") == losses(finished.folder)


def _peek(store: Path) -> list[RunRecord]:
    try:
        with RunStore(store, create=False) as opened:
            return opened.records()
    except StoreError:
        return []


def test_a_folder_belongs_to_one_study(finished: ss.Study, study_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds another study \('tiny'\): name, shapes"):
        run_study("laptop", finished.folder)
    with pytest.raises(ConfigError, match="seed differ"):
        run_study(study_file, finished.folder, seed=1)


def test_what_only_predictions_read_may_change(finished: ss.Study, study_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished.folder, folder)
    path = study_file.with_name("later.toml")
    path.write_text("target_pf_days = [1e-3]\n" + study_file.read_text())
    again = run_study(path, folder)
    assert again.predictions.allocations[0].compute.tolist() == [8.64e16]
    assert losses(folder) == losses(finished.folder)


def test_opening_a_study_writes_nothing(finished: ss.Study, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished.folder, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    report_on(folder, tmp_path / "report.html")
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before.get(path)} <= {folder / "runs.sqlite-shm"}
    assert (tmp_path / "report.html").stat().st_size > 100_000


def test_a_study_without_a_fit_is_no_success(study_file: Path, finished: ss.Study, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished.folder, folder)
    path = study_file.with_name("kaplan.toml")
    path.write_text(study_file.read_text().replace('laws = ["chinchilla"]', 'laws = ["kaplan"]'))
    again = run_study(path, folder)
    assert not again.converged
    assert any("kaplan was not fitted" in flag for flag in again.flags)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('laws = ["chinchilla"]', 'laws = ["chinchila"]', "chinchilla"),
        ("minutes = 3.0", "minutes = -1.0", "study.minutes must be positive"),
        ("branch_steps = [10, 25, 60]", "branch_steps = [10, 600]", "branch_steps must lie in"),
        ("batch_tokens = 64", "batch_tokens = 50", "multiple of n_ctx"),
        ("minutes = 3.0", "minutes = 3.0\ntarget_pf_days = [-1.0]", "target_pf_days"),
        ("n_layer = 2\nd_model = 8", "n_layer = 200\nd_model = 20000", "GiB"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(
    study_file: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = study_file.with_name("mistake.toml")
    text = study_file.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        run_study(path, tmp_path / "out")
    assert not (tmp_path / "out" / "choices.json").exists()


def test_the_seed_of_a_file_is_kept(study_file: Path, tmp_path: Path) -> None:
    path = study_file.with_name("seed.toml")
    path.write_text("seed = 7\n" + study_file.read_text())
    assert plan_study(path, tmp_path / "a").config.seed == 7
    assert plan_study(path, tmp_path / "a", seed=3).config.seed == 3


def test_a_dry_run_trains_nothing(study_file: Path, tmp_path: Path) -> None:
    plan = plan_study(study_file, tmp_path / "dry")
    facts = plan.to_json()
    assert facts["num_runs"] == 12
    assert facts["compute_flops"] > 0
    assert facts["expected_seconds"] > 0
    assert not (tmp_path / "dry" / "runs.sqlite").exists()
    assert "12 runs" in plan.describe()


@pytest.mark.parametrize(("seconds", "late"), [(100.0, False), (250.0, True), (370.0, True)])
def test_a_plan_that_is_expected_late_says_so(seconds: float, late: bool) -> None:
    """Five minutes less what fits and report take, and up to half as long again before sizes are left out."""
    plan = StudyPlan(read_study("laptop"), "stdlib", 10**6, (), seconds, ())
    assert ("Expected to be late" in plan.describe()) == late
    assert f"{plan.most_seconds:.0f} s" in plan.describe() or not late


def test_sizes_are_dropped_from_the_top_in_every_stage() -> None:
    smaller = first_sizes(read_study("laptop"), 4)
    assert len(smaller.shapes) == 4
    assert smaller.data is not None
    assert smaller.data.sizes == (2, 3)
    assert smaller.batches is not None
    assert smaller.batches.sizes == (1, 2)


def test_unknown_presets_and_fields_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a preset"):
        read_study("lapptop")
    path = tmp_path / "typo.toml"
    path.write_text('name = "x"\nstepps = 3\n')
    with pytest.raises(ConfigError, match="stepps"):
        read_study(path)


def test_the_laptop_preset_covers_what_it_promises() -> None:
    from scaling_sim.model.count import num_parameters

    config = read_study("laptop")
    sizes = [num_parameters(shape) for shape in config.shapes]
    assert sizes == sorted(sizes)
    assert len(sizes) == 6
    assert sizes[0] == 768
    assert 9e4 < sizes[-1] < 1.1e5
    assert config.data is not None
    assert (len(config.data.sizes), len(config.data.unique_tokens)) == (3, 6)
    assert config.batches is not None
    batches = sorted({config.curves.batch_tokens, *(batch for batch, _ in config.batches.batches)})
    assert len(batches) >= 4
    assert all(high == 4 * low for low, high in itertools.pairwise(batches))
    swept = {*config.batches.sizes, *config.curves.seed_sizes}
    assert len(config.batches.sizes) == 2
    assert all(sizes[size] <= 2.5e4 for size in swept)
    longest = max(config.curves.branch_steps) * (1 + config.curves.decay_fraction)
    assert longest * config.curves.batch_tokens < 9e6, "single-epoch runs must not repeat the standard library"
