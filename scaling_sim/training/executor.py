"""Where cohorts are trained: in local worker processes, or in the driver's own process.

An executor is used by one thread. It never touches the store: it only passes on what workers say.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from scaling_sim.engine.protocol import Tokens
from scaling_sim.training.loop import CohortTask
from scaling_sim.training.messages import (
    Ended,
    Event,
    Failed,
    Lost,
    Order,
    Setup,
    Stop,
    Time,
    Timed,
    Train,
    receive_event,
    send,
)
from scaling_sim.training.worker import Worker

Sink = Callable[[Event], None]
SERVE = "import sys; from scaling_sim.training.worker import main; sys.exit(main())"
"""What a worker process runs."""
STOP_SECONDS = 60.0
"""How long workers may take to save after a stop, before they are ended."""


class Executor(Protocol):
    """Runs cohorts. Every submitted cohort ends with exactly one `Ended`, `Timed`, `Failed` or `Lost` event."""

    def free(self) -> int:
        """Cohorts that could start now."""
        ...

    def submit(self, order: Train | Time) -> None:
        """Start a cohort on a free worker."""
        ...

    def wait(self, sink: Sink, seconds: float) -> None:
        """Hand over events: all that are there, waiting up to ``seconds`` for a first one."""
        ...

    def stop(self, sink: Sink) -> None:
        """Let every cohort save and leave; hand over the last events."""
        ...

    def close(self) -> None:
        """End the workers."""
        ...


class InProcess:
    """Trains in this process, one cohort at a time; for tests, debuggers and one GPU."""

    def __init__(self, setup: Setup, splits: Mapping[str, Tokens]) -> None:
        self._events: Sink = lambda event: None
        self._error: Exception | None = None
        self._worker = Worker(setup, self._pass_on, lambda: self._error is not None, splits)
        self._orders: list[Train | Time] = []

    def free(self) -> int:
        """One, unless a cohort is waiting."""
        return 1 - len(self._orders)

    def submit(self, order: Train | Time) -> None:
        """Remember the cohort; `wait` trains it."""
        self._orders.append(order)

    def wait(self, sink: Sink, seconds: float) -> None:
        """Train what was submitted, to its end."""
        self._events = sink
        while self._orders:
            order = self._orders.pop()
            if isinstance(order, Train):
                self._worker.train(order.task)
            else:
                self._worker.time(order.task, order.seconds)
            if self._error is not None:
                raise self._error

    def _pass_on(self, event: Event) -> None:
        """Hand over one event; an error of the driver stops the cohort and is not taken for the cohort's."""
        if self._error is not None:
            return
        try:
            self._events(event)
        except Exception as error:
            self._error = error

    def stop(self, sink: Sink) -> None:
        """Forget what was submitted."""
        self._orders.clear()

    def close(self) -> None:
        """Nothing to end."""


class LocalProcesses:
    """Trains in worker processes of this machine, one cohort each.

    A worker that dies is replaced; its cohort is reported as `Lost`.

    Parameters
    ----------
    setups : sequence of Setup
        One per worker; devices may differ.
    environment : mapping
        Variables added to this process's for the workers only (BLAS threads, say).
    """

    def __init__(self, setups: Sequence[Setup], environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._events: queue.Queue[tuple[_Process, Event | None]] = queue.Queue()
        self._workers = [self._start(setup) for setup in setups]

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.process.pid for worker in self._workers]

    def free(self) -> int:
        """Workers without a cohort."""
        return sum(worker.busy is None for worker in self._workers)

    def submit(self, order: Train | Time) -> None:
        """Give the cohort to a free worker."""
        index = next(i for i, worker in enumerate(self._workers) if worker.busy is None)
        if self._workers[index].dead:
            self._workers[index] = self._start(self._workers[index].setup)
        worker = self._workers[index]
        worker.busy = order.task
        worker.tell(order)

    def wait(self, sink: Sink, seconds: float) -> None:
        """Hand over events; see the protocol."""
        try:
            worker, event = self._events.get(timeout=seconds)
            while True:
                self._handle(worker, event, sink)
                worker, event = self._events.get_nowait()
        except queue.Empty:
            return

    def _handle(self, worker: _Process, event: Event | None, sink: Sink) -> None:
        if event is None:
            self._buried(worker, sink)
            return
        if isinstance(event, (Ended, Failed, Timed)):
            worker.busy = None
        sink(event)

    def _buried(self, worker: _Process, sink: Sink) -> None:
        """Say which cohort a dead worker took along; it is replaced when it is needed again."""
        code, task = worker.process.wait(), worker.busy
        worker.dead = True
        worker.end(0.0)
        if task is not None:
            worker.busy = None
            sink(Lost(task.id, f"its worker process ended with code {code}"))

    def stop(self, sink: Sink) -> None:
        """Ask every worker to save; wait for them, at most `STOP_SECONDS`."""
        for worker in self._workers:
            worker.tell(Stop())
        deadline = time.monotonic() + STOP_SECONDS
        while any(worker.busy for worker in self._workers) and time.monotonic() < deadline:
            self.wait(sink, 0.2)

    def close(self) -> None:
        """End the workers: kindly, then not."""
        for worker in self._workers:
            worker.tell(Stop())
        for worker in self._workers:
            worker.end(5.0 if worker.busy is None else 0.5)

    def _start(self, setup: Setup) -> _Process:
        worker = _Process(setup, self._environment)
        worker.listener = threading.Thread(target=self._listen, args=(worker,), daemon=True)
        worker.listener.start()
        return worker

    def _listen(self, worker: _Process) -> None:
        """Thread: pass on what one worker says until it is gone."""
        event: Event | None
        while True:
            try:
                event = receive_event(worker.events)
            except (OSError, ValueError):
                event = None
            self._events.put((worker, event))
            if event is None:
                worker.events.close()
                return


class _Process:
    """One worker process and the pipes to it."""

    def __init__(self, setup: Setup, environment: Mapping[str, str]) -> None:
        self.setup = setup
        self.busy: CohortTask | None = None
        self.dead = False
        self.listener: threading.Thread | None = None
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": _python_path(), **environment},
            start_new_session=True,  # Ctrl-C is for the driver, which tells its workers to save
        )
        self.events = cast(BinaryIO, self.process.stdout)
        self.tell(setup)

    def tell(self, order: Order) -> None:
        """Send an order; a dead worker is noticed by the thread that listens to it."""
        try:
            send(cast(BinaryIO, self.process.stdin), order)
        except (OSError, ValueError):
            return

    def end(self, seconds: float) -> None:
        """Wait for the process, then terminate it, and close the pipes."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        with contextlib.suppress(OSError):
            cast(BinaryIO, self.process.stdin).close()
        if self.listener is not None:
            self.listener.join()


def _python_path() -> str:
    """Where this process found its modules, so that a worker finds the same ones."""
    root = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(dict.fromkeys([root, *(path for path in sys.path if path)]))
