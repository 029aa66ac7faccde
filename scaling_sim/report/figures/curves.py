"""Law curves from posterior draws, and runs sorted the way that figures show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_sim.report.figures.canvas import Colour, NothingToShow, colour_at
from scaling_sim.report.table import exact, number

if TYPE_CHECKING:
    from scaling_sim.inference import Posterior
    from scaling_sim.predict.frontier import FrontierPoint, KaplanFrontier
    from scaling_sim.report.data import ReportData
    from scaling_sim.runs.table import RunTable

Array = NDArray[np.float64]
Parameters = Mapping[str, Any]

DRAWS = 240
"""Posterior draws behind a band: the 5 % quantile of so many has a Monte Carlo error of .014 in probability."""
TINY_BATCH = 1e-9
"""Tokens. In the limit B → 0 the compute paid is C_min and S = S_min·B_crit/B (Kaplan et al. 2020, eqs 5.4, 5.5)."""

PAPER = {
    "alpha_N": 0.076,
    "alpha_D": 0.095,
    "alpha_C": 0.050,
    "alpha_B": 0.21,
    "alpha_S": 0.76,
    "p_N": 0.73,
    "p_N_naive": 0.88,
    "p_S": 0.03,
}
"""Exponents of Kaplan et al. 2020: Tables 5 and 6, eq 1.6, and the naive one of Fig 14."""


def thinned(fit: Posterior, count: int = DRAWS) -> dict[str, Array]:
    """At most ``count`` evenly spaced draws of the natural parameters, each (n, 1): they broadcast over columns."""
    size = len(next(iter(fit.draws.values())))
    rows = np.unique(np.linspace(0, size - 1, min(count, size)).round().astype(int))
    return {name: np.asarray(values, dtype=float)[rows, None] for name, values in fit.draws.items()}


def central(fit: Posterior) -> dict[str, float]:
    """The point estimate where there is one, else the medians."""
    return {name: float(fit.point.get(name, np.median(values))) for name, values in fit.draws.items()}


def need_fit(data: ReportData, *parameters: str) -> Posterior:
    """The first fit with these parameters.

    Raises
    ------
    NothingToShow
        No fit has them.
    """
    fit = data.fit_with(*parameters)
    if fit is None:
        raise NothingToShow(f"no fitted law has the parameters {', '.join(parameters)}")
    return fit


def need_rows(data: ReportData, kind: str) -> tuple[RunTable, NDArray[np.bool_]]:
    """The run table and the mask of its rows of one kind: ``curve``, ``stopped``, or ``any``.

    Raises
    ------
    NothingToShow
        There are no such rows.
    """
    table = data.table
    if table is None:
        raise NothingToShow("the report has no runs")
    keep = np.ones(len(table), dtype=bool) if kind == "any" else np.asarray(getattr(table, kind), dtype=bool)
    if not keep.any():
        words = {"curve": "single-epoch learning curves", "stopped": "early-stopped, data-limited runs"}
        raise NothingToShow(f"there are no {words.get(kind, 'runs')}")
    return table, keep


def naive_loss(N: ArrayLike, C: ArrayLike, B: float, p: Parameters) -> Array:
    """L when compute C (FLOP) is spent on N parameters at a fixed batch of ``B`` tokens: (1.6) with (5.4)."""
    from scaling_sim.laws.kaplan import solve_loss
    from scaling_sim.laws.kaplan_joint import curve_parameters

    N, C = np.asarray(N, dtype=float), np.asarray(C, dtype=float)
    return np.asarray(solve_loss(N, B, C / (6 * N * B), curve_parameters(p)), dtype=float)


def efficient_loss(N: ArrayLike, C_min: ArrayLike, p: Parameters) -> Array:
    """L(N, C_min), eq B.3: what compute C_min (FLOP) buys at batches far below critical."""
    return naive_loss(N, C_min, TINY_BATCH, p)


@dataclass(frozen=True)
class Group:
    """Rows that share a colour."""

    value: float
    """Size of the group: its common value, or the geometric mean."""
    label: str
    rows: NDArray[np.intp]


def groups(values: Array, rows: NDArray[np.bool_], symbol: str, most: int = 7) -> list[Group]:
    """Rows by value if there are few values, else in at most ``most`` bins of equal logarithmic width."""
    index = np.flatnonzero(rows & np.isfinite(values) & (values > 0))
    distinct = np.unique(values[index])
    if distinct.size <= most:
        return [Group(float(v), f"{symbol} = {exact(float(v))}", index[values[index] == v]) for v in distinct]
    edges = np.geomspace(distinct[0], distinct[-1] * (1 + 1e-12), most + 1)
    bins = np.clip(np.searchsorted(edges, values[index], side="right") - 1, 0, most - 1)
    found = []
    for k in np.unique(bins):
        members = index[bins == k]
        middle = float(np.exp(np.mean(np.log(values[members]))))
        found.append(Group(middle, f"{symbol} ≈ {number(middle, 2)}", members))
    return found


def coloured(
    values: Array, rows: NDArray[np.bool_], symbol: str = "N", ramp: str = "viridis"
) -> list[tuple[Group, Colour]]:
    """`groups` with a colour each, light for small and dark for large values.

    The ramp spans all of ``values``, so that one value has one colour in every figure.
    """
    found = groups(values, rows, symbol)
    known = np.log(values[np.isfinite(values) & (values > 0)])
    width = float(np.ptp(known)) or 1.0
    return [(group, colour_at((np.log(group.value) - known.min()) / width, ramp)) for group in found]


def learning_curves(table: RunTable, rows: NDArray[np.bool_]) -> Iterator[NDArray[np.intp]]:
    """Row indices of each learning curve, in the order of tokens processed."""
    index = np.flatnonzero(rows)
    for run in dict.fromkeys(table.run[index].tolist()):
        members = index[table.run[index] == run]
        yield members[np.argsort(table.tokens[members])]


def exponent_text(symbol: str, draws: ArrayLike, prefix: str = "ours") -> str:
    """``ours: α_N = 0.31 (0.29 to 0.34)``, the 90 % interval in brackets."""
    low, middle, high = np.quantile(np.asarray(draws, dtype=float), [0.05, 0.5, 0.95])
    name = f"{prefix}: {symbol}" if prefix else symbol
    return f"{name} = {middle:.3f} ({low:.3f} to {high:.3f})"


def frontier(p: Parameters) -> KaplanFrontier:
    """The compute-efficient frontier of every draw."""
    from scaling_sim.predict.frontier import KaplanFrontier

    return KaplanFrontier.from_parameters(p)


def efficient(C_min: ArrayLike, p: Parameters) -> FrontierPoint:
    """The frontier at C_min (k,) FLOP: half of what is paid at the critical batch (eq 5.5)."""
    return frontier(p).solve(2 * np.asarray(C_min, dtype=float))


def slopes(x: Array, y: Array) -> Array:
    """Mean logarithmic slope of each row of ``y`` (n_draws, n_x): an exponent, also where a floor bends the curve."""
    return np.asarray(np.log(y[:, -1] / y[:, 0]) / np.log(x[-1] / x[0]))


def span(values: ArrayLike, below: float = 1.5, above: float = 1.5, count: int = 60) -> Array:
    """A logarithmic grid over ``values``, widened by the factors ``below`` and ``above``."""
    array = np.asarray(values, dtype=float)
    array = array[np.isfinite(array) & (array > 0)]
    if array.size == 0:
        raise NothingToShow("the column to be shown is empty")
    return np.geomspace(array.min() / below, array.max() * above, count)


def pinned(x: Array, y: Array, exponent: float) -> Array:
    """A power law ∝ x^exponent through the middle of a curve: the paper's slope beside ours."""
    middle = len(x) // 2
    return np.asarray(y[middle] * (x / x[middle]) ** exponent)
