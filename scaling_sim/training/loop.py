"""Train one cohort: advance, evaluate, stop, remember.

The loop goes from boundary to boundary (an evaluation, a decay branch, the end of a member) in chunks of about a
second. Numbers do not depend on where chunks end, so neither on the machine's speed nor on interruptions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from scaling_sim.config import Config
from scaling_sim.engine.cohort import Cohort, Member, Precision
from scaling_sim.engine.protocol import Backend, Tokens, Trainer
from scaling_sim.runs.record import CurvePoint, RunRecord
from scaling_sim.training.checkpoint import Arrays, read_checkpoint, sweep_orphans, write_checkpoint
from scaling_sim.training.evaluation import (
    NOISE_BATCHES,
    evaluation_windows,
    noise_sequences,
    position_means,
    usable_splits,
)
from scaling_sim.training.job import Job
from scaling_sim.training.member import Memory, Place, Run, versions
from scaling_sim.training.noise_scale import two_batch_estimate
from scaling_sim.training.prefetch import StartsAhead
from scaling_sim.training.schedule import learning_rate, learning_rates

CHUNK_SECONDS = 1.0
"""Work between two looks at the outside world."""
CHUNK_STARTS = 4_000_000
"""Most window starts handed over at once (32 MB)."""


class Start(msgspec.Struct, frozen=True):
    """Where a member's weights come from: the entry of ``run_id`` in the checkpoint directory ``path``."""

    path: str
    run_id: str


class CohortTask(Config, frozen=True):
    """One cohort as a worker gets it.

    Parameters
    ----------
    id : str
        Name of the cohort, also of its checkpoint folder.
    jobs : tuple of Job
        Members; member ids are positions in it.
    first_step : int
        Updates made before; with ``starts`` for every run if not 0.
    starts : dict
        Run id → `Start`.
    branches : dict
        Run id → steps after which its state is kept for decay branches.
    folder : str or None
        The sweep's checkpoint folder; None trains without.
    origin : str
        Backend and precision, noted in checkpoints.
    backend : str
        Name of the backend that trains it; empty: that of the worker.
    """

    id: str
    jobs: tuple[Job, ...]
    first_step: int = 0
    starts: dict[str, Start] = msgspec.field(default_factory=dict)
    branches: dict[str, tuple[int, ...]] = msgspec.field(default_factory=dict)
    folder: str | None = None
    origin: str = ""
    backend: str = ""

    def cohort(self) -> Cohort:
        """What the backend trains."""
        config = self.jobs[0].config
        recipe = config.recipe
        return Cohort(
            shape=config.shape,
            batch_sequences=recipe.batch_tokens // config.shape.n_ctx,
            members=tuple(
                Member(id=i, seed=job.config.recipe.seed, dropout=job.config.recipe.dropout)
                for i, job in enumerate(self.jobs)
            ),
            weight_decay=recipe.weight_decay,
            beta1=recipe.beta1,
            beta2=recipe.beta2,
            clip_norm=recipe.clip_norm,
            optimizer=recipe.optimizer,
        )


