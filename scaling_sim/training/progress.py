"""What a sweep says while it runs and when it ends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from scaling_sim.training.estimate import Speed, cohort_seconds, makespan
from scaling_sim.training.loop import CohortProgress
from scaling_sim.training.planner import CohortPlan, expected_steps


@dataclass(frozen=True)
class CohortLine:
    """One cohort that is being trained.

    Attributes
    ----------
    id, label : str
        Name; shape and batch in words.
    members : int
        Runs still training.
    step, steps : int
        Updates made, and of the longest run still training.
    loss : float
        Mean training loss of the last chunk, nats.
    tokens_per_second : float
        All members together.
    seconds_left : float or None
        None until it is known. Runs that may stop early are expected to, see `expected_steps`.
    """

    id: str
    label: str
    members: int
    step: int
    steps: int
    loss: float
    tokens_per_second: float
    seconds_left: float | None


@dataclass(frozen=True)
class Progress:
    """State of a sweep.

    Attributes
    ----------
    planned, finished, diverged, failed : int
        Runs; ``planned`` counts all that this call trains, ``finished`` those that ended in whatever way.
    share : float
        Share of the expected FLOPs made, 0 to 1; those of runs that ended early count as made.
    seconds, seconds_left : float
        Since the start; until the end, None until a speed is known.
    cohorts : tuple of CohortLine
        Being trained now.
    message : str
        Something worth a line of its own ("worker lost, cohort restarted").
    """

    planned: int
    finished: int
    diverged: int
    failed: int
    share: float
    seconds: float
    seconds_left: float | None
    cohorts: tuple[CohortLine, ...]
    message: str = ""


@dataclass(frozen=True)
class SweepSummary:
    """How a sweep ended.

    Attributes
    ----------
    done : int
        Runs that this call brought to an end (all steps, or stopped early).
    skipped : int
        Runs that were finished before.
    diverged, failed : int
        Runs that this call trained and that diverged or ended with an error.
    seconds : float
        Wall time of this call.
    flops : float
        Training FLOPs spent by this call, exact count.
    placement : str
        Who computed, and why.
    messages : tuple of str
        What went wrong on the way: failures, lost workers.
    """

    done: int
    skipped: int
    diverged: int
    failed: int
    seconds: float
    flops: float
    placement: str
    messages: tuple[str, ...] = ()


@dataclass
class Tracker:
    """Keeps account of a running sweep and gives honest times left: from measured speeds only."""

    plans: dict[str, CohortPlan]
    num_workers: int
    waiting: set[str] = field(default_factory=set)
    lines: dict[str, CohortProgress] = field(default_factory=dict)
    """Cohorts being trained: last word of each."""
    ended: dict[str, str] = field(default_factory=dict)
    """Run id → status."""
    flops_ended: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.waiting = set(self.plans)
        self.rates: dict[str, float] = {}
        self.total_flops = sum(plan.expected_flops for plan in self.plans.values())
        self.num_runs = sum(len(plan.jobs) for plan in self.plans.values())

    def started(self, cohort: str) -> None:
        """A cohort was given to a worker."""
        self.waiting.discard(cohort)

    def heard(self, progress: CohortProgress) -> None:
        """A cohort said where it is."""
        self.lines[progress.cohort] = progress
        if progress.tokens_per_second > 0:
            self.rates[progress.cohort] = progress.tokens_per_second

    def over(self, cohort: str) -> None:
        """A cohort is over."""
        self.lines.pop(cohort, None)
        self.flops_ended += self.plans[cohort].expected_flops

    def replace(self, cohort: str, plans: Sequence[CohortPlan]) -> None:
        """A cohort is left behind and ``plans`` wait in its place: what it made counts as made."""
        old = self.plans.pop(cohort)
        self.lines.pop(cohort, None)
        self.waiting.discard(cohort)
        self.flops_ended += max(0.0, old.expected_flops - sum(plan.expected_flops for plan in plans))
        self.plans.update({plan.id: plan for plan in plans})
        self.waiting.update(plan.id for plan in plans)

    def seconds_left(self) -> float | None:
        """Wall time until the end, by the speeds measured so far; None before the first."""
        if not self.rates:
            return None
        speed = Speed.measured(
            (self.plans[c].jobs[0].config.shape, rate) for c, rate in self.rates.items() if c in self.plans
        )
        busy = [left for line in self.lines.values() if (left := _left(line, self.plans[line.cohort])) is not None]
        return makespan(
            (cohort_seconds(self.plans[c], speed, evaluations=False) for c in self.waiting), self.num_workers, busy
        )

    def snapshot(self, message: str = "") -> Progress:
        """The state now."""
        lines = tuple(_line(line, self.plans[line.cohort]) for line in self.lines.values())
        made = self.flops_ended + sum(_made(line, self.plans[line.cohort]) for line in self.lines.values())
        statuses = list(self.ended.values())
        return Progress(
            planned=self.num_runs,
            finished=len(statuses),
            diverged=statuses.count("diverged"),
            failed=statuses.count("failed"),
            share=min(1.0, made / self.total_flops) if self.total_flops else 1.0,
            seconds=time.monotonic() - self.began,
            seconds_left=self.seconds_left(),
            cohorts=lines,
            message=message,
        )


def _left(line: CohortProgress, plan: CohortPlan) -> float | None:
    if line.tokens_per_second <= 0:
        return None
    left = sorted((max(0, expected_steps(job) - line.step) for job in plan.jobs), reverse=True)
    updates = sum(left[: line.members])
    return updates * plan.jobs[0].config.recipe.batch_tokens / line.tokens_per_second


def _made(line: CohortProgress, plan: CohortPlan) -> float:
    updates = max(1, max(expected_steps(job) for job in plan.jobs) - plan.first_step)
    return plan.expected_flops * min(1.0, max(0, line.step - plan.first_step) / updates)


def _line(line: CohortProgress, plan: CohortPlan) -> CohortLine:
    return CohortLine(
        id=line.cohort,
        label=plan.label,
        members=line.members,
        step=line.step,
        steps=line.steps,
        loss=line.loss,
        tokens_per_second=line.tokens_per_second,
        seconds_left=_left(line, plan),
    )
