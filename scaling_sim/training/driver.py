"""The driver of a sweep: which cohort goes when, and what becomes of what workers say. It alone writes the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from scaling_sim.model.count import flops_per_token
from scaling_sim.runs.record import Status
from scaling_sim.runs.store import RunStore
from scaling_sim.training.executor import Executor
from scaling_sim.training.job import Job
from scaling_sim.training.loop import CohortProgress
from scaling_sim.training.messages import Ended, Event, Failed, Finished, Lost, Train
from scaling_sim.training.planner import CohortPlan, branch_steps, plan_cohorts
from scaling_sim.training.progress import Progress, Tracker
from scaling_sim.training.resume import Resume

FINISHED = ("done", "stopped", "diverged")
"""Statuses of runs that are not trained again. A failed run is."""
RESTARTS = 2
"""How often a run whose worker died is started again."""
POLL_SECONDS = 0.5


class Reporter:
    """Calls the user's ``progress``, at most every ``seconds`` unless there is something to say."""

    def __init__(self, tracker: Tracker, progress: Callable[[Progress], None] | None, seconds: float) -> None:
        self.tracker, self.progress, self.seconds = tracker, progress, seconds
        self.last = -float("inf")

    def __call__(self, message: str = "", *, now: bool = False) -> None:
        """Say where the sweep is, if it is time."""
        if self.progress is not None and (message or now or time.monotonic() - self.last >= self.seconds):
            self.last = time.monotonic()
            self.progress(self.tracker.snapshot(message))


