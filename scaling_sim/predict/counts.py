"""What the same runs look like when N and C are counted in other ways.

Counts of one table: from the shapes of its models, or from columns that it has. Between the sizes that were trained,
and beyond them, a count is a smooth function of the smallest count n of parameters, a sum of powers with weights ≥ 0::

    N_d(n), FLOP per token(n), seconds per token(n) = a₁·n + a₂·n^(2/3) + a₃·n^(1/3) (+ a₀)

because d_model grows like n^(1/3) in a family of one aspect: blocks cost n, attention over the context n^(2/3),
embeddings and head n^(1/3) (Pearce & Song 2024, arXiv 2406.12907, have n + ω·n^(1/3)); a step's overhead is constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import DataError
from scaling_sim.model.count import flops_per_token, num_parameters
from scaling_sim.model.shape import Shape
from scaling_sim.runs.table import RunTable

Array = NDArray[np.float64]

POWERS = (1.0, 2 / 3, 1 / 3)
SHAPE = ("n_layer", "d_model", "n_ctx", "vocab_size")
COUNTS = ("N_non_embedding", "N_head", "N_total", "C_exact", "seconds")
"""Columns that are understood: parameters without embeddings, with the head alone, all; FLOP by an exact count, and
seconds, of the run until this row."""
SAME = 1e-6
"""Relative difference below which two counts are one."""


@dataclass(frozen=True)
class Curve:
    """Σ_k a_k n^k, a ≥ 0; ``scatter`` is the rms relative deviation of the counts from it."""

    weights: Array
    powers: Array
    scatter: float = 0.0

    @classmethod
    def through(cls, n: Array, counts: Array, constant: bool = False) -> Curve:
        """Non-negative least squares of relative errors."""
        from scipy.optimize import nnls

        powers = np.array([*POWERS, 0.0] if constant else POWERS)
        design = n[:, None] ** powers / counts[:, None]
        scale = design.max(axis=0)
        weights, _ = nnls(design / scale, np.ones(len(n)))
        found = weights / scale
        return cls(found, powers, float(np.sqrt(np.mean((design @ found - 1) ** 2))))

    @classmethod
    def proportional(cls, factor: float = 1.0) -> Curve:
        """``factor``·n."""
        return cls(np.array([factor]), np.array([1.0]))

    def times(self, factor: float) -> Curve:
        """The curve of ``factor`` times the count."""
        return Curve(self.weights * factor, self.powers, self.scatter)

    def log(self, log_n: Array) -> Array:
        """ln of the count at ln n."""
        return np.asarray(np.log(np.sum(self._terms(log_n), axis=-1)))

    def slope(self, log_n: Array) -> Array:
        """d ln count / d ln n."""
        terms = self._terms(log_n)
        return np.asarray(np.sum(terms * self.powers, axis=-1) / np.sum(terms, axis=-1))

    def _terms(self, log_n: Array) -> Array:
        return self.weights * np.exp(np.asarray(log_n)[..., None] * self.powers)


@dataclass(frozen=True)
class Counting:
    """One definition: N of every row and cost of every row's training, (n_rows,); in words."""

    name: str
    words: str
    N: Array
    cost: Array
    unit: str = "FLOP"


def countings(runs: RunTable, columns: Mapping[str, str] | None = None) -> dict[str, Counting]:
    """Every definition that the table allows, by name; the table's own is ``own``.

    Parameters
    ----------
    columns : mapping
        Names of `COUNTS` or of the shape (n_layer, d_model, n_ctx, vocab_size, d_ff) to columns of the table, where
        they are not called so.

    Raises
    ------
    DataError
        The table allows but one definition, or a column is missing.
    """
    known = _counts(runs, columns or {})
    own = Counting("own", "N and C = 6·N·tokens as the table has them", runs.N, 6 * runs.N * runs.tokens)
    small = known.get("N_non_embedding", runs.N)
    found = [own]
    for name, words, key in (
        ("non-embedding", "N without embeddings and head, C = 6·N·tokens (Kaplan et al. 2020)", "N_non_embedding"),
        ("with head", "N with the head, without embeddings, C = 6·N·tokens (Porian et al. 2024)", "N_head"),
        ("total", "all parameters, C = 6·N·tokens (Hoffmann et al. 2022)", "N_total"),
    ):
        if key in known:
            found.append(Counting(name, words, known[key], 6 * known[key] * runs.tokens))
    if "C_exact" in known:
        words = "N without embeddings and head, FLOP by the exact count (attention and head included)"
        found.append(Counting("exact FLOP", words, small, known["C_exact"]))
    if "seconds" in known:
        found.append(
            Counting("seconds", "N without embeddings and head, measured seconds", small, known["seconds"], "s")
        )
    different = [c for k, c in enumerate(found) if not any(_same(c, other) for other in found[:k])]
    if len(different) < 2:
        raise DataError(
            "other definitions of N and C need the models' shapes (columns n_layer, d_model, n_ctx, vocab_size) or "
            f"one of the columns {', '.join(COUNTS)}; the table has {', '.join(runs.extra) or 'no further columns'}"
        )
    return {counting.name: counting for counting in different}


def _same(a: Counting, b: Counting) -> bool:
    if a.unit != b.unit:
        return False
    use = np.isfinite(a.N + b.N + a.cost + b.cost) & (a.N > 0) & (a.cost > 0)
    close = [np.all(np.abs(x[use] / y[use] - 1) < SAME) for x, y in ((a.N, b.N), (a.cost, b.cost))]
    return bool(all(close))


def _counts(runs: RunTable, columns: Mapping[str, str]) -> dict[str, Array]:
    """Counts by name, (n_rows,): from shapes, and from columns, which go before."""
    table = runs.to_columns()
    unknown = [name for name in columns if name not in (*COUNTS, *SHAPE, "d_ff")]
    if unknown:
        raise DataError(f"unknown counts {', '.join(unknown)}; known: {', '.join((*COUNTS, *SHAPE, 'd_ff'))}")
    absent = [theirs for theirs in columns.values() if theirs not in table]
    if absent:
        raise DataError(f"the table has no column {', '.join(absent)}; it has {', '.join(table)}")
    names = {name: columns.get(name, name) for name in (*COUNTS, *SHAPE, "d_ff")}
    cells = {name: np.asarray(table[theirs], np.float64) for name, theirs in names.items() if theirs in table}
    given = {name: cells[name] for name in COUNTS if name in cells and np.isfinite(cells[name]).any()}
    return {**_from_shapes(cells, runs.tokens), **given} if all(name in cells for name in SHAPE) else given


def _from_shapes(cells: Mapping[str, Array], tokens: Array) -> dict[str, Array]:
    names = [*SHAPE, *(["d_ff"] if "d_ff" in cells else [])]
    rows, place = np.unique(np.stack([cells[name] for name in names], axis=1), axis=0, return_inverse=True)
    counts = np.full((len(rows), 4), np.nan)
    for k, row in enumerate(rows):
        if np.isfinite(row).all():
            values = {name: int(value) for name, value in zip(names, row, strict=True)}
            shape = Shape(n_head=1, **values)  # type: ignore[arg-type]
            kinds = ("non-embedding", "non-embedding+head", "total")
            counts[k] = (*(num_parameters(shape, kind) for kind in kinds), flops_per_token(shape, "exact"))
    small, head, total, flops = counts[place.ravel()].T
    return {"N_non_embedding": small, "N_head": head, "N_total": total, "C_exact": flops * tokens}
