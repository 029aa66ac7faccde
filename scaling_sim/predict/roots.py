"""Roots of monotone functions, elementwise on arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TOLERANCE = 1e-11
"""Of the root, in the unit of the argument (logarithms throughout)."""


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
