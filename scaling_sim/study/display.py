"""Live progress of a sweep: one line per cohort on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scaling_sim.training import CohortLine, Progress

QUIET_SECONDS = 15.0
"""Off a terminal: least time between two lines."""


class LiveDisplay:
    """A context manager that ends what rich shows on a terminal."""

    _live: Any = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)


class SweepDisplay(LiveDisplay):
    """Shows `Progress` on stderr; off a terminal it prints through ``say`` without bars."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._last = -QUIET_SECONDS

    def __enter__(self) -> SweepDisplay:
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True)
        if console.is_terminal and sys.stderr.isatty():
            self._live = Live(console=console, refresh_per_second=4, transient=True)
            self._live.__enter__()
        return self

    def update(self, progress: Progress) -> None:
        """Receive one `Progress`."""
        if progress.message:
            self._say(f"note: {progress.message}")
        if self._live is not None:
            self._live.update(_table(progress))
        elif time.monotonic() - self._last >= QUIET_SECONDS:
            self._last = time.monotonic()
            self._say(headline(progress))


def headline(progress: Progress) -> str:
    """The sweep in one line."""
    left = "time left unknown" if progress.seconds_left is None else f"about {duration(progress.seconds_left)} left"
    bad = f", {progress.diverged} diverged" if progress.diverged else ""
    bad += f", {progress.failed} failed" if progress.failed else ""
    return f"{progress.share:4.0%}  {progress.finished}/{progress.planned} runs{bad}  {left}"


def duration(seconds: float) -> str:
    """Seconds in words: 45 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _table(progress: Progress) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title=headline(progress), title_justify="left", title_style="bold")
    for heading, side in (
        ("cohort", "left"),
        ("runs", "right"),
        ("step", "right"),
        ("loss", "right"),
        ("tokens/s", "right"),
        ("left", "right"),
    ):
        table.add_column(heading, justify="left" if side == "left" else "right", no_wrap=True, overflow="ellipsis")
    for line in progress.cohorts:
        table.add_row(*_cells(line))
    return table


def _cells(line: CohortLine) -> tuple[str, ...]:
    left = "" if line.seconds_left is None else duration(line.seconds_left)
    step = f"{line.step}/{line.steps}"
    return line.label, str(line.members), step, f"{line.loss:.3f}", f"{line.tokens_per_second:,.0f}", left
