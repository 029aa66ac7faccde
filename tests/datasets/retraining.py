"""Train shipped runs again on this machine and compare how they end."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import msgspec
import numpy as np

from scaling_sim.data import CorpusConfig, load_corpus
from scaling_sim.datasets import Experiment
from scaling_sim.engine.registry import get_backend
from scaling_sim.model.count import num_parameters
from scaling_sim.runs.record import RunConfig, RunRecord
from scaling_sim.training import Job
from scaling_sim.training.loop import CohortLoop, CohortProgress
from scaling_sim.training.planner import plan_cohorts

LARGEST = 1e5
"""N."""
MOST_FLOPS = 1.5e12
"""By the exact count: about half a minute of one core, so that three runs take less than a minute of two."""


def affordable(experiment: Experiment, key: str) -> list[RunRecord]:
    """Finished runs on one corpus that a laptop can train again within half a minute each."""
    return [
        record
        for record in experiment.select(corpus=key, status=("done", "stopped"))
        if num_parameters(record.config.shape) <= LARGEST and record.flops <= MOST_FLOPS
    ]


def draw(records: Sequence[RunRecord], day: date, num: int = 3) -> list[RunRecord]:
    """The runs of the day: others tomorrow, so that in time every one of them is checked."""
    return random.Random(day.isoformat()).sample(list(records), min(num, len(records)))


def final_loss(record: RunRecord) -> float:
    """Test loss that counts as the run's result, nats per token."""
    assert record.result is not None
    return record.result.losses["test"]


def seed_deviation(records: Iterable[RunRecord]) -> tuple[float, int]:
    """Standard deviation of the log of the final loss between runs that differ in seed alone, pooled, and its degrees
    of freedom; NaN and 0 if there are none."""
    groups: dict[RunConfig, list[float]] = defaultdict(list)
    for record in records:
        if record.status in ("done", "stopped"):
            recipe = msgspec.structs.replace(record.config.recipe, seed=0)
            config = msgspec.structs.replace(record.config, recipe=recipe, parent=None)
            groups[config].append(math.log(final_loss(record)))
    freedom = sum(len(losses) - 1 for losses in groups.values())
    squares = sum(float(np.var(losses)) * len(losses) for losses in groups.values())
    return (math.sqrt(squares / freedom) if freedom else math.nan), freedom


class _Keep:
    """A listener that keeps the one record."""

    record: RunRecord

    def progress(self, progress: CohortProgress) -> None: ...

    def finished(self, record: RunRecord) -> None:
        self.record = record

    def should_stop(self) -> bool:
        return False


def retrain(record: RunRecord, text: CorpusConfig, cache: Path) -> RunRecord:
    """The run as Numba trains it here; a decay branch makes its parent's steps first."""
    (plan,), keep, corpus = plan_cohorts([Job(record.config)]), _Keep(), load_corpus(text, cache)
    CohortLoop(plan.task(), corpus.splits, get_backend("numba"), "cpu", "float32", keep).run()
    return keep.record


def departures(experiment: Experiment, records: Sequence[RunRecord], text: CorpusConfig, cache: Path) -> list[float]:
    """By how many seed standard deviations the final losses here differ from the experiment's, two runs at a time."""
    deviation, _ = seed_deviation(experiment.records)
    if len(records) == 1:
        again = [retrain(records[0], text, cache)]
    else:
        with ProcessPoolExecutor(2, get_context("spawn")) as pool:
            again = list(pool.map(partial(retrain, text=text, cache=cache), records))
    return [math.log(final_loss(new) / final_loss(old)) / deviation for new, old in zip(again, records, strict=True)]
