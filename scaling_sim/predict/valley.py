"""The flat valley: which model sizes come within a given share of the best loss at the same compute."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def two_roots(log_a: Array, alpha: Array, log_b: Array, beta: Array, target: Array) -> tuple[Array, Array]:
    """Return both roots u of exp(log_a − α·u) + exp(log_b + β·u) = target, elementwise.

    The logarithm of the left side is convex in u, so Newton from outside, where one term alone reaches the target,
    comes in monotonically from either side. NaN where the target lies below the minimum.
    """
    log_t = np.log(target)
    low = _newton((log_a - log_t) / alpha, log_a, alpha, log_b, beta, log_t)
    high = _newton((log_t - log_b) / beta, log_a, alpha, log_b, beta, log_t)
    return low, high


def _newton(u: Array, log_a: Array, alpha: Array, log_b: Array, beta: Array, log_t: Array) -> Array:
    for _ in range(100):
        left, right = log_a - alpha * u, log_b + beta * u
        log_sum = np.logaddexp(left, right)
        slope = beta * np.exp(right - log_sum) - alpha * np.exp(left - log_sum)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = (log_sum - log_t) / slope
        u = u - step
        if not np.any(np.abs(step) > 1e-12 * (1 + np.abs(u))):
            break
    return np.where(np.abs(np.logaddexp(log_a - alpha * u, log_b + beta * u) - log_t) < 1e-9, u, np.nan)


def kaplan_valley(
    N_c: Array, alpha_N: Array, S_c: Array, alpha_S: Array, E: Array, *, batch_sum: Array, C: Array, loss: Array
) -> tuple[Array, Array]:
    """Return the sizes between which L(N, S_min) stays at or below ``loss`` for C FLOP.

    At a fixed loss B_crit is fixed, so (1.6) with S_min = C/(6·N·(B + B_crit)) is a sum of two powers of N.
    ``batch_sum`` is B + B_crit(loss).
    """
    log_a = alpha_N * np.log(N_c)
    log_b = alpha_S * (np.log(6 * S_c) + np.log(batch_sum) - np.log(C))
    low, high = two_roots(log_a, alpha_N, log_b, alpha_S, loss - E)
    return np.exp(low), np.exp(high)


def chinchilla_valley(
    A: Array, alpha: Array, B: Array, beta: Array, *, C: Array, reducible: Array
) -> tuple[Array, Array]:
    """Return the sizes between which A/N^α + B/(C/6N)^β stays at or below ``reducible``."""
    log_b = np.log(B) + beta * (np.log(6.0) - np.log(C))
    low, high = two_roots(np.log(A), alpha, log_b, beta, reducible)
    return np.exp(low), np.exp(high)
