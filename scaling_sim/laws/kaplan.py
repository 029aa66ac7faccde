"""The formulas of Kaplan et al. 2020 (arXiv 2001.08361) as plain functions.

Parameters ``p`` map names (``alpha_N``, ``N_c``, …) to floats or arrays that broadcast against the arguments; a scale
may be given as its logarithm, ``log_N_c``. With an
entropy floor, ``p["E"]`` > 0, every formula is that of the paper for the reducible loss L − E; without ``E`` it is the
paper's. Logarithms are used throughout, so that neither tiny nor huge arguments overflow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.laws.base import Parameters, log_of, log_sum_exp

Array = NDArray[np.float64]

LAST_STEP = 1e-6
"""In log L: Newton's error after a step is about its square, so that after this one the root is known to 1e-11."""
MAX_ITERATIONS = 60


def loss_nd(N: Any, D: Any, p: Parameters) -> Array:
    """Early-stopped loss of N parameters on D unique tokens, nats per token (eqs 1.5, 4.1).

    L(N, D) = E + [ (N_c/N)^(α_N/α_D) + D_c/D ]^α_D
    """
    return add_floor(log_loss_nd(N, D, p), p)


def loss_ns(N: Any, S_min: Any, p: Parameters) -> Array:
    """Loss of N parameters after S_min updates at a batch far above the critical one, nats per token (eqs 1.6, 5.6).

    L(N, S_min) = E + (N_c/N)^α_N + (S_c/S_min)^α_S
    """
    return add_floor(log_loss_ns(N, S_min, p), p)


def critical_batch(loss: Any, p: Parameters) -> Array:
    """Critical batch in tokens at this loss in nats per token (eqs 1.4, 5.3); +∞ at or below the floor.

    B_crit(L) = B* / (L − E)^(1/α_B)
    """
    reducible = np.maximum(np.asarray(loss, dtype=np.float64) - p.get("E", 0.0), 0.0)
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(np.exp(log_of(p, "B_star") - np.log(reducible) / p["alpha_B"]))


def min_steps(loss: Any, B: Any, S: Any, p: Parameters) -> Array:
    """Updates that a batch far above B_crit needs to reach what S updates of B tokens reached (eq. 5.4)."""
    return np.asarray(S / (1 + critical_batch(loss, p) / B))


def min_compute(loss: Any, B: Any, C: Any, p: Parameters) -> Array:
    """Compute that a batch far below B_crit needs to reach what C FLOP at B tokens reached (eq. 5.5)."""
    return np.asarray(C / (1 + B / critical_batch(loss, p)))


def solve_loss(N: Any, B: Any, S: Any, p: Parameters) -> Array:
    """Loss of N parameters after S updates of B tokens, nats per token: the root of (1.6) with (5.4) put in for S_min.

    L = E + (N_c/N)^α_N + [ S_c (1 + B_crit(L)/B) / S ]^α_S

    Parameters
    ----------
    N, B, S : floats or (n_rows,) arrays, > 0: parameters, batch in tokens, updates
    p : floats or (n_draws, 1) arrays: alpha_N, N_c, alpha_S, S_c, alpha_B, B_star and, with a floor, E
    """
    return add_floor(log_solve_loss(N, B, S, p), p)


def add_floor(log_reducible: Any, p: Parameters) -> Array:
    """E + exp(log reducible loss)."""
    return np.asarray(np.exp(log_reducible) + p.get("E", 0.0))


def log_loss_nd(N: Any, D: Any, p: Parameters) -> Array:
    """Log of the reducible part of `loss_nd`."""
    ratio = p["alpha_N"] / p["alpha_D"]
    size = ratio * (log_of(p, "N_c") - np.log(N))
    return np.asarray(p["alpha_D"] * log_sum_exp(size, log_of(p, "D_c") - np.log(D)))


def log_loss_ns(N: Any, S_min: Any, p: Parameters) -> Array:
    """Log of the reducible part of `loss_ns`."""
    return log_sum_exp(p["alpha_N"] * (log_of(p, "N_c") - np.log(N)), p["alpha_S"] * (log_of(p, "S_c") - np.log(S_min)))


def log_solve_loss(N: Any, B: Any, S: Any, p: Parameters) -> Array:
    """Log of the reducible part of `solve_loss`, to 1e-11.

    With y = log L the equation is h(y) = y − log[ e^k + e^(T(y)) ] = 0, T(y) = α_S [log(S_c/S) + log(1 + e^(c −
    y/α_B))]. T is convex and falls, so that h is concave with slope ≥ 1: the root is single, and Newton's iteration
    converges to it from every start (from below after the first step), which no bracket could improve.
    """
    k = p["alpha_N"] * (log_of(p, "N_c") - np.log(N))
    c = log_of(p, "B_star") - np.log(B)
    s = log_of(p, "S_c") - np.log(S)
    alpha_S, inverse_B = p["alpha_S"], 1.0 / p["alpha_B"]
    y = log_sum_exp(k, alpha_S * s)  # the root for B → ∞, never above the root sought
    for _ in range(MAX_ITERATIONS):
        batch, batch_slope = _softplus(c - y * inverse_B)
        steps = alpha_S * (s + batch)
        excess, weight = _softplus(steps - k)
        change = (k + excess - y) / (1.0 + weight * alpha_S * inverse_B * batch_slope)
        y = y + change
        if not np.max(np.abs(change), initial=0.0) > LAST_STEP:
            break
    return np.asarray(y)


def _softplus(x: Any) -> tuple[Any, Any]:
    """log(1 + e^x) and its derivative. `log` of 1 + e, not `log1p`: four times faster; only absolute error counts."""
    small = np.exp(-np.abs(x))
    total = 1.0 + small
    return np.maximum(x, 0.0) + np.log(total), np.where(x > 0, 1.0, small) / total
