"""The choice of runs: greedy, from several prices of a FLOP, then exchanged one by one while that helps.

Linear-Gaussian: the target t and the log losses y are taken as jointly normal, so that measuring y with noise R removes
cov(t, y)·(Cov(y) + R)⁻¹·cov(y, t) of Var(t), whatever comes out (Chaloner & Verdinelli 1995, c-optimality).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from scaling_sim.predict.joint import Joint
from scaling_sim.predict.source import Array

POWERS = (1.0, 0.6, 0.3, 0.0)
"""Variance removed is divided by cost to these powers: neither many tiny runs nor one that eats the budget is safe."""
PASSES = 4
LEAST_GAIN = 1e-3
"""Share of the target's variance that one more run, or an exchange, must remove."""


@dataclass(frozen=True)
class Rules:
    """Budget in FLOP, most runs in all and most copies of one."""

    budget: float
    max_runs: int
    max_copies: int


class Search:
    """Buys runs out of a pool; a choice is a list of places in the pool."""

    def __init__(self, joint: Joint, costs: Array, rules: Rules) -> None:
        self._prior, self._blocks = joint.covariance()
        self._noise, self._costs, self._rules = joint.noise, costs, rules
        sizes = np.array([len(b) for b in self._blocks])
        self._groups = [
            (mine, np.array([self._blocks[i] for i in mine]), np.array([self._noise[i] for i in mine]))
            for mine in (np.flatnonzero(sizes == m) for m in np.unique(sizes))
        ]

    def best(self) -> list[int]:
        """The choice that leaves the least variance of the target, most useful run first."""
        found = [self._exchanged(self._grown([], power)) for power in POWERS]
        return self._ordered(min(found, key=self.variance))

    def variance(self, chosen: list[int]) -> float:
        """Variance of the target once these runs are made."""
        return float(self._given(chosen)[0, 0])

    def _grown(self, chosen: list[int], power: float) -> list[int]:
        """Add runs by variance removed per cost^power until none helps or fits."""
        chosen, covariance = list(chosen), self._given(chosen)
        while len(chosen) < self._rules.max_runs:
            gain = self._gains(covariance)
            score = np.where(self._allowed(chosen), gain, -np.inf) / self._costs**power
            best = int(np.argmax(score))
            if not (score[best] > 0 and gain[best] > LEAST_GAIN * covariance[0, 0]):
                break
            chosen.append(best)
            covariance = self._measured(covariance, best)
        return chosen

    def _exchanged(self, chosen: list[int]) -> list[int]:
        """Replace runs by better ones that fit, one at a time, and spend what is left."""
        now = self.variance(chosen)
        for _ in range(PASSES):
            before = now
            for place in range(len(chosen)):
                others = chosen[:place] + chosen[place + 1 :]
                covariance = self._given(others)
                gain = np.where(self._allowed(others), self._gains(covariance), -np.inf)
                best = int(np.argmax(gain))
                if covariance[0, 0] - gain[best] < now * (1 - LEAST_GAIN):
                    chosen = [*others[:place], best, *others[place:]]
                    now = float(covariance[0, 0] - gain[best])
            chosen = self._grown(chosen, 0.0)
            now = self.variance(chosen)
            if now > before * (1 - LEAST_GAIN):
                break
        return chosen

    def _ordered(self, chosen: list[int]) -> list[int]:
        """The same runs, the most useful per FLOP first, so that a user may stop early; copies together."""
        copies = Counter(chosen)
        order, covariance = list[int](), self._prior
        while copies:
            gain = self._gains(covariance)
            best = max(copies, key=lambda i: gain[i] / self._costs[i] ** 0.5)
            for _ in range(copies.pop(best)):
                covariance = self._measured(covariance, best)
                order.append(best)
        return order

    def _allowed(self, chosen: list[int]) -> np.ndarray:
        left = self._rules.budget - self._costs[chosen].sum()
        copies = np.bincount(chosen, minlength=len(self._costs))
        return np.asarray((self._costs <= left * (1 + 1e-9)) & (copies < self._rules.max_copies))

    def _gains(self, covariance: Array) -> Array:
        """(n_pool,) variance of the target that each run would remove."""
        gains = np.empty(len(self._costs))
        for mine, blocks, noise in self._groups:
            inner = covariance[blocks[:, :, None], blocks[:, None, :]] + noise
            cross = covariance[0, blocks]
            gains[mine] = np.einsum("ij,ij->i", cross, np.linalg.solve(inner, cross[..., None])[..., 0])
        return gains

    def _measured(self, covariance: Array, run: int) -> Array:
        """Joint covariance once a run was made."""
        block = self._blocks[run]
        inner = covariance[np.ix_(block, block)] + self._noise[run]
        return np.asarray(covariance - covariance[:, block] @ np.linalg.solve(inner, covariance[block, :]))

    def _given(self, chosen: list[int]) -> Array:
        """Joint covariance once runs were made; copies have noise of their own."""
        if not chosen:
            return self._prior
        place = np.concatenate([self._blocks[i] for i in chosen])
        inner = self._prior[np.ix_(place, place)].copy()
        first = 0
        for i in chosen:
            size = len(self._blocks[i])
            inner[first : first + size, first : first + size] += self._noise[i]
            first += size
        return np.asarray(self._prior - self._prior[:, place] @ np.linalg.solve(inner, self._prior[place, :]))
