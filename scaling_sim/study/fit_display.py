"""Live progress of a fit: one line on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from scaling_sim.study.display import LiveDisplay, duration

if TYPE_CHECKING:
    from scaling_sim.inference.sampler import Progress


class FitDisplay(LiveDisplay):
    """Shows the sampler's `Progress` on stderr, if that is a terminal; use it as a context manager."""

    def __init__(self, title: str) -> None:
        self._title = title

    def __enter__(self) -> FitDisplay:
        if sys.stderr.isatty():
            from rich.console import Console

            console = Console(stderr=True)
            self._live = console.status(f"{self._title}: point estimate and first steps", spinner="line")
            self._live.__enter__()
        return self

    def update(self, progress: Progress) -> None:
        """Receive one `Progress`; the sampler calls this after each block of steps."""
        if self._live is not None:
            self._live.update(f"{self._title} {headline(progress)}")


def headline(progress: Progress) -> str:
    """The sampler in at most 41 characters: ``step 400/1230 τ 21  4 s left``, or ``≥4 s left`` while τ grows."""
    more = "≥" if progress.at_least else ""
    left = f"{more}{duration(progress.seconds_left)} left" if progress.seconds_left >= 0.5 else "checking"
    expected = max(progress.expected_steps, progress.steps)
    return f"step {progress.steps}/{expected} τ {progress.tau:.0f}  {left}"
