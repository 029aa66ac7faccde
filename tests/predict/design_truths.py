"""Truths that a design is judged by: the law itself, laws whose exponents drift, and laws whose terms interact."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.inference.design import prepare
from scaling_sim.inference.point import posterior_mode
from scaling_sim.inference.target import LogPosterior
from scaling_sim.laws.registry import get_law
from scaling_sim.predict.allocate import chinchilla_size
from scaling_sim.predict.candidates import Candidate, default_candidates
from scaling_sim.predict.design import MAX_RUNS, design
from scaling_sim.predict.discrepancy import learn
from scaling_sim.predict.targets import Target
from scaling_sim.runs.table import RunTable
from tests.predict.support import table

Array = NDArray[np.float64]
Runs = tuple[Array, Array]

BUDGET, COMPUTE, NOISE = 1e19, 1e20, 0.008
N_ASKED, TOKENS_ASKED = 1e9, COMPUTE / 6e9
LAW = get_law("chinchilla")
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


@dataclass(frozen=True)
class Problem:
    """A truth, the runs made so far, and what has to be answered: N* at `COMPUTE`, or the loss of one run there."""

    truth: Truth
    seed: int
    made: Runs
    log_losses: Array

    @classmethod
    def of(cls, seed: int) -> Problem:
        truth, N = Truth.draw(seed), np.repeat(np.geomspace(3e6, 3e7, 5), 4)
        made = N, N * np.tile(np.geomspace(5, 80, 4), 5)
        noise = NOISE * np.random.default_rng([seed, 1]).standard_t(5, len(N))
        return cls(truth, seed, made, truth.log_loss(*made) + noise)

    @property
    def fit(self) -> Any:
        """A fit of the runs made; a design asks it for its runs and its law."""
        runs = _table(self.made, self.log_losses)
        return SimpleNamespace(law=LAW, law_name=LAW.name, runs=runs, noise={}, draws=_mode(runs))

    def ways(self, target: Target) -> dict[str, Runs]:
        """Next runs for `BUDGET`: designed for the target, an isoFLOP grid, and random ones."""
        fit = self.fit
        bought = [p.candidate for p in design(fit, target, budget=BUDGET).purchases]
        designed = np.array([c.N for c in bought]), np.array([c.tokens for c in bought], dtype=np.float64)
        return {"design": designed, "grid": _grid(fit), "random": _random(fit, self.seed)}

    def errors(self, target: Target, repetitions: int) -> dict[str, float]:
        """Mean squared error of the answer by way, over repetitions of the errors of the new runs."""
        answer = _size if target.kind == "size" else _loss
        right = self.truth.log_best_size(COMPUTE)
        if target.kind == "loss":
            right = float(self.truth.log_loss(np.array(N_ASKED), np.array(TOKENS_ASKED)))
        found = {}
        for way, (N, tokens) in self.ways(target).items():
            everything = np.r_[self.made[0], N], np.r_[self.made[1], tokens]
            squares = []
            for k in range(repetitions):
                noise = NOISE * np.random.default_rng([self.seed, 2, k]).standard_t(5, len(N))
                runs = _table(everything, np.r_[self.log_losses, self.truth.log_loss(N, tokens) + noise])
                squares.append((answer(runs) - right) ** 2)
            found[way] = float(np.mean(squares))
        return found


def _table(runs: Runs, log_loss: Array) -> RunTable:
    return table(N=runs[0], tokens=runs[1], loss=np.exp(log_loss))


def _grid(fit: Any) -> Runs:
    """An isoFLOP grid for the budget: five sizes about the best one at each of three levels, a factor of 3 apart."""
    levels = BUDGET / 5 / (1 + 1 / 3 + 1 / 9) * np.array([1, 1 / 3, 1 / 9])
    N = np.concatenate([best * np.array([0.25, 0.5, 1, 2, 4]) for best in chinchilla_size(levels, fit.draws)])
    return N, np.repeat(levels, 5) / 6 / N


def _random(fit: Any, seed: int) -> Runs:
    """Runs of the pool in random order while they fit into the budget, drawn until these use it up."""
    pool, rng = default_candidates(fit, BUDGET), np.random.default_rng([seed, 3])
    left, chosen = BUDGET, list[Candidate]()
    while left > 0.01 * BUDGET:
        left, chosen = BUDGET, []
        for place in rng.permutation(len(pool)).tolist():
            if pool[place].cost <= left and len(chosen) < MAX_RUNS:
                chosen.append(pool[place])
                left -= pool[place].cost
    return np.array([c.N for c in chosen]), np.array([c.tokens for c in chosen], dtype=np.float64)


def _mode(runs: RunTable) -> dict[str, Array]:
    """Parameters at the mode of the posterior that `scaling_sim.fit` samples."""
    target = LogPosterior(LAW, prepare(runs, LAW))
    mode = posterior_mode(target)[0].u[None, : target.num_law]
    return {name: np.asarray(values) for name, values in LAW.to_parameters(mode, target.centre).items()}


def _size(runs: RunTable) -> float:
    """ln N* as `allocate` has it: by the law alone."""
    return float(np.log(chinchilla_size(COMPUTE, _mode(runs))[0]))


def _loss(runs: RunTable) -> float:
    """ln loss as `forecast` has it: the median over draws of law and discrepancy."""
    asked = {"N": np.array([N_ASKED]), "tokens": np.array([TOKENS_ASKED])}
    model = learn(runs, LAW, num_draws=500)
    return float(np.median(model.log_loss(asked, COMPUTE, scatter=False)))
