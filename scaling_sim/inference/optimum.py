"""Least squares and posterior modes from many starts at once, by finite differences of vectorised functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Residuals = Callable[[Array], Array]
"""(n_points, n_coordinates) → (n_points, n_rows)."""
Density = Callable[[Array], Array]
"""(n_points, n_coordinates) → (n_points,)."""

STEP = 1e-6
"""Of one-sided differences, where an approximate slope is enough."""
CENTRAL = 1e-5
"""Of central differences: error of order 1e-10."""
LENGTHS = 2.0 ** np.arange(1, -25, -1)
"""Of the steps tried along a direction: the first five at once, then the others."""
LONGEST = 1.0
"""Change of a coordinate at length 1: coordinates are logarithms, in which more is a leap."""
FLAT = 1e-5
"""Slope below which a maximum is reached, per unit of a coordinate."""
MAX_ITERATIONS = 500


def huber(residuals: Array, delta: float) -> Array:
    """Huber loss of each residual: r²/2 within ``delta``, δ(|r| − δ/2) beyond."""
    size = np.abs(residuals)
    return np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta))


def levenberg_marquardt(residuals: Residuals, starts: Array, delta: float, iterations: int) -> tuple[Array, Array]:
    """Points and sums of Huber losses after ``iterations`` damped, reweighted Gauss-Newton steps from every start at
    once.

    Parameters
    ----------
    residuals : function of (k, p) points, returns (k, n) residuals
    starts : (k, p) array
    delta : float, threshold of the Huber loss
    """
    u, damping = starts.copy(), np.full(len(starts), 1e-2)
    r = residuals(u)
    value = _total(r, delta)
    for _ in range(iterations):
        slope, hessian = _normal_equations(residuals, u, r, delta)
        diagonal = np.einsum("kii->ki", hessian)
        ridge = damping[:, None] * diagonal + 1e-9 * diagonal.max(axis=1)[:, None] + 1e-12
        system = hessian + np.eye(u.shape[1]) * ridge[:, None]
        step = np.clip(-np.linalg.solve(system, slope[..., None])[..., 0], -1.0, 1.0)
        trial = u + step
        r_trial = residuals(trial)
        value_trial = _total(r_trial, delta)
        better = value_trial < value
        u, r = np.where(better[:, None], trial, u), np.where(better[:, None], r_trial, r)
        value = np.where(better, value_trial, value)
        damping = np.clip(np.where(better, damping * 0.2, damping * 5.0), 1e-9, 1e6)
    return u, value


def _normal_equations(residuals: Residuals, u: Array, r: Array, delta: float) -> tuple[Array, Array]:
    """Gradients (k, p) and reweighted Gauss-Newton matrices (k, p, p)."""
    k, p = u.shape
    shifted = (u[:, None, :] + STEP * np.eye(p)).reshape(k * p, p)
    jacobian = (residuals(shifted).reshape(k, p, -1) - r[:, None, :]) / STEP
    jacobian = np.where(np.isfinite(jacobian), jacobian, 0.0)
    weight = np.minimum(1.0, delta / np.maximum(np.abs(r), 1e-300))
    weight = np.where(np.isfinite(r), weight, 0.0)
    weighted = jacobian * weight[:, None, :]
    return np.einsum("kpn,kn->kp", weighted, np.nan_to_num(r)), np.matmul(weighted, jacobian.transpose(0, 2, 1))


def _total(r: Array, delta: float) -> Array:
    total = huber(r, delta).sum(axis=1)
    return np.where(np.isfinite(total), total, np.inf)


@dataclass(frozen=True)
class Mode:
    """A maximum: its coordinates (p,) and the value there."""

    u: Array
    value: float


def maximise(density: Density, start: Array) -> Mode:
    """The maximum of a log density that BFGS reaches from ``start``.

    Central differences are made in one call, and so is the line search: a vectorised density costs little more at
    a few step lengths than at one. SciPy, which takes longer to import than this to run, is not needed.

    Source: Nocedal and Wright 2006, algorithm 6.1, with the update (6.17) skipped where the curvature is not positive,
    and without the first scaling (6.20), which triples the number of steps here.
    """
    u, slope = start.copy(), gradient(density, start)
    value, inverse = float(density(u[None])[0]), np.eye(len(u))
    for _ in range(MAX_ITERATIONS):
        if np.abs(slope).max() < FLAT:
            break
        direction = inverse @ slope
        if not direction @ slope > 0:
            direction, inverse = slope, np.eye(len(u))
        longest = direction * min(1.0, LONGEST / float(np.abs(direction).max()))
        better = _search(density, u, longest, value)
        if better is None:  # a direction that no longer leads up is forgotten once
            if np.array_equal(inverse, np.eye(len(u))):
                break
            inverse = np.eye(len(u))
            continue
        step, before = better.u - u, slope
        u, value, slope = better.u, better.value, gradient(density, better.u)
        inverse = _updated(inverse, step, before - slope)
    return Mode(u, value)


def _search(density: Density, u: Array, direction: Array, value: float) -> Mode | None:
    """The best of a few points along a direction, None if none is above ``value``."""
    for lengths in (LENGTHS[:5], LENGTHS[5:]):
        trials = u + lengths[:, None] * direction
        values = np.nan_to_num(density(trials), nan=-np.inf)
        best = int(np.argmax(values))
        if values[best] > value:
            return Mode(trials[best], float(values[best]))
    return None


def _updated(inverse: Array, step: Array, change: Array) -> Array:
    """Inverse Hessian of minus the density after a step over which the slope fell by ``change``."""
    curvature = float(step @ change)
    if not curvature > 1e-12 * float(np.linalg.norm(step) * np.linalg.norm(change)):
        return inverse
    left = np.eye(len(step)) - np.outer(step, change) / curvature
    return np.asarray(left @ inverse @ left.T + np.outer(step, step) / curvature)


def gradient(density: Density, u: Array) -> Array:
    """Central-difference gradient (p,); 0 where the density is not finite."""
    steps = CENTRAL * np.eye(len(u))
    values = density(np.concatenate([u + steps, u - steps]))
    with np.errstate(invalid="ignore"):
        change = (values[: len(u)] - values[len(u) :]) / (2 * CENTRAL)
    return np.where(np.isfinite(change), change, 0.0)


def hessian(density: Density, u: Array, step: Array) -> Array:
    """Central-difference Hessian (p, p) with one step per coordinate (p,), made in one call."""
    p = len(u)
    first, second = np.triu_indices(p)
    e = np.diag(step)
    corners = [u + s * e[first] + t * e[second] for s, t in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    values = density(np.concatenate(corners)).reshape(4, -1)
    mixed = (values[0] - values[1] - values[2] + values[3]) / (4 * step[first] * step[second])
    result = np.zeros((p, p))
    result[first, second] = result[second, first] = mixed
    return result
