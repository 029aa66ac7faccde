"""How long each system will take on one GPU: from measured speeds of the backends, corrected by a calibration."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from scaling_sim.engine.protocol import Backend
from scaling_sim.engine.registry import OWN_BACKENDS
from scaling_sim.engine.throughput import expected_rate
from scaling_sim.model.count import flops_per_token
from scaling_sim.study.kaplan.paths import path_of
from scaling_sim.study.kaplan.plan import LARGE_RUN, Planned, compute, portions, share_of_evaluation
from scaling_sim.training import Job
from scaling_sim.training.cohort_size import cohort_of, kind_of, saturating
from scaling_sim.training.evaluation import evaluation_share
from scaling_sim.training.planner import CohortPlan, expected_steps, plan_cohorts

START_SECONDS = 0.35
"""To set up one cohort on a GPU, capture its graphs and read its first losses back (sweep_h200_2026-11.md)."""
COMPILE_SECONDS = {"cupy": 3.7, "fused": 9.0, "stacked": 25.0}
"""Of one kernel configuration that no cache holds: measured 3.7 s (cupy_h200_2026-11.md) and 9 s (the two warm and cold
sweeps of sweep_h200_2026-11.md); assumed for compiled blocks."""
AHEAD = {"cupy": 3, "torch": 3}
"""Processes that compile while earlier runs are trained; so a third of all compilation is expected to be waited for."""
DROPOUT_SPEED = 0.7
"""Speed with dropout relative to that without it: assumed."""
STACKED_FLOPS = 4e11
"""FLOP/s per unit of width of one wide model with batches of 8192 tokens: assumed, 1e14 at d = 256, 2e14 at 512."""

Rate = Callable[[CohortPlan], float]
"""Tokens per second of a cohort, evaluations not included."""


def table_rate(plan: CohortPlan) -> float:
    """Tokens per second by the throughput tables of the backends and the assumptions above."""
    job = plan.jobs[0]
    shape, path = job.config.shape, path_of(job.config.shape)
    if path == "stacked":
        return STACKED_FLOPS * shape.d_model / flops_per_token(shape, "exact")
    rate = expected_rate(_backend("cupy" if path == "cupy" else "torch"), cohort_of(job, len(plan.jobs)), "bfloat16")
    assert rate is not None
    return rate * (DROPOUT_SPEED if any(other.config.recipe.dropout for other in plan.jobs) else 1.0)


def _backend(name: str) -> Backend:
    """One of our backends, whether it works here or not: its table is wanted, not its kernels."""
    module, attribute = OWN_BACKENDS[name].split(":")
    found: Backend = getattr(importlib.import_module(module), attribute)
    return found


@dataclass(frozen=True)
class Calibrated:
    """Table rates times a factor measured on this card.

    Attributes
    ----------
    factors : mapping
        Path (`path_of`) → measured over expected speed; paths that were not measured take the table's.
    """

    factors: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, plan: CohortPlan) -> float:
        """Tokens per second of ``plan``."""
        return table_rate(plan) * self.factors.get(path_of(plan.jobs[0].config.shape), 1.0)


class SystemEstimate(msgspec.Struct, frozen=True):
    """What one system is expected to take."""

    system: str
    corpus: str
    figures: tuple[str, ...]
    runs: int
    new_runs: int
    compute_flops: float
    """6·N·tokens of the new runs."""
    evaluation_share: float
    large_runs: int
    kernels: int
    """Kernel configurations that no earlier system has compiled."""
    compile_seconds: float
    seconds: float
    """All of it, compilation counted."""

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return built


def estimate(
    planned: Sequence[Planned], calibrated: Calibrated | None = None, finished: Iterable[str] = ()
) -> list[SystemEstimate]:
    """Expected seconds of every system, what is ``finished`` (run ids) left out; its kernels are not compiled again."""
    calibrated, done = calibrated or Calibrated(), set(finished)
    known = {kernel_of(job) for one in planned for job in one.new if job.run_id in done}
    rows = []
    for one in planned:
        todo = [job for job in one.new if job.run_id not in done]
        fresh = {key for key in map(kernel_of, todo) if key not in known}
        known |= fresh
        compile_seconds = sum(COMPILE_SECONDS[key[0]] / AHEAD["cupy" if key[0] == "cupy" else "torch"] for key in fresh)
        seconds = compile_seconds + sum(cohort_seconds(plan, calibrated) for plan in cohorts(todo))
        rows.append(
            SystemEstimate(
                system=one.system.name,
                corpus=one.system.corpus,
                figures=one.system.figures,
                runs=len(one.jobs),
                new_runs=len(todo),
                compute_flops=sum(map(compute, todo)),
                evaluation_share=float(share_of_evaluation(todo)),
                large_runs=sum(compute(job) > LARGE_RUN for job in todo),
                kernels=len(fresh),
                compile_seconds=compile_seconds,
                seconds=float(seconds),
            )
        )
    return rows


def kernel_of(job: Job) -> tuple[Any, ...]:
    """What is compiled for a run: path, shape, and dropout where the kernels differ."""
    shape = job.config.shape
    return path_of(shape), msgspec.json.encode(shape), path_of(shape) == "cupy" and job.config.recipe.dropout > 0


def cohorts(jobs: Iterable[Job]) -> list[CohortPlan]:
    """Cohorts as the sweeps of `portions` will make them on one GPU."""
    return [
        plan
        for portion in portions(jobs)
        for plan in plan_cohorts(portion, max_members=lambda job: saturating(kind_of(job)))
    ]


def cohort_seconds(plan: CohortPlan, rate: Rate) -> float:
    """Start, updates and evaluations of one cohort; members that stop early leave it."""
    updates = sum(max(1, expected_steps(job) - plan.first_step) for job in plan.jobs)
    tokens = updates * plan.jobs[0].config.recipe.batch_tokens
    share = sum(evaluation_share(job.config, 6, expected_steps(job)) for job in plan.jobs) / len(plan.jobs)
    return START_SECONDS + tokens * (1 + share) / rate(plan)


def describe(rows: Sequence[SystemEstimate], source: str) -> str:
    """A table for reading."""
    head = (
        f"{'system':<10s} {'runs':>5s} {'new':>5s} {'FLOP':>9s} {'eval':>6s} {'kernels':>7s} {'seconds':>8s}  figures"
    )
    lines = [
        f"{row.system:<10s} {row.runs:5d} {row.new_runs:5d} {row.compute_flops:9.2e} {row.evaluation_share:6.1%}"
        f" {row.kernels:7d} {row.seconds:8.1f}  {', '.join(row.figures)}"
        for row in rows
    ]
    flops = sum(row.compute_flops for row in rows)
    share = sum(row.evaluation_share * row.compute_flops for row in rows) / flops if flops else 0.0
    seconds, compiling = sum(row.seconds for row in rows), sum(row.compile_seconds for row in rows)
    total = (
        f"{sum(row.new_runs for row in rows)} runs, {flops:.3g} FLOP, {sum(row.large_runs for row in rows)} runs above "
        f"{LARGE_RUN:.0e}, evaluation {share:.1%}, about {seconds:.0f} s of which {compiling:.0f} compile. {source}"
    )
    return "\n".join([head, *lines, "", total])
