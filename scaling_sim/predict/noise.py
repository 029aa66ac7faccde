"""Errors of simulated losses: those that the likelihood of a fit assumes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import ConfigError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Noise:
    """Errors of the log loss.

    Rows that are not points of a curve have independent errors, σ·t_ν. The points of one curve have one multivariate
    Student-t error with scale matrix σ²I + τ² exp(−|Δ ln S|/ℓ): the likelihood of `scaling_sim.fit`.

    Parameters
    ----------
    sigma : float, ≥ 0
    nu : float, > 0; ``inf`` for normal errors of the log loss
    tau : float, ≥ 0; None means sigma
    ell : float, > 0, e-folds of steps
    """

    sigma: float = 0.005
    nu: float = 5.0
    tau: float | None = None
    ell: float = 1.0

    def __post_init__(self) -> None:
        if not (self.sigma >= 0 and self.nu > 0 and self.ell > 0 and (self.tau is None or self.tau >= 0)):
            raise ConfigError(f"sigma and tau must not be negative, nu and ell must be positive; got {self}")

    def draw(self, log_S: Array, correlated: bool, rng: np.random.Generator) -> Array:
        """Errors (n,): of one curve with log steps ``log_S``, or independent ones."""
        shared = np.sqrt(self.nu / rng.chisquare(self.nu, size=1 if correlated else len(log_S))) if self._heavy else 1.0
        noise = self.sigma * rng.standard_normal(len(log_S))
        if correlated:
            noise = noise + self._level(log_S, rng)
        return noise * shared

    @property
    def _heavy(self) -> bool:
        return bool(np.isfinite(self.nu))

    def _level(self, log_S: Array, rng: np.random.Generator) -> Array:
        """An Ornstein-Uhlenbeck path through the points, in the order of S."""
        tau = self.sigma if self.tau is None else self.tau
        order = np.argsort(log_S, kind="stable")
        steps = rng.standard_normal(len(log_S))
        path, previous = np.empty(len(log_S)), 0.0
        for k, i in enumerate(order):
            keep = np.exp(-(log_S[i] - log_S[order[k - 1]]) / self.ell) if k else 0.0
            path[i] = previous = keep * previous + tau * np.sqrt(1 - keep**2) * steps[k]
        return path


def noise_by_role(truth: Any, noise: float | Noise | Mapping[str, Noise] | None) -> dict[str, Noise]:
    """Noise by role."""
    roles = ("final", "stopped", "curve")
    if isinstance(noise, Noise):
        return dict.fromkeys(roles, noise)
    if isinstance(noise, Mapping):
        unknown = sorted(set(noise) - set(roles))
        if unknown:
            raise ConfigError(f"noise is given by role ({', '.join(roles)}); got {', '.join(unknown)}")
        return {role: noise.get(role, Noise()) for role in roles}
    if noise is not None:
        return dict.fromkeys(roles, Noise(float(noise)))
    fitted: Mapping[str, Array] = getattr(truth, "noise", {})
    return {role: _fitted_noise(fitted, role) for role in roles}


def _fitted_noise(fitted: Mapping[str, Array], role: str) -> Noise:
    """Medians of a posterior's noise parameters, those of the role before the common ones."""
    values = {}
    for name in ("sigma", "nu", "tau", "ell"):
        draws = fitted.get(f"{name}_{role}", fitted.get(name))
        if draws is not None:
            values[name] = float(np.median(draws))
    return Noise(**values)
