"""Budgets by Kaplan et al. 2020, Appendix B."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling_sim.laws.kaplan import critical_batch, loss_nd, loss_ns, solve_loss
from scaling_sim.predict.deadline import solve_steps
from scaling_sim.predict.frontier import FrontierPoint, KaplanFrontier
from scaling_sim.predict.plans.base import Array, Draws, Plan, with_batch
from scaling_sim.predict.roots import newton_root, softplus
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
        N, loss = point.N.copy(), point.loss.copy()
        short = self.C / (6 * self.limits.unique_tokens) > N  # more tokens than there are
        for at, part in self.blocks(short):
            N[at], loss[at] = part._balanced(N[at], loss[at])
        found = self._quantities(N, loss, self.C)
        large = self.limits.max_N < N
        for at, part in self.blocks(large):
            for name, values in part.at(np.array(self.limits.max_N)).items():
                found[name][at] = values
        return found

    def at(self, N: Array) -> Draws:
        """All of the budget is spent, unless early stopping at L(N, U) comes first."""
        shape = np.broadcast_shapes(self.p["alpha_N"].shape, self.C.shape)
        N = np.broadcast_to(np.asarray(N, dtype=np.float64), shape)
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

    def _balanced(self, N: Array, loss: Array) -> tuple[Array, Array]:
        """N and L where the unlimited best size and its loss are these, but the tokens do not last.

        The curve's loss at this budget rises with N and L(N, U) falls. N stays where the curve is above already; it is
        the root, or that of one pass if the curve stays below.
        """
        least, most = np.log(N), np.log(self.C / (6 * self.limits.unique_tokens))
        log_N = newton_root(self._gap, least, most)
        balanced, one_pass = (log_N > least) & (log_N < most), (log_N > least) & (log_N >= most)
        N, loss = np.exp(log_N), np.where(balanced, loss_nd(np.exp(log_N), self.limits.unique_tokens, self.p), loss)
        for at, part in self.blocks(one_pass):
            loss[at] = part._loss(N[at], part.C)
        return N, loss

    def _gap(self, log_N: Array) -> tuple[Array, Array]:
        """A function of ln N with the sign of L(N, S_min) − L(N, U), and its derivative; no root inside.

        The right side of (1.6) with (5.4) falls with the loss put in: with L(N, U) it exceeds L(N, U) where the root
        does.
        """
        f, p = self.frontier, self.p
        ratio = p["alpha_N"] / p["alpha_D"]
        data = np.log(p["D_c"]) - np.log(self.limits.unique_tokens)
        more, share = softplus(data - ratio * (np.log(p["N_c"]) - log_N))
        limit = p["alpha_N"] * (np.log(p["N_c"]) - log_N) + p["alpha_D"] * more
        limit_slope = -p["alpha_N"] * (1 - share)
        total, total_slope = self._log_batch_sum(log_N, np.log(f.B_star) - limit / f.alpha_B, -limit_slope / f.alpha_B)
        size = f.alpha_N * (np.log(f.N_c) - log_N)
        steps = f.alpha_S * (np.log(6 * f.S_c / self.C) + log_N + total)
        more, share = softplus(steps - size)
        slope = f.alpha_S * (1 + total_slope) * share - f.alpha_N * (1 - share)
        return size + more - limit, slope - limit_slope

    def _log_batch_sum(self, log_N: Array, critical: Array, slope: Array) -> tuple[Array, Array]:
        """ln(B + B_crit) and its derivative in ln N, from those of ln B_crit."""
        if self.policy.kind == "critical":
            return critical + np.log(2.0), slope
        fixed = self.policy.kind == "fixed"
        own = np.log(self.policy.value) if fixed else np.log(self.C / (6 * self.policy.value)) - log_N
        own_slope = 0.0 if fixed else -1.0
        more, share = softplus(critical - own)
        return own + more, own_slope + share * (slope - own_slope)

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
