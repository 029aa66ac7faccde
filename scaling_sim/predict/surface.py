"""The best size from one smooth surface through all runs: where no budget has sizes enough for a valley of its own.

ln L is a cubic in (ln N − ½ ln C, ln C) jointly, so that neighbouring budgets lend each other their sizes; at each
budget that lies inside the runs the surface is a cubic in ln N, whose minimum is N*. No law is assumed, and N and C may
be counted in any way, so that protocols and countings can be held against each other by one measure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import DesignError
from scaling_sim.predict.isoflop import minimum_of
from scaling_sim.predict.quantity import Quantity
from scaling_sim.predict.slices import Points

Array = NDArray[np.float64]

DEGREE = 3
PLACES = 40
MIN_PLACES = 4
"""Budgets with a minimum between the sizes, out of `PLACES`, from which a slope is drawn."""
MIN_SIZES = 4
NUM_DRAWS = 2000
SIX_POINTS = np.sqrt([0.5, 1.0, 1.5]) * np.array([[-1.0], [1.0]])


@dataclass(frozen=True)
class Surface:
    """Best sizes along the compute that the runs cover.

    Attributes
    ----------
    exponent : Quantity
        a of N* ∝ C^a: least squares over the budgets whose minimum lies between sizes that reach them.
    log_C : (k,) ln of those budgets, FLOP
    log_N, log_loss : (n_draws, k) ln N* and the log loss there
    scatter : rms deviation of ln L from the surface
    num_runs : int
    """

    exponent: Quantity
    log_C: Array
    log_N: Array
    log_loss: Array
    scatter: float
    num_runs: int


def surface_minima(points: Points, *, degree: int = DEGREE, num_draws: int = NUM_DRAWS, seed: int = 0) -> Surface:
    """N*(C) from a polynomial surface through ``points``; the uncertainty by a wild bootstrap of whole runs.

    The residuals of each run are multiplied by one random weight, so that errors which a learning curve shares stay
    shared (Cameron, Gelbach & Miller 2008), drawn from six points since runs are few (Webb 2023). They are first
    enlarged by √(r/(r − degree − 1)), since a cubic in N takes up so much of what r runs err by, or by √(n/(n − p)) for
    n points and p coefficients if that is more. With fewer than nine runs intervals are still somewhat narrow.

    Raises
    ------
    DesignError
        Too few sizes or points, or no minimum between the sizes.
    """
    sizes = len(np.unique(points.log_N))
    terms = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    if sizes < max(MIN_SIZES, degree + 1) or len(points.log_C) < len(terms) + 2:
        raise DesignError(
            f"a surface of degree {degree} needs {max(MIN_SIZES, degree + 1)} sizes and {len(terms) + 2} points, got "
            f"{sizes} and {len(points.log_C)}"
        )
    x, y = points.log_N - 0.5 * points.log_C, points.log_C
    centre = float(x.mean()), float(y.mean())
    design = np.stack([(x - centre[0]) ** i * (y - centre[1]) ** j for i, j in terms], axis=1)
    project = np.linalg.pinv(design)
    middle = project @ points.log_loss
    residual = points.log_loss - design @ middle
    weights = np.random.default_rng(seed).choice(SIX_POINTS.ravel(), size=(num_draws, points.num_runs))
    runs = max(points.num_runs, degree + 2)
    inflate = np.sqrt(max(len(x) / (len(x) - len(terms)), runs / (runs - degree - 1)))
    coefficients = np.vstack([middle, middle + inflate * (weights[:, points.run] * residual) @ project.T])
    budgets = np.linspace(y.min(), y.max(), PLACES)
    best = np.stack([_best(coefficients, terms, at - centre[1]) + centre[0] + 0.5 * at for at in budgets], axis=1)
    low, high = _ends(points, budgets)
    inside = (low < best[0]) & (best[0] < high)
    if inside.sum() < MIN_PLACES:
        raise DesignError(f"the surface has a minimum between the sizes at {inside.sum()} of {PLACES} budgets only")
    at, draws = budgets[inside], best[1:, inside]
    draws = np.clip(np.where(np.isfinite(draws), draws, best[0, inside]), low[inside], high[inside])
    log_loss = _heights(coefficients[1:], terms, draws - 0.5 * at - centre[0], at - centre[1])
    slope = draws @ (at - at.mean()) / np.sum((at - at.mean()) ** 2)
    scatter = float(np.sqrt(np.mean(residual**2)))
    return Surface(Quantity("exponent", slope), at, draws, log_loss, scatter, points.num_runs)


def _best(coefficients: Array, terms: list[tuple[int, int]], y: float) -> Array:
    """x of the minimum of every draw's cubic at one budget, (n_draws,); NaN without one."""
    at_y = np.zeros((len(coefficients), 1 + max(i for i, _ in terms)))
    for k, (i, j) in enumerate(terms):
        at_y[:, i] += coefficients[:, k] * y**j
    return minimum_of(at_y)


def _heights(coefficients: Array, terms: list[tuple[int, int]], x: Array, y: Array) -> Array:
    """The surface of every draw at ``x`` (n_draws, k) and ``y`` (k,)."""
    height = np.zeros_like(x)
    for k, (i, j) in enumerate(terms):
        height += coefficients[:, k, None] * x**i * y**j
    return height


def _ends(points: Points, budgets: Array) -> tuple[Array, Array]:
    """ln N of the smallest and largest size whose runs reach below and above each budget, (k,) each; NaN if none."""
    sizes = np.unique(points.log_N)
    first = np.array([points.log_C[points.log_N == n].min() for n in sizes])
    last = np.array([points.log_C[points.log_N == n].max() for n in sizes])
    reached = (first[:, None] <= budgets) & (budgets <= last[:, None])
    low = np.where(reached, sizes[:, None], np.inf).min(axis=0)
    high = np.where(reached, sizes[:, None], -np.inf).max(axis=0)
    return low, high
