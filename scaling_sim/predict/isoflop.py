"""The best size at each budget, read off the runs themselves: minima of isoFLOP valleys, and the lower envelope.

A valley is ln L as a **cubic** in ln N at one budget (Hoffmann et al. 2022, approach 2, took a parabola): the two terms
of a law do not rise equally fast on both sides, and a parabola puts the minimum on the flatter side, the further the
wider the sizes (by 14 % in N* for α = .5, β = .25 over two decades; the cubic by 1 %). The envelope is
approach 1: the size of the least loss at each budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import DesignError
from scaling_sim.predict.slices import Slice

Array = NDArray[np.float64]

DEGREE = 3
NU = 5.0
"""Degrees of freedom of the Student-t weights that make one bad run harmless."""
WINDOW = np.log(10.0)
"""Sizes further than this from the minimum (in ln N) are left out where enough others remain."""
BRACKETED = 0.9
"""Share of the draws of a budget that must have their minimum between its sizes."""
MIN_MINIMA = 3


@dataclass(frozen=True)
class Valley:
    """One budget's fit: ln L = Σ_k c_k z^k, z = ln N − centre, at ``log_C``."""

    log_C: float
    coefficients: Array
    centre: float
    span: tuple[float, float]
    """Least and largest ln N that were fitted."""

    def log_loss(self, log_N: Array) -> Array:
        """The polynomial."""
        return np.asarray(np.polynomial.polynomial.polyval(log_N - self.centre, self.coefficients))

    @property
    def log_N(self) -> float:
        """ln N of the minimum; NaN without one."""
        return float(self.centre + minimum_of(self.coefficients[None])[0])


@dataclass(frozen=True)
class Minima:
    """Bracketed minima of all budgets.

    Attributes
    ----------
    log_C : (k,) array, ln of the budgets in FLOP
    log_N : (n_draws, k) array, draws of ln N*
    valleys : the k fits;  slices : the k budgets' points
    skipped : budget in FLOP → why it gives no minimum
    scale : scatter of ln L about the valleys
    """

    log_C: Array
    log_N: Array
    valleys: tuple[Valley, ...]
    slices: tuple[Slice, ...]
    skipped: dict[float, str] = field(default_factory=dict)
    scale: float = float("nan")


def isoflop_minima(slices: Sequence[Slice], *, degree: int = DEGREE, num_draws: int = 2000, seed: int = 0) -> Minima:
    """Fit a polynomial to each budget and draw the minima from its uncertainty.

    ln L of a run errs by a Student-t of one scale for all budgets; points of one learning curve that several budgets
    share err together. Draws follow from the weighted least squares' sampling distribution, the scale's own
    uncertainty included.

    Parameters
    ----------
    slices : budgets with their points, from `scaling_sim.predict.slices`
    degree : 3; 2 is the biased parabola, for comparison

    Raises
    ------
    DesignError
        Fewer than three budgets bracket a minimum.
    """
    skipped = {float(np.exp(s.at)): why for s in slices if (why := _too_few(s, degree))}
    chosen = [s for s in slices if not _too_few(s, degree)]
    if chosen:
        first = _Fit(chosen, degree)
        chosen = [_window(s, v.log_N, degree) for s, v in zip(chosen, first.valleys, strict=True)]
        fit = _Fit(chosen, degree)
        draws = fit.draws(num_draws, np.random.default_rng(seed))
        kept, columns = [], []
        for k, one in enumerate(chosen):
            why, column = _bracketed(one, fit.valleys[k], draws[k])
            if why:
                skipped[float(np.exp(one.at))] = why
            else:
                kept.append(k)
                columns.append(column)
        if len(kept) >= MIN_MINIMA:
            at = np.array([chosen[k].at for k in kept])
            valleys, points = tuple(fit.valleys[k] for k in kept), tuple(chosen[k] for k in kept)
            return Minima(at, np.stack(columns, axis=1), valleys, points, skipped, fit.scale)
        raise DesignError(_too_few_minima(len(kept), skipped))
    raise DesignError(_too_few_minima(0, skipped))


def power_law(log_C: Array, log_N: Array) -> tuple[Array, Array, float]:
    """Slope and value at the mean ln C of a line through draws of minima, (n_draws,) each, and that mean.

    Least squares with the draws' own precisions. Where the minima scatter about the line by more than their draws say,
    the draws are widened to match.
    """
    middle = np.median(log_N, axis=0)
    variance = np.maximum((1.4826 * np.median(np.abs(log_N - middle), axis=0)) ** 2, 1e-12)
    weight = 1.0 / variance
    centre = float(np.average(log_C, weights=weight))
    x = log_C - centre
    slope_of, level_of = weight * x / np.sum(weight * x * x), weight / weight.sum()
    line = level_of @ middle + (slope_of @ middle) * x
    excess = float(np.sum((middle - line) ** 2 * weight)) / max(len(x) - 2, 1)
    spread = middle + (log_N - middle) * max(1.0, excess) ** 0.5
    return spread @ slope_of, spread @ level_of, centre


