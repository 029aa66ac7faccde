"""Which multiple of the learning-rate rule was best for each size, and whether it lies on the edge of its sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scaling_sim.model.count import num_parameters
from scaling_sim.runs import RunRecord
from scaling_sim.study.config import StudyConfig
from scaling_sim.training import Job, small_model_learning_rate


def best_multiples(
    config: StudyConfig, records: Sequence[RunRecord], jobs: Sequence[Job]
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Best multiple by index of the size, and flags for those on the edge of the multiples tried.

    The best trial has the lowest last loss on the validation split; diverged trials lose.
    """
    best: dict[str, float] = {}
    flags = []
    stage = config.learning_rate
    for size in stage.sizes:
        shape = config.shapes[size]
        losses = {
            record.config.recipe.peak_lr / small_model_learning_rate(shape): _last_loss(record)
            for record, job in zip(records, jobs, strict=True)
            if job.config.shape == shape
        }
        winner = min(losses, key=lambda multiple: losses[multiple])
        nearest = min(stage.multiples, key=lambda multiple: abs(math.log(multiple / winner)))
        best[str(size)] = nearest
        if len(stage.multiples) > 1 and nearest in (min(stage.multiples), max(stage.multiples)):
            flags.append(
                f"The best learning rate of N = {num_parameters(shape):,} lies on the edge of its sweep "
                f"({nearest:g} times the rule of {sorted(stage.multiples)}); the best one may lie beyond."
            )
    return best, tuple(flags)


def _last_loss(record: RunRecord) -> float:
    point = record.result
    if record.status != "done" or point is None or not math.isfinite(point.losses["validation"]):
        return math.inf
    return point.losses["validation"]
