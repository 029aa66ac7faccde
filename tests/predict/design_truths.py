"""Truths that a design is judged by: the law itself, laws whose exponents drift, and laws whose terms interact."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.predict.candidates import default_candidates
from scaling_sim.predict.design import design
from scaling_sim.predict.discrepancy import Discrepancy, learn
from scaling_sim.predict.targets import best_size, curvature, loss_of
from scaling_sim.runs.table import RunTable
from tests.predict.support import table

Array = NDArray[np.float64]
Runs = tuple[Array, Array]

BUDGET, COMPUTE, NOISE = 1e19, 1e20, 0.008
N_ASKED, TOKENS_ASKED = 1e9, COMPUTE / 6e9
MAX_RUNS = 24
KINDS = ("law", "drift", "interaction")


@dataclass(frozen=True)
class Truth:
    """L = E + (a^(1/g) + b^(1/g))^g with a, b powers of N and tokens whose exponents drift with the logarithm.

    Chinchilla's form for g = 1 and no drift.
    """

    E: float
    a: float
    b: float
    alpha: float
    beta: float
    drift: tuple[float, float]
    g: float

    @classmethod
    def draw(cls, seed: int) -> Truth:
        rng, kind = np.random.default_rng(seed), KINDS[seed % 3]
        reducible, share = rng.uniform(1.0, 1.6), rng.uniform(0.35, 0.65)
        alpha, beta, E = rng.uniform(0.28, 0.45), rng.uniform(0.25, 0.42), rng.uniform(1.5, 2.0)
        drift = tuple(rng.uniform(-0.012, 0.012, 2).tolist()) if kind == "drift" else (0.0, 0.0)
        g = float(rng.uniform(0.6, 0.85)) if kind == "interaction" else 1.0
        return cls(E, reducible * share, reducible * (1 - share), alpha, beta, drift, g)

    def log_loss(self, N: Array, tokens: Array) -> Array:
        x, y = np.log(N / 1e8), np.log(tokens / 2e9)
        a = self.a * np.exp(-self.alpha * x - 0.5 * self.drift[0] * x * np.abs(x))
        b = self.b * np.exp(-self.beta * y - 0.5 * self.drift[1] * y * np.abs(y))
        return np.asarray(np.log(self.E + (a ** (1 / self.g) + b ** (1 / self.g)) ** self.g))

    def log_best_size(self, C: float) -> float:
        log_N = 0.5 * np.log(C / 6) + np.linspace(-6, 6, 6001)
        return float(log_N[np.argmin(self.log_loss(np.exp(log_N), C / 6 / np.exp(log_N)))])


def errors(seed: int) -> dict[tuple[str, str], float]:
    """Squared error of (target, way of choosing runs) after the runs of each way were made."""
    truth, rng = Truth.draw(seed), np.random.default_rng([seed, 1])
    N = np.repeat(np.geomspace(3e6, 3e7, 5), 4)
    pilot = (N, N * np.tile(np.geomspace(5, 80, 4), 5))
    losses = truth.log_loss(*pilot) + NOISE * rng.standard_t(5, len(N))
    runs = _table(pilot, losses)
    model = learn(runs, "chinchilla")
    fit: Any = SimpleNamespace(law=model.law, law_name="chinchilla", draws=model.draws, runs=runs, noise={})
    ways = {"grid": _grid(model), "random": _random(fit, rng)}
    for name, target in (("size", best_size(COMPUTE)), ("loss", loss_of(N_ASKED, TOKENS_ASKED))):
        bought = [p.candidate for p in design(fit, target, budget=BUDGET, max_runs=MAX_RUNS).purchases]
        ways[name] = np.array([c.N for c in bought]), np.array([c.tokens for c in bought], dtype=np.float64)
    found: dict[tuple[str, str], float] = {}
    for way, (n, tokens) in ways.items():
        noise = NOISE * np.random.default_rng([seed, 2]).standard_t(5, len(n))
        everything = np.r_[pilot[0], n], np.r_[pilot[1], tokens]
        size, loss = _estimates(_table(everything, np.r_[losses, truth.log_loss(n, tokens) + noise]))
        if way != "loss":
            found["size", way] = (size - truth.log_best_size(COMPUTE)) ** 2
        if way != "size":
            found["loss", way] = float(loss - truth.log_loss(np.array(N_ASKED), np.array(TOKENS_ASKED))) ** 2
    return found


def _table(runs: Runs, log_loss: Array) -> RunTable:
    return table(N=runs[0], tokens=runs[1], loss=np.exp(log_loss))


def _grid(model: Discrepancy) -> Runs:
    """An isoFLOP grid for the budget: five sizes about the best one at each of three levels, a factor of 3 apart."""
    levels = BUDGET / 5 / (1 + 1 / 3 + 1 / 9) * np.array([1, 1 / 3, 1 / 9])
    best = [float(np.median(best_size(C).quantity(model).draws)) for C in levels]
    N = np.concatenate([b * np.array([0.25, 0.5, 1, 2, 4]) for b in best])
    return N, np.repeat(levels, 5) / 6 / N


def _random(fit: Any, rng: np.random.Generator) -> Runs:
    """Runs of the pool in random order while they fit into the budget."""
    pool = default_candidates(fit, BUDGET)
    left, chosen = BUDGET, []
    for place in rng.permutation(len(pool)).tolist():
        if pool[place].cost <= left and len(chosen) < MAX_RUNS:
            chosen.append(pool[place])
            left -= pool[place].cost
    return np.array([c.N for c in chosen]), np.array([c.tokens for c in chosen], dtype=np.float64)


def _estimates(runs: RunTable) -> tuple[float, float]:
    """ln N* and ln loss by law and discrepancy, as a design takes its targets: medians over draws."""
    model = learn(runs, "chinchilla")
    middle, bend = curvature(model, COMPUTE)
    log_N = float(np.median(middle)) + np.linspace(-2.5, 2.5, 51)
    height = 0.5 * bend[:, None] * (log_N - middle[:, None]) ** 2
    height += model.shift(np.full(len(log_N), COMPUTE), np.exp(log_N), "final")
    size = float(np.median(log_N[np.argmin(height, axis=1)]))
    asked = {"N": np.array([N_ASKED]), "tokens": np.array([TOKENS_ASKED])}
    return size, float(np.median(model.log_loss(asked, COMPUTE, scatter=False)))
