"""How this card compares with the throughput tables: a few shapes timed in about a minute."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import msgspec

from scaling_sim.data import Corpus
from scaling_sim.engine.registry import backends
from scaling_sim.model.count import flops_per_token
from scaling_sim.model.shape import Shape
from scaling_sim.study.kaplan.estimate import Calibrated, cohort_seconds, cohorts, table_rate
from scaling_sim.study.kaplan.paths import backend_of, path_of
from scaling_sim.study.kaplan.plan import Planned
from scaling_sim.training import Job, measure_machine
from scaling_sim.training.job import merge_jobs
from scaling_sim.training.planner import CohortPlan

TIMED = {"cupy": 2, "fused": 2, "stacked": 1}
"""Shapes timed for each path: those of wide models take long to compile."""
SECONDS = 1.0
"""Of updates, per shape."""


@cache
def has_gpu() -> bool:
    """Whether a backend sees a CUDA device."""
    return any(device.startswith("cuda") for info in backends() for device in info.devices)


def calibrate(planned: Sequence[Planned], corpus: Corpus) -> Calibrated:
    """Factors on the table's speeds, from cohorts of runs on ``corpus``: of each path the shapes that take longest.

    A path's factor is the harmonic mean of theirs, weighted by the seconds that the table expects of them.
    """
    plans = [plan for plan in cohorts(job for one in planned for job in one.new) if _usable(plan, corpus)]
    factors = {}
    for path, most in TIMED.items():
        chosen = _longest([plan for plan in plans if path_of(plan.jobs[0].config.shape) == path], most)
        if chosen:
            expected = sum(seconds for _, seconds in chosen)
            factors[path] = expected / sum(seconds / _speed_over_table(plan, corpus) for plan, seconds in chosen)
    return Calibrated(factors)


def _usable(plan: CohortPlan, corpus: Corpus) -> bool:
    config = plan.jobs[0].config
    return plan.first_step == 0 and config.corpus == corpus.hash and not config.recipe.dropout


def _longest(plans: Sequence[CohortPlan], most: int) -> list[tuple[CohortPlan, float]]:
    """Of each of the ``most`` shapes that take longest, its longest cohort; and the seconds of all of that shape."""
    by_shape: dict[Shape, list[tuple[float, CohortPlan]]] = {}
    for plan in plans:
        by_shape.setdefault(plan.jobs[0].config.shape, []).append((cohort_seconds(plan, table_rate), plan))
    ranked = sorted(by_shape.values(), key=lambda found: -sum(seconds for seconds, _ in found))[:most]
    return [(max(found, key=lambda pair: pair[0])[1], sum(seconds for seconds, _ in found)) for found in ranked]


def _speed_over_table(plan: CohortPlan, corpus: Corpus) -> float:
    """Measured over expected speed of a cohort."""
    jobs = merge_jobs(_alike(plan))
    shape = jobs[0].config.shape
    machine = measure_machine(jobs, corpus, backend=backend_of(shape), seconds=SECONDS)
    rate = machine.speed.flops_per_second(shape) / flops_per_token(shape, "exact")
    return rate / table_rate(CohortPlan(tuple(jobs), 0, {}))


def _alike(plan: CohortPlan) -> list[Job]:
    """The cohort's runs without early stopping, equal in length, so that they are timed together."""
    longest = max(job.config.recipe.steps for job in plan.jobs)
    return [
        Job(
            msgspec.structs.replace(
                job.config,
                early_stop=False,
                recipe=msgspec.structs.replace(job.config.recipe, steps=longest, schedule="constant", decay_steps=0),
            ),
            job.purposes,
        )
        for job in plan.jobs
    ]
