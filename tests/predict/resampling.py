"""A posterior without a chain: importance resampling from a Student-t around the mode, refined twice.

It draws from the density that `scaling_sim.fit` samples, hundreds of times faster on a dozen coordinates, and says by
its effective sample size how far it may be believed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling_sim.inference.design import prepare
from scaling_sim.inference.laplace import laplace
from scaling_sim.inference.point import posterior_mode
from scaling_sim.inference.target import LogPosterior
from scaling_sim.laws import get_law
from scaling_sim.runs.table import RunTable
from tests.predict.support import Draws

Array = NDArray[np.float64]

NU = 6.0
"""Of the proposal: tails heavier than any that the posterior has."""
SIZES = (4000, 8000, 16_000)
"""Proposals of each round; the weighted moments of one round propose the next."""
MIN_ESS = 400.0


@dataclass(frozen=True)
class Resampled:
    """Draws of the natural parameters as predictions read them, and Kish's effective size of the last weights."""

    fit: Draws
    ess: float


def resampled(runs: RunTable, law: str, seed: int, num_draws: int = 2000) -> Resampled:
    """Draws of ``law`` given ``runs``; `ess` below `MIN_ESS` means that the posterior is no smooth ellipsoid."""
    form = get_law(law)
    target = LogPosterior(form, prepare(runs, form))
    rng = np.random.default_rng(seed)
    approximation = laplace(target, posterior_mode(target)[0])
    mean, factor = approximation.centre, approximation.factor
    for size in SIZES:
        u, log_weight = _proposed(target, mean, factor, size, rng)
        weight = np.exp(log_weight - log_weight.max())
        weight /= weight.sum()
        mean = weight @ u
        factor = np.linalg.cholesky((u - mean).T @ ((u - mean) * weight[:, None]) + 1e-12 * np.eye(len(mean)))
    chosen = u[rng.choice(len(u), num_draws, p=weight)]
    with np.errstate(all="ignore"):
        natural = form.to_parameters(chosen[:, : target.num_law], target.centre)
    return Resampled(Draws(law, dict(natural), runs), float(1 / np.sum(weight**2)))


def _proposed(
    target: LogPosterior, mean: Array, factor: Array, size: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Points (size, p) of a multivariate t with this scale factor, and their log importance weights (size,)."""
    p = len(mean)
    z = rng.standard_normal((size, p)) * np.sqrt(NU / rng.chisquare(NU, size))[:, None]
    u = mean + z @ factor.T
    log_proposal = -0.5 * (NU + p) * np.log1p((z**2).sum(axis=1) / NU)
    return u, np.concatenate([target(block) for block in np.array_split(u, max(1, size // 500))]) - log_proposal
