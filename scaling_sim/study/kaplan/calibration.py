"""How this card compares with the throughput tables: a few shapes timed in about a minute."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import cache

import msgspec

from scaling_sim.data import Corpus
from scaling_sim.engine.registry import backends
from scaling_sim.model.count import flops_per_token
from scaling_sim.study.kaplan.estimate import Calibrated, cohorts, table_rate
from scaling_sim.study.kaplan.paths import backend_of, path_of
from scaling_sim.study.kaplan.plan import Planned
from scaling_sim.training import Job, measure_machine
from scaling_sim.training.job import merge_jobs
from scaling_sim.training.planner import CohortPlan

TIMED = {"cupy": 3, "fused": 1, "stacked": 1}
"""Shapes timed for each path: those of wide models take long to compile."""
SECONDS = 1.0
"""Of updates, per shape."""


@cache
def has_gpu() -> bool:
    """Whether a backend sees a CUDA device."""
    return any(device.startswith("cuda") for info in backends() for device in info.devices)


def calibrate(planned: Sequence[Planned], corpus: Corpus) -> Calibrated:
    """Factors on the table's speeds, and seconds per compilation, from cohorts of runs on ``corpus``.

    Of each path the dearest shape is timed, for the narrow kernels the cheapest and a middle one, too.
    """
    plans = [plan for plan in cohorts(job for one in planned for job in one.new) if _usable(plan, corpus)]
    factors, compile_seconds = {}, {}
    for path, most in TIMED.items():
        chosen = _spread([plan for plan in plans if path_of(plan.jobs[0].config.shape) == path], most)
        if not chosen:
            continue
        timed = [_time(plan, corpus) for plan in chosen]
        factors[path] = math.exp(sum(math.log(factor) for factor, _ in timed) / len(timed))
        compile_seconds[path] = max(0.0, sum(seconds for _, seconds in timed) / len(timed) - SECONDS)
    return Calibrated(factors, compile_seconds)


def _usable(plan: CohortPlan, corpus: Corpus) -> bool:
    config = plan.jobs[0].config
    return plan.first_step == 0 and config.corpus == corpus.hash and not config.recipe.dropout


def _spread(plans: Sequence[CohortPlan], most: int) -> list[CohortPlan]:
    """The dearest shape, and up to ``most`` evenly spread by FLOPs per token; of each its dearest cohort."""
    by_cost: dict[float, CohortPlan] = {}
    for plan in sorted(plans, key=lambda plan: -plan.expected_flops):
        by_cost.setdefault(flops_per_token(plan.jobs[0].config.shape, "exact"), plan)
    costs = sorted(by_cost, reverse=True)
    places = {round(i * (len(costs) - 1) / max(1, most - 1)) for i in range(most)} if costs else set()
    return [by_cost[costs[place]] for place in sorted(places)]


def _time(plan: CohortPlan, corpus: Corpus) -> tuple[float, float]:
    """Measured over expected speed of a cohort, and the seconds that timing it took."""
    began, jobs = time.monotonic(), merge_jobs(_alike(plan))
    shape = jobs[0].config.shape
    machine = measure_machine(jobs, corpus, backend=backend_of(shape), seconds=SECONDS)
    rate = machine.speed.flops_per_second(shape) / flops_per_token(shape, "exact")
    return rate / table_rate(CohortPlan(tuple(jobs), 0, {})), time.monotonic() - began


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
