"""Fitters for calibration: ours, made short enough to be run hundreds of times, and three broken on purpose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling_sim.inference.autocorrelation import integrated_time
from scaling_sim.inference.design import prepare
from scaling_sim.inference.laplace import Laplace, laplace
from scaling_sim.inference.point import posterior_mode
from scaling_sim.inference.sampler import _start, moves
from scaling_sim.inference.student import MEDIAN_ABS
from scaling_sim.inference.target import LogPosterior
from scaling_sim.laws import get_law
from scaling_sim.laws.base import Law
from scaling_sim.runs.table import RunTable

Array = np.ndarray[Any, np.dtype[np.float64]]


class MissingJacobian(LogPosterior):
    """As if the sampler moved in the exponents themselves under a prior on their logarithms, without 1/α."""

    def __call__(self, u: Array) -> Array:
        logs = [k for k, c in enumerate(self.law_coordinates) if c.name.removeprefix("log_") in self.law.exponents]
        return np.asarray(super().__call__(u) + u[:, logs].sum(axis=1))


class NormalErrors(LogPosterior):
    """Errors taken as normal, with the same prior of their median size."""

    def __call__(self, u: Array) -> Array:
        with np.errstate(all="ignore"):
            t_likelihood = self.likelihood.log_likelihood(self.log_prediction(u[:, :-1]), u[:, -1:])
            prior = super().__call__(u) - t_likelihood
            z = (self.likelihood.log_response - self.log_prediction(u[:, :-1])) / (np.exp(u[:, -1:]) / NORMAL_MEDIAN)
            total = prior - 0.5 * np.sum(z * z, axis=1) - len(self.data) * u[:, -1]
        return np.where(np.isfinite(total), total, -np.inf)


NORMAL_MEDIAN = 0.6744897501960817


def snooker_mix() -> list[tuple[Any, float]]:
    """.8 DE + .2 snooker, as emcee's documentation proposes; emcee 3.1.6's snooker move is wrong."""
    from emcee.moves import DEMove, DESnookerMove

    return [(DEMove(), 0.8), (DESnookerMove(), 0.2)]


@dataclass(frozen=True)
class Short:
    """Our density, mode, start and moves, but one ensemble, of ``min_taus`` autocorrelation times by ``walkers``.

    `scaling_sim.fit` makes four ensembles of 50 τ, about as wide as one of these is.
    """

    law: Law | str
    density: type[LogPosterior] = LogPosterior
    snooker: bool = False
    min_taus: float = 40.0
    walkers: int = 96
    max_steps: int = 5000
    num_draws: int = 1000

    def __call__(self, table: RunTable, seed: int) -> Drawn:
        law = get_law(self.law)
        right = LogPosterior(law, prepare(table, law))
        target = self.density(law, right.data)
        approximation = laplace(right, posterior_mode(right)[0])
        start = _start(right, approximation, self.walkers, np.random.SeedSequence(seed))
        chain = self._chain(target, approximation, start)
        u = chain.reshape(-1, chain.shape[2])
        u = u[np.random.default_rng(seed).permutation(len(u))[: self.num_draws]]
        return drawn(right, u, seed, len(chain) >= self.min_taus * integrated_time(chain[None]).max())

    def _chain(self, target: LogPosterior, approximation: Laplace, start: Any) -> Array:
        """(steps, walkers, coordinates), after the burn-in."""
        import emcee

        mix = snooker_mix() if self.snooker else moves(approximation)
        sampler = emcee.EnsembleSampler(*start.u.shape, target, moves=mix, vectorize=True)
        state: Any = emcee.State(start.u, random_state=start.random_state)
        steps, block = 0, 250
        while True:
            state = sampler.run_mcmc(state, block, skip_initial_state_check=True)
            steps += block
            chain = np.asarray(sampler.get_chain())
            tau = float(integrated_time(chain[None, steps // 4 :]).max())
            needed = int((8 + 1.1 * self.min_taus) * tau)
            if steps >= min(needed, self.max_steps):
                return chain[min(int(8 * tau), steps // 2) :]
            block = min(max(needed - steps, 100), self.max_steps - steps, 2 * steps)


@dataclass(frozen=True)
class Weighted:
    """Any density by importance sampling from our approximation at its mode: enough for three coordinates, in 20 ms."""

    law: Law | str
    density: type[LogPosterior] = LogPosterior
    size: int = 10_000

    def __call__(self, table: RunTable, seed: int) -> Drawn:
        law = get_law(self.law)
        target = self.density(law, prepare(table, law))
        approximation = laplace(target, posterior_mode(target)[0])
        random = np.random.RandomState(seed)
        u, log_ratio = approximation(np.tile(approximation.centre, (self.size, 1)), random)
        log_weight = target(u) + log_ratio
        weight = np.exp(log_weight - log_weight.max())
        chosen = random.choice(self.size, 1000, p=weight / weight.sum())
        return drawn(target, u[chosen], seed, weight.sum() ** 2 > 200 * np.sum(weight**2))


@dataclass(frozen=True)
class Drawn:
    """What `scaling_sim.testing.calibration` reads."""

    draws: dict[str, Array]
    noise: dict[str, Array]
    converged: bool


def drawn(target: LogPosterior, u: Array, seed: int, converged: bool) -> Drawn:
    """Natural draws of coordinates ``u``; normal errors as t errors of the same median, which is their coordinate."""
    draws = target.law.to_parameters(u[:, : target.num_law], target.centre)
    if isinstance(target, NormalErrors):
        return Drawn(draws, {"sigma": np.exp(u[:, -1]) / MEDIAN_ABS[0], "nu": np.full(len(u), 3.0)}, converged)
    prediction = target.log_prediction(u[:, : target.num_law])
    noise = target.likelihood.draw_noise(prediction, u[:, target.num_law :], np.random.default_rng(seed))
    return Drawn(draws, noise, converged)
