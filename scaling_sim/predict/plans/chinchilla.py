"""Budgets by Hoffmann et al. 2022, approach 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling_sim.predict.plans.base import Array, Draws, Plan
from scaling_sim.predict.valley import chinchilla_valley


@dataclass(frozen=True)
class ChinchillaPlan(Plan):
    """Hoffmann et al. 2022, approach 3; every token is fresh, so that unique tokens bound the tokens processed."""

    def best(self) -> Draws:
        """N = G·(C/6)^(β/(α+β)), or the bound that it would exceed."""
        N = chinchilla_size(self.C, self.p)
        if np.isfinite(self.limits.unique_tokens):
            N = np.maximum(N, self.C / (6 * self.limits.unique_tokens))
        return self.at(np.minimum(N, self.limits.max_N))

    def at(self, N: Array) -> Draws:
        """The budget is spent, as far as there are tokens."""
        p = self.p
        N = np.asarray(N, dtype=np.float64) + np.zeros_like(p["alpha"] + self.C)
        tokens = np.minimum(self.C / (6 * N), self.limits.unique_tokens)
        loss = p["E"] + p["A"] * N ** -p["alpha"] + p["B"] * tokens ** -p["beta"]
        C = np.where(tokens < self.C / (6 * N), 6 * N * tokens, self.C)
        return {"N": N, "D": tokens, "loss": loss, "C": C}

    def valley(self, loss: Array) -> tuple[Array, Array]:
        """Closed but for a root; with all tokens used the size term alone counts on the left."""
        p = self.p
        low, high = chinchilla_valley(p["A"], p["alpha"], p["B"], p["beta"], C=self.C, reducible=loss - p["E"])
        if np.isfinite(self.limits.unique_tokens):
            U = self.limits.unique_tokens
            room = loss - p["E"] - p["B"] * U ** -p["beta"]
            with np.errstate(invalid="ignore", divide="ignore"):
                alone = np.where(room > 0, (p["A"] / np.maximum(room, 0.0)) ** (1 / p["alpha"]), np.inf)
            low = np.where(np.nan_to_num(low) < self.C / (6 * U), alone, low)
        return self.clipped(low, high)

    def notes(self) -> tuple[str, ...]:
        """Repetition is not known to this law."""
        if not np.isfinite(self.limits.unique_tokens):
            return ()
        return (
            "unique tokens bound the tokens processed: this law does not know repeated data, 'data-constrained' does",
        )


def chinchilla_size(C: Any, p: Mapping[str, Any]) -> Any:
    """Return N_opt = G·(C/6)^(β/(α+β)) with G = (αA/(βB))^(1/(α+β)) (Hoffmann et al. 2022, eq. 4)."""
    total = p["alpha"] + p["beta"]
    log_G = (np.log(p["alpha"] * p["A"]) - np.log(p["beta"] * p["B"])) / total
    return np.exp(log_G + p["beta"] / total * np.log(np.asarray(C) / 6))
