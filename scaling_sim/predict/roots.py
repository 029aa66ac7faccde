"""Roots of monotone functions, elementwise on arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TOLERANCE = 1e-11
"""Of the root, in the unit of the argument (logarithms throughout)."""
LAST_CHANGE = 1e-6
"""Of Newton's steps, which converge quadratically: the error after it is about its square."""


def newton_root(f: Callable[[Array], tuple[Array, Array]], low: Array, high: Array, iterations: int = 60) -> Array:
    """Where ``f`` rises through 0 between ``low`` and ``high``, elementwise; an end where it does not.

    Newton's steps from where the chord between the ends meets 0; the bracket is halved instead where a step would leave
    it, or is more than half as long as the one before.

    Parameters
    ----------
    f : function
        Gives value and derivative, each of the argument's shape.
    """
    at_low, at_high = f(low)[0], f(high)[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        x = (low * at_high - high * at_low) / (at_high - at_low)
    low, high = np.where(at_high > 0, low, high), np.where(at_low < 0, high, low)
    x, before = np.where((x >= low) & (x <= high), x, 0.5 * (low + high)), high - low
    for _ in range(iterations):
        value, slope = f(x)
        low, high = np.where(value < 0, x, low), np.where(value > 0, x, high)
        with np.errstate(divide="ignore", invalid="ignore"):
            trial = x - value / slope
        good = (trial >= low) & (trial <= high) & (np.abs(trial - x) <= np.maximum(0.5 * before, LAST_CHANGE))
        trial = np.where(good, trial, 0.5 * (low + high))
        before, x = np.abs(trial - x), trial
        if not np.any(np.where(good, before > LAST_CHANGE, high - low > TOLERANCE)):
            break
    return np.asarray(np.clip(x, low, high))


def softplus(x: Array) -> tuple[Array, Array]:
    """ln(1 + e^x) and its derivative 1/(1 + e^−x)."""
    small = np.exp(-np.abs(x))
    total = 1.0 + small
    return np.maximum(x, 0.0) + np.log(total), np.where(x > 0, 1.0, small) / total


def bracketed_root(f: Callable[[Array], Array], low: Array, high: Array, iterations: int = 200) -> Array:
    """Where ``f``, elementwise monotone, is 0 between ``low`` and ``high``; the nearer end if both have one sign.

    Regula falsi that halves the weight of an end which stays (Illinois), and bisects whenever that shrinks a bracket by
    less than half in two steps: superlinear on smooth functions, never slower than bisection by more than a factor.
    """
    low, high = np.broadcast_arrays(np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64))
    low, high = low.copy(), high.copy()
    at_low, at_high = f(low), f(high)
    outside = np.sign(at_low) == np.sign(at_high)
    end = np.where(np.abs(at_low) <= np.abs(at_high), low, high)
    side, width = np.zeros(low.shape), high - low
    for k in range(iterations):
        with np.errstate(divide="ignore", invalid="ignore"):
            trial = high - at_high * (high - low) / (at_high - at_low)
        slow = np.zeros(low.shape, dtype=bool)
        if k % 3 == 2:
            slow, width = high - low > 0.5 * width, high - low
        trial = np.where((trial > low) & (trial < high) & ~slow, trial, 0.5 * (low + high))
        value = f(trial)
        left = np.sign(value) == np.sign(at_low)
        stays = np.where(left, side > 0, side < 0)  # the other end, for the second time: its weight is halved
        at_low, at_high = (
            np.where(left, value, np.where(stays, 0.5 * at_low, at_low)),
            np.where(left, np.where(stays, 0.5 * at_high, at_high), value),
        )
        low, high, side = np.where(left, trial, low), np.where(left, high, trial), np.where(left, 1.0, -1.0)
        done = value == 0
        low, high = np.where(done, trial, low), np.where(done, trial, high)
        if not np.any((high - low > TOLERANCE) & ~outside):
            break
    return np.where(outside, end, 0.5 * (low + high))
