"""A sweep on several GPUs, with cards that are not there: who trains what, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaling_sim.data.corpus import Corpus
from scaling_sim.engine.reference import ReferenceBackend, ReferenceTrainer
from scaling_sim.engine.throughput import Measured
from scaling_sim.model.shape import Shape
from scaling_sim.runs.store import RunStore
from scaling_sim.training import Job, Progress, plan_cohorts, run_sweep
from scaling_sim.training.executor import Sink
from scaling_sim.training.messages import Setup, Time, Train
from scaling_sim.training.worker import Worker
from tests.training.runs import SHAPE, make_job


class Cards(ReferenceBackend):
    """The reference, on two GPUs in name."""

    def __init__(self, name: str = "numpy", widest: int = 10**6, rate: float = 1e6) -> None:
        self.name, self.widest, self.rate = name, widest, rate

    def measured(self) -> list[Measured]:
        return [Measured(SHAPE, 1, 4, "bfloat16", self.rate)]

    def devices(self) -> list[str]:
        return ["cuda:0", "cuda:1"]

    def why_unsupported(self, cohort: Any, device: str, precision: Any) -> str | None:
        return "too wide" if cohort.shape.d_model > self.widest else None

    def start(self, cohort: Any, splits: Any, device: str = "cuda:0", precision: Any = "float32") -> Any:
        return ReferenceTrainer(cohort, splits, np.float32)


class Processes:
    """Workers of `LocalProcesses` in this process: each trains one cohort at a time, in turns."""

    made: Processes

    def __init__(self, setups: Sequence[Setup], environment: Mapping[str, str]) -> None:
        Processes.made = self
        self.setups = setups
        self.waiting: list[Train | None] = [None] * len(setups)
        self.submitted: list[tuple[str, Train]] = []
        self.sink: Sink = lambda event: None
        self.workers = [Worker(setup, lambda event: self.sink(event), lambda: False) for setup in setups]

    def free(self) -> int:
        return self.waiting.count(None)

    def submit(self, order: Train | Time) -> None:
        assert isinstance(order, Train)
        index = self.waiting.index(None)
        self.waiting[index] = order
        self.submitted.append((self.setups[index].device, order))

    def wait(self, sink: Sink, seconds: float) -> None:
        self.sink = sink
        index = next(i for i, order in enumerate(self.waiting) if order is not None)
        order, self.waiting[index] = self.waiting[index], None
        assert order is not None
        self.workers[index].train(order.task)

    def stop(self, sink: Sink) -> None:
        return

    def close(self) -> None:
        return


def shapes() -> list[Shape]:
    return [Shape(n_layer=1, d_model=width, n_head=2, n_ctx=16, vocab_size=16) for width in (16, 4)] + [SHAPE]


def jobs() -> list[Job]:
    return [make_job(shape=shape, seed=seed, steps=8, eval_points=2) for shape in shapes() for seed in range(4)]


def test_each_gpu_has_a_process_and_takes_the_longest_cohort_left(
    corpus: Corpus, store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("placement", "worker"):
        monkeypatch.setattr(f"scaling_sim.training.{module}.get_backend", lambda name: Cards())
    monkeypatch.setattr("scaling_sim.training.sweep.LocalProcesses", Processes)
    summary = run_sweep(jobs(), corpus, store, backend="numpy", checkpoints=tmp_path)
    assert (summary.done, summary.failed) == (12, 0)
    made = Processes.made
    assert [setup.device for setup in made.setups] == ["cuda:0", "cuda:1"]
    costs = [sum(plan.expected_flops for plan in plan_cohorts(order.task.jobs)) for _, order in made.submitted]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > 4 * costs[-1]
    assert [len(order.task.jobs) for _, order in made.submitted] == [2] * 6, "each card gets its share of each shape"
    places = {job.run_id: device for device, order in made.submitted for job in order.task.jobs}
    records = {record.run_id: record for record in store.records()}
    assert {run_id: record.device for run_id, record in records.items()} == places
    assert set(places.values()) == {"cuda:0", "cuda:1"}
    assert {record.precision for record in records.values()} == {"bfloat16"}


def test_two_backends_train_one_sweep_and_continue_their_own_runs(
    corpus: Corpus, store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"tiny": Cards("tiny", widest=8, rate=2e6), "any": Cards("any")}
    for module in ("placement", "worker"):
        monkeypatch.setattr(f"scaling_sim.training.{module}.get_backend", known.__getitem__)
    monkeypatch.setattr("scaling_sim.training.placement.AUTOMATIC", (("tiny", "cuda"), ("any", "cuda")))

    def stop(progress: Progress) -> None:
        if progress.finished >= 4:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"checkpoints": tmp_path, "checkpoint_seconds": 0.0, "workers": 0, "heartbeat": 0.0}
    with pytest.raises(KeyboardInterrupt):
        run_sweep(jobs(), corpus, store, progress=stop, **options)
    summary = run_sweep(jobs(), corpus, store, **options)
    assert summary.done + summary.skipped == 12
    assert summary.skipped >= 4
    for record in store.records():
        assert record.backend == ("any" if record.config.shape.d_model == 16 else "tiny")
    assert "tiny for 1×8 (expected 2× any), 1×4 (expected 2× any)" in summary.placement
