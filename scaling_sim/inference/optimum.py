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
    """The maximum of a log density that BFGS reaches from ``start``, with central differences made in one call."""
    from scipy.optimize import minimize

    def negative(u: Array) -> float:
        value = float(density(u[None, :])[0])
        return -value if np.isfinite(value) else 1e300

    def slope(u: Array) -> Array:
        return -gradient(density, u)

    found = minimize(negative, start, jac=slope, method="BFGS", options={"gtol": 1e-5, "maxiter": 500})
    return Mode(np.asarray(found.x, dtype=np.float64), -float(found.fun))


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
