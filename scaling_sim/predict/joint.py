"""Joint draws of a target and of what runs would measure: all that the choice of runs needs to know.

Draws come from a fit, or, where the law's own runs show how far it may be wrong, from its `Discrepancy`: then what a
small run says about a large one fades with the distance between them, and errors have the scale of their compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from scaling_sim.predict.candidates import Candidate
from scaling_sim.predict.discrepancy import Discrepancy
from scaling_sim.predict.source import Array, Fit, columns_of
from scaling_sim.predict.targets import Target, shifted_sizes

DEFAULT_NOISE = 0.01
"""Residual scale of ln loss where the fit does not say."""
NU = 5.0
SIZE_GRID = np.linspace(-2.5, 2.5, 41)
"""ln N about the law's median N* where law and discrepancy together may have their minimum."""


@dataclass(frozen=True)
class Joint:
    """Draws and noise.

    Attributes
    ----------
    target : (n,) draws on a scale on which they are about normal
    scale : name of that scale
    losses : (n_draws, m_i) draws of the log losses of each run, without noise
    noise : (m_i, m_i) covariance of each run's noise
    """

    target: Array
    scale: str
    losses: list[Array]
    noise: list[Array]

    def covariance(self) -> tuple[Array, list[np.ndarray]]:
        """Joint covariance, the target first, and the places of each run in it."""
        ends = np.cumsum([1, *(y.shape[1] for y in self.losses)])
        blocks = [np.arange(a, b) for a, b in pairwise(ends.tolist())]
        return np.atleast_2d(np.cov(np.column_stack([self.target, *self.losses]), rowvar=False)), blocks


def joint_by_law(fit: Fit, draws: Array, runs: Sequence[Candidate], noise: float | None) -> Joint:
    """The law is taken as true; ``draws`` (n,) are the target's."""
    target, scale = on_normal_scale(draws)
    return Joint(target, scale, [c.log_losses(fit) for c in runs], [_law_noise(fit, c, noise) for c in runs])


def joint_with_misfit(
    fit: Fit, model: Discrepancy, target: Target, runs: Sequence[Candidate], noise: float | None, seed: int
) -> Joint:
    """The law is wrong by as much as its runs show; ``target`` is the loss or the best size of the truth."""
    sizes = [len(c.compute) for c in runs]
    C, N = np.concatenate([c.compute for c in runs]), np.repeat([c.N for c in runs], sizes)
    kinds = np.repeat([c.kind for c in runs], sizes)
    at_C, at_N, role = _places(model, target)
    delta, there = np.empty((len(model.amplitude), len(C))), np.zeros((len(model.amplitude), len(at_C)))
    for name in dict.fromkeys([*kinds.tolist(), role]):
        mine, ours = kinds == name, name == role
        places = (np.r_[C[mine], at_C if ours else []], np.r_[N[mine], at_N if ours else []])
        found = model.shift(*places, role=name, seed=seed)
        delta[:, mine] = found[:, : mine.sum()]
        there = found[:, mine.sum() :] if ours else there
    ends = np.cumsum([0, *sizes])
    law = columns_of(model)
    with np.errstate(all="ignore"):
        losses = [
            model.law.log_response(law, c.columns(model.law)) + delta[:, a:b]
            for c, (a, b) in zip(runs, pairwise(ends.tolist()), strict=True)
        ]
    values = _values(model, target, at_N, there)
    errors = [_misfit_noise(fit, model, c, noise) for c in runs]
    return _finite(Joint(np.log(values), "log", [np.asarray(y) for y in losses], errors))


def _places(model: Discrepancy, target: Target) -> tuple[Array, Array, str]:
    """Compute, sizes and role where the target asks for the discrepancy."""
    last = "curve" if "S" in model.law.columns else "final"
    if target.kind == "size":
        assert target.compute is not None
        middle = float(np.median(target.quantity(model).draws))
        return np.full(len(SIZE_GRID), target.compute), middle * np.exp(SIZE_GRID), last
    assert target.run is not None
    assert target.run.N is not None
    role = "stopped" if target.run.B is None and model.law.name.startswith("kaplan") else last
    return np.array([target.run.C]), np.array([target.run.N]), role


def _values(model: Discrepancy, target: Target, at_N: Array, delta: Array) -> Array:
    if target.kind == "size":
        assert target.compute is not None
        return np.asarray(np.exp(shifted_sizes(model, target.compute, np.log(at_N), delta)))
    return np.asarray(target.quantity(model).draws * np.exp(delta[:, 0]))


def _finite(joint: Joint) -> Joint:
    """Without draws that a formula cannot evaluate."""
    good = np.isfinite(np.column_stack([joint.target, *joint.losses])).all(axis=1)
    return Joint(joint.target[good], joint.scale, [y[good] for y in joint.losses], joint.noise)


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
    return sigma**2 * _informative(_median(fit, "nu", run.kind, np.inf), m) * _shape(fit, run, sigma)


def _misfit_noise(fit: Fit, model: Discrepancy, run: Candidate, noise: float | None) -> Array:
    """The scale at the run's compute: errors grow towards small runs."""
    m = len(run.compute)
    if noise is not None:
        return noise**2 * np.eye(m)
    place = model.roles.index(run.kind) if run.kind in model.roles else len(model.roles) - 1
    away = np.minimum(np.log(run.compute / model.largest), 0.0)
    scale = float(np.median(model.scale[:, place])) * np.exp(-0.5 * float(np.mean(model.growth)) * away)
    shape = _shape(fit, run, _median(fit, "sigma", run.kind, DEFAULT_NOISE))
    correlation = shape / np.sqrt(np.outer(np.diag(shape), np.diag(shape)))
    return np.asarray(_informative(NU, m) * np.outer(scale, scale) * correlation)


def _informative(nu: float, m: int) -> float:
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
