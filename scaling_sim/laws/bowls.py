"""Best learning rate and batch of every (N, tokens) of a sweep: the minimum of a surface through its lowest losses."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from scaling_sim.laws.observations import final_rows, unusable
from scaling_sim.runs.table import RunTable

Array = NDArray[np.float64]

SAME = 0.02
"""Sizes or lengths that differ by less than this (in log) make one cell: B·S rounds differently at each batch."""
LEARNING_RATES = ("lr", "peak_lr", "learning_rate")
"""Names under which a source may give the peak learning rate."""
LATTICE = 41
"""Points per variable at which the fitted surface is first looked at."""
ABOVE = "more than {:g} % above the lowest loss of its (N, tokens)"
EDGE = "the best run of its (N, tokens) lies on the edge of its grid of {}"
FEW = "too few runs near the lowest loss of its (N, tokens), or fewer than three {}"
NO_MINIMUM = "no minimum of the surface through the lowest losses of its (N, tokens) lies among them"


@dataclass(frozen=True)
class Bowl:
    """The best setting of one (N, tokens).

    Attributes
    ----------
    N, tokens : geometric means over the cell
    best : variable ("lr", "B") → its best value
    error : variable → standard error of the *logarithm* of its best value
    """

    N: float
    tokens: float
    best: dict[str, float]
    error: dict[str, float]


def bowls(runs: RunTable, variable: str, window: float) -> tuple[list[Bowl], NDArray[np.object_]]:
    """The cells whose best ``variable`` ("lr" or "B") can be told, and why each row was not used (n,), "" if it was.

    The logarithm of the loss, where within ``window`` of the cell's lowest, is fitted by a cubic polynomial in log lr
    and log B together (a quadratic one where runs are few): their best values depend on each other, and a parabola is
    biased by the asymmetry of the bowl. A variable with fewer than three values stays out of the polynomial.
    """
    settings = {"lr": learning_rates(runs), "B": runs.B}
    reason = unusable(runs, ("N", "tokens"))
    reason[~(settings[variable] > 0) & (reason == "")] = f"{variable} is unknown"
    reason = final_rows(runs, reason, single_epoch=True).reason
    found = []
    for rows in _cells(runs, np.flatnonzero(reason == "")):
        near = np.log(runs.loss[rows] / runs.loss[rows].min()) <= np.log1p(window)
        reason[rows[~near]] = ABOVE.format(100 * window)
        bowl = _bowl(runs, settings, rows, rows[near], variable)
        if isinstance(bowl, str):
            reason[rows] = bowl
        else:
            found.append(bowl)
    return found, reason


def learning_rates(runs: RunTable) -> Array:
    """(n,) peak learning rates, NaN where unknown."""
    for name in LEARNING_RATES:
        if name in runs.extra:
            return np.asarray(runs.extra[name], dtype=np.float64)
    return np.full(len(runs), np.nan)


def _cells(runs: RunTable, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows of each (N, tokens)."""
    size, length = (_levels(np.log(getattr(runs, name)[rows])) for name in ("N", "tokens"))
    labels = size * (len(rows) + 1) + length
    return [rows[labels == label] for label in np.unique(labels)]


def _levels(x: Array) -> NDArray[np.int64]:
    """Number (n,) of the group that a value belongs to; groups are more than `SAME` apart."""
    order = np.argsort(x, kind="stable")
    level = np.empty(len(x), dtype=np.int64)
    level[order] = np.cumsum(np.diff(x[order], prepend=x[order[:1]]) > SAME)
    return level


def _bowl(
    runs: RunTable, settings: dict[str, Array], rows: NDArray[np.int64], near: NDArray[np.int64], variable: str
) -> Bowl | str:
    """The best setting of a cell, or why there is none."""
    names = [name for name, values in settings.items() if len(np.unique(values[rows][values[rows] > 0])) >= 3]
    lowest = rows[np.argmin(runs.loss[rows])]
    for name in names:
        if settings[name][lowest] in (np.nanmin(settings[name][rows]), np.nanmax(settings[name][rows])):
            return EDGE.format(name)
    near = near[np.all([settings[name][near] > 0 for name in names], axis=0)] if names else near[:0]
    x = np.log(np.stack([settings[name][near] for name in names], axis=1)) if names else np.empty((0, 0))
    degree = _degree(*x.shape)
    if variable not in names or not degree:
        return FEW.format(variable)
    middle = x.mean(axis=0)
    minimum = Surface.fit(x - middle, np.log(runs.loss[near]), degree).minimum()
    if minimum is None:
        return NO_MINIMUM
    best = dict(zip(names, np.exp(minimum[0] + middle).tolist(), strict=True))
    N, tokens = (float(np.exp(np.mean(np.log(getattr(runs, name)[rows])))) for name in ("N", "tokens"))
    return Bowl(N, tokens, best, dict(zip(names, minimum[1].tolist(), strict=True)))


