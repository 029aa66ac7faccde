"""The compute-efficient frontier of Kaplan's joint system, explicit in N (Kaplan et al. 2020, Appendix B).

At fixed compute the best N satisfies (B.4), (αN/αS)·(N_c/N)^αN = (S_c/S_min)^αS; the batch does not enter, because the
loss inside B_crit(L) is stationary there. With x = (N_c/N)^αN and r = αN/αS all else on the frontier follows from N::

    L − E = (1 + r)·x                   (B.5)
    S_min = S_c·(r·x)^(-1/αS)
    B_crit = B*/(L − E)^(1/αB)          (1.4)
    C_min = 6·N·B_crit·S_min            C = 6·N·S_min·(B + B_crit)      (5.4)

so ln S_min and ln B_crit are lines in ln N, and allocation at any batch is one monotone equation. An entropy floor E
shifts the loss and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scaling_sim.laws.kaplan import critical_batch
from scaling_sim.predict.source import Array, Fit, columns_of

Batch = Literal["critical"] | float


@dataclass(frozen=True)
class FrontierPoint:
    """Points of the compute-efficient frontier; (n_draws, k) arrays."""

    N: Array
    loss: Array
    S_min: Array
    B_crit: Array
    C_min: Array

    @property
    def D(self) -> Array:
        """Unique tokens of one pass at the critical batch, 2·B_crit·S_min (6.7)."""
        return 2 * self.B_crit * self.S_min


@dataclass(frozen=True)
class KaplanFrontier:
    """Appendix B for every draw; parameters are (n_draws, 1) columns."""

    alpha_N: Array
    N_c: Array
    alpha_S: Array
    S_c: Array
    alpha_B: Array
    B_star: Array
    E: Array

    @classmethod
    def of(cls, fit: Fit) -> KaplanFrontier:
        """Frontier of a ``kaplan`` or ``kaplan-floor`` fit, by the pair (αN, N_c) of the learning curves (1.6)."""
        return cls.from_parameters(columns_of(fit))

    @classmethod
    def from_parameters(cls, p: Mapping[str, Array]) -> KaplanFrontier:
        """Frontier of natural parameters given as columns."""
        alpha_N = p.get("alpha_N_curve", p["alpha_N"])
        N_c = p.get("N_c_curve", p["N_c"])
        floor = p.get("E", np.zeros_like(p["alpha_N"]))
        return cls(alpha_N, N_c, p["alpha_S"], p["S_c"], p["alpha_B"], p["B_star"], floor)

    def at(self, log_N: Array) -> FrontierPoint:
        """Frontier at ln N."""
        ratio = self.alpha_N / self.alpha_S
        loss = self.E + (1 + ratio) * np.exp(self.alpha_N * (np.log(self.N_c) - log_N))
        (s_at, s_slope), (b_at, b_slope) = self._steps(), self._batch()
        N, S_min, B_crit = np.exp(log_N), np.exp(s_at + s_slope * log_N), np.exp(b_at + b_slope * log_N)
        return FrontierPoint(N, loss, S_min, B_crit, 6 * N * B_crit * S_min)

    def critical_batch(self, loss: Array) -> Array:
        """B_crit in tokens at this loss (1.4)."""
        return critical_batch(loss, {"E": self.E, "B_star": self.B_star, "alpha_B": self.alpha_B})

    def solve(self, compute: Array, batch: Batch = "critical") -> FrontierPoint:
        """Frontier at which ``compute`` (k,) FLOP are paid with this batch (tokens, or B_crit itself).

        At the critical batch ln C is linear in ln N: (B.9). At a fixed one it is linear plus softplus(ln B_crit/B),
        convex and within ln 2 of its asymptotes, so that Newton from where these meet C comes down monotonically.
        """
        (s_at, s_slope), (b_at, b_slope) = self._steps(), self._batch()
        target = np.log(compute) - np.log(6.0) - s_at
        efficient = (target - np.log(2.0) - b_at) / (1 + s_slope + b_slope)
        if batch == "critical":
            return self.at(efficient)
        log_b = float(np.log(batch))
        large_batch, small_batch = (target - log_b) / (1 + s_slope), (target - b_at) / (1 + s_slope + b_slope)
        log_N = np.minimum(large_batch, small_batch)
        for _ in range(60):
            z = b_at - log_b + b_slope * log_N
            small = np.exp(-np.abs(z))
            value = (1 + s_slope) * log_N + np.maximum(z, 0.0) + np.log1p(small)
            share = np.where(z > 0, 1.0, small) / (1 + small)
            step = (target - log_b - value) / (1 + s_slope + b_slope * share)
            log_N += step
            if np.max(np.abs(step)) < 1e-7:  # quadratic: the next step would be below 1e-14
                break
        return self.at(log_N)

    def _steps(self) -> tuple[Array, Array]:
        """ln S_min on the frontier as a line in ln N: value at 0 and slope."""
        ratio = self.alpha_N / self.alpha_S
        return np.log(self.S_c) - (np.log(ratio) + self.alpha_N * np.log(self.N_c)) / self.alpha_S, ratio

    def _batch(self) -> tuple[Array, Array]:
        """ln B_crit on the frontier as a line in ln N: value at 0 and slope."""
        log_L = np.log1p(self.alpha_N / self.alpha_S) + self.alpha_N * np.log(self.N_c)
        return np.log(self.B_star) - log_L / self.alpha_B, self.alpha_N / self.alpha_B


@dataclass(frozen=True)
class PowerFrontier:
    """Published power laws of the frontier (Kaplan Table 6) in C_min/unit; (n_draws, 1) columns."""

    p: Mapping[str, Array]
    unit: float

    def loss(self, C_min: Array) -> Array:
        """L(C_min) (1.3)."""
        return (self.p["C_c_min"] / (C_min / self.unit)) ** self.p["alpha_C_min"]

    def power(self, letter: str, C_min: Array) -> Array:
        """One of N, B, S, D at C_min FLOP."""
        return self.p[f"{letter}_e"] * (C_min / self.unit) ** self.p[f"p_{letter}"]

    def solve(self, compute: Array, batch: Batch = "critical") -> FrontierPoint:
        """Frontier at which ``compute`` (k,) FLOP are paid: C = C_min·(1 + B/B_crit) (5.5)."""
        if batch == "critical":
            log_C_min = np.log(compute / 2) + np.zeros_like(self.p["N_e"])
        else:
            log_C_min = self._adjusted(compute, float(batch))
        C_min = np.exp(log_C_min)
        return FrontierPoint(
            self.power("N", C_min), self.loss(C_min), self.power("S", C_min), self.power("B", C_min), C_min
        )

    def _adjusted(self, compute: Array, batch: float) -> Array:
        log_C_min = np.log(compute) + np.zeros_like(self.p["N_e"])
        for _ in range(60):
            ratio = batch / self.power("B", np.exp(log_C_min))
            value = log_C_min + np.log1p(ratio) - np.log(compute)
            step = value / (1 - self.p["p_B"] * ratio / (1 + ratio))
            log_C_min = log_C_min - step
            if np.max(np.abs(step)) < 1e-13 * np.max(np.abs(log_C_min)):
                break
        return log_C_min
