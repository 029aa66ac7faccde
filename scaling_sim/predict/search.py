"""The choice of runs: greedy, from several prices of a FLOP, then exchanged one by one while that helps.

Linear-Gaussian: the target t and the log losses y are taken as jointly normal, so that measuring y with noise R removes
cov(t, y)·(Cov(y) + R)⁻¹·cov(y, t) of Var(t), whatever comes out (Chaloner & Verdinelli 1995, c-optimality).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from scaling_sim.predict.joint import World
from scaling_sim.predict.source import Array

POWERS = (1.0, 0.6, 0.3, 0.0)
"""Variance removed is divided by cost to these powers: neither many tiny runs nor one that eats the budget is safe."""
PASSES = 3
NUM_EXCHANGED = 2
LEAST_GAIN = 1e-3
"""Share of the target's variance that one more run, or an exchange, must remove."""
TINY = 1e-300


@dataclass(frozen=True)
class Rules:
    """Budget in FLOP, most runs in all and most copies of one."""

    budget: float
    max_runs: int
    max_copies: int


class Search:
    """Buys runs out of a pool; a choice is a list of places in the pool.

    Several worlds stand for several draws of the posterior: a run is worth the mean decrease of ln Var(t).
    """

    def __init__(self, worlds: Sequence[World], costs: Array, rules: Rules) -> None:
        self._views = [_View(world) for world in worlds]
        self._costs, self._rules = costs, rules

    def best(self) -> list[int]:
        """The choice that leaves the least variance of the target, most useful run first."""
        grown = sorted((self._grown([], power) for power in POWERS), key=self._value)
        found = [self._exchanged(chosen) for chosen in grown[:NUM_EXCHANGED]]
        return self._ordered(min(found, key=self._value))

    def variance(self, chosen: list[int]) -> float:
        """Variance of the target once these runs are made: the mean over worlds."""
        return float(np.mean([view.outlook(chosen)[0] for view in self._views]))

    def _value(self, chosen: list[int]) -> float:
        """Mean ln variance, to be made small."""
        return float(np.mean([np.log(max(view.outlook(chosen)[0], TINY)) for view in self._views]))

    def _outlook(self, chosen: list[int]) -> tuple[float, Array]:
        """Mean ln variance once runs were made, and by how much each further run would decrease it, (n_pool,)."""
        found = [view.outlook(chosen) for view in self._views]
        value = float(np.mean([np.log(max(variance, TINY)) for variance, _ in found]))
        shares = [np.clip(gain / max(variance, TINY), 0.0, 1 - 1e-9) for variance, gain in found]
        return value, -np.mean([np.log1p(-share) for share in shares], axis=0)

    def _grown(self, chosen: list[int], power: float) -> list[int]:
        """Add runs by variance removed per cost^power until none helps or fits."""
        chosen = list(chosen)
        while len(chosen) < self._rules.max_runs:
            _, gain = self._outlook(chosen)
            score = np.where(self._allowed(chosen), gain, -np.inf) / self._costs**power
            best = int(np.argmax(score))
            if not (score[best] > 0 and gain[best] > LEAST_GAIN):
                break
            chosen.append(best)
        return chosen

    def _exchanged(self, chosen: list[int]) -> list[int]:
        """Replace runs by better ones that fit, one at a time, and spend what is left."""
        now = self._value(chosen)
        for _ in range(PASSES):
            before = now
            for place in range(len(chosen)):
                others = chosen[:place] + chosen[place + 1 :]
                value, gain = self._outlook(others)
                gain = np.where(self._allowed(others), gain, -np.inf)
                best = int(np.argmax(gain))
                if value - gain[best] < now - LEAST_GAIN:
                    chosen, now = [*others[:place], best, *others[place:]], value - float(gain[best])
            chosen = self._grown(chosen, 0.0)
            now = self._value(chosen)
            if now > before - LEAST_GAIN:
                break
        return chosen

    def _ordered(self, chosen: list[int]) -> list[int]:
        """The same runs, the most useful per FLOP first, so that a user may stop early; copies together."""
        copies, order = Counter(chosen), list[int]()
        while copies:
            gain = self._outlook(order)[1]
            best = max(copies, key=lambda i: gain[i] / self._costs[i] ** 0.5)
            order += [best] * copies.pop(best)
        return order

    def _allowed(self, chosen: list[int]) -> np.ndarray:
        left = self._rules.budget - self._costs[chosen].sum()
        copies = np.bincount(chosen, minlength=len(self._costs))
        return np.asarray((self._costs <= left * (1 + 1e-9)) & (copies < self._rules.max_copies))


class _View:
    """One world: variance of the target and gains of runs, whatever was made."""

    def __init__(self, world: World) -> None:
        self._prior, self._noise = world.covariance, world.noise
        ends = np.cumsum([1, *(len(noise) for noise in world.noise)])
        self._blocks = [np.arange(a, b) for a, b in pairwise(ends.tolist())]
        sizes = np.array([len(b) for b in self._blocks])
        self._groups = [
            (
                mine,
                blocks,
                self._prior[blocks[:, :, None], blocks[:, None, :]] + np.array([self._noise[i] for i in mine]),
            )
            for mine in (np.flatnonzero(sizes == m) for m in np.unique(sizes))
            for blocks in [np.array([self._blocks[i] for i in mine])]
        ]

    def outlook(self, chosen: list[int]) -> tuple[float, Array]:
        """Variance of the target once runs were made, and what each further run would remove of it, (n_pool,).

        Only the blocks on the diagonal of the posterior covariance are needed, V the rows of L⁻¹·Cov(made, all).
        """
        V = self._projected(chosen)
        cross = self._prior[0] - V[:, 0] @ V
        gains = np.empty(len(self._blocks))
        for mine, blocks, noisy in self._groups:
            part = V[:, blocks]
            inner = noisy - np.einsum("pri,prj->rij", part, part, optimize=True)
            first = cross[blocks]
            gains[mine] = np.einsum("ij,ij->i", first, np.linalg.solve(inner, first[..., None])[..., 0])
        return float(cross[0]), gains

    def _projected(self, chosen: list[int]) -> Array:
        """L⁻¹·Cov(made, all) with L·Lᵀ = Cov(made) + noise; copies have noise of their own."""
        if not chosen:
            return np.zeros((0, len(self._prior)))
        from scipy.linalg import block_diag, solve_triangular

        place = np.concatenate([self._blocks[i] for i in chosen])
        inner = self._prior[np.ix_(place, place)] + block_diag(*(self._noise[i] for i in chosen))
        return np.asarray(solve_triangular(np.linalg.cholesky(inner), self._prior[place], lower=True))
