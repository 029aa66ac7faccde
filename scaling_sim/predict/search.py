"""The choice of runs: greedy, from several prices of a FLOP, then exchanged one by one while that helps."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from scaling_sim.predict.criteria import Criterion
from scaling_sim.predict.source import Array

POWERS = (1.0, 0.6, 0.3, 0.0)
"""Gain is divided by cost to these powers: neither many tiny runs nor one that eats the budget is safe."""
PASSES = 3
NUM_EXCHANGED = 2
LEAST_GAIN = 1e-3
"""Share of the target's squared error that one more run, or an exchange, must remove."""
TINY = 1e-300


@dataclass(frozen=True)
class Rules:
    """Budget in FLOP, most runs in all and most copies of one."""

    budget: float
    max_runs: int
    max_copies: int


class Search:
    """Buys runs out of a pool; a choice is a list of places in the pool.

    A choice is worth the mean over draws of the posterior of the decrease of ln(squared error).
    """

    def __init__(self, criterion: Criterion, costs: Array, rules: Rules) -> None:
        self._criterion, self._costs, self._rules = criterion, costs, rules

    def best(self) -> list[int]:
        """The choice that leaves the least error of the target, most useful run first."""
        grown = sorted((self._grown([], power) for power in POWERS), key=self._value)
        found = [self._exchanged(chosen) for chosen in grown[:NUM_EXCHANGED]]
        return self._ordered(min(found, key=self._value))

    def error(self, chosen: list[int]) -> float:
        """Root mean squared error of the target once these runs are made, over draws."""
        return float(np.sqrt(np.mean(np.maximum(self._criterion.error(chosen), 0.0))))

    def _value(self, chosen: list[int]) -> float:
        """Mean ln squared error, to be made small."""
        return float(np.mean(np.log(np.maximum(self._criterion.error(chosen), TINY))))

    def _values(self, chosen: list[int]) -> Array:
        """The same with each further run, (n_pool,)."""
        return np.asarray(np.mean(np.log(np.maximum(self._criterion.with_one_more(chosen), TINY)), axis=0))

    def _grown(self, chosen: list[int], power: float) -> list[int]:
        """Add runs by gain per cost^power until none helps or fits."""
        chosen, now = list(chosen), self._value(chosen)
        while len(chosen) < self._rules.max_runs:
            values = self._values(chosen)
            score = np.where(self._allowed(chosen), now - values, -np.inf) / self._costs**power
            best = int(np.argmax(score))
            if not (score[best] > 0 and now - values[best] > LEAST_GAIN):
                break
            chosen.append(best)
            now = float(values[best])
        return chosen

    def _exchanged(self, chosen: list[int]) -> list[int]:
        """Replace runs by better ones that fit, one at a time, and spend what is left."""
        now = self._value(chosen)
        for _ in range(PASSES):
            before = now
            for place in range(len(chosen)):
                others = chosen[:place] + chosen[place + 1 :]
                values = np.where(self._allowed(others), self._values(others), np.inf)
                best = int(np.argmin(values))
                if values[best] < now - LEAST_GAIN:
                    chosen, now = [*others[:place], best, *others[place:]], float(values[best])
            chosen = self._grown(chosen, 0.0)
            now = self._value(chosen)
            if now > before - LEAST_GAIN:
                break
        return chosen

    def _ordered(self, chosen: list[int]) -> list[int]:
        """The same runs, the most useful per FLOP first, so that a user may stop early; copies together."""
        copies, order = Counter(chosen), list[int]()
        while copies:
            gain = self._value(order) - self._values(order)
            best = max(copies, key=lambda i: gain[i] / self._costs[i] ** 0.5)
            order += [best] * copies.pop(best)
        return order

    def _allowed(self, chosen: list[int]) -> np.ndarray:
        left = self._rules.budget - self._costs[chosen].sum()
        copies = np.bincount(chosen, minlength=len(self._costs))
        return np.asarray((self._costs <= left * (1 + 1e-9)) & (copies < self._rules.max_copies))
