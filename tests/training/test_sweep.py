import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from scaling_sim.data.corpus import Corpus
from scaling_sim.engine.reference import ReferenceBackend, ReferenceTrainer
from scaling_sim.errors import CheckpointWarning, ConfigError, DataWarning
from scaling_sim.runs.record import RunRecord
from scaling_sim.runs.store import RunStore
from scaling_sim.training import Job, Progress, SweepSummary, run_sweep, sweep
from scaling_sim.training.executor import LocalProcesses
from tests.training.runs import SHAPE, make_branch, make_corpus, make_job, numbers

ROOT = Path(__file__).resolve().parents[2]


def run(jobs: list[Job], corpus: Corpus, store: RunStore, folder: Path | None, **changes: Any) -> SweepSummary:
    options = {"backend": "numpy", "workers": 0, "checkpoint_seconds": 0.0, "heartbeat": 0.0, **changes}
    return run_sweep(jobs, corpus, store, checkpoints=folder, **options)


def stored(store: RunStore) -> dict[str, RunRecord]:
    return {record.run_id: numbers(record) for record in store.records()}


def sweep_jobs() -> list[Job]:
    """A parent with two branches, a data-limited run and one that diverges."""
    parent = make_job(steps=200, eval_points=8)
    return [
        parent,
        make_branch(parent, 50, 10),
        make_branch(parent, 200, 20),
        make_job("data", seed=2, unique_tokens=200, early_stop=True, patience=1, eval_points=10, peak_lr=0.03),
        make_job("lr", seed=4, peak_lr=1e20),
    ]


@pytest.fixture(scope="module")
def expected(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunRecord]:
    """What an undisturbed sweep in this process gives."""
    folder = tmp_path_factory.mktemp("expected")
    with RunStore(folder) as store:
        summary = run(sweep_jobs(), corpus, store, folder / "checkpoints")
        assert (summary.done, summary.diverged, summary.failed, summary.skipped) == (4, 1, 0, 0)
        assert not list((folder / "checkpoints").glob("cohort-*"))  # what is over leaves nothing but branch states
        return stored(store)


def test_every_run_ends_as_it_should(expected: dict[str, RunRecord]) -> None:
    parent, early, late, data, bad = (expected[job.run_id] for job in sweep_jobs())
    assert [r.status for r in (parent, early, late, data, bad)] == ["done", "done", "done", "stopped", "diverged"]
    assert early.result.step == 60
    assert late.result.losses["test"] < parent.result.losses["test"]  # decaying helps
    assert data.purposes == ("data",)


def test_the_same_call_again_trains_nothing(corpus: Corpus, store: RunStore, tmp_path: Path) -> None:
    jobs = [make_job(), make_job(seed=4, peak_lr=1e20)]
    run(jobs, corpus, store, tmp_path)
    before = store.records()
    summary = run([*jobs, make_job("seed")], corpus, store, tmp_path, progress=pytest.fail)
    assert (summary.skipped, summary.done, summary.flops) == (2, 0, 0.0)
    assert [msgspec.structs.replace(r, purposes=()) for r in store.records()] == [
        msgspec.structs.replace(r, purposes=()) for r in before
    ]
    assert store.get(jobs[0].run_id).purposes == ("curve", "seed")  # a new reason for an old run is noted


def test_local_processes_give_the_same_numbers(
    corpus: Corpus, store: RunStore, tmp_path: Path, expected: dict[str, RunRecord]
) -> None:
    heard: list[Progress] = []
    summary = run(sweep_jobs(), corpus, store, tmp_path, workers=2, progress=heard.append)
    assert stored(store) == expected
    assert summary.flops > 0
    assert heard[-1].finished == heard[-1].planned == 5
    assert heard[-1].share == 1.0
    lines = [line for progress in heard for line in progress.cohorts]
    assert {line.label for line in lines} == {"1×8 B=64"}
    assert any(line.seconds_left for line in lines)


class Recorded(LocalProcesses):
    """Local processes that a test can find."""

    last: "Recorded"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        Recorded.last = self