class _Fit:
    """Robust polynomial fits of several budgets with one scale of errors."""

    def __init__(self, slices: Sequence[Slice], degree: int) -> None:
        self.slices = slices
        self.centres = [float(s.aligned.mean()) for s in slices]
        self._X = [_design(s, c, degree) for s, c in zip(slices, self.centres, strict=True)]
        self._degree = degree
        runs = np.unique(np.concatenate([s.run for s in slices]))
        self._num_runs = int(runs.max()) + 1
        rows, columns = sum(len(X) for X in self._X), sum(X.shape[1] for X in self._X)
        widest = max(X.shape[1] for X in self._X)
        self.freedom = max(min(rows - columns, len(runs) - widest), 1)
        self._rows_freedom = max(rows - columns, 1)
        self._solve()

    def _solve(self, iterations: int = 30) -> None:
        weights = [np.ones(len(X)) for X in self._X]
        scale2 = 0.0
        for _ in range(iterations):
            self._project = [_projection(X, w) for X, w in zip(self._X, weights, strict=True)]
            self._coefficients = [P @ s.log_loss for P, s in zip(self._project, self.slices, strict=True)]
            residuals = [s.log_loss - X @ c for X, s, c in zip(self._X, self.slices, self._coefficients, strict=True)]
            if scale2 == 0.0:  # the median, so that one bad run cannot set the scale from which the weights start
                sizes = np.abs(np.concatenate(residuals))
                scale2 = (1.4826 * float(np.median(sizes))) ** 2
            total = sum(float(w @ r**2) for w, r in zip(weights, residuals, strict=True))
            scale2 = max(total / self._rows_freedom, 1e-24) if weights[0] is not None else scale2
            weights = [(NU + 1) / (NU + r**2 / scale2) for r in residuals]
        self._weights, self.scale = weights, scale2**0.5

    @property
    def valleys(self) -> list[Valley]:
        found = []
        for s, c, centre in zip(self.slices, self._coefficients, self.centres, strict=True):
            shift = 0.5 * s.at
            span = (float(s.aligned.min() + shift), float(s.aligned.max() + shift))
            found.append(Valley(s.at, c[: self._degree + 1], centre + shift, span))
        return found

    def draws(self, num: int, rng: np.random.Generator) -> list[Array]:
        """ln N of the minima of each budget, (num,) each; NaN where a draw has none."""
        by_run = rng.standard_normal((num, self._num_runs))
        inflate = (NU + 3) / (NU + 1)  # variance of a Student-t location over that of its weighted least squares
        scale = self.scale * np.sqrt(inflate * self.freedom / rng.chisquare(self.freedom, num))
        found = []
        for s, P, w, c, centre in zip(
            self.slices, self._project, self._weights, self._coefficients, self.centres, strict=True
        ):
            noise = scale[:, None] * by_run[:, s.run] / np.sqrt(w)
            coefficients = c + noise @ P.T
            found.append(centre + 0.5 * s.at + minimum_of(coefficients[:, : self._degree + 1]))
        return found


def _design(one: Slice, centre: float, degree: int) -> Array:
    """Powers of z, and the offset in ln C where the points of a budget do not share one compute."""
    columns = [(one.aligned - centre) ** k for k in range(degree + 1)]
    offset = one.log_C - one.at
    if np.ptp(offset) > 1e-3:
        columns.append(offset)
    return np.stack(columns, axis=1)


def _projection(X: Array, weight: Array) -> Array:
    """(p, n): coefficients of weighted least squares from responses."""
    root = np.sqrt(weight)
    return np.asarray(np.linalg.pinv(X * root[:, None]) * root)


def minimum_of(c: Array) -> Array:
    """z at the minimum of c0 + c1 z + c2 z² (+ c3 z³), rows of ``c``; NaN where there is none."""
    c1, c2 = c[:, 1], c[:, 2]
    c3 = c[:, 3] if c.shape[1] > 3 else np.zeros(len(c))
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt(c2**2 - 3 * c1 * c3)
        z = np.where(c2 > 0, -c1 / (c2 + root), (root - c2) / (3 * c3))
    return np.where((root > 0) & np.isfinite(z), z, np.nan)


def _too_few(one: Slice, degree: int) -> str:
    sizes, need = len(np.unique(one.log_N)), degree + 2
    if sizes < need:
        return f"{sizes} sizes; a polynomial of degree {degree} needs {need}"
    columns = _design(one, 0.0, degree).shape[1]
    return f"{len(one.log_N)} points for {columns} coefficients" if len(one.log_N) <= columns else ""


def _window(one: Slice, log_N: float, degree: int) -> Slice:
    """The points near the minimum, if a polynomial can still be fitted to them and they still bracket it."""
    near = one.take(np.abs(one.aligned + 0.5 * one.at - log_N) <= WINDOW)
    return near if len(near.log_N) and not _too_few(near, degree + 1) else one


def _bracketed(one: Slice, valley: Valley, draws: Array) -> tuple[str, Array]:
    """Why the budget's minimum is not bracketed ("" if it is), and its draws held between the sizes."""
    low, high = valley.span
    inside = (draws > low) & (draws < high)
    if not low < valley.log_N < high:
        return "no minimum between the sizes measured", draws
    if inside.mean() < BRACKETED:
        return f"a minimum between the sizes in {inside.mean():.0%} of the draws only", draws
    return "", np.clip(np.where(np.isfinite(draws), draws, valley.log_N), low, high)


def _too_few_minima(found: int, skipped: dict[float, str]) -> str:
    reasons = list(dict.fromkeys(skipped.values()))
    return (
        f"{found} budget{'s' if found != 1 else ''} bracket{'s' if found == 1 else ''} a minimum, at least "
        f"{MIN_MINIMA} needed{': ' + '; '.join(reasons[:3]) if reasons else ''}. Run at least {DEGREE + 2} sizes at "
        "each of several budgets"
    )
