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

LAST_STEP = 1e-4
"""In log L: Halley's error after a step is about its cube, so that after this one the root is known to 1e-11."""
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

    With z = log L − k, k = α_N log(N_c/N), the equation is h(z) = z − softplus(T(z)) = 0, T(z) = α_S [log(S_c/S) +
    softplus(log(B*/B) − (k + z)/α_B)] − k and softplus(x) = log(1 + e^x). T is convex and falls, so that h is concave
    with slope ≥ 1 and its root is single. Halley's iteration takes h″ from the exponentials that h needs anyway; from
    below, where it could leap, its step is at most twice Newton's.
    """
    k = p["alpha_N"] * (log_of(p, "N_c") - np.log(N))
    alpha_S, inverse_B = p["alpha_S"], 1.0 / p["alpha_B"]
    steps = alpha_S * (log_of(p, "S_c") - np.log(S)) - k
    batch = log_of(p, "B_star") - np.log(B) - k * inverse_B
    z = _softplus(steps)[0]  # the root for B → ∞, never above the root sought
    for _ in range(MAX_ITERATIONS):
        gain, share = _softplus(batch - z * inverse_B)
        value, weight = _softplus(steps + alpha_S * gain)
        fall = (alpha_S * inverse_B) * share
        slope = 1.0 + weight * fall
        newton = (value - z) / slope
        bend = (slope - 1.0) * ((1.0 - weight) * fall + (1.0 - share) * inverse_B) / slope
        change = newton / np.maximum(1.0 - 0.5 * newton * bend, 0.5)
        z = z + change
        if not np.max(np.abs(change), initial=0.0) > LAST_STEP:
            break
    return np.asarray(k + z)


def _softplus(x: Any) -> tuple[Any, Any]:
    """log(1 + e^x) and its derivative. `log` of 1 + e, not `log1p`: four times faster; only absolute error counts."""
    low = np.minimum(x, 700.0)  # above, e^x overflows, and the softplus is x
    power = np.exp(low)
    total = 1.0 + power
    return np.log(total) + (x - low), power / total