@pytest.mark.parametrize("seed", [0, 1])
def test_a_killed_worker_costs_its_last_chunk_only(
    corpus: Corpus,
    store: RunStore,
    tmp_path: Path,
    expected: dict[str, RunRecord],
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    monkeypatch.setattr(sweep, "LocalProcesses", Recorded)
    at_step = random.Random(seed).randrange(20, 150)
    killed: list[int] = []
    after: list[int] = []

    def kill(progress: Progress) -> None:
        steps = [line.step for line in progress.cohorts if line.steps == 200]
        if steps and not killed and steps[0] >= at_step:
            killed.append(steps[0])
            os.kill(Recorded.last.pids[0], signal.SIGKILL)
        elif steps and killed and any("continues" in m for m in [progress.message, *said]):
            after.append(steps[0])
        said.append(progress.message)

    said: list[str] = []
    summary = run(sweep_jobs(), corpus, store, tmp_path, workers=1, progress=kill)
    assert stored(store) == expected
    assert killed
    assert any("continues from its last checkpoint" in message for message in summary.messages)
    assert after[0] > 1  # it did not begin again


def test_a_worker_that_always_dies_fails_its_runs_and_no_others(
    corpus: Corpus, store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "LocalProcesses", Recorded)
    doomed, fine = make_job(steps=100_000, eval_points=4, warmup_steps=60_000), make_job(seed=1)

    def kill(progress: Progress) -> None:
        if any(line.steps == 100_000 for line in progress.cohorts):
            os.kill(Recorded.last.pids[0], signal.SIGKILL)

    summary = run([doomed, fine], corpus, store, tmp_path, workers=1, progress=kill)
    assert (summary.done, summary.failed) == (1, 1)
    record = store.get(doomed.run_id)
    assert record.status == "failed"
    assert "-9, 3 times" in record.message


def interrupt_at(step: int) -> Callable[[Progress], None]:
    def progress(progress: Progress) -> None:
        if any(line.step >= step and line.steps == 200 for line in progress.cohorts):
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("workers", [0, 2])
def test_interrupt_then_the_same_call_gives_the_same_result(
    corpus: Corpus, store: RunStore, tmp_path: Path, expected: dict[str, RunRecord], workers: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(sweep_jobs(), corpus, store, tmp_path, workers=workers, progress=interrupt_at(70))
    assert store.get(sweep_jobs()[0].run_id).status == "running"
    heard: list[Progress] = []
    run(sweep_jobs(), corpus, store, tmp_path, workers=workers, progress=heard.append)
    assert stored(store) == expected
    assert min(line.step for p in heard for line in p.cohorts if line.steps == 200) > 20


def test_kill_9_of_the_driver_loses_nothing(
    corpus: Corpus, store: RunStore, tmp_path: Path, expected: dict[str, RunRecord]
) -> None:
    store.close()
    script = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from scaling_sim.runs.store import RunStore
        from tests.training.runs import make_corpus
        from tests.training.test_sweep import run, sweep_jobs
        with RunStore({str(tmp_path / "study")!r}) as store:
            run(sweep_jobs(), make_corpus(), store, Path({str(tmp_path)!r}), workers=1,
                progress=lambda p: print(max([line.step for line in p.cohorts], default=0), flush=True))
    """)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")])}
    driver = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment)
    assert driver.stdout is not None
    with driver.stdout:
        while int(driver.stdout.readline()) < 60:
            pass
        driver.kill()
    driver.wait()
    time.sleep(0.5)  # its worker notices, saves and ends
    with RunStore(tmp_path / "study") as again:
        heard: list[Progress] = []
        run(sweep_jobs(), corpus, again, tmp_path, progress=heard.append)
        assert stored(again) == expected
        assert min(line.step for p in heard for line in p.cohorts if line.steps == 200) > 20


def test_a_corrupt_checkpoint_is_set_aside_and_the_one_before_used(
    corpus: Corpus, store: RunStore, tmp_path: Path, expected: dict[str, RunRecord]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(sweep_jobs(), corpus, store, tmp_path, progress=interrupt_at(70))
    newest = max(tmp_path.glob("cohort-*/step-*/state.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-7])
    with pytest.warns(CheckpointWarning, match="going back to the one before"):
        run(sweep_jobs(), corpus, store, tmp_path)
    assert stored(store) == expected


class _FailingTrainer(ReferenceTrainer):
    def advance(self, first_step: int, starts: Any, lr: Any) -> Any:
        if any(member.seed == 13 for member in self.members) and first_step > 5:
            raise RuntimeError("a cosmic ray")
        return super().advance(first_step, starts, lr)


class _Failing(ReferenceBackend):
    """The reference, but seed 13 raises an error after a few steps."""

    name = "failing"

    def start(self, cohort: Any, splits: Any, device: str = "cpu", precision: Any = "float32") -> Any:
        return _FailingTrainer(cohort, splits, np.float32)


def test_one_failed_run_never_stops_a_sweep_and_is_tried_again(
    corpus: Corpus, store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [make_job(seed=seed) for seed in (12, 13, 14)]
    with monkeypatch.context() as patch:
        for module in ("placement", "worker"):
            patch.setattr(f"scaling_sim.training.{module}.get_backend", lambda name: _Failing())
        patch.setattr("scaling_sim.training.cohort_size.MOST_MEMBERS", {"cuda": 8, "cpu": 8})  # all in one cohort
        summary = run(jobs, corpus, store, tmp_path)
    assert (summary.done, summary.failed) == (2, 1)
    assert store.get(jobs[1].run_id).status == "failed"
    assert "cosmic ray" in store.get(jobs[1].run_id).message
    assert any("at a time" in message for message in summary.messages)
    summary = run(jobs, corpus, store, tmp_path)
    assert (summary.done, summary.skipped) == (1, 2)
    assert store.get(jobs[1].run_id).message == ""


def test_an_error_of_the_caller_s_progress_is_the_caller_s(corpus: Corpus, store: RunStore, tmp_path: Path) -> None:
    def broken(progress: Progress) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run([make_job()], corpus, store, tmp_path, progress=broken)
    assert store.get(make_job().run_id).status != "failed"


def test_a_branch_of_a_run_that_was_finished_before_repeats_its_steps(
    corpus: Corpus, store: RunStore, tmp_path: Path, expected: dict[str, RunRecord]
) -> None:
    parent, branch, *_ = sweep_jobs()
    run([parent], corpus, store, tmp_path)
    summary = run([branch], corpus, store, tmp_path)
    assert any("repeated" in message for message in summary.messages)
    assert stored(store)[branch.run_id].result.losses == expected[branch.run_id].result.losses


def test_a_branch_of_a_diverged_parent_fails_and_says_so(corpus: Corpus, store: RunStore, tmp_path: Path) -> None:
    parent = make_job(peak_lr=1e20)
    branch = make_branch(parent, 40, 5)
    summary = run([parent, branch], corpus, store, tmp_path)
    assert (summary.diverged, summary.failed) == (1, 1)
    assert f"parent {parent.run_id} ended before step 40" in store.get(branch.run_id).message


def test_without_a_checkpoint_folder_branches_still_work(
    corpus: Corpus, store: RunStore, expected: dict[str, RunRecord]
) -> None:
    parent, branch, *_ = sweep_jobs()
    with pytest.warns(CheckpointWarning, match="repeat their parents' steps"):
        run([parent, branch], corpus, store, None)
    assert stored(store)[branch.run_id].result.losses == expected[branch.run_id].result.losses


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (make_job(corpus="0" * 16), "planned for corpus"),
        (make_job(batch_tokens=65), "multiple of n_ctx"),
        (make_job(unique_tokens=6001), "6000 .the training split."),
        (make_job(unique_tokens=16), "shorten the context"),
        (make_job(shape=msgspec.structs.replace(SHAPE, vocab_size=15)), "vocab_size 15 is too small"),
        (make_job(parent="nobody", branch_step=3, steps=6, schedule="decay", decay_steps=2), "neither among the jobs"),
        (make_branch(make_job(seed=1), 61, 3), "neither among"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is(
    corpus: Corpus, store: RunStore, tmp_path: Path, job: Job, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run([make_job(seed=9), job], corpus, store, tmp_path)
    assert len(store) == 0


def test_a_branch_must_continue_its_parent(corpus: Corpus, store: RunStore, tmp_path: Path) -> None:
    parent = make_job()
    good = make_branch(parent, 40, 5).config
    other_seed = msgspec.structs.replace(good, recipe=msgspec.structs.replace(good.recipe, seed=1))
    for config, message in (
        (other_seed, "must share seed with its parent"),
        (make_branch(parent, 61, 5).config, "branch_step lie in 1..60"),
    ):
        with pytest.raises(ConfigError, match=message):
            run([parent, Job(config)], corpus, store, tmp_path)


def test_an_unwritable_folder_is_refused_at_once(corpus: Corpus, store: RunStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot create the folder"):
        run([make_job()], corpus, store, tmp_path / "file" / "checkpoints")


def test_held_out_text_that_is_too_short_is_left_out_aloud(store: RunStore, tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match="tiny"):
        run([make_job(steps=5)], make_corpus(tiny=16), store, tmp_path)
    assert set(store.get(make_job(steps=5).run_id).result.losses) == {"validation", "test", "prose"}


def test_training_imports_with_numpy_and_msgspec_alone() -> None:
    script = "import sys, scaling_sim.training; print(*{name.partition('.')[0] for name in sys.modules})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    loaded = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    heavy = {"scipy", "numba", "torch", "safetensors", "pandas", "matplotlib", "rich", "emcee", "arviz_base", "pyarrow"}
    names = set(loaded.stdout.split())
    assert not heavy & names
    assert {"numpy", "msgspec"} <= names