def _degree(count: int, variables: int) -> int:
    """3 with twice as many points as coefficients, else 2 with two points to spare, else 0."""
    sizes = {degree: len(_powers(variables, degree)) for degree in (2, 3)}
    return 3 if count >= 2 * sizes[3] else 2 if count >= sizes[2] + 2 else 0


def _powers(variables: int, degree: int) -> NDArray[np.int64]:
    """(n_terms, variables) powers of all monomials up to a degree."""
    terms = [c for total in range(degree + 1) for c in combinations_with_replacement(range(variables), total)]
    return np.array([[term.count(i) for i in range(variables)] for term in terms]).reshape(len(terms), variables)


@dataclass(frozen=True)
class Surface:
    """A polynomial y(x) fitted by least squares.

    Attributes
    ----------
    powers : (n_terms, v) powers of each term
    coefficients, covariance : (n_terms,) and (n_terms, n_terms)
    low, high : (v,) range of the points that were fitted
    """

    powers: NDArray[np.int64]
    coefficients: Array
    covariance: Array
    low: Array
    high: Array

    @classmethod
    def fit(cls, x: Array, y: Array, degree: int) -> Surface:
        """Least squares of y (n,) at x (n, v)."""
        powers = _powers(x.shape[1], degree)
        terms = np.prod(x[:, None, :] ** powers, axis=-1)
        coefficients = np.linalg.lstsq(terms, y, rcond=None)[0]
        variance = np.sum((y - terms @ coefficients) ** 2) / max(len(y) - len(powers), 1)
        return cls(powers, coefficients, variance * np.linalg.pinv(terms.T @ terms), x.min(axis=0), x.max(axis=0))

    def minimum(self) -> tuple[Array, Array] | None:
        """Where the surface is lowest and the standard error of that, (v,) each; None unless inside the points' range.

        The error is that of the root of the gradient g(x; c) = 0: dx/dc = −H⁻¹ ∂g/∂c, H the curvature.
        """
        axes = [np.linspace(a, b, LATTICE) for a, b in zip(self.low, self.high, strict=True)]
        lattice = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
        x = lattice[np.argmin(np.prod(lattice[:, None, :] ** self.powers, axis=-1) @ self.coefficients)]
        for _ in range(20):
            slopes, curvature = self._slopes(x), self._curvature(x)
            if not np.all(np.linalg.eigvalsh(curvature) > 0):
                return None
            x = x - np.linalg.solve(curvature, slopes @ self.coefficients)
            if np.any((x <= self.low) | (x >= self.high)):
                return None
        change = np.linalg.solve(self._curvature(x), self._slopes(x))
        return x, np.sqrt(np.diag(change @ self.covariance @ change.T))

    def _slopes(self, x: Array) -> Array:
        """(v, n_terms) derivative of each term by each variable."""
        return np.stack([_derivative(x, self.powers, [i]) for i in range(len(x))])

    def _curvature(self, x: Array) -> Array:
        """(v, v) second derivatives of the surface."""
        v = range(len(x))
        return np.array([[_derivative(x, self.powers, [i, j]) @ self.coefficients for j in v] for i in v])


def _derivative(x: Array, powers: NDArray[np.int64], by: list[int]) -> Array:
    """(n_terms,) derivative of each monomial by the variables named, one after the other."""
    factor, left = np.ones(len(powers)), powers.copy()
    for i in by:
        factor = factor * left[:, i]
        left[:, i] = np.maximum(left[:, i] - 1, 0)
    return np.asarray(factor * np.prod(x**left, axis=1))
