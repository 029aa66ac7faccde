"""The posterior by emcee: independent ensembles, lengthened until autocorrelation time and R-hat are content."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import ConvergenceError
from scaling_sim.inference.autocorrelation import integrated_time
from scaling_sim.inference.diagnostics import MIN_LENGTH, Diagnostics, diagnose
from scaling_sim.inference.laplace import Laplace, laplace
from scaling_sim.inference.optimum import Mode
from scaling_sim.inference.target import LogPosterior

Array = NDArray[np.float64]

NUM_ENSEMBLES = 4
FIRST_BLOCK = 100
"""Steps until the first report: seconds even for thousands of points."""
BURN_IN = 8.0
"""In autocorrelation times, dropped from the start: the start is already at the mode, with the Laplace spread."""
SPREAD = 1.75
"""Of the starting walkers, in Laplace standard deviations: over-dispersed, so that R-hat means something."""


@dataclass(frozen=True)
class Progress:
    """Where a sampler is: given to ``progress`` after each block. An exception raised there cancels the fit."""

    steps: int
    """Made so far, in each ensemble."""
    expected_steps: int
    """About as many will be needed, if τ grows once more as it did since the last report."""
    tau: float
    """Longest autocorrelation time so far, steps."""
    seconds: float
    seconds_left: float
    at_least: bool = False
    """Whether τ still grows with the length of the chain, or is seen for the first time."""


@dataclass(frozen=True)
class Sample:
    """What the sampler found.

    Attributes
    ----------
    chain : (n_ensembles, n_kept_steps, n_walkers, n_coordinates), after the burn-in
    log_posterior : (n_ensembles, n_kept_steps, n_walkers)
    """

    chain: Array
    log_posterior: Array
    diagnostics: Diagnostics


@dataclass
class _Ensemble:
    """One ensemble between two blocks."""

    u: Array
    random_state: Any
    chain: list[Array]
    log_posterior: list[Array]
    accepted: float = 0.0
    steps: int = 0


def sample(
    target: LogPosterior,
    mode: Mode,
    *,
    seed: int,
    min_ess: int = 1000,
    max_steps: int = 30_000,
    num_walkers: int | None = None,
    processes: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Sample:
    """Draws from ``target`` until the convergence rule holds, or ``max_steps`` are made.

    Up to half the moves are independent proposals of Laplace's approximation, for posteriors that are nearly normal (τ
    of 4 steps on six coordinates, 6 on twelve); the others are differential evolution and stretch, 4 : 1 (τ of 23 and
    60 by themselves), for those that are not. The shares are set before the first step
    (`laplace.quality`). emcee 3.1.6's snooker move samples a wrong distribution and is never used.
    Numbers depend on ``seed`` alone, not on ``processes`` or ``progress``.

    Parameters
    ----------
    mode : Mode of the target, from which all walkers start
    seed : int
    max_steps : int, per ensemble
    num_walkers : int, per ensemble; default: four per coordinate, at least 32
    processes : int, over which the ensembles are spread by spawning; default: this one
    """
    p = len(target.coordinates)
    walkers = num_walkers or max(32, 2 * ((4 * p + 1) // 2))
    approximation = laplace(target, mode)
    ensembles = [_start(target, approximation, walkers, s) for s in np.random.SeedSequence(seed).spawn(NUM_ENSEMBLES)]
    began, block, tau_before = time.perf_counter(), min(FIRST_BLOCK, max_steps), 0.0
    with _workers(target, approximation, processes) as advance:
        while True:
            for ensemble, made in zip(ensembles, advance(ensembles, block), strict=True):
                _append(ensemble, made)
            steps = ensembles[0].steps
            chain = np.stack([np.concatenate(e.chain) for e in ensembles])
            tau = integrated_time(chain[:, steps // 4 :])
            burn = min(int(BURN_IN * tau.max()), steps // 2)
            needed = int((MIN_LENGTH * 1.08 + BURN_IN) * tau.max()) + 1
            if progress is not None:
                progress(_progress(steps, needed, float(tau.max()), tau_before, time.perf_counter() - began))
            tau_before = float(tau.max())
            if steps < min(needed, max_steps):
                block = min(max(needed - steps, 100), max_steps - steps, 4 * steps)
                continue
            acceptance = float(np.mean([e.accepted / e.steps for e in ensembles]))
            diagnostics = diagnose(
                chain[:, burn:],
                target.coordinates,
                min_ess=min_ess,
                acceptance=acceptance,
                natural=target.natural,
            )
            if diagnostics.converged or steps >= max_steps:
                log_posterior = np.stack([np.concatenate(e.log_posterior) for e in ensembles])
                return Sample(chain[:, burn:], log_posterior[:, burn:], diagnostics)
            block = min(max(steps // 2, 100), max_steps - steps)


SETTLED = 1.1
"""Growth of τ between two reports below which it counts as known."""


def _progress(steps: int, needed: int, tau: float, before: float, seconds: float) -> Progress:
    """A short chain shows a short τ: what is needed grows until the chain is about 50 τ long."""
    growth = min(max(1.0, tau / before), 3.0) if before else 1.0
    expected = needed if steps >= needed else int(needed * growth)
    left = seconds * max(0, expected - steps) / steps
    return Progress(steps, expected, tau, seconds, left, at_least=steps < needed and (not before or growth > SETTLED))


def moves(approximation: Laplace) -> list[tuple[Any, float]]:
    """The moves that ship, with their shares."""
    from emcee.moves import DEMove, MHMove, StretchMove

    rest = 1.0 - approximation.share
    return [(MHMove(approximation), approximation.share), (DEMove(), 0.8 * rest), (StretchMove(), 0.2 * rest)]


def _start(target: LogPosterior, approximation: Laplace, walkers: int, seed: np.random.SeedSequence) -> _Ensemble:
    """Walkers around the mode where the density is finite."""
    rng = np.random.default_rng(seed)
    mode = approximation.centre
    u = np.empty((0, len(mode)))
    for spread in SPREAD * 0.7 ** np.arange(30):
        trial = mode + spread * (approximation.draw(2 * walkers, rng) - mode)
        u = np.concatenate([u, trial[np.isfinite(target(trial))]])
        if len(u) >= walkers:
            state = np.random.RandomState(int(rng.integers(2**32))).get_state()
            return _Ensemble(u[:walkers], state, [], [])
    raise ConvergenceError(
        "the posterior is not finite around its mode; check the columns' units or choose a simpler law"
    )


def _append(ensemble: _Ensemble, made: tuple[Array, Array, float, Any]) -> None:
    chain, log_posterior, accepted, ensemble.random_state = made
    ensemble.chain.append(chain)
    ensemble.log_posterior.append(log_posterior)
    ensemble.u = chain[-1]
    ensemble.accepted += accepted * len(chain)
    ensemble.steps += len(chain)


def _advance(
    target: Any, approximation: Laplace, u: Array, random_state: Any, steps: int
) -> tuple[Array, Array, float, Any]:
    """Chain (steps, walkers, p), log posterior (steps, walkers), acceptance and random state of one block."""
    import emcee

    sampler = emcee.EnsembleSampler(*u.shape, target, moves=moves(approximation), vectorize=True)
    sampler.log_prob_fn = target  # emcee's wrapper prints a traceback on stdout when Ctrl-C falls into it
    start = emcee.State(u, random_state=random_state)
    state = sampler.run_mcmc(start, steps, skip_initial_state_check=True)
    acceptance = float(np.mean(sampler.acceptance_fraction))
    return sampler.get_chain(), sampler.get_log_prob(), acceptance, state.random_state


_WORK: tuple[LogPosterior, Laplace]
"""Of a worker process."""


def _set_work(*work: Any) -> None:
    """Set up a worker, which ends without a word on the Ctrl-C that its parent reports."""
    global _WORK
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _WORK = work


def _advance_in_worker(u: Array, random_state: Any, steps: int) -> tuple[Array, Array, float, Any]:
    return _advance(*_WORK, u, random_state, steps)


_Advance = Callable[[list[_Ensemble], int], list[tuple[Array, Array, float, Any]]]


@contextmanager
def _workers(target: LogPosterior, approximation: Laplace, processes: int | None) -> Iterator[_Advance]:
    """A function that advances all ensembles by a block: here, or in spawned processes."""
    work = (target, approximation)
    if not processes or processes < 2:
        yield lambda ensembles, steps: [_advance(*work, e.u, e.random_state, steps) for e in ensembles]
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    count = min(processes, NUM_ENSEMBLES)
    with ProcessPoolExecutor(count, get_context("spawn"), initializer=_set_work, initargs=work) as pool:
        yield lambda ensembles, steps: list(
            pool.map(_advance_in_worker, *zip(*[(e.u, e.random_state, steps) for e in ensembles], strict=True))
        )
