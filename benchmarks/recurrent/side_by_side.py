"""Several runs on one device at a time, within a limit of time: what does not fit is dropped from the end, by name."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
IDLE_SECONDS = 1e-4
TRUSTED_SECONDS = 2.0
"""Of expected work; before so much is done, the measured pace is not used."""


@dataclass
class Job(Generic[T]):
    """A run that has not finished.

    Parameters
    ----------
    name : what it is called where it is dropped
    alone : seconds that it is expected to take on its own
    updates : how many it makes
    start : makes the work: a generator of (updates queued, question whether to go on) that returns the result
    """

    name: str
    alone: float
    updates: int
    start: Callable[[], Generator[tuple[int, Callable[[], bool]], None, T]]
    made: int = 0
    work: Generator[tuple[int, Callable[[], bool]], None, T] | None = field(default=None, repr=False)
    ready: Callable[[], bool] = field(default=lambda: True, repr=False)

    @property
    def left(self) -> float:
        """Expected seconds of what it has still to do, on its own."""
        return self.alone * max(0.0, 1.0 - self.made / self.updates)

    def step(self) -> None:
        """Queue the next part."""
        if self.work is None:
            self.work = self.start()
        num, self.ready = next(self.work)
        self.made += num


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """Results in the order of the jobs, and what there is none of, each with the reason."""

    results: tuple[T, ...]
    dropped: tuple[str, ...]


class SideBySide(Generic[T]):
    """Works on several jobs at a time, in their order.

    Parameters
    ----------
    slots : jobs at a time
    gain : assumed quotient of the time one after another and side by side, until the pace is measured
    seconds : limit of the whole; the job in hand is cut when it is reached
    say : told of each result
    """

    def __init__(self, slots: int, gain: float, seconds: float, say: Callable[[str], None] = lambda line: None) -> None:
        self.slots, self.gain, self.say = slots, gain, say
        self.began = time.perf_counter()
        self.end = self.began + seconds
        self.done = 0.0

    def run(self, jobs: Sequence[Job[T]], refused: tuple[type[Exception], ...] = ()) -> Outcome[T]:
        """Results of all jobs for which there is time; a job that raises one of ``refused`` has none."""
        waiting, active = deque(jobs), list[Job[T]]()
        results: dict[str, T] = {}
        dropped: dict[str, str] = {}
        while waiting or active:
            if time.perf_counter() > self.end:
                dropped |= {job.name: "cut when the time was up" for job in active}
                dropped |= {job.name: "no time left" for job in waiting}
                break
            while waiting and len(active) < self.slots:
                job = waiting.popleft()
                if self._fits(job, active):
                    active.append(job)
                else:
                    dropped[job.name] = "no time left"
            ready = [job for job in active if job.ready()]
            for job in ready:
                self._step(job, active, results, dropped, refused)
            if not ready:
                time.sleep(IDLE_SECONDS)
        ordered = [job.name for job in jobs]
        return Outcome(
            tuple(results[name] for name in ordered if name in results),
            tuple(f"{name}: {dropped[name]}" for name in ordered if name in dropped),
        )

    def _step(
        self,
        job: Job[T],
        active: list[Job[T]],
        results: dict[str, T],
        dropped: dict[str, str],
        refused: tuple[type[Exception], ...],
    ) -> None:
        before = job.left
        try:
            job.step()
        except StopIteration as end:
            results[job.name] = end.value
            active.remove(job)
            self.say(f"{time.perf_counter() - self.began:6.1f} s  {job.name}")
        except refused as error:
            dropped[job.name] = str(error).split("\n", 1)[0]
            active.remove(job)
        self.done += before - job.left

    def _fits(self, job: Job[T], active: Sequence[Job[T]]) -> bool:
        now = time.perf_counter()
        pace = (now - self.began) / self.done if self.done > TRUSTED_SECONDS else 1 / self.gain
        needed = pace * (job.alone + sum(other.left for other in active))
        return max(needed, job.alone) <= self.end - now
