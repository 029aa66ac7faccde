"""One run inside a cohort's loop: its curve, divergence, early stopping, and the record it becomes."""

from __future__ import annotations

import importlib
import math
import platform
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from scaling_sim.data.batches import Batches
from scaling_sim.engine.cohort import Precision
from scaling_sim.engine.protocol import Backend
from scaling_sim.model.count import flops_per_token
from scaling_sim.runs.record import CurvePoint, RunRecord, Status
from scaling_sim.training.evaluation import evaluation_steps, noise_sequences, num_test_windows
from scaling_sim.training.job import Job
from scaling_sim.training.noise_scale import NoiseAverage

DIVERGED_ABOVE = 1.5
"""Nats above ln(V), the loss of a uniform guess."""
DIVERGED_STEPS = 50
"""Consecutive steps above that limit after which a run counts as diverged."""


@dataclass(frozen=True)
class Place:
    """Where a run was computed."""

    backend: str
    device: str
    precision: Precision
    versions: dict[str, str]


class Memory(msgspec.Struct):
    """What must survive an interruption besides weights and moments. The position in the data follows from the step."""

    curve: list[CurvePoint] = []
    loss_sum: float = 0.0
    loss_count: int = 0
    above: int = 0
    """Consecutive steps above the divergence limit, up to now."""
    best: int = -1
    waited: int = 0
    """Evaluations since the lowest loss on ``stop_split``."""
    noise: NoiseAverage = msgspec.field(default_factory=NoiseAverage)
    seconds: float = 0.0


class Run:
    """A member's side of the loop.

    Parameters
    ----------
    id : int
        Member id in the cohort.
    job : Job
    memory : Memory
        Fresh, or from a checkpoint.
    num_splits : int
        Evaluated splits.
    """

    def __init__(self, id: int, job: Job, memory: Memory, num_splits: int) -> None:
        self.id, self.job, self.config, self.memory = id, job, job.config, memory
        self.recipe, shape = job.config.recipe, job.config.shape
        self.batch_sequences = self.recipe.batch_tokens // shape.n_ctx
        self.batches = Batches(self.config.unique_tokens, shape.n_ctx, self.batch_sequences, self.recipe.seed)
        self.evaluations = frozenset(evaluation_steps(self.config).tolist())
        self.num_windows = num_test_windows(self.config, num_splits)
        self.limit = math.log(shape.vocab_size) + DIVERGED_ABOVE
        self.status: Status = "running"
        self.message = ""

    @property
    def finished(self) -> bool:
        """Whether the run has ended, in whatever way."""
        return self.status != "running"

    def noise_starts(self, step: int, num_batches: int) -> NDArray[np.int64]:
        """Windows of the updates that follow ``step``, as (num_batches, B_small) starts."""
        num = noise_sequences(self.num_windows)
        starts = self.batches.starts(step, -(-num // self.batch_sequences)).reshape(-1)[:num]
        return starts.reshape(num_batches, -1)

    def account(self, first_step: int, losses: NDArray[np.float64]) -> None:
        """Take in the training losses (K,) of updates first_step + 1 …; may end the run as diverged."""
        stop = self._diverged_at(losses)
        if stop is not None:
            self.end("diverged", f"{self._why(losses[stop])} at step {first_step + stop + 1}")
            return
        # Added one after another, so that the sum does not depend on how steps are cut into chunks.
        self.memory.loss_sum = float(np.add.accumulate(np.append(self.memory.loss_sum, losses))[-1])
        self.memory.loss_count += len(losses)

    def _diverged_at(self, losses: NDArray[np.float64]) -> int | None:
        """Index of the loss that makes the run diverged, None if none does."""
        high = ~(losses <= self.limit)
        if not high.any():
            self.memory.above = 0
            return None
        for k, loss in enumerate(losses.tolist()):
            self.memory.above = self.memory.above + 1 if high[k] else 0
            if not math.isfinite(loss) or self.memory.above >= DIVERGED_STEPS:
                return k
        return None

    def _why(self, loss: float) -> str:
        if not math.isfinite(loss):
            return "loss or gradient not finite"
        return f"loss above ln(vocab_size) + {DIVERGED_ABOVE} for {DIVERGED_STEPS} steps"

    def record_point(self, point: CurvePoint) -> None:
        """Append an evaluation; may end the run: not finite, stopped early, or all steps done."""
        if not all(math.isfinite(loss) for loss in point.losses.values()):
            self.end("diverged", f"evaluated loss not finite at step {point.step}")
            return
        memory = self.memory
        memory.curve.append(point)
        memory.loss_sum, memory.loss_count = 0.0, 0
        if self.config.early_stop and not self._is_best(point):
            memory.waited += 1
            if memory.waited >= self.config.patience:
                self.end("stopped", f"no lower {self.config.stop_split} loss in {memory.waited} evaluations")
        else:
            memory.best, memory.waited = len(memory.curve) - 1, 0
        if point.step >= self.recipe.steps and not self.finished:
            self.end("done")

    def _is_best(self, point: CurvePoint) -> bool:
        split, memory = self.config.stop_split, self.memory
        return memory.best < 0 or point.losses[split] < memory.curve[memory.best].losses[split]

    def end(self, status: Status, message: str = "") -> None:
        """Mark the run as ended."""
        self.status, self.message = status, message

    def train_loss(self) -> float:
        """Mean training loss since the last evaluation, nats."""
        return self.memory.loss_sum / self.memory.loss_count if self.memory.loss_count else math.nan

    def record(self, step: int, place: Place) -> RunRecord:
        """The run as it is stored, after ``step`` updates (those of a branch's parent included)."""
        memory = self.memory
        return RunRecord(
            run_id=self.job.run_id,
            config=self.config,
            purposes=self.job.purposes,
            status=self.status,
            curve=tuple(memory.curve),
            backend=place.backend,
            device=place.device,
            precision=place.precision,
            seconds=memory.seconds,
            flops=step * self.recipe.batch_tokens * flops_per_token(self.config.shape, "exact"),
            best=memory.best,
            message=self.message,
            versions=place.versions,
        )


def versions(backend: Backend) -> dict[str, str]:
    """Versions that a run's numbers depend on, and what the backend says of itself (``describe()``, if it has one)."""
    names = ("scaling_sim", "numpy")
    found = {name: str(getattr(importlib.import_module(name), "__version__", "unknown")) for name in names}
    describe: Callable[[], dict[str, str]] | None = getattr(backend, "describe", None)
    return {**found, "python": platform.python_version(), **(describe() if describe else {})}
