"""How the loss falls along the context: L_T = a + b·T^-c (Kaplan et al. 2020, appendix D.5, figures 20 and 21)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_sim.config import checked_seed
from scaling_sim.errors import DataError
from scaling_sim.predict.quantity import Quantity
from scaling_sim.runs.record import position_edges

Array = NDArray[np.float64]

MIN_BINS = 5
"""Three parameters and two bins to spare, which tell the error."""
EXPONENTS = (0.02, 10.0)
"""Least and largest exponent c tried; the prior is flat in its logarithm."""
PLACES = 400
"""Places of ln c, laid three times, each where the posterior is within `KEPT` nats of its maximum on those before."""
KEPT = 12.0
NUM_DRAWS = 1000


@dataclass(frozen=True)
class PositionLaw:
    """Draws of L_T = a + b·T^-c, the loss of the T-th token of a context.

    Attributes
    ----------
    draws : ``a`` and ``b`` in nats per token, ``c``, (n,) each
    edges : (k + 1,) the bins fitted: bin i holds the positions edge i + 1 to edge i + 1
    loss : (k,) measured mean loss of each bin
    error : (n,) standard deviation of a bin's loss about the law, nats: its misfit, mostly
    """

    draws: Mapping[str, Array]
    edges: tuple[int, ...]
    loss: Array
    error: Array

    def __repr__(self) -> str:
        told = ", ".join(f"{name} {np.median(values):.3g}" for name, values in self.draws.items())
        return f"PositionLaw(positions 1 to {self.edges[-1]}: {told})"

    def at(self, position: ArrayLike) -> Array:
        """(n, k) draws of the loss of single positions T = 1, 2, … (k,)."""
        a, b, c = (self.draws[name][:, None] for name in "abc")
        return np.asarray(a + b * np.atleast_1d(np.asarray(position, dtype=np.float64)) ** -c)

    def of_bins(self) -> Array:
        """(n, k) draws of the mean loss of each bin."""
        a, b = (self.draws[name][:, None] for name in "ab")
        return np.asarray(a + b * bin_means(self.edges, self.draws["c"]))

    def quantity(self, name: str) -> Quantity:
        """Draws of ``a``, ``b`` or ``c``."""
        return Quantity(name, self.draws[name], "" if name == "c" else "nats")

    def to_json(self) -> dict[str, Any]:
        """Each parameter with its 90 % interval."""
        return {name: self.quantity(name).to_json() for name in self.draws}


def bin_means(edges: ArrayLike, c: ArrayLike) -> Array:
    """(m, k) mean of T^-c over the positions T = edge i + 1 … edge (i + 1) of each bin, at exponents c (m,).

    The mean of a bin is what is measured; the power at its middle differs from it by several per cent in wide bins.
    """
    ends = np.asarray(edges, dtype=np.int64)
    T = np.arange(ends[0] + 1, ends[-1] + 1, dtype=np.float64)
    powers = np.exp(-np.atleast_1d(np.asarray(c, dtype=np.float64))[:, None] * np.log(T))
    return np.asarray(np.add.reduceat(powers, ends[:-1] - ends[0], axis=1) / np.diff(ends))


def position_law(
    loss: ArrayLike,
    n_ctx: int | None = None,
    *,
    edges: ArrayLike | None = None,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> PositionLaw:
    """Return the posterior of L_T = a + b·T^-c, given mean losses of bins of positions.

    Parameters
    ----------
    loss : (k,) nats per token, as `CurvePoint.positions` keeps them
    n_ctx : int
        Context length, whose bins are `position_edges`; or
    edges : (k + 1,) integers
        Bin i holds the positions edge i + 1 to edge (i + 1), counted from 1.
    num_draws, seed : int

    Raises
    ------
    DataError
        Fewer than five bins, or losses that are no numbers.

    Notes
    -----
    Errors of bins count as independent and equal, in nats. Flat priors of a, b and ln c; the error's scale is
    integrated out: ``p(c | L) ∝ |XᵀX|^-½ · RSS(c)^(-(k−2)/2)``, X = (1, mean of T^-c). Given c, a and b
    are exactly t.
    """
    rng = np.random.default_rng(checked_seed(seed))
    y, ends = _checked(loss, n_ctx, edges)
    freedom, near = len(y) - 2, np.log(EXPONENTS)
    for _ in range(3):
        log_c, step = np.linspace(near[0], near[-1], PLACES, retstep=True)
        middle, root, rss, log_det = _least_squares(bin_means(ends, np.exp(log_c)), y)
        log_p = -0.5 * freedom * np.log(rss) - 0.5 * log_det
        kept = log_c[log_p > log_p.max() - KEPT]
        near = np.array([kept[0] - step, kept[-1] + step])
    p = np.exp(log_p - log_p.max())
    chosen = rng.choice(len(p), size=num_draws, p=p / p.sum())
    c = np.exp(log_c[chosen] + (rng.random(num_draws) - 0.5) * step)
    error = np.sqrt(rss[chosen] / rng.chisquare(freedom, num_draws))
    a, b = (middle[chosen] + np.einsum("nij,nj,n->ni", root[chosen], rng.standard_normal((num_draws, 2)), error)).T
    return PositionLaw({"a": a, "b": b, "c": c}, tuple(ends), y, error)


def _checked(loss: ArrayLike, n_ctx: int | None, edges: ArrayLike | None) -> tuple[Array, list[int]]:
    y = np.asarray(loss, dtype=np.float64)
    if (n_ctx is None) == (edges is None):
        raise DataError("the bins of positions are given by n_ctx or by their edges, one of them")
    ends = list(position_edges(n_ctx)) if n_ctx is not None else [int(e) for e in np.asarray(edges)]
    if y.shape != (len(ends) - 1,) or not np.isfinite(y).all():
        raise DataError(f"{len(ends) - 1} bins need as many finite losses, got {y.tolist()}")
    if len(y) < MIN_BINS:
        raise DataError(f"a + b·T^-c needs {MIN_BINS} bins of positions or more, got {len(y)}")
    return y, ends


def _least_squares(x: Array, y: Array) -> tuple[Array, Array, Array, Array]:
    """Of y = a + b·x, for every row of ``x`` (m, k): estimates, roots of (XᵀX)⁻¹, RSS and ln |XᵀX|."""
    X = np.stack([np.ones_like(x), x], axis=-1)
    normal = np.swapaxes(X, 1, 2) @ X
    covariance = np.linalg.inv(normal)
    found = (covariance @ np.swapaxes(X, 1, 2) @ y[:, None])[..., 0]
    rss = np.sum((y - (X @ found[..., None])[..., 0]) ** 2, axis=1)
    root = np.asarray(np.linalg.cholesky(covariance))
    return found, root, np.maximum(rss, 1e-30), np.asarray(np.linalg.slogdet(normal)[1])
