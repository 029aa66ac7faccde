from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_sim.data.corpus import Corpus
from scaling_sim.training import prefetch as module
from scaling_sim.training.loop import CohortLoop
from scaling_sim.training.member import Memory, Run
from scaling_sim.training.planner import plan_cohorts
from scaling_sim.training.prefetch import StartsAhead, window_starts
from tests.training.runs import VOCAB, Ear, make_job

RUNS = [Run(id, make_job(seed=id, unique_tokens=500 + 300 * id), Memory(), 3) for id in range(4)]


@pytest.fixture
def starts() -> Iterator[StartsAhead]:
    made = StartsAhead()
    yield made
    made.close()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(RUNS), min_size=1, unique=True),
    st.lists(st.sampled_from(RUNS), min_size=1, unique=True),
    st.integers(0, 50),
    st.integers(0, 2),
    st.integers(1, 9),
    st.integers(1, 9),
)
def test_no_guess_changes_what_is_handed_out(
    guessed: list[Run], asked: list[Run], step: int, off: int, guessed_num: int, num: int
) -> None:
    starts = StartsAhead()
    try:
        starts.guess(guessed, step, guessed_num)
        np.testing.assert_array_equal(starts.take(asked, step + off, num), window_starts(asked, step + off, num))
        np.testing.assert_array_equal(starts.take(asked, step, num), window_starts(asked, step, num))  # used once
    finally:
        starts.close()


def test_a_right_guess_is_used(starts: StartsAhead, monkeypatch: pytest.MonkeyPatch) -> None:
    starts.guess(RUNS, 10, 5)
    expected = window_starts([RUNS[3], RUNS[1]], 10, 5)
    starts._guess.starts.result()  # type: ignore[union-attr]
    monkeypatch.setattr(module, "window_starts", None)
    np.testing.assert_array_equal(starts.take([RUNS[3], RUNS[1]], 10, 5), expected)


def test_an_error_in_the_thread_reaches_the_caller(starts: StartsAhead) -> None:
    starts.guess(RUNS, -1, 5)
    with pytest.raises(ValueError, match="must not be negative"):
        starts.take(RUNS, -1, 5)


class Recorder:
    """Backend and trainer that learn nothing; member 1 diverges on its way, and what was asked for is kept."""

    name = "recorder"

    def __init__(self) -> None:
        self.seen: dict[int, list[tuple[int, np.ndarray]]] = {}

    def start(self, cohort: Any, *_: Any) -> Recorder:
        self.members, self.n_ctx = [member.id for member in cohort.members], cohort.shape.n_ctx
        return self

    def advance(self, first_step: int, starts: np.ndarray, lr: np.ndarray) -> np.ndarray:
        assert starts.shape[:2] == lr.shape
        for column, id in enumerate(self.members):
            self.seen.setdefault(id, []).append((first_step, starts[:, column].copy()))
        losses = np.full(lr.shape, 2.0)
        losses[:, [id == 1 for id in self.members]] = np.nan if first_step >= 20 else 2.0
        return losses

    def evaluate(self, split: str, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full((len(self.members), self.n_ctx), np.log(VOCAB)), np.full(len(self.members), 0.1)

    def gradient_noise(self, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full(starts.shape[:2], 2.0), np.full(len(self.members), 1.0)

    def retire(self, ids: list[int]) -> None:
        self.members = [id for id in self.members if id not in ids]


@pytest.mark.parametrize("chunk_seconds", [1e-9, 1e-4, 1.0])
def test_every_member_gets_its_own_windows_whoever_retires(corpus: Corpus, chunk_seconds: float) -> None:
    jobs = [
        make_job(seed=0),
        make_job(seed=1),
        make_job("data", seed=2, early_stop=True, patience=1, eval_points=10, unique_tokens=300),
        make_job(seed=3, steps=45),
    ]
    (plan,), recorder, ear = plan_cohorts(jobs), Recorder(), Ear()
    loop = CohortLoop(plan.task(), corpus.splits, recorder, "cpu", "float32", ear, chunk_seconds=chunk_seconds)  # type: ignore[arg-type]
    runs = list(loop.runs)
    assert loop.run()
    assert sorted(record.status for record in ear.records.values()) == ["diverged", "done", "done", "stopped"]
    for run in runs:
        step = 0
        for first_step, seen in recorder.seen[run.id]:
            assert first_step == step
            np.testing.assert_array_equal(seen, run.batches.starts(step, len(seen)))
            step += len(seen)
        assert step <= run.recipe.steps
