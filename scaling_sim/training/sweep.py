"""Run a sweep: what is missing is trained, what is there is kept, and the same call again continues."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from scaling_sim.config import writable_folder
from scaling_sim.data.corpus import Corpus
from scaling_sim.engine.cohort import Precision
from scaling_sim.engine.protocol import Tokens
from scaling_sim.errors import CheckpointWarning, DataWarning
from scaling_sim.runs.record import RunRecord
from scaling_sim.runs.store import RunStore
from scaling_sim.training.checkpoint import safetensors_numpy
from scaling_sim.training.driver import FINISHED, Driver
from scaling_sim.training.evaluation import usable_splits
from scaling_sim.training.executor import Executor, InProcess, LocalProcesses
from scaling_sim.training.job import Job, check_branch, check_job, merge_jobs
from scaling_sim.training.memory import check_memory
from scaling_sim.training.messages import Setup, split_files
from scaling_sim.training.placement import Placement, Wish, choose_backend, default_workers, worker_environment
from scaling_sim.training.planner import plan_cohorts
from scaling_sim.training.progress import Progress, SweepSummary
from scaling_sim.training.ranks import Leader, joined, united
from scaling_sim.training.resume import Resume


def run_sweep(
    jobs: Iterable[Job],
    corpus: Corpus,
    store: RunStore,
    *,
    backend: str = "auto",
    device: str | None = None,
    precision: Wish = "auto",
    workers: int | None = None,
    checkpoints: str | Path | None = None,
    checkpoint_seconds: float = 10.0,
    heartbeat: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> SweepSummary:
    """Train every run of ``jobs`` that the store does not hold as finished; returns how it went.

    Idempotent and resumable: finished runs (done, stopped, diverged) are skipped, failed and interrupted ones are
    taken up again, from their last checkpoint where there is one. A run that fails or diverges never stops the others.

    Parameters
    ----------
    jobs : iterable of Job
        Equal runs are merged. Parents of decay branches must be among them or in the store.
    corpus : Corpus
        Its hash must be that of every job.
    store : RunStore
        Written by this process only.
    backend, device, precision
        ``auto`` takes GPUs where there are any, there the faster of cupy and torch for each shape, and bfloat16
        products with float32 weights; without a GPU numba (or numpy) in float32. The
        summary says what was taken and why.
    workers : int, optional
        Local processes; one per core by default, or one per GPU where there are several. 0: this process trains.
    checkpoints : path, optional
        Folder of checkpoints. Without one, an interrupted run starts again and a decay branch repeats the steps
        of its parent.
    checkpoint_seconds : float
        Least time between two checkpoints of a cohort.
    heartbeat : float, optional
        Least seconds between two calls of ``progress`` without news, 1 by default.
    progress : callable, optional
        Receives a `Progress`, from this thread.

    Raises
    ------
    ConfigError
        A run that this corpus, memory or folder cannot give; nothing was trained.
    BackendUnavailable
        No backend can train these runs.
    KeyboardInterrupt
        After every worker has saved its state; the same call continues.
    """
    began, merged = time.monotonic(), merge_jobs(jobs)
    todo = _to_train(merged, corpus, store)
    if not todo:
        return _summary(began, None, len(merged), "nothing to train")
    folder = None if checkpoints is None else writable_folder(checkpoints)
    _check_checkpoints(folder, todo)
    _warn_of_short_splits(corpus, todo)
    backend, device, workers = united(backend, device, workers)
    placement = choose_backend(plan_cohorts(merged, max_members=1), backend, device, precision)
    num_workers = min(default_workers(workers, placement), len(todo))
    driver = Driver(
        todo,
        store,
        Resume(folder, placement.origin),
        max_members=placement.max_members,
        backend=lambda job: placement.backend(job).name,
        num_workers=num_workers,
        progress=progress,
        heartbeat=1.0 if heartbeat is None else heartbeat,
    )
    for plan in driver.plans:
        first = placement.backend(plan.jobs[0])
        check_memory(plan.task().cohort(), first, placement.devices, placement.precision, num_workers)
    with tempfile.TemporaryDirectory(prefix="scaling-sim-") as scratch:
        executor = start_executor(placement, corpus.splits, num_workers, Path(scratch), checkpoint_seconds)
        try:
            driver.drive(executor)
        finally:
            executor.close()
    return _summary(began, driver, len(merged) - len(todo), placement.reason)


def _warn_of_short_splits(corpus: Corpus, jobs: Sequence[Job]) -> None:
    longest = max((job.config.shape.n_ctx for job in jobs), default=1)
    if short := set(corpus.splits) - set(usable_splits(corpus.splits, longest)):
        names = ", ".join(sorted(short))
        message = f"held-out text shorter than n_ctx + 1 = {longest + 1} tokens is left out of evaluations: {names}"
        warnings.warn(message, DataWarning, stacklevel=3)


def start_executor(
    placement: Placement,
    splits: Mapping[str, Tokens],
    num_workers: int,
    scratch: Path,
    checkpoint_seconds: float = 10.0,
) -> Executor:
    """Workers that are ready for cohorts; ``scratch`` receives token arrays that only live in memory."""
    ranks = joined()
    files = split_files(splits, scratch) if num_workers or ranks else {}
    setups = [
        Setup(
            backend=placement.backends[0].name,
            device=placement.devices[worker % len(placement.devices)],
            precision=placement.precision,
            splits=files,
            checkpoint_seconds=checkpoint_seconds,
        )
        for worker in range(max(1, num_workers))
    ]
    if ranks is not None:
        return Leader(ranks[1], setups[0], dict(splits))
    if num_workers == 0:
        return InProcess(setups[0], splits)
    for backend in placement.backends:  # compile once, here, and not in every worker
        prepare: Callable[[Precision], None] | None = getattr(backend, "prepare", None)
        if prepare is not None:
            prepare(placement.precision)
    return LocalProcesses(setups, worker_environment(placement, num_workers))


def _to_train(jobs: list[Job], corpus: Corpus, store: RunStore) -> list[Job]:
    """Check all jobs, write what is new into the store, and return the unfinished ones."""
    stored = {record.run_id: record for record in store.records()}
    configs = {run_id: record.config for run_id, record in stored.items()} | {job.run_id: job.config for job in jobs}
    for job in jobs:
        check_job(job, corpus.hash, len(corpus.splits["train"]), corpus.vocab_size)
        check_branch(job, configs)
    new = [job for job in jobs if job.run_id not in stored]
    store.add_all(RunRecord(run_id=job.run_id, config=job.config, purposes=job.purposes) for job in new)
    for job in jobs:
        known = stored.get(job.run_id)
        if known is not None and set(job.purposes) - set(known.purposes):
            purposes = tuple(dict.fromkeys(known.purposes + job.purposes))
            store.update(msgspec.structs.replace(known, purposes=purposes))
    return [job for job in jobs if job.run_id not in stored or stored[job.run_id].status not in FINISHED]


def _check_checkpoints(folder: Path | None, jobs: Iterable[Job]) -> None:
    if folder is not None:
        safetensors_numpy()
    elif any(job.config.parent for job in jobs):
        message = "without a checkpoint folder decay branches repeat their parents' steps"
        warnings.warn(message, CheckpointWarning, stacklevel=3)


def _summary(began: float, driver: Driver | None, skipped: int, placement: str) -> SweepSummary:
    statuses = [] if driver is None else list(driver.ended.values())
    return SweepSummary(
        done=statuses.count("done") + statuses.count("stopped"),
        skipped=skipped,
        diverged=statuses.count("diverged"),
        failed=statuses.count("failed"),
        seconds=time.monotonic() - began,
        flops=0.0 if driver is None else driver.flops,
        placement=placement,
        messages=() if driver is None else tuple(driver.messages),
    )
