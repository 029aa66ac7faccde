"""How long a sweep will take, from the speed of a few shapes measured on this machine or during the sweep."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scaling_sim.model.count import flops_per_token
from scaling_sim.model.shape import Shape
from scaling_sim.training.evaluation import evaluation_share
from scaling_sim.training.planner import CohortPlan, expected_steps

START_SECONDS = 0.1
"""To set up one cohort: initial weights, windows, first evaluation."""


@dataclass(frozen=True)
class Speed:
    """Training speed by shape: measured points of (FLOPs per token, FLOP/s) and what lies between them.

    ln(FLOP/s) is interpolated linearly in ln(FLOPs per token) and held constant outside the measured range.
    """

    points: tuple[tuple[float, float], ...]

    @classmethod
    def measured(cls, tokens_per_second: Iterable[tuple[Shape, float]]) -> Speed:
        """From tokens/s of some shapes; equal shapes are averaged geometrically."""
        found: dict[float, list[float]] = {}
        for shape, rate in tokens_per_second:
            cost = flops_per_token(shape, "exact")
            found.setdefault(cost, []).append(np.log(cost * rate))
        return cls(tuple(sorted((cost, float(np.exp(np.mean(logs)))) for cost, logs in found.items())))

    def flops_per_second(self, shape: Shape) -> float:
        """Of one worker, training only."""
        costs, rates = np.log(np.array(self.points, dtype=np.float64)).T
        return float(np.exp(np.interp(np.log(flops_per_token(shape, "exact")), costs, rates)))


@dataclass(frozen=True)
class Estimate:
    """Expected cost of a sweep. Early-stopped runs count with `scaling_sim.training.planner.EARLY_STOP_EPOCHS` passes.

    Attributes
    ----------
    seconds : float
        Wall time with ``num_workers`` workers, longest cohort first.
    flops : float
        Training FLOPs, exact count.
    plans : tuple of CohortPlan
        Most expensive first.
    cohort_seconds : dict
        Cohort id → seconds of one worker, evaluations included.
    """

    seconds: float
    flops: float
    plans: tuple[CohortPlan, ...]
    cohort_seconds: Mapping[str, float]
    num_workers: int


def estimate_seconds(plans: Sequence[CohortPlan], speed: Speed, num_workers: int = 1) -> Estimate:
    """Expected time and FLOPs of the cohorts ``plans`` on workers of the given speed."""
    seconds = {plan.id: cohort_seconds(plan, speed) for plan in plans}
    return Estimate(
        seconds=makespan(seconds.values(), num_workers),
        flops=sum(plan.expected_flops for plan in plans),
        plans=tuple(plans),
        cohort_seconds=seconds,
        num_workers=num_workers,
    )


def cohort_seconds(plan: CohortPlan, speed: Speed, *, evaluations: bool = True) -> float:
    """Seconds that one worker needs for a cohort; ``evaluations=False`` if ``speed`` was measured with them."""
    shares = [evaluation_share(job.config, until=expected_steps(job)) for job in plan.jobs] if evaluations else [0.0]
    share = max(shares)
    return START_SECONDS + plan.expected_flops * (1 + share) / speed.flops_per_second(plan.jobs[0].config.shape)


def makespan(seconds: Iterable[float], num_workers: int, busy: Iterable[float] = ()) -> float:
    """Time until all is done when free workers always take the longest cohort left.

    Parameters
    ----------
    seconds : iterable of float
        Waiting cohorts.
    num_workers : int
        ≥ 1.
    busy : iterable of float
        Time left of the cohorts being trained, at most ``num_workers`` of them.
    """
    free_at = sorted(busy, reverse=True)[: max(1, num_workers)]
    free_at += [0.0] * (max(1, num_workers) - len(free_at))
    heapq.heapify(free_at)
    for length in sorted(seconds, reverse=True):
        heapq.heappush(free_at, heapq.heappop(free_at) + length)
    return max(free_at)


def calibration_plans(plans: Sequence[CohortPlan], most: int = 3) -> list[CohortPlan]:
    """Few cohorts whose speeds bracket all: the cheapest, the dearest and one between, by FLOPs per token."""
    by_cost = {flops_per_token(plan.jobs[0].config.shape, "exact"): plan for plan in plans}
    costs = sorted(by_cost)
    chosen = np.unique(np.linspace(0, len(costs) - 1, min(most, len(costs))).round().astype(int))
    return [by_cost[costs[i]] for i in chosen]
