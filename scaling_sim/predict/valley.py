"""The flat valley: which model sizes come within a given share of the best loss at the same compute."""

from __future__ import annotations

from collections.abc import Callable

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
    return _from_outside(u, alpha, lambda v: (log_a - alpha * v, log_b + beta * v, beta), log_t)


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


def steps_valley(
    N_c: Array, alpha_N: Array, S_c: Array, alpha_S: Array, E: Array, *, B_crit: Array, C: Array, S: Array, loss: Array
) -> tuple[Array, Array]:
    """Return the sizes between which C FLOP paid in S steps reach ``loss``, B_crit being that of this loss.

    With B = C/(6·N·S) the steps term is [S_c·(1 + 6·N·S·B_crit/C)/S]^αS: still convex in ln N, in logarithms.
    """
    log_a, log_t = alpha_N * np.log(N_c), np.log(loss - E)
    log_steps, shift = alpha_S * np.log(S_c / S), np.log(6 * S * B_crit / C)

    def logs(u: Array) -> tuple[Array, Array, Array]:
        ratio = u + shift
        slope = alpha_S / (1 + np.exp(-ratio))
        return log_a - alpha_N * u, log_steps + alpha_S * np.logaddexp(0.0, ratio), slope

    with np.errstate(invalid="ignore", divide="ignore"):
        reach = (log_t - log_steps) / alpha_S
        high = np.where(reach > 0, reach + np.log(-np.expm1(-np.maximum(reach, 1e-300))), np.nan) - shift
    low = _from_outside((log_a - log_t) / alpha_N, alpha_N, logs, log_t)
    return np.exp(low), np.exp(_from_outside(high, alpha_N, logs, log_t))


def _from_outside(u: Array, alpha: Array, logs: Callable[[Array], tuple[Array, Array, Array]], log_t: Array) -> Array:
    """Newton's iteration for ln(e^left + e^right) = log_t; ``logs`` gives left, right and the slope of right."""
    for _ in range(100):
        left, right, right_slope = logs(u)
        log_sum = np.logaddexp(left, right)
        slope = right_slope * np.exp(right - log_sum) - alpha * np.exp(left - log_sum)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = (log_sum - log_t) / slope
        u = u - step
        if not np.any(np.abs(step) > 1e-12 * (1 + np.abs(u))):
            break
    left, right, _ = logs(u)
    return np.where(np.abs(np.logaddexp(left, right) - log_t) < 1e-9, u, np.nan)


def chinchilla_valley(
    A: Array, alpha: Array, B: Array, beta: Array, *, C: Array, reducible: Array
) -> tuple[Array, Array]:
    """Return the sizes between which A/N^α + B/(C/6N)^β stays at or below ``reducible``."""
    log_b = np.log(B) + beta * (np.log(6.0) - np.log(C))
    low, high = two_roots(np.log(A), alpha, log_b, beta, reducible)
    return np.exp(low), np.exp(high)
