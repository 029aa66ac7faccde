"""Compile the kernels of a sweep ahead of it, in processes of their own, while its first cohorts train.

A GPU trains one cohort at a time and waits whenever a shape is new: seconds for each, in one thread. Compilers keep
what they made on disk, so other processes can make it meanwhile, on cores that would be idle.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

import msgspec

from scaling_sim.engine.protocol import Tokens
from scaling_sim.training.executor import LocalProcesses
from scaling_sim.training.job import Job, merge_jobs
from scaling_sim.training.loop import CohortTask
from scaling_sim.training.messages import Event, Failed, Lost, Setup, Time, split_files
from scaling_sim.training.placement import Placement, Wish, choose_backend, num_cores, worker_environment
from scaling_sim.training.planner import CohortPlan, plan_cohorts

CORES_PER_WORKER = 2
"""A compiler keeps about one core busy and its libraries' threads part of another."""


class CompileAhead:
    """Makes one update and one evaluation of every kind of cohort that ``jobs`` will need, in their order.

    A context manager: workers start when it is entered and are ended when it is left, finished or not. It changes no
    number. Without a GPU, or with fewer than four cores, it does nothing.

    Parameters
    ----------
    jobs : iterable of Job
    splits : mapping
        Token arrays by name, as the sweep will have them: their type decides what is compiled.
    backend, device, precision
        As `run_sweep` gets them.
    workers : int, optional
        Processes; half of the cores but two by default.

    Attributes
    ----------
    compiled, failed : list of str
        What has been compiled so far, and what could not be, with reasons. Nothing depends on either.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        splits: Mapping[str, Tokens],
        *,
        backend: str = "auto",
        device: str | None = None,
        precision: Wish = "auto",
        workers: int | None = None,
    ) -> None:
        merged = merge_jobs(jobs)
        self.compiled: list[str] = []
        self.failed: list[str] = []
        self._splits = splits
        self._placement = choose_backend(plan_cohorts(merged, max_members=1), backend, device, precision)
        self._tasks = kernel_tasks(merged, self._placement) if self._placement.on_gpu else []
        wanted = (num_cores() - 2) // CORES_PER_WORKER if workers is None else workers
        self._num_workers = max(0, min(wanted, len(self._tasks)))
        self._leave = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> CompileAhead:
        if self._num_workers:
            self._thread = threading.Thread(target=self._compile, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave.set()
        if self._thread is not None:
            self._thread.join()

    def _compile(self) -> None:
        with tempfile.TemporaryDirectory(prefix="scaling-sim-") as scratch:
            setup = Setup(
                backend=self._placement.backends[0].name,
                device=self._placement.device,
                precision=self._placement.precision,
                splits=split_files(self._splits, Path(scratch)),
            )
            environment = worker_environment(self._placement, self._num_workers)
            workers = LocalProcesses([setup] * self._num_workers, environment)
            try:
                self._hand_out(workers)
            finally:
                workers.close()

    def _hand_out(self, workers: LocalProcesses) -> None:
        waiting = list(reversed(self._tasks))
        while not self._leave.is_set() and (waiting or workers.free() < self._num_workers):
            while waiting and workers.free():
                workers.submit(Time(waiting.pop(), 0.0))
            workers.wait(self._heard, 0.2)

    def _heard(self, event: Event) -> None:
        if isinstance(event, Failed | Lost):
            self.failed.append(f"{event.cohort}: {event.message}")
        elif not self._leave.is_set():
            self.compiled.append(getattr(event, "cohort", ""))


def kernel_tasks(jobs: Iterable[Job], placement: Placement) -> list[CohortTask]:
    """One cohort of each kind that is compiled by itself (shape, dropout or none, one member or several), in order."""
    merged = merge_jobs(jobs)
    order = {job.run_id: place for place, job in enumerate(merged)}
    plans = plan_cohorts(merged, max_members=placement.max_members)
    found: dict[tuple[object, ...], CohortTask] = {}
    for plan in sorted(plans, key=lambda plan: min(order[job.run_id] for job in plan.jobs)):
        task = plan.task(backend=placement.backend(plan.jobs[0]).name)
        name = _name(plan)
        found.setdefault(_kind(plan), msgspec.structs.replace(task, id=name, first_step=0, starts={}, branches={}))
    return list(found.values())


def _kind(plan: CohortPlan) -> tuple[object, ...]:
    recipe = plan.jobs[0].config.recipe
    dropout = any(job.config.recipe.dropout > 0 for job in plan.jobs)
    return plan.jobs[0].config.shape, dropout, len(plan.jobs) == 1, recipe.optimizer


def _name(plan: CohortPlan) -> str:
    _, dropout, alone, _ = _kind(plan)
    return f"{plan.label} of {1 if alone else len(plan.jobs)}{' with dropout' if dropout else ''}"
