"""Laplace's approximation at the mode: where walkers start, and what independent proposals are drawn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scaling_sim.inference.optimum import Mode, hessian
from scaling_sim.inference.priors import moments
from scaling_sim.inference.target import LogPosterior

Array = NDArray[np.float64]

DEGREES = 5.0
"""Of freedom of the proposals: tails heavier than those of posteriors, or walkers far out would seldom move."""
MOST = 0.5
"""Share of the proposals among all moves where the approximation is good."""
LEAST = 0.02
"""Share where it is not: proposals are then mostly refused, and each costs as much as a useful move."""
GOOD = 0.2
"""Effective share of weighted draws from which the approximation counts as good."""
NUM_WEIGHTED = 2000


@dataclass(frozen=True)
class Laplace:
    """Multivariate t_5 about the mode with Laplace's covariance F Fᵀ: a Metropolis-Hastings proposal.

    Proposals do not depend on where a walker is (Tierney 1994, section 2.3.3), and the approximation stays as it is, so
    that any target is sampled as it should be; where the posterior is nearly normal, τ is a few steps.

    Parameters
    ----------
    centre : (p,) array
    factor : (p, p) array F
    share : float
        Of these proposals among all moves.
    """

    centre: Array
    factor: Array
    share: float = MOST

    def draw(self, size: int, rng: np.random.Generator) -> Array:
        """(size, p) normal draws of Laplace's approximation."""
        return np.asarray(self.centre + rng.standard_normal((size, len(self.centre))) @ self.factor.T)

    def __call__(self, u: Array, random: np.random.RandomState) -> tuple[Array, Array]:
        """Proposals for walkers ``u`` (n, p), and log q(u) − log q(proposal), (n,): what emcee's MHMove asks for."""
        scale = np.sqrt(random.gamma(DEGREES / 2, 2 / DEGREES, size=(len(u), 1)))
        z = random.standard_normal(u.shape) / scale
        now = np.asarray(np.linalg.solve(self.factor, (u - self.centre).T).T, dtype=np.float64)
        return self.centre + z @ self.factor.T, _log_t(now) - _log_t(z)


def laplace(target: LogPosterior, mode: Mode) -> Laplace:
    """The approximation at a mode of the target, no wider than the prior in any direction."""
    prior_sd = moments(target.coordinates)[1]
    curvature = -hessian(target, mode.u, 1e-3 * prior_sd) * np.outer(prior_sd, prior_sd)
    values, vectors = np.linalg.eigh(np.nan_to_num(curvature, nan=0.0, posinf=0.0, neginf=0.0))
    found = Laplace(mode.u, np.asarray(prior_sd[:, None] * vectors / np.sqrt(np.maximum(values, 1.0))))
    return replace(found, share=max(LEAST, MOST * min(1.0, quality(found, target) / GOOD)))


def quality(approximation: Laplace, target: Callable[[Array], Array]) -> float:
    """Effective share (Kish) of draws from the proposal, weighted to be draws from the target: 1 where they agree."""
    nothing = np.broadcast_to(approximation.centre, (NUM_WEIGHTED, len(approximation.centre)))
    draws, log_ratio = approximation(nothing, np.random.RandomState(0))
    log_weight = target(draws) + log_ratio  # up to a constant, log target less log proposal
    weight = np.exp(log_weight - log_weight.max())
    return float(weight.sum() ** 2 / (weight @ weight) / len(weight))


def _log_t(z: Array) -> Array:
    """Log density of t_5 at standardised points (n, p), up to a constant."""
    return np.asarray(-0.5 * (DEGREES + z.shape[1]) * np.log1p(np.sum(z * z, axis=1) / DEGREES))
