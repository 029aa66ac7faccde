"""A run that a sweep is asked for, and the checks that it must pass before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from scaling_sim.errors import ConfigError
from scaling_sim.runs.record import Purpose, RunConfig

SHARED_WITH_PARENT = ("shape", "corpus", "unique_tokens")
SHARED_RECIPE = (
    "peak_lr",
    "batch_tokens",
    "warmup_steps",
    "dropout",
    "weight_decay",
    "beta1",
    "beta2",
    "clip_norm",
    "seed",
    "optimizer",
)


class Job(msgspec.Struct, frozen=True):
    """A run to be trained and why: ``Job(config, ("curve",))``."""

    config: RunConfig
    purposes: tuple[Purpose, ...] = ()

    @property
    def run_id(self) -> str:
        """Identity of the run."""
        return self.config.run_id

    @property
    def num_updates(self) -> int:
        """Updates that this run makes itself: a decay branch leaves out those of its parent."""
        return self.config.recipe.steps - self.config.branch_step


def merge_jobs(jobs: Iterable[Job]) -> list[Job]:
    """Jobs with different run ids, in order; purposes of equal runs are joined."""
    merged: dict[str, Job] = {}
    for job in jobs:
        known = merged.get(job.run_id)
        purposes = tuple(dict.fromkeys((known.purposes if known else ()) + job.purposes))
        merged[job.run_id] = Job(job.config, purposes)
    return list(merged.values())


def check_job(job: Job, corpus_hash: str, num_train_tokens: int, vocab_size: int) -> None:
    """Refuse a run that this corpus cannot give.

    Raises
    ------
    ConfigError
        Naming the run, what must hold and what was given.
    """
    config, shape = job.config, job.config.shape
    where = f"run {job.run_id}"
    if config.corpus != corpus_hash:
        raise ConfigError(f"{where} was planned for corpus {config.corpus}, this is {corpus_hash}; plan it again")
    if config.recipe.batch_tokens % shape.n_ctx:
        raise ConfigError(
            f"{where}: batch_tokens must be a multiple of n_ctx ({shape.n_ctx}), got {config.recipe.batch_tokens}"
        )
    if not shape.n_ctx < config.unique_tokens <= num_train_tokens:
        raise ConfigError(
            f"{where}: unique_tokens must lie in n_ctx + 1 .. {num_train_tokens} (the training split), "
            f"got {config.unique_tokens} with n_ctx {shape.n_ctx}; shorten the context or take a larger corpus"
        )
    if vocab_size > shape.vocab_size:
        raise ConfigError(f"{where}: the corpus has {vocab_size} token ids, vocab_size {shape.vocab_size} is too small")
    if config.branch_step and not config.parent:
        raise ConfigError(f"{where}: branch_step {config.branch_step} needs a parent run")


def check_branch(job: Job, parents: Mapping[str, RunConfig]) -> None:
    """Refuse a decay branch that does not continue its parent.

    Raises
    ------
    ConfigError
        The parent is unknown, differs in what both must share, or ends before the branch begins.
    """
    config = job.config
    if config.parent is None:
        return
    where = f"decay branch {job.run_id}"
    parent = parents.get(config.parent)
    if parent is None:
        raise ConfigError(f"{where}: its parent {config.parent} is neither among the jobs nor in the store; add it")
    differing = [name for name in SHARED_WITH_PARENT if getattr(config, name) != getattr(parent, name)]
    differing += [n for n in SHARED_RECIPE if getattr(config.recipe, n) != getattr(parent.recipe, n)]
    if differing:
        raise ConfigError(f"{where} must share {', '.join(differing)} with its parent {config.parent}")
    if parent.recipe.schedule != "constant":
        raise ConfigError(f"{where}: its parent must have a constant schedule, not {parent.recipe.schedule}")
    last = min(parent.recipe.steps, config.recipe.steps - config.recipe.decay_steps)
    if config.recipe.schedule != "decay" or not 0 < config.branch_step <= last:
        raise ConfigError(
            f"{where}: schedule must be decay and branch_step lie in 1..{last} (the parent's steps and the start "
            f"of the decay), got {config.recipe.schedule} and {config.branch_step}"
        )
