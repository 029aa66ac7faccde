"""What runs would say about a target, by draws of a posterior whose law is taken as true; and the noise of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaling_sim.predict.candidates import Candidate
from scaling_sim.predict.discrepancy import Discrepancy
from scaling_sim.predict.linearised import NU
from scaling_sim.predict.source import Array, Fit

DEFAULT_NOISE = 0.01
"""Residual scale of ln loss where the fit does not say."""


@dataclass(frozen=True)
class World:
    """Second moments of a target and of what runs would measure, given the runs made.

    Attributes
    ----------
    covariance : (1 + Σ m_i,) square, the target first, then the m_i log losses of each run, without noise
    noise : (m_i, m_i) covariance of each run's noise
    scale : name of the scale on which the target is about normal
    """

    covariance: Array
    noise: list[Array]
    scale: str


def world_by_draws(fit: Fit, draws: Array, runs: Sequence[Candidate], noise: float | None = None) -> World:
    """Moments over a fit's draws; ``draws`` (n,) are the target's."""
    target, scale = on_normal_scale(draws)
    everything = np.column_stack([target, *(c.log_losses(fit) for c in runs)])
    covariance = np.atleast_2d(np.cov(everything, rowvar=False))
    return World(covariance, [_law_noise(fit, c, noise) for c in runs], scale)


def on_normal_scale(draws: Array) -> tuple[Array, str]:
    """Log draws; with infinite ones, normal scores of mid-ranks, which know only the order."""
    if np.all(np.isfinite(draws)) and np.all(draws > 0):
        return np.log(draws), "log"
    from scipy.stats import norm, rankdata

    return np.asarray(norm.ppf((rankdata(draws) - 0.5) / len(draws))), "normal score of its rank"


def _law_noise(fit: Fit, run: Candidate, noise: float | None) -> Array:
    m = len(run.compute)
    if noise is not None:
        return noise**2 * np.eye(m)
    sigma = _median(fit, "sigma", run.kind, DEFAULT_NOISE)
    return sigma**2 * t_factor(_median(fit, "nu", run.kind, np.inf), m) * _shape(fit, run, sigma)


def misfit_noise(fit: Fit, model: Discrepancy, run: Candidate, noise: float | None, k: int) -> Array:
    """(m, m) covariance of a run's noise by draw ``k`` of the errors, which grow towards small runs."""
    m = len(run.compute)
    if noise is not None:
        return noise**2 * np.eye(m)
    place = model.roles.index(run.kind) if run.kind in model.roles else len(model.roles) - 1
    away = np.minimum(np.log(run.compute / model.largest), 0.0)
    scale = float(model.scale[k, place]) * np.exp(-0.5 * float(model.growth[k]) * away)
    shape = _shape(fit, run, _median(fit, "sigma", run.kind, DEFAULT_NOISE))
    correlation = shape / np.sqrt(np.outer(np.diag(shape), np.diag(shape)))
    return np.asarray(t_factor(NU, m) * np.outer(scale, scale) * correlation)


def t_factor(nu: float, m: int) -> float:
    """Variance of Normal errors that tell as much about a location as m Student-t ones of scale 1 (Fisher)."""
    return (nu + m + 2) / (nu + m) if np.isfinite(nu) else 1.0


def _shape(fit: Fit, run: Candidate, sigma: float) -> Array:
    """(m, m) covariance over σ²: the points of a curve go together, σ²I + τ²·exp(−|Δ ln S|/ℓ)."""
    m = len(run.compute)
    if m == 1:
        return np.eye(1)
    tau, ell = _median(fit, "tau", run.kind, sigma), _median(fit, "ell", run.kind, 1.0)
    distance = np.abs(np.subtract.outer(np.log(run.steps), np.log(run.steps)))
    return np.asarray(np.eye(m) + (tau / max(sigma, 1e-12)) ** 2 * np.exp(-distance / max(ell, 1e-12)))


def _median(fit: Fit, name: str, role: str, otherwise: float) -> float:
    """Median of a noise parameter: the role's, else the common one, else that of any role."""
    noise = getattr(fit, "noise", {})
    values = noise.get(f"{name}_{role}", noise.get(name))
    if values is None:
        values = next((v for key, v in noise.items() if key.startswith(f"{name}_")), None)
    return otherwise if values is None else float(np.median(values))