class CohortProgress(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Where a cohort is."""

    cohort: str
    members: int
    """Still training."""
    step: int
    steps: int
    """Of the longest member still training."""
    loss: float
    """Mean training loss of the last chunk over live members, nats."""
    tokens_per_second: float
    """Of all members together, evaluations included; 0 before it is known."""


class Listener(Protocol):
    """Who wants to hear what happens in a cohort."""

    def progress(self, progress: CohortProgress) -> None:
        """A chunk has ended."""

    def finished(self, record: RunRecord) -> None:
        """A run has ended; everything that others need of it is on the disk."""

    def should_stop(self) -> bool:
        """Whether to save and leave at the next chunk."""
        ...


class CohortLoop:
    """Trains the members of one task to their ends.

    Parameters
    ----------
    task : CohortTask
    splits : mapping
        Name → 1-D token array; ``train``, ``validation``, ``test`` and the held-out distributions.
    backend, device, precision
        Who computes.
    listener : Listener
    checkpoint_seconds : float
        Least time between two checkpoints, of which writing takes at most a fiftieth; 0 writes one after every chunk.
    chunk_seconds : float
        Length aimed at for one chunk.
    """

    def __init__(
        self,
        task: CohortTask,
        splits: Mapping[str, Tokens],
        backend: Backend,
        device: str,
        precision: Precision,
        listener: Listener,
        *,
        checkpoint_seconds: float = 10.0,
        chunk_seconds: float = CHUNK_SECONDS,
    ) -> None:
        splits = usable_splits(splits, task.jobs[0].config.shape.n_ctx)
        self.task, self.listener = task, listener
        self.place = Place(backend.name, device, precision, versions(backend))
        self.checkpoint_seconds, self.chunk_seconds = checkpoint_seconds, chunk_seconds
        self.trainer: Trainer = backend.start(task.cohort(), splits, device, precision)
        self._agree: Callable[[int], int] = getattr(self.trainer, "agree", int)
        self._leads: bool = getattr(self.trainer, "leads", True)
        self.step = task.first_step
        memories = self._load()
        num_splits = len(splits) - 1
        self.runs = [Run(i, job, memories.get(job.run_id) or Memory(), num_splits) for i, job in enumerate(task.jobs)]
        self.windows = {run.num_windows: evaluation_windows(splits, run.config) for run in self.runs}
        self.saved_at, self.saved_step, self.save_cost = time.monotonic(), self.step, 0.0
        self.chunk, self.rate, self.warm = 2, 0.0, False

    def run(self) -> bool:
        """Train; True if every member has ended, False if the listener asked to stop (the state is then saved)."""
        ahead = StartsAhead()
        try:
            return self._run(ahead)
        finally:
            ahead.close()

    def _run(self, ahead: StartsAhead) -> bool:
        while self.runs:
            if self._agree(self.listener.should_stop()):
                self.save()
                return False
            began = time.monotonic()
            num_live, num_steps, loss = len(self.runs), *self._advance(ahead)
            self._at_boundary()
            self._measure(time.monotonic() - began, num_steps, num_live)
            self._retire()
            self._report(loss)
            self._save_if_due()
        return True

    # One chunk ----------------------------------------------------------------------------------------------------

    def _advance(self, ahead: StartsAhead) -> tuple[int, float]:
        """Make the updates of one chunk; their number and the mean loss."""
        num = self._chunk_steps(self.runs, self.step, self._agree(self.chunk))
        starts = ahead.take(self.runs, self.step, num)
        after = self.step + num
        if longer := [run for run in self.runs if run.recipe.steps > after]:
            ahead.guess(longer, after, self._chunk_steps(longer, after, self.chunk))
        lr = np.stack([learning_rates(run.recipe, self.step, num) for run in self.runs], axis=1)
        losses = self.trainer.advance(self.step, starts, lr)
        for column, run in enumerate(self.runs):
            run.account(self.step, losses[:, column])
        self.step += num
        finite = losses[np.isfinite(losses)]
        return num, float(finite.mean()) if finite.size else float("nan")

    def _chunk_steps(self, runs: list[Run], step: int, chunk: int) -> int:
        """At most ``chunk`` updates after ``step``, none beyond the next step at which something happens to a run."""
        most = max(1, CHUNK_STARTS // (len(runs) * runs[0].batch_sequences))
        events = {at for run in runs for at in (*run.evaluations, *self._branch_steps(run))}
        to_boundary = int(min(at for at in events if at > step)) - step
        return min(to_boundary, chunk, most)

    def _branch_steps(self, run: Run) -> tuple[int, ...]:
        return self.task.branches.get(run.job.run_id, ()) if self.task.folder else ()

    def _at_boundary(self) -> None:
        due = [run for run in self.runs if not run.finished and self.step in run.evaluations]
        for run in self.runs:
            if not run.finished and self.step in self._branch_steps(run):
                self._save_branch(run)
        for num in sorted({run.num_windows for run in due}):
            self._evaluate([run for run in due if run.num_windows == num], self.windows[num])

    def _evaluate(self, due: list[Run], windows: Mapping[str, NDArray[np.int64]]) -> None:
        measured = {split: self.trainer.evaluate(split, starts) for split, starts in windows.items()}
        self._measure_noise(due)
        for run in due:
            m = self.runs.index(run)
            point = CurvePoint(
                step=self.step,
                tokens=self.step * run.recipe.batch_tokens,
                lr=learning_rate(self.step, run.recipe),
                train=run.train_loss(),
                losses={split: float(mean[m].mean()) for split, (mean, _) in measured.items()},
                errors={split: float(error[m]) for split, (_, error) in measured.items()},
                last_position={split: float(mean[m, -1]) for split, (mean, _) in measured.items()},
                noise_scale=run.memory.noise.noise_scale,
                positions=position_means(measured["test"][0][m]),
            )
            run.record_point(point)

    def _measure_noise(self, due: list[Run]) -> None:
        """Add one noise measurement to each run of ``due`` (all of them with equal numbers of windows)."""
        num = noise_sequences(due[0].num_windows)
        others = {id(run): due[0] for run in self.runs if run not in due}  # their rows are computed and not used
        starts = np.stack([others.get(id(run), run).noise_starts(self.step, NOISE_BATCHES) for run in self.runs])
        small_sq, big_sq = self.trainer.gradient_noise(starts)
        tokens = due[0].config.shape.n_ctx * num
        gradient_sq, trace = two_batch_estimate(small_sq, big_sq, tokens / NOISE_BATCHES, tokens)
        for run in due:
            m = self.runs.index(run)
            run.memory.noise.add(float(gradient_sq[m]), float(trace[m]))

    def _retire(self) -> None:
        ended = [run for run in self.runs if run.finished]
        if not ended:
            return
        self.runs = [run for run in self.runs if not run.finished]
        self.trainer.retire([run.id for run in ended])
        for run in ended:
            self.listener.finished(run.record(self.step, self.place))

    # Time ---------------------------------------------------------------------------------------------------------

    def _measure(self, seconds: float, num_steps: int, num_live: int) -> None:
        """Update the speed, the length of the next chunk and the time that each run has taken."""
        for run in self.runs:
            run.memory.seconds += seconds / num_live
        speed = num_steps * num_live * self.runs[0].recipe.batch_tokens / max(seconds, 1e-9)
        if self.warm:  # the first chunk may compile
            self.rate = speed if self.rate == 0.0 else 0.7 * self.rate + 0.3 * speed
        self.warm = True
        wanted = num_steps * self.chunk_seconds / max(seconds, 1e-9)
        self.chunk = int(np.clip(wanted, 1, 2 * self.chunk))

    def _report(self, loss: float) -> None:
        steps = max((run.recipe.steps for run in self.runs), default=self.step)
        self.listener.progress(
            CohortProgress(
                cohort=self.task.id,
                members=len(self.runs),
                step=self.step,
                steps=steps,
                loss=loss,
                tokens_per_second=self.rate,
            )
        )

    # Checkpoints --------------------------------------------------------------------------------------------------

    def _load(self) -> dict[str, Memory]:
        """Take up the states named by the task; the memories of its runs."""
        if self.task.folder and self._leads:
            sweep_orphans(Path(self.task.folder) / self.task.id)
        if not self.task.starts:
            return {}
        opened = {start.path: read_checkpoint(Path(start.path)) for start in self.task.starts.values()}
        rows: list[Arrays] = []
        memories: dict[str, Memory] = {}
        for job in self.task.jobs:
            start = self.task.starts[job.run_id]
            manifest, state, loop = opened[start.path]
            row = manifest.run_ids.index(start.run_id)
            rows.append({name: array[row : row + 1] for name, array in state.items()})
            memories.update({k: v for k, v in _decode_memories(loop).items() if k == job.run_id})
        state = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        state["ids"] = np.arange(len(rows), dtype=np.int64)
        self.trainer.load_state(state)
        return memories

    def _save_if_due(self) -> None:
        wait = max(self.checkpoint_seconds, 50 * self.save_cost) if self.checkpoint_seconds else 0.0
        if self.runs and self._agree(time.monotonic() - self.saved_at >= wait):
            self.save()

    def save(self) -> None:
        """Write a checkpoint of the live members, unless there is one of this step."""
        if not self.task.folder or self.step == self.saved_step:
            return
        began = time.monotonic()
        memories = {run.job.run_id: run.memory for run in self.runs}
        folder, state = Path(self.task.folder) / self.task.id, self.trainer.state()
        if self._leads:
            loop, run_ids = msgspec.json.encode(memories), tuple(memories)
            write_checkpoint(folder, self.step, run_ids, state, loop, origin=self.task.origin)
        self.saved_at, self.saved_step = time.monotonic(), self.step
        self.save_cost = self.saved_at - began

    def _save_branch(self, run: Run) -> None:
        """Keep the state of one member for decay branches."""
        row = self.trainer.live().index(run.id)
        state = {name: array[row : row + 1] for name, array in self.trainer.state().items()}
        folder = branch_folder(Path(str(self.task.folder)), run.job.run_id)
        if self._leads:
            run_ids = (run.job.run_id,)
            write_checkpoint(folder, self.step, run_ids, state, b"{}", origin=self.task.origin, keep=1_000_000)


def branch_folder(folder: Path, run_id: str) -> Path:
    """Where the states are kept from which branches of ``run_id`` start."""
    return folder / f"branch-{run_id}"


def _decode_memories(loop: bytes) -> dict[str, Memory]:
    decoded: dict[str, Any] = msgspec.json.decode(loop)
    return {run_id: msgspec.convert(memory, Memory) for run_id, memory in decoded.items()}
