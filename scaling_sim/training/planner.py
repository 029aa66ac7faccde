"""From jobs to cohorts, and from what is installed to the backend that trains them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from scaling_sim.config import config_hash
from scaling_sim.engine.cohort import Precision
from scaling_sim.engine.protocol import Backend
from scaling_sim.engine.registry import get_backend
from scaling_sim.errors import BackendUnavailable, ScalingSimError
from scaling_sim.model.count import flops_per_token
from scaling_sim.training.job import Job, merge_jobs
from scaling_sim.training.loop import CohortTask, Start

AUTOMATIC = (("cupy", "cuda"), ("torch", "cuda"), ("numba", "cpu"), ("numpy", "cpu"))
"""Backends and kinds of device that ``auto`` tries, fastest first."""
MEMBERS = {"cuda": 64, "cpu": 1}
"""Members per cohort: a GPU gains from many, a CPU trains one model per core."""
LENGTH_RATIO = 2
"""The longest member of a cohort makes at most this many times the updates of the shortest."""


@dataclass(frozen=True)
class CohortPlan:
    """Runs that one trainer will advance together.

    Attributes
    ----------
    jobs : tuple of Job
        Longest first.
    first_step : int
        Updates that all of them have behind them (of their own, or of their parents).
    starts : mapping
        Run id → where its weights come from; empty at step 0.
    """

    jobs: tuple[Job, ...]
    first_step: int
    starts: Mapping[str, Start]

    @property
    def id(self) -> str:
        """Name of the cohort and of its checkpoint folder."""
        return "cohort-" + config_hash("cohort", sorted(job.run_id for job in self.jobs), length=12)

    @property
    def label(self) -> str:
        """Shape, batch and size in a few words."""
        shape, recipe = self.jobs[0].config.shape, self.jobs[0].config.recipe
        return f"{shape.n_layer}×{shape.d_model} B={recipe.batch_tokens}"

    @property
    def num_updates(self) -> int:
        """Updates still to be made by the longest member."""
        return max(job.config.recipe.steps for job in self.jobs) - self.first_step

    @property
    def tokens(self) -> int:
        """Tokens still to be processed by all members, if none stops early."""
        return sum((j.config.recipe.steps - self.first_step) * j.config.recipe.batch_tokens for j in self.jobs)

    @property
    def flops(self) -> float:
        """Training FLOPs still to be spent by all members (exact count), if none stops early."""
        return self.tokens * flops_per_token(self.jobs[0].config.shape, "exact")

    def task(
        self, branches: Mapping[str, tuple[int, ...]] | None = None, folder: str | None = None, origin: str = ""
    ) -> CohortTask:
        """What a worker gets."""
        branches = branches or {}
        kept = {job.run_id: branches[job.run_id] for job in self.jobs if job.run_id in branches}
        return CohortTask(
            id=self.id,
            jobs=self.jobs,
            first_step=self.first_step,
            starts=dict(self.starts),
            branches=kept,
            folder=folder,
            origin=origin,
        )


def plan_cohorts(
    jobs: Iterable[Job], *, max_members: int = 64, starts: Mapping[str, tuple[int, Start | None]] | None = None
) -> list[CohortPlan]:
    """Cohorts of equal shape, context, batch, optimiser and first step, the most expensive first.

    Parameters
    ----------
    jobs : iterable of Job
        Equal runs are merged.
    max_members : int
        Largest cohort, ≥ 1.
    starts : mapping, optional
        Run id → (updates made, where its weights come from) for runs that do not begin at step 0. A decay branch
        without an entry is planned from its branch step.
    """
    starts = {} if starts is None else starts
    groups: dict[tuple[object, ...], list[Job]] = {}
    for job in merge_jobs(jobs):
        groups.setdefault(_key(job, _first_step(job, starts)), []).append(job)
    plans = [
        CohortPlan(tuple(part), _first_step(part[0], starts), _states(part, starts))
        for group in groups.values()
        for part in _split(group, _first_step(group[0], starts), max_members)
    ]
    return sorted(plans, key=lambda plan: -plan.flops)


def branch_steps(jobs: Iterable[Job]) -> dict[str, tuple[int, ...]]:
    """Run id of each parent → the steps from which decay branches start."""
    steps: dict[str, set[int]] = {}
    for job in jobs:
        if job.config.parent is not None:
            steps.setdefault(job.config.parent, set()).add(job.config.branch_step)
    return {parent: tuple(sorted(found)) for parent, found in steps.items()}


def _states(jobs: Iterable[Job], starts: Mapping[str, tuple[int, Start | None]]) -> dict[str, Start]:
    found = {job.run_id: starts[job.run_id][1] for job in jobs if job.run_id in starts}
    return {run_id: start for run_id, start in found.items() if start is not None}


def _first_step(job: Job, starts: Mapping[str, tuple[int, Start | None]]) -> int:
    return starts[job.run_id][0] if job.run_id in starts else job.config.branch_step


def _key(job: Job, first_step: int) -> tuple[object, ...]:
    r = job.config.recipe
    shape = msgspec.json.encode(job.config.shape)
    return (shape, r.batch_tokens, r.weight_decay, r.beta1, r.beta2, r.clip_norm, r.optimizer, first_step)


def _split(group: list[Job], first_step: int, max_members: int) -> list[list[Job]]:
    """Parts of a group, longest first, none larger than ``max_members`` or wider than `LENGTH_RATIO`."""
    parts: list[list[Job]] = []
    for job in sorted(group, key=lambda job: -job.config.recipe.steps):
        length = job.config.recipe.steps - first_step
        part = parts[-1] if parts else None
        if part and len(part) < max_members and part[0].config.recipe.steps - first_step <= LENGTH_RATIO * length:
            part.append(job)
        else:
            parts.append([job])
    return parts


@dataclass(frozen=True)
class Placement:
    """Who computes: the backend, its device, the precision, and why."""

    backend: Backend
    device: str
    precision: Precision
    reason: str

    @property
    def origin(self) -> str:
        """Backend and precision in one word."""
        return f"{self.backend.name}-{self.precision}"

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")

    @property
    def max_members(self) -> int:
        """Largest cohort that makes sense there."""
        return MEMBERS["cuda" if self.on_gpu else "cpu"]


def choose_backend(
    plans: Sequence[CohortPlan], backend: str = "auto", device: str | None = None, precision: Precision = "float32"
) -> Placement:
    """The first backend that works here and supports every plan, or the named one.

    Raises
    ------
    BackendUnavailable
        Saying for each candidate what stands in its way.
    """
    candidates = AUTOMATIC if backend == "auto" else ((backend, ""),)
    refused = []
    for name, kind in candidates:
        if device is not None and not device.startswith(kind):
            refused.append(f"{name}: runs on {kind}, not on {device}")
            continue
        try:
            found = get_backend(name)
        except ScalingSimError as error:
            if backend != "auto":
                raise
            refused.append(f"{name}: {error}")
            continue
        place, why = _device(found, kind, device, plans, precision)
        if place is not None:
            skipped = f" ({'; '.join(refused)})" if refused else ""
            how = "asked for" if backend != "auto" else "the fastest that works here"
            return Placement(found, place, precision, f"{name} on {place} in {precision}: {how}{skipped}")
        refused.append(f"{name}: {why}")
    raise BackendUnavailable("no backend can train these runs. " + "; ".join(refused))


def _device(
    backend: Backend, kind: str, device: str | None, plans: Sequence[CohortPlan], precision: Precision
) -> tuple[str | None, str]:
    devices = [device] if device is not None else [name for name in backend.devices() if name.startswith(kind)]
    why = f"no {kind or 'usable'} device here"
    for name in devices:
        reasons = (backend.why_unsupported(plan.task().cohort(), name, precision) for plan in plans)
        first = next((reason for reason in reasons if reason), None)
        if first is None:
            return name, ""
        why = first
    return None, why


def worker_environment(placement: Placement, num_workers: int) -> dict[str, str]:
    """Variables for a worker process: threads for its share of the cores, and what the backend asks for."""
    threads = 1 if placement.on_gpu else max(1, num_cores() // max(1, num_workers))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    ask: Callable[[int], Mapping[str, str]] | None = getattr(placement.backend, "worker_environment", None)
    return {**dict.fromkeys(names, str(threads)), **(ask(threads) if ask else {})}


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
