"""What the loop promises, on the backends that must keep it to the last bit."""

import os
from pathlib import Path

import pytest

from scaling_sim.data.corpus import Corpus
from scaling_sim.engine.registry import get_backend
from scaling_sim.errors import BackendUnavailable
from scaling_sim.runs.record import RunRecord
from scaling_sim.training.job import Job
from scaling_sim.training.loop import CohortLoop
from scaling_sim.training.planner import plan_cohorts
from scaling_sim.training.resume import Resume
from tests.training.runs import Ear, make_job


def train(backend: str, jobs: list[Job], corpus: Corpus, folder: Path, stop_at: int = -1) -> dict[str, RunRecord]:
    try:
        found = get_backend(backend)
    except BackendUnavailable as error:
        if backend in os.environ.get("SCALING_SIM_REQUIRE_BACKENDS", "").split(","):
            raise
        pytest.skip(str(error))
    ear, origin = Ear(stop_at), f"{backend}-float32"
    for plan in plan_cohorts(jobs, starts=Resume(folder, origin).starts(jobs)):
        task = plan.task({}, str(folder), origin)
        CohortLoop(task, corpus.splits, found, "cpu", "float32", ear, chunk_seconds=1e-9 if stop_at > 0 else 1.0).run()
    return ear.records


@pytest.mark.parametrize("backend", ["numpy", pytest.param("numba", marks=pytest.mark.numba)])
def test_chunks_and_interruptions_change_nothing(backend: str, corpus: Corpus, tmp_path: Path) -> None:
    jobs = [make_job(seed=0, dropout=0.1), make_job(seed=1, steps=50), make_job(seed=2, peak_lr=1e20)]
    whole = train(backend, jobs, corpus, tmp_path / "whole")
    before = train(backend, jobs, corpus, tmp_path / "cut", stop_at=23)
    after = train(backend, [job for job in jobs if job.run_id not in before], corpus, tmp_path / "cut")
    assert len(after) == 2
    assert before | after == whole
    assert {record.status for record in whole.values()} == {"done", "diverged"}
