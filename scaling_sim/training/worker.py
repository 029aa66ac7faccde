"""A worker process: trains the cohorts that it is given, one after another.

`main` is the whole process: orders come in on stdin, events go out on stdout. Whatever a
library prints goes to stderr. When the driver disappears the worker saves at the next chunk and ends.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO

import numpy as np

from scaling_sim.engine.protocol import Backend, Tokens, Trainer
from scaling_sim.engine.registry import get_backend
from scaling_sim.runs.record import RunRecord
from scaling_sim.training.evaluation import NOISE_BATCHES, evaluation_windows, usable_splits
from scaling_sim.training.loop import CohortLoop, CohortProgress, CohortTask
from scaling_sim.training.member import Memory, Run
from scaling_sim.training.messages import (
    Ended,
    Event,
    Failed,
    Finished,
    Order,
    Setup,
    Stop,
    Time,
    Timed,
    Train,
    receive_order,
    send,
)
from scaling_sim.training.schedule import learning_rates

Sink = Callable[[Event], None]
WARM_UP = {"cpu": 1, "cuda": 10}
"""Updates before timing: the first may compile; the others let a GPU capture its graphs of one and of eight."""


class Worker:
    """Carries out orders; used by the worker process and, with ``workers=0``, by the driver itself.

    Parameters
    ----------
    setup : Setup
    sink : callable
        Receives every event.
    stopped : callable
        Whether to save and leave at the next chunk.
    splits : mapping, optional
        Token arrays; read from the files of ``setup`` by default.
    """

    def __init__(
        self, setup: Setup, sink: Sink, stopped: Callable[[], bool], splits: Mapping[str, Tokens] | None = None
    ) -> None:
        self.setup, self.sink, self.stopped = setup, sink, stopped
        self.splits = splits if splits is not None else {name: file.open() for name, file in setup.splits.items()}
        self.backend: Backend = get_backend(setup.backend)

    def _backend(self, task: CohortTask) -> Backend:
        return get_backend(task.backend) if task.backend not in ("", self.backend.name) else self.backend

    def train(self, task: CohortTask) -> None:
        """Train a cohort; the last event is `Ended` or `Failed`."""
        listener = _Listener(task.id, self.sink, self.stopped)
        try:
            loop = CohortLoop(
                task,
                self.splits,
                self._backend(task),
                self.setup.device,
                self.setup.precision,
                listener,
                checkpoint_seconds=self.setup.checkpoint_seconds,
                chunk_seconds=self.setup.chunk_seconds,
            )
            self.sink(Ended(task.id, loop.run()))
        except Exception as error:  # one failed run never stops a sweep
            self._failed(task, error)

    def time(self, task: CohortTask, seconds: float) -> None:
        """Measure the speed of a cohort for about ``seconds`` after `WARM_UP` updates.

        For 0 seconds every kernel is used once and none is timed: the answer is 0 tokens/s, and what had to be compiled
        is in the compilers' caches.
        """
        try:
            self.sink(Timed(task.id, self._tokens_per_second(task, seconds)))
        except Exception as error:
            self._failed(task, error)

    def _tokens_per_second(self, task: CohortTask, seconds: float) -> float:
        splits = usable_splits(self.splits, task.jobs[0].config.shape.n_ctx)
        trainer = self._backend(task).start(task.cohort(), splits, self.setup.device, self.setup.precision)
        runs = [Run(i, job, Memory(), len(splits) - 1) for i, job in enumerate(task.jobs)]
        agree: Callable[[int], int] = getattr(trainer, "agree", int)
        warm_up = WARM_UP[self.setup.device.partition(":")[0]]
        step, num, made, spent = 0, 1, 0, 0.0
        while num:
            starts = np.stack([run.batches.starts(step, num) for run in runs], axis=1)
            lr = np.stack([learning_rates(run.recipe, step, num) for run in runs], axis=1)
            began = time.perf_counter()
            trainer.advance(step, starts, lr)
            step += num
            if seconds <= 0:
                self._use_others(trainer, runs, splits)
                return 0.0
            if step <= warm_up:
                num = max(1, warm_up - step)
                continue
            spent += time.perf_counter() - began  # what is drawn on the host is drawn ahead while runs are trained
            made = step - warm_up
            num = agree(int(np.clip(made * (seconds - spent) / spent, 0, 2 * made)) or int(spent < seconds))
        return made * len(runs) * runs[0].recipe.batch_tokens / spent

    def _use_others(self, trainer: Trainer, runs: Sequence[Run], splits: Mapping[str, Tokens]) -> None:
        """What a run needs besides updates: an evaluation and a measurement of the noise."""
        windows = evaluation_windows(splits, runs[0].config)
        trainer.evaluate("test", windows["test"][:1])
        trainer.gradient_noise(np.stack([run.noise_starts(0, NOISE_BATCHES) for run in runs]))

    def _failed(self, task: CohortTask, error: Exception) -> None:
        print("".join(traceback.format_exception(error)), file=sys.stderr, flush=True)
        self.sink(Failed(task.id, f"{type(error).__name__}: {error}"))


class _Listener:
    """Turns what the loop says into events."""

    def __init__(self, cohort: str, sink: Sink, stopped: Callable[[], bool]) -> None:
        self.cohort, self.sink, self.should_stop = cohort, sink, stopped

    def progress(self, progress: CohortProgress) -> None:
        self.sink(progress)

    def finished(self, record: RunRecord) -> None:
        self.sink(Finished(self.cohort, record))


def main() -> int:
    """Serve until the driver says `Stop` or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where Ctrl-C reaches us too: the driver tells us what to do
    orders_in, events_out = sys.stdin.buffer, _private_stdout()
    setup = receive_order(orders_in)
    if not isinstance(setup, Setup):
        return 1
    stop = threading.Event()
    orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(orders_in, orders, stop), daemon=True).start()
    worker = Worker(setup, _guarded(events_out, stop), stop.is_set)
    while not stop.is_set():
        order = orders.get()
        if isinstance(order, Train):
            worker.train(order.task)
        elif isinstance(order, Time):
            worker.time(order.task, order.seconds)
    return 0


def _listen(pipe: BinaryIO, orders: queue.SimpleQueue[Order | None], stop: threading.Event) -> None:
    while True:
        order = receive_order(pipe)
        if order is None or isinstance(order, Stop):
            stop.set()
            orders.put(None)
            return
        orders.put(order)


def _guarded(pipe: BinaryIO, stop: threading.Event) -> Sink:
    """Sends events; a driver that is gone is a reason to stop, not an error."""

    def sink(event: Event) -> None:
        try:
            send(pipe, event)
        except OSError:
            stop.set()

    return sink


def _private_stdout() -> BinaryIO:
    """The pipe behind stdout, for us alone; stdout itself becomes stderr."""
    private = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(private, "wb")
