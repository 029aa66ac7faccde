"""What runs would say about a target, linearised at draws of the posterior: the law, its misfit, and the errors.

About a draw θ the target t, the log losses y of the runs that could be made and the log losses x of those that were are
jointly normal: each is linear in the law's coordinates (its prior is the fit's) plus the discrepancy δ of
`scaling_sim.predict.discrepancy`, a Gaussian process of C and tokens/N. Conditioning on x leaves Cov(t, y). A few draws
stand for the posterior (pseudo-Bayesian design, Chaloner & Verdinelli 1995, section 4): where it is wide, no single
linearisation serves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def worlds(
    fit: Fit,
    problem: Problem,
    model: Discrepancy,
    target: Target,
    runs: Sequence[Candidate],
    noise: float | None = None,
    num: int = NUM_DRAWS,
) -> list[World]:
    """One `World` for each of ``num`` draws; draws at which a formula has no value are left out."""
    columns = _columns(problem, runs)
    made, could = len(problem.where), len(next(iter(columns.values())))
    chosen = np.linspace(0, len(model.amplitude) - 1, num).astype(np.int64)
    found = []
    for k in chosen.tolist():
        u = _coordinates(problem, model, k)
        J_made = problem.prediction(u)[1]
        J_could = _jacobian(problem, u, columns)
        places, functional, gradient = _target(problem, u, target)
        kernel = _kernel(problem, runs, places, target)
        J = np.concatenate([J_made, J_could, gradient[None]])
        A = np.eye(made + could, made + could + len(functional))
        A = np.concatenate([A, np.concatenate([np.zeros(made + could), functional])[None]])
        prior_sd = problem.prior()[1]
        joint = (J * prior_sd**2) @ J.T + float(model.amplitude[k]) ** 2 * (A @ kernel @ A.T)
        errors = [misfit_noise(fit, model, c, noise, k) for c in runs]
        if np.isfinite(joint).all():
            found.append(World(_given(joint, made, _made_noise(problem, model, k)), errors, "log"))
    return found


def _given(joint: Array, made: int, variance: Array) -> Array:
    """Covariance of (t, y) given x, the target first."""
    order = np.concatenate([[len(joint) - 1], np.arange(made, len(joint) - 1)])
    inner = joint[:made, :made] + np.diag(variance)
    cross = joint[np.ix_(order, np.arange(made))]
    return np.asarray(joint[np.ix_(order, order)] - cross @ np.linalg.solve(inner, cross.T))


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


def _kernel(problem: Problem, runs: Sequence[Candidate], places: Array, target: Target) -> Array:
    """Correlations of δ over all places: 1 process for each role."""
    C = np.concatenate([c.compute for c in runs])
    sizes = [len(c.compute) for c in runs]
    could = _where(problem, C, np.repeat([c.N for c in runs], sizes))
    last = len(problem.roles) - 1
    kinds = [problem.roles.index(c.kind) if c.kind in problem.roles else last for c in runs]
    asked = np.full(len(places), _target_role(problem, target))
    role = np.concatenate([problem.role, np.repeat(kinds, sizes), asked])
    where = np.concatenate([problem.where, could, places])
    return np.asarray(matern(where, where) * (role[:, None] == role))


def _target_role(problem: Problem, target: Target) -> int:
    stopped = target.kind == "loss" and target.run is not None and (target.run.B is None or target.run.S is None)
    wanted = "stopped" if stopped else "curve"
    return problem.roles.index(wanted) if wanted in problem.roles else len(problem.roles) - 1