class Driver:
    """Trains planned cohorts on an executor until none is left.

    Parameters
    ----------
    jobs : sequence of Job
        To be trained; all of them are in the store.
    store : RunStore
    resume : Resume
        Checkpoint folder.
    max_members : callable
        Largest cohort of runs like the given one.
    backend : callable
        Name of the backend that trains a run.
    num_workers : int
    progress, heartbeat
        See `run_sweep`.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        store: RunStore,
        resume: Resume,
        *,
        max_members: Callable[[Job], int],
        backend: Callable[[Job], str],
        num_workers: int,
        progress: Callable[[Progress], None] | None = None,
        heartbeat: float = 1.0,
    ) -> None:
        self.store, self.resume, self.max_members, self.backend = store, resume, max_members, backend
        self.branches = branch_steps(jobs)
        self.stored = {record.run_id: record for record in store.records()}
        self.unfinished = {job.run_id for job in jobs}
        self.active: dict[str, CohortPlan] = {}
        self.attempts: dict[str, int] = {}
        self.ended: dict[str, Status] = {}
        self.messages: list[str] = []
        self.flops = 0.0
        plans = self._plan(jobs)
        self.tracker = Tracker({plan.id: plan for plan in plans}, max(1, num_workers))
        self.report = Reporter(self.tracker, progress, heartbeat)

    @property
    def plans(self) -> list[CohortPlan]:
        """Cohorts that are known now."""
        return list(self.tracker.plans.values())

    def drive(self, executor: Executor) -> None:
        """Train everything. On Ctrl-C, or when the store cannot be written, workers save first; then it is raised."""
        try:
            while self.tracker.waiting or self.active:
                self._submit(executor)
                if self.active:
                    executor.wait(self._handle, POLL_SECONDS)
                self.report()
        except KeyboardInterrupt:
            executor.stop(self._handle)
            raise
        except Exception:
            executor.stop(lambda event: None)
            raise
        self.resume.clean({*self.ended, *(r for r, record in self.stored.items() if record.status in FINISHED)})
        self.report(now=True)

    # Handing out --------------------------------------------------------------------------------------------------

    def _plan(self, jobs: Iterable[Job]) -> list[CohortPlan]:
        jobs = list(jobs)
        return plan_cohorts(jobs, max_members=self.max_members, starts=self.resume.starts(jobs, self.active))

    def _submit(self, executor: Executor) -> None:
        """Give the most expensive cohorts that can start to free workers."""
        for plan in sorted(
            (self.tracker.plans[c] for c in self.tracker.waiting), key=lambda plan: -plan.expected_flops
        ):
            if executor.free() == 0:
                return
            ready = self._ready(plan)
            if ready is None:
                continue
            self._store([job.run_id for job in ready.jobs], status="running", message="")
            self.active[plan.id] = ready
            self.tracker.started(plan.id)
            folder = None if self.resume.folder is None else str(self.resume.folder)
            first = ready.jobs[0]
            executor.submit(Train(ready.task(self.branches, folder, self.resume.origin(first), self.backend(first))))

    def _ready(self, plan: CohortPlan) -> CohortPlan | None:
        """``plan`` with the states that its runs start from; None while a parent has not come to the branch step."""
        if plan.first_step == 0:
            return plan
        starts, orphans = dict(plan.starts), []
        for job in plan.jobs:
            if job.run_id in starts:
                continue
            start = self.resume.branch(job)
            if start is not None:
                starts[job.run_id] = start
            elif job.config.parent in self.unfinished:
                return None
            else:
                orphans.append(job)
        if orphans:
            self._without_state(plan, orphans)
            return None
        return replace(plan, starts=starts)

    def _without_state(self, plan: CohortPlan, orphans: list[Job]) -> None:
        """Branches whose parent left no state: repeat its steps if it got that far, else they cannot be trained."""
        rest = [job for job in plan.jobs if job not in orphans]
        possible = [job for job in orphans if self._parent_reached(job)]
        plans = self._plan(rest)
        plans += plan_cohorts(possible, max_members=self.max_members, starts={j.run_id: (0, None) for j in possible})
        self.tracker.replace(plan.id, plans)
        if possible:
            self._say(f"{plan.label}: no state of the parent at step {plan.first_step}, its steps are repeated")
        for job in orphans:
            if job not in possible:
                self._end(job.run_id, "failed", f"its parent {job.config.parent} ended before step {plan.first_step}")

    def _parent_reached(self, job: Job) -> bool:
        parent = self.stored.get(str(job.config.parent))
        return parent is not None and bool(parent.curve) and parent.curve[-1].step >= job.config.branch_step

    # Hearing back -------------------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        if isinstance(event, CohortProgress):
            self.tracker.heard(event)
            self.report()
        elif isinstance(event, Finished):
            self._finished(event)
        elif isinstance(event, Ended):
            plan = self.active.pop(event.cohort)
            if event.complete:
                self.tracker.over(plan.id)
                self.resume.forget(plan.id)
        elif isinstance(event, Failed):
            self._failed(event)
        elif isinstance(event, Lost):
            self._lost(event)

    def _finished(self, event: Finished) -> None:
        record, plan = event.record, self.active[event.cohort]
        shape, batch = record.config.shape, record.config.recipe.batch_tokens
        self.flops += record.flops - plan.first_step * batch * flops_per_token(shape, "exact")
        self.stored[record.run_id] = record
        self.store.update(record)
        self._note(record.run_id, record.status, record.message)

    def _failed(self, event: Failed) -> None:
        """A cohort raised an error (memory, say): it is tried in two halves, a run that was alone has failed."""
        plan = self.active.pop(event.cohort)
        left = [job for job in plan.jobs if job.run_id in self.unfinished]
        if len(left) < 2:
            self.tracker.replace(plan.id, [])
            for job in left:
                self._end(job.run_id, "failed", event.message)
            return
        half = -(-len(left) // 2)
        self._say(f"{plan.label}: {event.message}; its {len(left)} runs are tried again, {half} at a time")
        starts = self.resume.starts(left, self.active)
        self.tracker.replace(plan.id, plan_cohorts(left, max_members=half, starts=starts))

    def _lost(self, event: Lost) -> None:
        """A worker died: its runs continue from their last checkpoint, at most `RESTARTS` times."""
        plan = self.active.pop(event.cohort)
        left = [job for job in plan.jobs if job.run_id in self.unfinished]
        for job in left:
            self.attempts[job.run_id] = self.attempts.get(job.run_id, 0) + 1
        again = [job for job in left if self.attempts[job.run_id] <= RESTARTS]
        self.tracker.replace(plan.id, self._plan(again))
        if again:
            self._say(f"{plan.label}: {event.message}; it continues from its last checkpoint")
        for job in left:
            if job not in again:
                self._end(job.run_id, "failed", f"{event.message}, {RESTARTS + 1} times")

    def _end(self, run_id: str, status: Status, message: str) -> None:
        self._store([run_id], status=status, message=message)
        self._note(run_id, status, message)

    def _note(self, run_id: str, status: Status, message: str) -> None:
        self.unfinished.discard(run_id)
        self.ended[run_id] = self.tracker.ended[run_id] = status
        if status in ("failed", "diverged"):
            self._say(f"run {run_id} {status}: {message}")

    def _store(self, run_ids: Iterable[str], **changes: Any) -> None:
        records = {run_id: msgspec.structs.replace(self.stored[run_id], **changes) for run_id in run_ids}
        self.stored |= records
        self.store.update_all(records.values())

    def _say(self, message: str) -> None:
        self.messages.append(message)
        self.report(message)
