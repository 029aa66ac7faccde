"""A posterior by importance sampling about its mode: in tenths of a second, for tables of many refits and for tests.

Proposals are multivariate t_5, first with Laplace's covariance at the mode, then twice with mean and covariance of the
weighted proposals before (population Monte Carlo: Cappé et al. 2004). Where few proposals carry the weight, ``ess`` is
small, and `scaling_sim.fit` is the better way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.inference.design import prepare
from scaling_sim.inference.laplace import laplace
from scaling_sim.inference.optimum import Mode
from scaling_sim.inference.point import posterior_mode
from scaling_sim.inference.target import LogPosterior
from scaling_sim.laws.base import Law
from scaling_sim.laws.registry import get_law
from scaling_sim.runs.table import RunTable, read_runs

Array = NDArray[np.float64]


DEGREES = 5.0
ROUNDS = 3
MIN_ESS = 100.0


@dataclass(frozen=True)
class ApproximateFit:
    """Draws of a posterior; predictions take it in place of a sampled one.

    Attributes
    ----------
    law, draws, point, runs : as of a Posterior
    ess : effective number of proposals behind the draws, Σw²/(Σw)² inverted
    """

    law: Law
    draws: Mapping[str, Array]
    point: Mapping[str, float]
    runs: RunTable
    ess: float
    noise: Mapping[str, Array] = field(default_factory=dict)

    @property
    def law_name(self) -> str:
        """Name of the law."""
        return self.law.name

    @property
    def converged(self) -> bool:
        """Whether at least `MIN_ESS` proposals carry the weight."""
        return self.ess >= MIN_ESS


def approximate_fit(
    runs: Any, law: str | Law = "chinchilla", *, num_draws: int = 2000, seed: int = 0
) -> ApproximateFit:
    """Draws of a law's parameters, resampled from weighted proposals about the mode of the posterior.

    Parameters
    ----------
    runs : RunTable, or anything that `read_runs` takes
    law : str or Law
    num_draws, seed : int

    Raises
    ------
    DesignError
        The runs cannot identify the law.
    """
    table, form = read_runs(runs), get_law(law)
    target = LogPosterior(form, prepare(table, form))
    mode, _ = posterior_mode(target)
    picked, ess = resampled(target, mode, num_draws, np.random.default_rng(seed))
    natural = target.natural(np.concatenate([mode.u[None], picked]))
    point = {name: float(values[0]) for name, values in natural.items()}
    draws = {name: values[1:] for name, values in natural.items()}
    return ApproximateFit(form, draws, point, table, ess)


def resampled(target: LogPosterior, mode: Mode, size: int, rng: np.random.Generator) -> tuple[Array, float]:
    """(size, n_coordinates) draws of a posterior, of law and noise, and the effective number of proposals behind them.

    See the module's first lines.
    """
    centre, factor = mode.u, laplace(target, mode).factor
    for last in (*[False] * (ROUNDS - 1), True):
        u, weight = _weighted(target, centre, factor, (2 if last else 1) * max(size, 2000), rng)
        if not last and 1 / np.sum(weight**2) > 2 * len(centre):
            centre = weight @ u
            away = (u - centre) * np.sqrt(weight)[:, None]
            factor = np.asarray(np.linalg.cholesky(away.T @ away + 1e-9 * factor @ factor.T))
    return u[_systematic(weight, size, rng)], float(1 / np.sum(weight**2))


def _weighted(
    target: LogPosterior, centre: Array, factor: Array, size: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """t_5 proposals (size, p) and their normalised importance weights."""
    scale = np.sqrt(rng.gamma(DEGREES / 2, 2 / DEGREES, size=(size, 1)))
    z = rng.standard_normal((size, len(centre))) / scale
    log_q = -0.5 * (DEGREES + len(centre)) * np.log1p(np.sum(z * z, axis=1) / DEGREES)
    u = centre + z @ factor.T
    log_weight = target(u) - log_q
    weight = np.exp(log_weight - log_weight.max())
    return u, weight / weight.sum()


def _systematic(weight: Array, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Places of ``size`` draws in proportion to the weights, evenly spread over them, in random order."""
    places = np.searchsorted(np.cumsum(weight), (rng.random() + np.arange(size)) / size)
    return rng.permutation(np.minimum(places, len(weight) - 1))
