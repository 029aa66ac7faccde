"""The runs of every system, what is new in each, and how they are handed to a sweep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scaling_sim.model.count import num_parameters
from scaling_sim.model.shape import Shape
from scaling_sim.study.kaplan.config import ExperimentConfig
from scaling_sim.study.kaplan.paths import backend_of, path_of
from scaling_sim.study.kaplan.rates import Rates
from scaling_sim.study.kaplan.systems import SYSTEMS, Setting, System, Text
from scaling_sim.training import Job
from scaling_sim.training.evaluation import evaluation_share
from scaling_sim.training.job import merge_jobs
from scaling_sim.training.planner import expected_steps

LARGE_RUN = 1e16
"""C = 6·N·tokens of a run that the report counts as large."""


@dataclass(frozen=True)
class Planned:
    """A system and its runs.

    Attributes
    ----------
    system : System
    jobs : tuple of Job
        All of them.
    new : tuple of Job
        Those that no earlier system has trained.
    """

    system: System
    jobs: tuple[Job, ...]
    new: tuple[Job, ...]

    @property
    def flops(self) -> float:
        """6·N·tokens of what is new, early stopping where it is expected."""
        return sum(compute(job) for job in self.new)


def compute(job: Job) -> float:
    """6·N·tokens that a run is expected to spend itself."""
    steps = expected_steps(job) - job.config.branch_step
    return 6.0 * num_parameters(job.config.shape) * steps * job.config.recipe.batch_tokens


def plan(
    config: ExperimentConfig, texts: Mapping[str, Text], rates: Rates | None = None, names: Sequence[str] = ()
) -> list[Planned]:
    """Systems in order of priority with their runs; those whose corpus is not in ``texts`` are left out.

    Parameters
    ----------
    rates : Rates, optional
        Of every size; the rule alone before there are trials.
    names : sequence of str
        Systems wanted, all of them if empty; the trials of learning rates always come along.
    """
    known: set[str] = set()
    planned = []
    for system in SYSTEMS:
        if system.corpus not in texts or (names and system.name not in (*names, "lr")):
            continue
        jobs = merge_jobs(system.jobs(Setting(config, texts[system.corpus], rates or Rates())))
        new = tuple(job for job in jobs if job.run_id not in known)
        known.update(job.run_id for job in new)
        planned.append(Planned(system, tuple(jobs), new))
    return planned


def portions(jobs: Iterable[Job]) -> list[list[Job]]:
    """Parts of a system that are trained by one sweep each, all runs of one by the same backend.

    Models whose blocks are compiled go one run at a time, with the decay branches that leave from it, the dearest
    first; then all that have hand-written kernels in torch, then all that CuPy trains.
    """
    groups: dict[str, list[Job]] = {}
    for job in merge_jobs(jobs):
        path = path_of(job.config.shape)
        key = (job.config.parent or job.run_id) if path == "stacked" else path
        groups.setdefault(key, []).append(job)
    last = [part for path in ("fused", "cupy") if (part := groups.pop(path, []))]
    return [*sorted(groups.values(), key=lambda part: -sum(map(compute, part))), *last]


def by_backend(jobs: Iterable[Job]) -> dict[str, list[Job]]:
    """Backend → runs whose kernels it will compile; of each shape with compiled blocks one, as they go one by one."""
    found: dict[str, list[Job]] = {}
    seen: set[Shape] = set()
    for job in jobs:
        shape = job.config.shape
        if path_of(shape) != "stacked" or shape not in seen:
            found.setdefault(backend_of(shape), []).append(job)
        seen.add(shape)
    return found


def share_of_evaluation(jobs: Iterable[Job], num_splits: int = 6) -> float:
    """Evaluations and noise measurements of all ``jobs`` as a share of their training, by 6·N·tokens."""
    costs = [(compute(job), evaluation_share(job.config, num_splits, expected_steps(job))) for job in jobs]
    total = sum(cost for cost, _ in costs)
    return sum(cost * share for cost, share in costs) / total if total else 0.0
