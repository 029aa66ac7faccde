"""From jobs to cohorts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import msgspec

from scaling_sim.config import config_hash
from scaling_sim.model.count import flops_per_token
from scaling_sim.training.job import Job, merge_jobs
from scaling_sim.training.loop import CohortTask, Start

EARLY_STOP_EPOCHS = 60
"""Passes over its data after which an early-stopped run is expected to have ended, for estimates only. Measured: 35 to
60 at N = 6e3 and 4e4, D = 8e3 and 3e4 bytes of source code, patience 4 of 48 points."""
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

    @property
    def expected_flops(self) -> float:
        """Training FLOPs still to be spent if early stopping comes when it is expected to."""
        batch = self.jobs[0].config.recipe.batch_tokens
        updates = sum(max(1, expected_steps(job) - self.first_step) for job in self.jobs)
        return updates * batch * flops_per_token(self.jobs[0].config.shape, "exact")

    def task(
        self,
        branches: Mapping[str, tuple[int, ...]] | None = None,
        folder: str | None = None,
        origin: str = "",
        backend: str = "",
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
            backend=backend,
        )


def plan_cohorts(
    jobs: Iterable[Job],
    *,
    max_members: int | Callable[[Job], int] = 64,
    starts: Mapping[str, tuple[int, Start | None]] | None = None,
) -> list[CohortPlan]:
    """Cohorts of equal shape, context, batch, optimiser and first step, the most expensive first.

    Parameters
    ----------
    jobs : iterable of Job
        Equal runs are merged.
    max_members : int or callable
        Largest cohort, ≥ 1, or that of runs like the given one.
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
        for part in _split(group, _first_step(group[0], starts), _most(max_members, group[0]))
    ]
    return sorted(plans, key=lambda plan: -plan.expected_flops)


def expected_steps(job: Job) -> int:
    """Step at which a run is expected to end: its last, or `EARLY_STOP_EPOCHS` passes if it may stop early."""
    config = job.config
    if not config.early_stop:
        return config.recipe.steps
    passes = -(-EARLY_STOP_EPOCHS * config.unique_tokens // config.recipe.batch_tokens)
    return min(config.recipe.steps, max(passes, config.branch_step + 1))


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


def _most(max_members: int | Callable[[Job], int], job: Job) -> int:
    return max_members if isinstance(max_members, int) else max_members(job)


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
