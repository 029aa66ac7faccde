"""Window starts of the updates to come, computed while the device is busy with those before."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling_sim.training.member import Run


class _Guess(NamedTuple):
    """What will be asked for next, and its starts (num, M, B) when they are ready."""

    ids: list[int]
    first_step: int
    num: int
    starts: Future[NDArray[np.int64]]


class StartsAhead:
    """Hands out window starts; one thread computes those that are likely to be asked for next.

    A wrong guess costs time and never a number: starts are a function of run and step. Only what was guessed for the
    same step is used, for the runs that are still there, and what is missing is computed.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="starts")
        self._guess: _Guess | None = None

    def guess(self, runs: Sequence[Run], first_step: int, num: int) -> None:
        """Begin to compute the starts of ``num`` updates from ``first_step`` on of ``runs``."""
        starts = self._thread.submit(window_starts, tuple(runs), first_step, num)
        self._guess = _Guess([run.id for run in runs], first_step, num, starts)

    def take(self, runs: Sequence[Run], first_step: int, num: int) -> NDArray[np.int64]:
        """Starts (num, M, B) of ``num`` updates from ``first_step`` on of ``runs``; may be a view."""
        guess, self._guess = self._guess, None
        ids = [run.id for run in runs]
        if guess is None or guess.first_step != first_step or not set(ids) <= set(guess.ids):
            return window_starts(runs, first_step, num)
        starts = guess.starts.result()[:num]
        if ids != guess.ids:
            starts = starts[:, [guess.ids.index(id) for id in ids]]
        if guess.num >= num:
            return starts
        return np.concatenate([starts, window_starts(runs, first_step + guess.num, num - guess.num)])

    def close(self) -> None:
        """End the thread; a guess that it has not begun is forgotten."""
        self._guess = None
        self._thread.shutdown(wait=True, cancel_futures=True)


def window_starts(runs: Sequence[Run], first_step: int, num: int) -> NDArray[np.int64]:
    """Starts (num, M, B) of ``num`` updates from ``first_step`` on."""
    return np.stack([run.batches.starts(first_step, num) for run in runs], axis=1)
