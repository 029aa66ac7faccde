"""Whole updates captured in CUDA graphs: several per replay, tables on the device, nothing read back in between."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling_sim.engine.cohort import Cohort
from scaling_sim.errors import BackendWarning
from scaling_sim_torch.optimizer import Schedule
from scaling_sim_torch.out_of_memory import release_memory

STEPS_PER_GRAPH = 8
MAX_TABLE = 2**22
"""Window starts held on the device at a time (32 MB)."""


class Tables:
    """What changes from update to update, one row each, and the row that is next; their addresses never change.

    Attributes
    ----------
    starts : (rows, M, B) int64
    step_size, decay : (rows, M)
    correction2 : (rows,)
    update : (rows,) int64
        1-based numbers of the updates.
    record : (rows, M) float64
        Losses, written by the device.
    step : (1,) int64
    """

    def __init__(self, num_members: int, batch: int, device: torch.device) -> None:
        self.rows = rows = max(STEPS_PER_GRAPH, min(1024, MAX_TABLE // (num_members * batch)))
        self.starts = torch.zeros(rows, num_members, batch, dtype=torch.int64, device=device)
        self.step_size = torch.zeros(rows, num_members, device=device)
        self.decay = torch.zeros(rows, num_members, device=device)
        self.correction2 = torch.ones(rows, device=device)
        self.update = torch.zeros(rows, dtype=torch.int64, device=device)
        self.record = torch.zeros(rows, num_members, dtype=torch.float64, device=device)
        self.step = torch.zeros(1, dtype=torch.int64, device=device)

    def fill(self, cohort: Cohort, first_step: int, starts: Tensor, lr: NDArray[np.float64]) -> None:
        """Put the rows of ``len(lr)`` updates and start at the first."""
        num = len(lr)
        schedule = Schedule.of(cohort, first_step, lr, self.step.device, torch.float32)
        self.starts[:num] = starts
        self.step_size[:num] = schedule.step_size[..., 0]
        self.decay[:num] = schedule.decay[..., 0]
        self.correction2[:num] = schedule.correction2
        self.update[:num] = schedule.update
        self.step.zero_()


class Replays:
    """One update as a function without arguments, run any number of times: plainly once, then from graphs.

    The first call runs it as it is, which compiles and loads whatever it needs; graphs are captured when a call asks
    for more. On the CPU, with ``capture=False``, and once memory has run out while capturing, it is run as it is.
    Graphs share their memory: no two are replayed at a time, and what an update leaves behind is older than they are.
    """

    def __init__(self, update: Callable[[], None], device: torch.device, *, capture: bool = True) -> None:
        self.update, self.device = update, device
        self.captures = capture and device.type == "cuda"
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.pool: Any = None
        self.warm = False

    def run(self, num: int) -> None:
        """Make ``num`` updates."""
        if self.captures and not self.warm and num:
            self._warm_up()
            num -= 1
        for size in (STEPS_PER_GRAPH, 1):
            while num >= size:
                graph = self._graph(size)
                if graph is None:
                    self.update()
                    num -= 1
                else:
                    graph.replay()
                    num -= size

    def _graph(self, size: int) -> torch.cuda.CUDAGraph | None:
        """That of so many updates; None where updates are run as they are."""
        if self.captures and size not in self.graphs:
            try:
                self.graphs[size] = self._capture(size)
            except torch.OutOfMemoryError:
                warnings.warn("out of memory while capturing; going on without graphs", BackendWarning, stacklevel=4)
                self.captures = False
                self.graphs.clear()
                release_memory()
        return self.graphs.get(size)

    def _warm_up(self) -> None:
        """The first update, on a side stream as capturing demands."""
        stream = _stream(self.device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.update()
        torch.cuda.current_stream().wait_stream(stream)
        self.warm = True

    def _capture(self, size: int) -> torch.cuda.CUDAGraph:
        torch.cuda.synchronize()
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with _no_collection(), torch.cuda.graph(graph, pool=self.pool, stream=_stream(self.device)):
            for _ in range(size):
                self.update()
        return graph


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without Python's collector of cycles: a graph of an earlier trainer that it destroys meanwhile ends a capture."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Where updates of a card are captured; PyTorch's own belongs to the first card that captured anything."""
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream
