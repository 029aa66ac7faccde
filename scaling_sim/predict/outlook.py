"""What runs would say about a target, linearised at draws of the posterior: the law, its misfit, and the errors.

About a draw θ the target t, the log losses y of the runs that could be made and the log losses x of those that were are
jointly normal: each is linear in the law's coordinates (its prior is the fit's) plus the discrepancy δ of
`scaling_sim.predict.discrepancy`, a Gaussian process of C and tokens/N. A few draws stand for the posterior
(pseudo-Bayesian design, Chaloner & Verdinelli 1995, section 4): where it is wide, no single linearisation serves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from scaling_sim.predict.candidates import Candidate
from scaling_sim.predict.discrepancy import Discrepancy
from scaling_sim.predict.joint import World, misfit_noise, t_factor
from scaling_sim.predict.linearised import NU, Problem
from scaling_sim.predict.smooth import matern
from scaling_sim.predict.source import Array, Fit
from scaling_sim.predict.targets import Target, curvature

NUM_DRAWS = 8
STEP = 1e-4
TILT = 0.5
"""e-folds of N on both sides of N* between which the slope of δ moves the best size."""


@dataclass(frozen=True)
class Outlook:
    """Target and log losses about one draw; the m rows made come first, then those of the runs that could be made.

    Attributes
    ----------
    jacobian : (m + n, p) derivatives of the log losses in the law's coordinates
    gradient : (p,) derivatives of the target
    prior_sd : (p,) of the coordinates
    amplitude : sd of the discrepancy
    kernel : (m + n, m + n) its correlations
    reads, reads_itself : (m + n,) and scalar: correlations with what of it the target reads, and the square of that
    made_noise : (m,) variances of the errors of the rows made
    noise : (m_i, m_i) covariance of the errors of each run that could be made
    """

    jacobian: Array
    gradient: Array
    prior_sd: Array
    amplitude: float
    kernel: Array
    reads: Array
    reads_itself: float
    made_noise: Array
    noise: list[Array]

    @property
    def finite(self) -> bool:
        """Whether every formula has a value here."""
        parts = (self.jacobian, self.gradient, self.reads, np.array(self.reads_itself))
        return all(bool(np.isfinite(part).all()) for part in parts)

    def world(self) -> World:
        """Second moments of target and runs given the rows made."""
        J = np.concatenate([self.gradient[None], self.jacobian]) * self.prior_sd
        misfit = np.block([[np.array([[self.reads_itself]]), self.reads[None]], [self.reads[:, None], self.kernel]])
        joint = J @ J.T + self.amplitude**2 * misfit
        made = len(self.made_noise)
        rest = np.r_[0, np.arange(1 + made, len(joint))]
        inner = joint[1 : 1 + made, 1 : 1 + made] + np.diag(self.made_noise)
        cross = joint[rest, 1 : 1 + made]
        given = joint[np.ix_(rest, rest)] - cross @ np.linalg.solve(inner, cross.T)
        return World(np.asarray(given), self.noise, "log")


def outlooks(
    fit: Fit,
    problem: Problem,
    model: Discrepancy,
    target: Target,
    runs: Sequence[Candidate],
    noise: float | None = None,
    num: int = NUM_DRAWS,
) -> list[Outlook]:
    """One for each of ``num`` draws; draws at which a formula has no value are left out."""
    columns, (role, where) = _columns(problem, runs), _places(problem, runs)
    kernel = matern(where, where) * (role[:, None] == role)
    asked = role == _target_role(problem, target)
    found = []
    for k in np.linspace(0, len(model.amplitude) - 1, num).astype(np.int64).tolist():
        u = _coordinates(problem, model, k)
        places, weights, gradient = _target(problem, u, target)
        one = Outlook(
            jacobian=np.concatenate([problem.prediction(u)[1], _jacobian(problem, u, columns)]),
            gradient=gradient,
            prior_sd=problem.prior()[1],
            amplitude=float(model.amplitude[k]),
            kernel=kernel,
            reads=np.asarray(np.where(asked, matern(where, places) @ weights, 0.0)),
            reads_itself=float(weights @ matern(places, places) @ weights),
            made_noise=_made_noise(problem, model, k),
            noise=[misfit_noise(fit, model, c, noise, k) for c in runs],
        )
        if one.finite:
            found.append(one)
    return found


def _made_noise(problem: Problem, model: Discrepancy, k: int) -> Array:
    """(n,) variance of Normal errors that tell as much as the Student-t ones of the runs made."""
    scale = model.scale[k][problem.role] * np.exp(-0.5 * float(model.growth[k]) * problem.x)
    return np.asarray((t_factor(NU, 1) * scale**2 + problem.error**2) / problem.weight)


def _coordinates(problem: Problem, model: Discrepancy, k: int) -> Array:
    values = {name: np.array([draws[k]]) for name, draws in model.draws.items()}
    with np.errstate(all="ignore"):
        return np.asarray(problem.target.law.from_parameters(values, problem.target.centre)[0])


def _columns(problem: Problem, runs: Sequence[Candidate]) -> dict[str, Array]:
    """Columns of every measurement of every run that could be made, NaN where a kind of run has none."""
    law = problem.target.law
    parts = [c.columns(law) for c in runs]
    sizes = [len(c.compute) for c in runs]
    columns = {
        name: np.concatenate([np.broadcast_to(p.get(name, np.nan), m) for p, m in zip(parts, sizes, strict=True)])
        for name in law.columns
    }
    if "stopped" in problem.target.data.columns:
        columns["stopped"] = np.repeat([float(c.kind == "stopped") for c in runs], sizes)
    return columns


def _jacobian(problem: Problem, u: Array, columns: Mapping[str, Array]) -> Array:
    """(m, p) derivatives of the log losses in the law's coordinates."""
    law, centre = problem.target.law, problem.target.centre
    both = _both_sides(u)
    parameters = {name: values[:, None] for name, values in law.formula_parameters(both, centre).items()}
    with np.errstate(all="ignore"):
        rows = np.asarray(law.log_response(parameters, columns))
    return np.asarray((rows[: len(u)] - rows[len(u) :]) / (2 * STEP)).T


