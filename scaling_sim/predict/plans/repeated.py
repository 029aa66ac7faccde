"""Budgets by Muennighoff et al. 2023: data that repeat."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scaling_sim.laws.data_constrained import DataConstrained
from scaling_sim.predict.plans.base import Array, Draws, Plan
from scaling_sim.predict.plans.chinchilla import chinchilla_size
from scaling_sim.predict.roots import bracketed_root, newton_root

FAR = 25.0
"""In ln N: how far from the best size the ends of a valley are looked for where no closed form is known."""


@dataclass(frozen=True)
class RepeatedPlan(Plan):
    """Muennighoff et al. 2023: repeated tokens and excess parameters count for less.

    While one pass suffices it is Chinchilla's optimum. Else the loss is convex in ln N at fixed compute, with its
    minimum between U_N, the size for which U fresh tokens are optimal, and the size that passes over U once.
    """

    def best(self) -> Draws:
        """Chinchilla's size, or the root of the first-order condition under repetition."""
        N, U = chinchilla_size(self.C, self.p), self.limits.unique_tokens
        one_pass = self.C / (6 * U)
        short = one_pass > N
        for at, part in self.blocks(short):
            N[at] = np.exp(newton_root(part._slope, np.log(part._fed(U)), np.log(part.C / (6 * U))))
        return self.at(np.minimum(N, self.limits.max_N))

    def at(self, N: Array) -> Draws:
        """All of the budget is spent, over as many epochs as it takes."""
        N = np.asarray(N, dtype=np.float64) + np.zeros_like(self.p["alpha"] + self.C)
        tokens = self.C / (6 * N)
        unique = np.minimum(tokens, self.limits.unique_tokens)
        found = {"N": N, "D": unique, "loss": self._loss(N, tokens, unique), "C": self.C + np.zeros_like(N)}
        if np.isfinite(self.limits.unique_tokens):
            found |= {"tokens": tokens, "epochs": tokens / unique}
        return found

    def valley(self, loss: Array) -> tuple[Array, Array]:
        """Both roots of a convex function."""
        middle = np.log(replace(self, limits=replace(self.limits, max_N=np.inf)).best()["N"])

        def gap(log_N: Array) -> Array:
            tokens = self.C / (6 * np.exp(log_N))
            unique = np.minimum(tokens, self.limits.unique_tokens)
            return np.asarray(np.log(self._loss(np.exp(log_N), tokens, unique)) - np.log(loss))

        low, high = bracketed_root(gap, middle - FAR, middle), bracketed_root(gap, middle, middle + FAR)
        return self.clipped(np.exp(low), np.exp(high))

    def notes(self) -> tuple[str, ...]:
        """Whether data repeat."""
        if np.isfinite(self.limits.unique_tokens):
            return (
                "data repeat where more tokens are processed than are unique; damage by very many epochs is unknown",
            )
        return ("every token is fresh: give unique_tokens= to allow for repeated data",)

    def _loss(self, N: Array, tokens: Array, unique: Array) -> Array:
        return DataConstrained().loss(self.p, {"N": N, "tokens": tokens, "D": unique})

    def _fed(self, U: float) -> Array:
        """U_N = G·(G·U)^(β/α)."""
        alpha, beta = self.p["alpha"], self.p["beta"]
        log_G = np.log(alpha * self.p["A"] / (beta * self.p["B"])) / (alpha + beta)
        return np.asarray(np.exp(log_G + beta / alpha * (log_G + np.log(U))))

    def _slope(self, log_N: Array) -> tuple[Array, Array]:
        """ln of what fewer tokens cost over ln of what more parameters gain, per ln N at fixed compute; and its slope.

        It rises. At U and U_N both are equal, so that the logarithms of A, B and of the units cancel.
        """
        p = self.p
        tokens, falls = _marginal(np.log(self.C / (6 * self.limits.unique_tokens)) - log_N, p["R_D"], p["beta"])
        size, falls_too = _marginal(log_N - np.log(self._fed(self.limits.unique_tokens)), p["R_N"], p["alpha"])
        return tokens - size, -falls - falls_too


def _marginal(log_x: Array, constant: Array, exponent: Array) -> tuple[Array, Array]:
    """ln of −d(x'^−e)/d ln x but for a constant, and its derivative in ln x, at x times as much as is fresh, x ≥ 1.

    x' = 1 + R·(1 − e^(−r/R)) with r = x − 1 is what it is worth: d ln x'/d ln x = (x/x')·e^(−r/R).
    """
    x = np.exp(log_x)
    lost = np.expm1((1 - x) / constant)
    worth = 1 - constant * lost
    value = log_x - (exponent + 1) * np.log(worth) + (1 - x) / constant
    return value, 1 - x / constant - (exponent + 1) * (x / worth) * (1 + lost)
