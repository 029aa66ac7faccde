"""Measure how fast this machine trains, before a sweep is begun."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from scaling_sim.data.corpus import Corpus
from scaling_sim.errors import BackendUnavailable
from scaling_sim.model.shape import Shape
from scaling_sim.training.estimate import Estimate, Speed, calibration_plans, estimate_seconds
from scaling_sim.training.executor import Executor
from scaling_sim.training.job import Job, merge_jobs
from scaling_sim.training.memory import check_memory
from scaling_sim.training.messages import Event, Failed, Lost, Time, Timed
from scaling_sim.training.placement import Placement, Wish, choose_backend, default_workers
from scaling_sim.training.planner import CohortPlan, plan_cohorts
from scaling_sim.training.ranks import united
from scaling_sim.training.sweep import start_executor


@dataclass(frozen=True)
class Machine:
    """Who will compute on this machine, with how many workers, and how fast.

    Attributes
    ----------
    placement : Placement
        Backend, device, precision, and why.
    num_workers : int
        Worker processes; 0 if the driver trains itself.
    speed : Speed
        Of one worker while all of them work.
    """

    placement: Placement
    num_workers: int
    speed: Speed

    def estimate(self, jobs: Iterable[Job]) -> Estimate:
        """Expected time and FLOPs of ``jobs`` from the start."""
        plans = plan_cohorts(jobs, max_members=self.placement.max_members)
        return estimate_seconds(plans, self.speed, max(1, self.num_workers))


def measure_machine(
    jobs: Iterable[Job],
    corpus: Corpus,
    *,
    backend: str = "auto",
    device: str | None = None,
    precision: Wish = "auto",
    workers: int | None = None,
    seconds: float = 0.5,
) -> Machine:
    """Time a few updates of the cheapest, the dearest and a middle shape of ``jobs``, on all workers at once.

    All workers train at the same time, as they will in the sweep, so that shared caches, memory bandwidth and
    hyper-threads count. Compilation is not timed. Arguments are those of `run_sweep`.

    Parameters
    ----------
    seconds : float
        Per shape, after updates that warm up.

    Raises
    ------
    BackendUnavailable
        No backend can train these runs, or none of the shapes could be timed.
    """
    merged = merge_jobs(jobs)
    backend, device, workers = united(backend, device, workers)
    placement = choose_backend(plan_cohorts(merged, max_members=1), backend, device, precision)
    num_workers = default_workers(workers, placement)
    for plan in plan_cohorts(merged, max_members=placement.max_members):
        first = placement.backend(plan.jobs[0])
        check_memory(plan.task().cohort(), first, placement.devices, placement.precision, num_workers)
    plans = [
        (plan, placement.backend(plan.jobs[0]).name)
        for plan in calibration_plans(plan_cohorts(merged, max_members=placement.max_members))
    ]
    with tempfile.TemporaryDirectory(prefix="scaling-sim-") as scratch:
        executor = start_executor(placement, corpus.splits, num_workers, Path(scratch))
        try:
            rates = [rate for plan in plans for rate in _time(executor, *plan, max(1, num_workers), seconds)]
        finally:
            executor.close()
    return Machine(placement, num_workers, Speed.measured(rates))


def _time(
    executor: Executor, plan: CohortPlan, backend: str, num_workers: int, seconds: float
) -> list[tuple[Shape, float]]:
    """Tokens per second of one shape on each worker, all of them at work."""
    heard: list[Event] = []
    for worker in range(num_workers):
        task = msgspec.structs.replace(plan.task(backend=backend), id=f"timing-{worker}", first_step=0, starts={})
        executor.submit(Time(task, seconds))
    while len(heard) < num_workers:
        executor.wait(heard.append, 0.5)
    _check_timed(heard)
    return [(plan.jobs[0].config.shape, event.tokens_per_second) for event in heard if isinstance(event, Timed)]


def _check_timed(events: Sequence[Event]) -> None:
    for event in events:
        if isinstance(event, (Failed, Lost)):
            raise BackendUnavailable(f"a few updates could not be timed: {event.message}; see its output above")
