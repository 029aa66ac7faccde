from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaling_sim.data.corpus import Corpus
from scaling_sim.engine.registry import get_backend
from scaling_sim.model.count import flops_per_token
from scaling_sim.runs.record import RunRecord
from scaling_sim.training.job import Job
from scaling_sim.training.loop import CohortLoop
from scaling_sim.training.planner import plan_cohorts
from scaling_sim.training.resume import Resume
from tests.training.runs import SHAPE, Ear, make_branch, make_job

ORIGIN = "numpy-float32"


def train(
    jobs: list[Job], corpus: Corpus, folder: Path | None = None, *, stop_at: int = -1, **changes: Any
) -> tuple[bool, dict[str, RunRecord], Ear]:
    """Train on the reference, from the newest checkpoint if there is one."""
    starts = Resume(folder, ORIGIN).starts(jobs)
    ear, complete, branches = Ear(stop_at), True, changes.pop("branches", {})
    for plan in plan_cohorts(jobs, starts=starts):
        task = plan.task(branches, None if folder is None else str(folder), ORIGIN)
        loop = CohortLoop(task, corpus.splits, get_backend("numpy"), "cpu", "float32", ear, **changes)
        complete = loop.run() and complete
    return complete, ear.records, ear


def cohort() -> list[Job]:
    """Three seeds of different length, with dropout and early stopping."""
    return [
        make_job(seed=0),
        make_job(seed=1, steps=45, dropout=0.1),
        make_job("data", seed=2, unique_tokens=200, early_stop=True, patience=1, eval_points=10, peak_lr=0.03),
    ]


@pytest.fixture(scope="module")
def whole(corpus: Corpus) -> dict[str, RunRecord]:
    return train(cohort(), corpus)[1]


def test_a_run_learns_and_its_record_is_complete(whole: dict[str, RunRecord]) -> None:
    job = cohort()[0]
    record = whole[job.run_id]
    assert record.status == "done"
    assert [point.step for point in record.curve][-1] == 60
    result = record.result
    assert result is not None
    assert result.losses["test"] < 0.7 * np.log(16)
    assert set(result.losses) == set(result.errors) == set(result.last_position) == {"validation", "test", "prose"}
    assert all(0 < error < 0.2 for error in result.errors.values())
    assert result.tokens == 60 * 64
    assert result.lr == 0.01
    assert abs(result.train - result.losses["test"]) < 0.3
    assert len(result.positions) == 5  # [1], [2], [3, 4], [5..8], [9..16]
    assert np.dot(result.positions, [1, 1, 2, 4, 8]) / 16 == pytest.approx(result.losses["test"])
    assert result.positions[0] > result.positions[-1]  # without context there is less to go by
    assert result.noise_scale is not None
    assert 1 < result.noise_scale < 1e5
    assert record.flops == 60 * 64 * flops_per_token(SHAPE, "exact")
    assert (record.backend, record.device, record.precision) == ("numpy", "cpu", "float32")
    assert record.versions["numpy"] == np.__version__


def test_early_stopping_returns_the_minimum(whole: dict[str, RunRecord]) -> None:
    record = whole[cohort()[2].run_id]
    losses = [point.losses["validation"] for point in record.curve]
    assert record.status == "stopped"
    assert record.best == int(np.argmin(losses)) < len(losses) - 1


def test_a_member_s_numbers_do_not_depend_on_its_cohort(corpus: Corpus, whole: dict[str, RunRecord]) -> None:
    for job in cohort():
        assert train([job], corpus)[1] == {job.run_id: whole[job.run_id]}


def test_numbers_do_not_depend_on_chunks(corpus: Corpus, whole: dict[str, RunRecord]) -> None:
    assert train(cohort(), corpus, chunk_seconds=1e-9)[1] == whole


@pytest.mark.parametrize("stop_at", [1, 4, 17, 30])
def test_resume_equals_no_interruption_bit_for_bit(
    corpus: Corpus, whole: dict[str, RunRecord], tmp_path: Path, stop_at: int
) -> None:
    complete, before, _ = train(cohort(), corpus, tmp_path, stop_at=stop_at, chunk_seconds=1e-9)
    assert not complete
    left = [job for job in cohort() if job.run_id not in before]
    complete, after, ear = train(left, corpus, tmp_path)
    assert complete
    assert min(word.step for word in ear.words) > stop_at  # it did not begin again
    assert before | after == whole
    assert train(left, corpus, tmp_path)[1] == after  # resuming twice changes nothing


def test_a_diverged_member_leaves_the_others_untouched(corpus: Corpus) -> None:
    good, bad = make_job(seed=3), make_job(seed=4, peak_lr=1e20)
    _, records, _ = train([good, bad], corpus)
    assert records[bad.run_id].status == "diverged"
    assert "step" in records[bad.run_id].message
    assert records[good.run_id] == train([good], corpus)[1][good.run_id]


def test_a_branch_from_a_kept_state_equals_the_whole_run(corpus: Corpus, tmp_path: Path) -> None:
    parent = make_job(seed=5)
    branch = make_branch(parent, 40, 12)
    train([parent], corpus, tmp_path, branches={parent.run_id: (40,)})
    start = Resume(tmp_path, ORIGIN).branch(branch)
    assert start is not None
    (plan,) = plan_cohorts([branch], starts={branch.run_id: (40, start)})
    ear = Ear()
    CohortLoop(plan.task(), corpus.splits, get_backend("numpy"), "cpu", "float32", ear).run()
    from_branch = ear.records[branch.run_id]
    from_scratch = train([branch], corpus)[1][branch.run_id]  # without a folder it repeats its parent's steps
    assert [p.losses for p in from_branch.curve] == [p.losses for p in from_scratch.curve]
    assert from_branch.flops == from_scratch.flops == 52 * 64 * flops_per_token(SHAPE, "exact")
    assert from_branch.result.lr == pytest.approx(0.01 / 24)


def test_states_of_another_backend_are_not_mixed_in(corpus: Corpus, tmp_path: Path) -> None:
    jobs = [make_job()]
    train(jobs, corpus, tmp_path, stop_at=3)
    assert Resume(tmp_path, ORIGIN).starts(jobs)
    assert Resume(tmp_path, "numba-float32").starts(jobs) == {}


def test_folders_in_which_a_worker_writes_are_left_alone(corpus: Corpus, tmp_path: Path) -> None:
    jobs = [make_job()]
    train(jobs, corpus, tmp_path, stop_at=3)
    (folder,) = tmp_path.glob("cohort-*")
    (folder / ".tmp-being-written").mkdir()
    assert Resume(tmp_path, ORIGIN).starts(jobs, active=[folder.name]) == {}
    assert (folder / ".tmp-being-written").exists()
    assert Resume(tmp_path, ORIGIN).starts(jobs)
    assert not (folder / ".tmp-being-written").exists()
