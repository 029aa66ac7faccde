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
FEWEST_STEPS = 1500
"""Before some hundred steps equal runs that differ in rounding are as far apart as seeds are, and those of one size and
batch by .1 nats and more: (1,16) after 381 steps ended between 2.77 and 3.12 with seven seeds and rates 1e-4 apart."""
MOST_FLOPS = 4e12
"""By the exact count: about half a minute of one core, so that three runs take about a minute of two."""
UNSEEDED = 0.0145
"""Standard deviation of the log of the final loss between seeds where no seeds are shipped, on the synthetic language:
(1,8) after 3972 steps ended at 2.150, 2.156, 2.158, 2.178, 2.206, 2.218 (Numba) and 2.223 (shipped)."""


def affordable(experiment: Experiment, key: str) -> list[RunRecord]:
    """Finished runs on one corpus that a laptop can train again within half a minute each."""
    return [
        record
        for record in experiment.select(corpus=key, status=("done", "stopped"))
        if num_parameters(record.config.shape) <= LARGEST
        and record.flops <= MOST_FLOPS
        and record.config.recipe.steps >= FEWEST_STEPS
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
    (plan,) = plan_cohorts([Job(record.config)], starts={record.run_id: (0, None)})
    keep, corpus = _Keep(), load_corpus(text, cache)
    CohortLoop(plan.task(), corpus.splits, get_backend("numba"), "cpu", "float32", keep).run()
    return keep.record


def departures(experiment: Experiment, records: Sequence[RunRecord], text: CorpusConfig, cache: Path) -> list[float]:
    """By how many seed standard deviations the final losses here differ from the experiment's, two runs at a time."""
    deviation, freedom = seed_deviation(experiment.select(corpus=experiment.corpora[records[0].config.corpus].key))
    deviation = deviation if freedom else UNSEEDED
    if len(records) == 1:
        again = [retrain(records[0], text, cache)]
    else:
        with ProcessPoolExecutor(2, get_context("spawn")) as pool:
            again = list(pool.map(partial(retrain, text=text, cache=cache), records))
    return [math.log(final_loss(new) / final_loss(old)) / deviation for new, old in zip(again, records, strict=True)]
