"""Budgets by Kaplan et al. 2020, Appendix B."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling_sim.laws.kaplan import critical_batch, loss_nd, loss_ns, solve_loss
from scaling_sim.predict.deadline import solve_steps
from scaling_sim.predict.frontier import FrontierPoint, KaplanFrontier
from scaling_sim.predict.plans.base import Array, Draws, Plan, with_batch
from scaling_sim.predict.roots import bracketed_root
from scaling_sim.predict.valley import kaplan_valley, steps_valley

TINY_BATCH = 1e-30
"""Tokens: so far below critical that C = C_min to rounding."""


@dataclass(frozen=True)
class KaplanPlan(Plan):
    """Kaplan et al. 2020, Appendix B: L(N, S_min) (1.6) with B_crit(L) (1.4).

    Where the unique tokens U do not last for one pass, the loss cannot fall below L(N, U) (1.5), at which training is
    stopped: L = max[L(N, S_min), L(N, U)], which takes the infinite-data curve until then, as (5.7) does. Since L(N, U)
    falls with N, the best size lies above the unlimited one, where both are equal, or where one pass uses up U.
    """

    @property
    def frontier(self) -> KaplanFrontier:
        """Appendix B of every draw."""
        return KaplanFrontier.from_parameters(self.p)

    @property
    def curve(self) -> dict[str, Array]:
        """Parameters of (1.6), by the pair of the learning curves."""
        f = self.frontier
        names = ("alpha_N", "N_c", "alpha_S", "S_c", "alpha_B", "B_star", "E")
        return {name: getattr(f, name) for name in names}

    def best(self) -> Draws:
        """Appendix B; bounded sizes where there are limits."""
        point = self._point()
        if not self.limits.some:
            return self._paid(point)
        N, U = point.N, self.limits.unique_tokens
        one_pass = self.C / (6 * U)
        short = one_pass > N  # more tokens than there are
        if np.any(short):
            N = N.copy()
            N[short] = self.only(short)._balanced(N[short])
        return self.at(np.minimum(N, self.limits.max_N))

    def at(self, N: Array) -> Draws:
        """All of the budget is spent, unless early stopping at L(N, U) comes first."""
        N = np.broadcast_to(np.asarray(N, dtype=np.float64), (len(self.p["alpha_N"]), len(self.C)))
        loss = self._loss(N, self.C)
        found = self._quantities(N, loss, self.C)
        if np.isfinite(self.limits.unique_tokens):
            found = self._stopped(N, found)
        return found

    def valley(self, loss: Array) -> tuple[Array, Array]:
        """Sizes whose curve and, where data repeat, whose L(N, U) stay at or below the loss."""
        f = self.frontier
        critical = f.critical_batch(loss)
        arguments = (f.N_c, f.alpha_N, f.S_c, f.alpha_S, f.E)
        if self.policy.kind == "steps":
            low, high = steps_valley(*arguments, B_crit=critical, C=self.C, S=self.policy.value, loss=loss)
        else:
            total = 2 * critical if self.policy.kind == "critical" else self.policy.value + critical
            low, high = kaplan_valley(*arguments, batch_sum=total, C=self.C, loss=loss)
        U = self.limits.unique_tokens
        if np.isfinite(U):
            low = np.maximum(low, np.minimum(self._least_size(loss), self.C / (6 * U)))
        return self.clipped(low, high)

    def notes(self) -> tuple[str, ...]:
        """How repeated data are taken into account."""
        if not np.isfinite(self.limits.unique_tokens):
            return ()
        return (
            "unique tokens: repeated data are trained on until L(N, S_min) has fallen to the early-stopped L(N, D) "
            "(1.5); as for (5.7), that is the least that early stopping can cost",
        )

    def _point(self) -> FrontierPoint:
        kind, value = self.policy.kind, self.policy.value
        if kind == "steps":
            return solve_steps(self.frontier, self.C, value)
        return self.frontier.solve(self.C, "critical" if kind == "critical" else value)

    def _loss(self, N: Array, C: Array) -> Array:
        """L when C FLOP are paid for N parameters."""
        if self.policy.kind == "critical":  # half of C is C_min
            return solve_loss(N, TINY_BATCH, C / (12 * N * TINY_BATCH), self.curve)
        if self.policy.kind == "fixed":
            return solve_loss(N, self.policy.value, C / (6 * N * self.policy.value), self.curve)
        return solve_loss(N, C / (6 * N * self.policy.value), self.policy.value, self.curve)

    def _quantities(self, N: Array, loss: Array, C: Array) -> Draws:
        """Everything that follows from N, L and C."""
        critical = critical_batch(loss, self.curve)
        tokens = C / (6 * N)
        B = {"critical": critical, "fixed": self.policy.value}.get(self.policy.kind)
        B = tokens / self.policy.value if B is None else B + np.zeros_like(N)
        S = tokens / B
        S_min, C_min = S / (1 + critical / B), C / (1 + B / critical)
        return with_batch(N, tokens, B, S, loss, C, C_min, S_min, critical, self.limits)

    def _paid(self, point: FrontierPoint) -> Draws:
        """Every quantity of a frontier point, with S from the budget, so that 6·N·B·S = C holds to rounding."""
        tokens = self.C / (6 * point.N)
        if self.policy.kind == "steps":
            B = tokens / self.policy.value
        else:
            B = point.B_crit if self.policy.kind == "critical" else np.zeros_like(point.N) + self.policy.value
        return with_batch(
            point.N, tokens, B, tokens / B, point.loss, self.C, point.C_min, point.S_min, point.B_crit, self.limits
        )

    def _balanced(self, low: Array) -> Array:
        """N above this at which the budget's loss has risen to the falling L(N, U); that of one pass if it does not."""
        U = self.limits.unique_tokens

        def gap(log_N: Array) -> Array:
            N = np.exp(log_N)
            return np.asarray(np.log(self._loss(N, self.C)) - np.log(loss_nd(N, U, self.p)))

        start, stop = np.log(low), np.log(self.C / (6 * U))
        rises = gap(start) < 0
        return np.exp(np.where(rises, bracketed_root(gap, start, np.where(rises, stop, start)), start))

    def _stopped(self, N: Array, full: Draws) -> Draws:
        """Where early stopping comes before the end of the budget: what is spent until then, but one pass at least."""
        U = self.limits.unique_tokens
        limit = loss_nd(N, U, self.p)
        early = (full["tokens"] > U * (1 + 1e-9)) & (limit > full["loss"] * (1 + 1e-9))
        if not np.any(early):
            return full
        gap = np.where(early, limit, full["loss"]) - loss_ns(N, np.inf, self.curve)
        S_min = self.p["S_c"] * gap ** (-1 / self.p["alpha_S"])
        critical = critical_batch(limit, self.curve)
        tokens = np.maximum(S_min * self._batch_sum(critical, S_min), U)
        C = np.where(early, np.minimum(6 * N * tokens, self.C), self.C)
        return self._quantities(N, self._loss(N, C), C)

    def _batch_sum(self, critical: Array, S_min: Array) -> Array:
        """B + B_crit, by which S_min steps cost S_min·(B + B_crit) tokens (5.4)."""
        if self.policy.kind == "steps":
            return np.asarray(critical / (1 - np.minimum(S_min / self.policy.value, 1 - 1e-12)))
        return np.asarray(critical + (critical if self.policy.kind == "critical" else self.policy.value))

    def _least_size(self, loss: Array) -> Array:
        """N with L(N, U) = loss; ∞ where no size reaches it."""
        p, E = self.p, self.p.get("E", 0.0)
        room = (loss - E) ** (1 / p["alpha_D"]) - p["D_c"] / self.limits.unique_tokens
        with np.errstate(divide="ignore"):
            return np.asarray(p["N_c"] * np.maximum(room, 0.0) ** (-p["alpha_D"] / p["alpha_N"]))
