"""Budgets of time: what a machine can compute until a deadline, and the batch that its steps force.

A machine of G GPUs, each sustaining R FLOP/s, pays at most G·R·T until the deadline T. If no step can be shorter than t
seconds, whatever its batch, at most S = T/t steps fit in. At C FLOP paid the loss falls with the number of steps,
S_min = C/(6·N·(B + B_crit)) by (5.4), so that all S are made, with the smallest batch that spends C: B = C/(6·N·S).
N is then no longer on the compute-efficient frontier. With q = B_crit/B, z = (S_c/S_min)^αS and x = (N_c/N)^αN the
first-order condition at fixed C and S is

    αN·x = αS·z·q/(1 + q),        S_min = S/(1 + q)

which gives x, N, L − E = x + z and B_crit, and so C = 6·N·S·B_crit/q, explicitly in q; C falls with q.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import ConfigError
from scaling_sim.predict.frontier import FrontierPoint, KaplanFrontier
from scaling_sim.predict.roots import LAST_CHANGE, softplus

Array = NDArray[np.float64]

HOUR = 3600.0
MAX_ITERATIONS = 60


@dataclass(frozen=True)
class Clock:
    """What is known of time and machine; None where it was not said.

    Attributes
    ----------
    hours : wall-clock time until the deadline
    num_gpus, flops_per_second : GPUs, and FLOP/s that each sustains
    step_seconds : least time of one step, however small its batch
    """

    hours: float | None = None
    num_gpus: float | None = None
    flops_per_second: float | None = None
    step_seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("hours", "num_gpus", "flops_per_second", "step_seconds"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be positive and finite, got {value}")
        if self.step_seconds is not None and self.hours is None:
            raise ConfigError("step_seconds= bounds the number of steps before a deadline: give hours=, too")
        if self.max_steps is not None and self.max_steps < 1:
            raise ConfigError(
                f"hours must allow at least one step of {self.step_seconds:g} seconds, got {self.hours:g}"
            )

    @property
    def rate(self) -> float | None:
        """FLOP/s of the whole machine."""
        known = self.num_gpus is not None and self.flops_per_second is not None
        return self.num_gpus * self.flops_per_second if known else None  # type: ignore[operator]

    @property
    def capacity(self) -> float:
        """FLOP until the deadline; ∞ where machine or deadline are unknown."""
        return np.inf if self.rate is None or self.hours is None else self.rate * self.hours * HOUR

    @property
    def max_steps(self) -> float | None:
        """Steps that fit in before the deadline; None if any number does."""
        return None if self.hours is None or self.step_seconds is None else self.hours * HOUR / self.step_seconds

    def quantities(self, draws: dict[str, Array]) -> dict[str, Array]:
        """``time`` in seconds where the machine is known; ``gpus`` where a deadline and the speed of one are."""
        C = draws["C"]
        least = draws["S"] * self.step_seconds if self.step_seconds and "S" in draws else np.zeros_like(C)
        if self.rate is not None:
            return {"time": np.maximum(C / self.rate, least)}
        if self.flops_per_second is not None and self.hours is not None:
            return {"gpus": C / (self.flops_per_second * self.hours * HOUR)}
        return {}


def solve_steps(frontier: KaplanFrontier, compute: Array, steps: Array) -> FrontierPoint:
    """The best use of ``compute`` (k,) FLOP paid in exactly ``steps`` (k,) steps, for every draw.

    Parameters
    ----------
    frontier : KaplanFrontier
    compute, steps : (k,) arrays
    """
    log_S, target = np.log(np.asarray(steps, dtype=np.float64)), np.log(np.asarray(compute, dtype=np.float64))
    log_q = np.zeros_like(frontier.alpha_N + target)
    for _ in range(MAX_ITERATIONS):
        point = _at(frontier, log_q, log_S)
        change = (target - point.log_C) / point.slope
        log_q += change
        if not np.max(np.abs(change), initial=0.0) > LAST_CHANGE:
            break
    point, q = _at(frontier, log_q, log_S), np.exp(log_q)
    loss = np.exp(point.log_L) + frontier.E
    return FrontierPoint(
        np.exp(point.log_N), loss, steps / (1 + q), frontier.critical_batch(loss), compute * q / (1 + q)
    )


class _Point(NamedTuple):
    """What q = B_crit/B fixes at the optimum, and d ln C/d ln q: −1 − 1/αN or so for small q and −1 − αS/αN for large.

    ln C is so nearly a broken line that Newton's method needs no bracket.
    """

    log_N: Array
    log_L: Array
    log_C: Array
    slope: Array


def _at(f: KaplanFrontier, log_q: Array, log_S: Array) -> _Point:
    more, share = softplus(log_q)  # ln(1 + q) and q/(1 + q)
    log_z, z_slope = f.alpha_S * (np.log(f.S_c) - log_S + more), f.alpha_S * share
    to_x, x_slope = np.log(f.alpha_S / f.alpha_N) + log_q - more, z_slope + 1 - share
    also_z, x_share = softplus(to_x)
    log_N, log_L = np.log(f.N_c) - (log_z + to_x) / f.alpha_N, log_z + also_z
    log_C = np.log(6.0) + log_N + log_S + np.log(f.B_star) - log_L / f.alpha_B - log_q
    loss_slope = x_share * x_slope + (1 - x_share) * z_slope
    return _Point(log_N, log_L, log_C, -x_slope / f.alpha_N - loss_slope / f.alpha_B - 1)