def _both_sides(u: Array) -> Array:
    shift = STEP * np.eye(len(u))
    return np.concatenate([u + shift, u - shift])


def _target(problem: Problem, u: Array, target: Target) -> tuple[Array, Array, Array]:
    """Places (k, 2) where the target reads δ, the weights (k,) with which it does, and its gradient (p,)."""
    law, centre = problem.target.law, problem.target.centre

    def fit_at(points: Array) -> Any:
        with np.errstate(all="ignore"):
            draws = {name: np.asarray(v) for name, v in law.to_parameters(points, centre).items()}
        return SimpleNamespace(law=law, law_name=law.name, draws=draws)

    with np.errstate(all="ignore"):
        values = np.log(target.quantity(fit_at(_both_sides(u))).draws)
    gradient = (values[: len(u)] - values[len(u) :]) / (2 * STEP)
    if target.kind == "crossover":
        return np.empty((0, 2)), np.empty(0), gradient
    if target.kind == "loss":
        assert target.run is not None
        return _where(problem, np.array([target.run.C]), np.array([target.run.N])), np.ones(1), gradient
    assert target.compute is not None
    middle, bend = curvature(fit_at(u[None]), target.compute)
    sizes = np.exp(middle + TILT * np.array([-1.0, 1.0]))
    weights = np.array([1.0, -1.0]) / (2 * TILT * bend[0])
    return _where(problem, np.full(2, target.compute), sizes), weights, gradient


def _where(problem: Problem, C: Array, N: Array) -> Array:
    return problem.scheme.where(C, N if problem.knows_sizes else np.full(len(C), np.nan))


def _places(problem: Problem, runs: Sequence[Candidate]) -> tuple[Array, Array]:
    """Role (m + n,) and place (m + n, 2) of every row made and every measurement of every run that could be."""
    sizes = [len(c.compute) for c in runs]
    last = len(problem.roles) - 1
    kinds = [problem.roles.index(c.kind) if c.kind in problem.roles else last for c in runs]
    C = np.concatenate([c.compute for c in runs])
    could = _where(problem, C, np.repeat([c.N for c in runs], sizes))
    return np.r_[problem.role, np.repeat(kinds, sizes)], np.concatenate([problem.where, could])


def _target_role(problem: Problem, target: Target) -> int:
    stopped = target.kind == "loss" and target.run is not None and (target.run.B is None or target.run.S is None)
    wanted = "stopped" if stopped else "curve"
    return problem.roles.index(wanted) if wanted in problem.roles else len(problem.roles) - 1
