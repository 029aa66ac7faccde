"""A law plus a smooth discrepancy for given hyperparameters: Gauss-Newton with Student-t weights, then Laplace."""

from __future__ import annotations

from dataclasses import dataclass
from math import lgamma, log, pi

import numpy as np
from numpy.typing import NDArray

from scaling_sim.inference.target import LogPosterior
from scaling_sim.predict.smooth import Scheme, Smooth

Array = NDArray[np.float64]

NU = 5.0
"""Degrees of freedom of the errors: the middle one of those that a fit chooses from."""
STEP = 1e-4
MAX_STEP = 0.5
MIN_SCALE = 1e-5


@dataclass(frozen=True)
class Problem:
    """What does not depend on the hyperparameters.

    Attributes
    ----------
    where : (n, 2) places of the rows, `Scheme.where`
    x : (n,) ln C of the rows, less that of the largest run
    largest : compute of that run, FLOP
    knows_sizes : whether N of every row is known
    role : (n,) place of each row's role in ``roles``
    weight : (n,) what each row counts: less than 1 where the rows of one curve repeat each other
    smooth : one process for each role
    scheme : constants of the discrepancy
    """

    target: LogPosterior
    where: Array
    x: Array
    largest: float
    knows_sizes: bool
    role: NDArray[np.int64]
    roles: tuple[str, ...]
    weight: Array
    smooth: tuple[Smooth, ...]
    scheme: Scheme

    @property
    def log_response(self) -> Array:
        """Logarithm of the losses, (n,)."""
        return self.target.likelihood.log_response

    @property
    def error(self) -> Array:
        """Measured standard error of the log loss, (n,); 0 where unknown."""
        data = self.target.data
        return np.nan_to_num(data.error / data.response, nan=0.0)

    def prior(self) -> tuple[Array, Array]:
        """Means and sds of the law's coordinates; the exponents of laws with a floor are held more tightly."""
        coordinates = self.target.law_coordinates
        mean = np.array([c.prior.mean for c in coordinates])
        sd = np.array([c.prior.sd for c in coordinates])
        tight = np.array([c.name in ("log_alpha", "log_beta") for c in coordinates])
        return mean, np.where(tight, np.minimum(sd, self.scheme.exponent_sd), sd)

    def basis(self) -> Array:
        """(n, Σ n_knots) basis of the discrepancy, block by role."""
        blocks = [
            np.where((self.role == r)[:, None], smooth.basis(self.where), 0.0) for r, smooth in enumerate(self.smooth)
        ]
        return np.concatenate(blocks, axis=1)

    def prediction(self, u: Array) -> tuple[Array, Array]:
        """Log prediction (n,) of coordinates u (p,), and its Jacobian (n, p) by central differences."""
        shift = STEP * np.eye(len(u))
        with np.errstate(all="ignore"):
            rows = self.target.log_prediction(np.concatenate([u[None], u + shift, u - shift]))
        ahead, behind = rows[1 : 1 + len(u)], rows[1 + len(u) :]
        return rows[0], np.nan_to_num((ahead - behind) / (2 * STEP)).T


@dataclass(frozen=True)
class Linearised:
    """A Gaussian approximation of coordinates and discrepancy weights at one point of the hyperparameters.

    Attributes
    ----------
    mean, covariance : of (u, b), the law's coordinates and the weights of the discrepancy
    scale : (n_roles,) t scale of errors at the largest run
    amplitude, growth : the hyperparameters q and γ
    evidence : log marginal likelihood, up to a constant that all hyperparameters share
    """

    mean: Array
    covariance: Array
    scale: Array
    amplitude: float
    growth: float
    evidence: float


def linearised(
    problem: Problem, basis: Array, amplitude: float, growth: float, start: Linearised | Array, iterations: int = 20
) -> Linearised:
    """Fit law and discrepancy with sd ``amplitude``, errors growing like C^(−growth/2) towards small runs.

    Each iteration is one Gauss-Newton step with the weights of Student-t errors, E[λ] = (ν + 1)/(ν + r²/σ²);
    then the scales σ follow by their EM update. r² includes the uncertainty of the prediction.
    """
    mean, sd = problem.prior()
    p, n_basis = len(mean), basis.shape[1]
    v = np.concatenate([start, np.zeros(n_basis)]) if isinstance(start, np.ndarray) else start.mean.copy()
    f, J = problem.prediction(v[:p])
    shape = np.exp(-0.5 * growth * problem.x)
    scale = _initial_scale(problem, f, shape) if isinstance(start, np.ndarray) else start.scale
    design = amplitude * basis
    precision = np.concatenate([1 / sd**2, np.ones(n_basis)])
    centre = np.concatenate([mean, np.zeros(n_basis)])
    spread = np.zeros(len(f))
    variance = _variance(problem, scale, shape)
    for _ in range(iterations):
        r = problem.log_response - f - design @ v[p:]
        weight = problem.weight * (NU + 1) / (NU + (r**2 + spread) / variance) / variance
        full = np.concatenate([J, design], axis=1)
        hessian = full.T @ (full * weight[:, None]) + np.diag(precision)
        step = np.linalg.solve(hessian, full.T @ (weight * r) - precision * (v - centre))
        step[:p] = np.clip(step[:p], -MAX_STEP, MAX_STEP)
        v = v + step
        f, J = problem.prediction(v[:p])
        covariance = np.linalg.inv(hessian)
        spread = ((full @ covariance) * full).sum(axis=1)
        r = problem.log_response - f - design @ v[p:]
        before, scale = scale, _next_scale(problem, r**2 + spread, scale, variance)
        variance = _variance(problem, scale, shape)
        if np.abs(step[:p]).max() < 1e-4 and np.abs(np.log(scale / before)).max() < 1e-3:
            break
    evidence = _evidence(problem, r, variance, v - centre, precision, hessian)
    return Linearised(v, np.asarray(covariance), scale, amplitude, growth, evidence)


def _initial_scale(problem: Problem, f: Array, shape: Array) -> Array:
    size = np.abs(problem.log_response - f) / shape
    return np.array([max(float(np.median(size[problem.role == r])), 1e-4) for r in range(len(problem.roles))])


def _variance(problem: Problem, scale: Array, shape: Array) -> Array:
    """(n,) squared t scale of each row's error, its measured part included."""
    return np.asarray((scale[problem.role] * shape) ** 2 + problem.error**2)


def _next_scale(problem: Problem, squares: Array, scale: Array, variance: Array) -> Array:
    ratio = problem.weight * (NU + 1) / (NU + squares / variance) * squares / variance
    size = len(problem.roles)
    change = np.bincount(problem.role, ratio, size) / np.bincount(problem.role, problem.weight, size)
    return np.asarray(np.maximum(scale * np.sqrt(np.clip(change, 0.1, 10.0)), MIN_SCALE))


def _evidence(problem: Problem, r: Array, variance: Array, away: Array, precision: Array, hessian: Array) -> float:
    """Student-t density at the mode times the volume of the Gaussian around it (Laplace)."""
    constant = lgamma((NU + 1) / 2) - lgamma(NU / 2) - 0.5 * log(NU * pi)
    density = constant - 0.5 * np.log(variance) - 0.5 * (NU + 1) * np.log1p(r**2 / (NU * variance))
    volume = 0.5 * float(np.log(precision).sum()) - 0.5 * float(np.linalg.slogdet(hessian)[1])
    total = float(problem.weight @ density) - 0.5 * float(precision @ away**2) + volume
    return total if np.isfinite(total) else -np.inf
