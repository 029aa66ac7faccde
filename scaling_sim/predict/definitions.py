"""The same runs under several definitions of N and C: exponents and best sizes side by side.

What counts as N and as C changes the exponent of N* ∝ C^a more than anything else (Pearce & Song 2024, arXiv
2406.12907; Porian et al. 2024, arXiv 2406.19146). So the law E + A/N^α + B/tokens^β is fitted anew under each
definition, and its optimum found under what that definition calls cost; Pearce & Song's mapping then says which
exponent the law of all parameters would show to somebody who leaves the embeddings out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_sim.errors import ConfigError, DataError, ScalingSimError
from scaling_sim.inference.approximate import approximate_fit
from scaling_sim.predict.counts import Counting, Curve, countings
from scaling_sim.predict.quantity import Quantity
from scaling_sim.predict.roots import bracketed_root
from scaling_sim.runs.table import RunTable, read_runs

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

LAW = "chinchilla"
EXPONENT_PLACES = 12
WIDE = 60.0
"""Of ln n, either side of the sizes trained, within which optima are sought."""


@dataclass(frozen=True)
class Row:
    """One definition.

    Attributes
    ----------
    name, words, unit : of the definition; unit of its cost
    exponent : a in N* ∝ C^a, N and C as counted here, between the cheapest and the dearest run
    N : (n_draws, k), best size as counted here, for the cost that the first definition's optimum has here
    cost : (k,) that cost
    small : (n_draws, k), the same model's size as the smallest count has it
    tokens : (n_draws, k)
    scatter : rms relative deviation of the runs' cost per token from a smooth function of size
    """

    name: str
    words: str
    unit: str
    exponent: Quantity
    N: Array
    cost: Array
    small: Array
    tokens: Array
    scatter: float

    def to_json(self) -> dict[str, Any]:
        """Exponent, and best sizes and tokens per budget."""
        columns = {"N_parameters": self.N, "N_smallest_count_parameters": self.small, "tokens": self.tokens}
        listed = {name: [Quantity(name, x).to_json() for x in draws.T] for name, draws in columns.items()}
        cost = "cost_seconds" if self.unit == "s" else "cost_flop"
        words = {"words": self.words, "exponent": self.exponent.to_json(), cost: self.cost.tolist()}
        return {**words, **listed, "scatter_of_cost": self.scatter}


@dataclass(frozen=True)
class Definitions:
    """Rows by name, the first being the definition of the table itself.

    Attributes
    ----------
    compute : (k,) budgets of the first definition, FLOP
    rows : name → Row
    omega : ω in N_total ≈ n + ω·n^(1/3); None where not both counts are known
    mapped : exponent that the law of all parameters shows by n and 6·n·tokens (Pearce & Song's mapping), or None
    smallest : what n is
    """

    compute: Array
    rows: Mapping[str, Row]
    omega: float | None
    mapped: Quantity | None
    smallest: str
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Budgets, one object per definition, the mapping."""
        mapping = None
        if self.mapped is not None:
            mapping = {"omega": self.omega, "exponent_of_non_embedding": self.mapped.to_json()}
        return {
            "compute_flop": self.compute.tolist(),
            "law": LAW,
            "smallest_count": self.smallest,
            "definitions": {name: row.to_json() for name, row in self.rows.items()},
            "pearce_song_mapping": mapping,
            "notes": list(self.notes),
        }

    def to_dataframe(self) -> pd.DataFrame:
        """One row per definition and budget."""
        import pandas as pd

        found = []
        for name, row in self.rows.items():
            for k in range(len(self.compute)):
                N, small, tokens = (Quantity("", x[:, k]) for x in (row.N, row.small, row.tokens))
                a, b = row.exponent.interval(0.9)
                found.append((name, row.exponent.median, a, b, row.cost[k], row.unit, N.median, *N.interval(0.9),
                              small.median, tokens.median))  # fmt: skip
        names = ["definition", "exponent", "exponent_lo90", "exponent_hi90", "cost", "unit", "N", "N_lo90", "N_hi90",
                 "N_smallest_count", "tokens"]  # fmt: skip
        return pd.DataFrame(found, columns=names).set_index("definition")

    def __str__(self) -> str:
        return f"{self.to_dataframe().to_string(float_format=lambda x: f'{x:.4g}')}\n\n{self.verdict}"

    def _repr_html_(self) -> str:
        from html import escape

        table = self.to_dataframe().to_html(float_format=lambda x: f"{x:.4g}")
        return f"{table}<p>{escape(self.verdict)}</p>"

    @property
    def verdict(self) -> str:
        """The spread of exponents, and what the mapping says of it, in words."""
        middle = {name: row.exponent.median for name, row in self.rows.items()}
        low, high = min(middle, key=lambda n: middle[n]), max(middle, key=lambda n: middle[n])
        text = f"The exponent of N* goes from {middle[low]:.2f} ({low}) to {middle[high]:.2f} ({high})."
        if self.mapped is not None:
            a, b = self.mapped.interval(0.9)
            text += (
                f" The law of all parameters, seen by those outside embeddings (ω = {self.omega:.3g}), would show "
                f"{self.mapped.median:.2f} ({a:.2f} to {b:.2f})."
            )
        return text


_KNOWN: WeakKeyDictionary[RunTable, dict[tuple[float, ...], Definitions | str]] = WeakKeyDictionary()


def definitions_of(runs: RunTable, compute: Array) -> Definitions | str:
    """`compare_definitions`, made once for a table and its budgets, whatever law asks; in words why it cannot be."""
    known = _KNOWN.setdefault(runs, {})
    key = tuple(compute.tolist())
    if key not in known:
        try:
            known[key] = compare_definitions(runs, compute)
        except ScalingSimError as error:
            known[key] = str(error)
    return known[key]


def compare_definitions(
    runs: Any,
    compute: ArrayLike | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    num_draws: int = 1000,
    seed: int = 0,
) -> Definitions:
    """Fit the same runs under every definition of N and C that they allow.

    Parameters
    ----------
    runs : RunTable, or anything that `read_runs` takes
        Our own runs know their shapes; other tables need n_layer, d_model, n_ctx and vocab_size, or ready counts:
        N_non_embedding, N_head, N_total, C_exact, seconds.
    compute : float or (k,) array
        Budgets in FLOP as the table counts them; the largest run's by default. Each other definition is given the cost
        that the best model of that budget has by its own count: the same means, counted differently.
    columns : mapping
        Those names to the columns of the table that hold them.
    num_draws, seed : int
        Of the posterior under each definition, by importance sampling (`scaling_sim.inference.approximate`).

    Raises
    ------
    DataError
        The table allows one definition only, or cannot identify the law.
    """
    table = read_runs(runs)
    found = countings(table, columns)
    rows = _usable(found)
    budgets = _budgets(table, compute)
    sizes = {name: c.N[rows] for name, c in found.items()}
    smallest = min(sizes, key=lambda name: float(np.median(sizes[name])))
    n, tokens = sizes[smallest], table.tokens[rows]
    optima: dict[str, _Optimum] = {}
    notes: list[str] = []
    for name, counting in found.items():
        fitted = approximate_fit(_recounted(table, counting, rows), LAW, num_draws=num_draws, seed=seed)
        if not fitted.converged:
            notes.append(f"{name}: importance sampling failed ({fitted.ess:.0f} effective draws); do not rely on it")
        p = {key: np.asarray(values)[:, None] for key, values in fitted.draws.items()}
        size = Curve.proportional() if name == smallest else Curve.through(n, counting.N[rows])
        plain = np.allclose(counting.cost[rows], 6 * counting.N[rows] * tokens, rtol=1e-6)
        per_token = size.times(6.0) if plain else Curve.through(n, counting.cost[rows] / tokens, constant=True)
        optima[name] = _Optimum(p, size, per_token, (np.log(n.min()) - WIDE, np.log(n.max()) + WIDE))
    first = next(iter(optima.values()))
    log_n = first.at(np.log(budgets))
    means = np.median(log_n, axis=0), np.median(first.log_tokens(log_n), axis=0)
    made = {name: _row(found[name], optima[name], means, rows) for name in found}
    omega, mapped = _mapping(optima, n, tokens, smallest)
    return Definitions(budgets, made, omega, mapped, found[smallest].words.split(",")[0], tuple(notes))


@dataclass(frozen=True)
class _Optimum:
    """Best n for a cost: αA·N(n)^-α·σ(n) = βB·tokens^-β·s(n), cost = c(n)·tokens, σ and s the log slopes of N and c."""

    p: Mapping[str, Array]
    size: Curve
    per_token: Curve
    bracket: tuple[float, float]

    def log_tokens(self, log_n: Array) -> Array:
        """ln tokens for which n is the best."""
        p = self.p
        ratio = np.log(p["beta"] * p["B"] / (p["alpha"] * p["A"]))
        slopes = np.log(self.per_token.slope(log_n) / self.size.slope(log_n))
        return np.asarray((ratio + slopes + p["alpha"] * self.size.log(log_n)) / p["beta"])

    def log_cost(self, log_n: Array) -> Array:
        """ln cost for which n is the best; it grows with n."""
        return self.per_token.log(log_n) + self.log_tokens(log_n)

    def at(self, log_cost: Array) -> Array:
        """ln n of the optimum, (n_draws, k)."""
        low = np.full((len(self.p["alpha"]), np.size(log_cost)), self.bracket[0])
        return bracketed_root(lambda u: self.log_cost(u) - log_cost, low, low - self.bracket[0] + self.bracket[1])

    def exponent(self, cost: Array, counted: Curve) -> Array:
        """Slope of ln N* on ln cost, (n_draws,): least squares over log-spaced costs, as Pearce & Song have it."""
        x = np.linspace(np.log(cost.min()), np.log(cost.max()), EXPONENT_PLACES)
        log_N = counted.log(self.at(x))
        return np.asarray(log_N @ (x - x.mean()) / np.sum((x - x.mean()) ** 2))


def _row(counting: Counting, optimum: _Optimum, means: tuple[Array, Array], rows: NDArray[np.bool_]) -> Row:
    """The definition's optimum for what the first one's costs here; ``means`` are its ln n and ln tokens."""
    log_cost = optimum.per_token.log(means[0]) + means[1]
    log_n = optimum.at(log_cost)
    return Row(
        counting.name,
        counting.words,
        counting.unit,
        Quantity("exponent", optimum.exponent(counting.cost[rows], optimum.size)),
        np.exp(optimum.size.log(log_n)),
        np.exp(log_cost),
        np.exp(log_n),
        np.exp(optimum.log_tokens(log_n)),
        optimum.per_token.scatter,
    )


def _mapping(
    optima: Mapping[str, _Optimum], n: Array, tokens: Array, smallest: str
) -> tuple[float | None, Quantity | None]:
    """ω, and the exponent of n under C = 6·n·tokens by the law whose N counts all parameters."""
    largest = max(optima, key=lambda name: float(optima[name].size.log(np.log(np.median(n)))))
    total = optima[largest]
    if largest == smallest:
        return None, None
    N_total = np.exp(total.size.log(np.log(n)))
    omega = float(np.sum((N_total - n) * np.cbrt(n) / N_total**2) / np.sum(np.cbrt(n) ** 2 / N_total**2))
    if not omega > 0:
        return None, None
    seen = replace(total, size=Curve(np.array([1.0, omega]), np.array([1.0, 1 / 3])), per_token=Curve.proportional(6.0))
    return omega, Quantity("exponent", seen.exponent(6 * n * tokens, Curve.proportional()))


def _usable(found: Mapping[str, Counting]) -> NDArray[np.bool_]:
    """Rows whose counts are known under every definition."""
    columns = np.stack([x for c in found.values() for x in (c.N, c.cost)])
    rows: NDArray[np.bool_] = np.all(np.isfinite(columns) & (columns > 0), axis=0)
    if not rows.any():
        raise DataError(f"no row has every count: {', '.join(found)}")
    return rows


def _recounted(table: RunTable, counting: Counting, rows: NDArray[np.bool_]) -> RunTable:
    """The table with N and C of a definition; the law reads N and tokens alone."""
    changed = replace(table, N=counting.N, C=6 * counting.N * table.tokens, data_hash="")
    return changed.select(rows, "a count of N or C is unknown")


def _budgets(table: RunTable, compute: ArrayLike | None) -> Array:
    if compute is None:
        compute = float(np.nanmax(table.C))
    budgets = np.atleast_1d(np.asarray(compute, dtype=np.float64))
    if not np.all(np.isfinite(budgets) & (budgets > 0)):
        raise ConfigError(f"compute must be positive numbers of FLOP, got {compute}")
    return budgets
