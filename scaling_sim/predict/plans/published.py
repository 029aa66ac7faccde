"""Budgets by published power laws of the frontier."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling_sim.errors import LawError
from scaling_sim.laws.constants import PF_DAY
from scaling_sim.predict.frontier import PowerFrontier
from scaling_sim.predict.plans.base import Array, Draws, Plan, with_batch


@dataclass(frozen=True)
class PowerPlan(Plan):
    """Published power laws of the frontier: they know nothing beside it."""

    def __post_init__(self) -> None:
        if self.limits.some or self.policy.kind == "steps":
            what = "limits" if self.limits.some else "a deadline"
            raise LawError(
                f"fitted power laws of the frontier do not say what another N would reach, which {what} would need; "
                "use a kaplan fit, or constants such as kaplan-appendix-b"
            )

    def best(self) -> Draws:
        """N, B, S_min and the loss of C_min, S from the budget."""
        critical = self.policy.kind == "critical"
        point = PowerFrontier(self.p, PF_DAY).solve(self.C, "critical" if critical else self.policy.value)
        tokens = self.C / (6 * point.N)
        B = point.B_crit if critical else np.zeros_like(point.N) + self.policy.value
        return with_batch(
            point.N, tokens, B, tokens / B, point.loss, self.C, point.C_min, point.S_min, point.B_crit, self.limits
        )

    def at(self, N: Array) -> Draws:
        """Unknown."""
        raise LawError("the fitted power laws of the frontier do not say what another N would reach")

    def valley(self, loss: Array) -> tuple[Array, Array]:
        """Unknown."""
        raise LawError("the fitted power laws of the frontier do not say what another N would reach")

    def notes(self) -> tuple[str, ...]:
        """The printed constants do not multiply to the budget."""
        return ("S follows from the budget: the printed N_e, B_e and S_e multiply to 0.975 PF-days at 1 PF-day",)
