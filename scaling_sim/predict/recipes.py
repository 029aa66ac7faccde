"""Two recipes on one scale: by how much compute one must be multiplied to reach what the other reaches.

The effective-compute multiplier of a recipe over a base at loss L is C_base(L)/C_recipe(L): 2 says that the recipe does
with half the compute what the base does. Losses of both are expected losses of their compute-optimal runs (or of runs
of one size), each with the discrepancy that its own runs show from the law; draws of the two are paired before anything
is summarised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from scaling_sim.errors import ConfigError, LawError
from scaling_sim.laws.constants import FRONTIER_LAW
from scaling_sim.laws.registry import get_law
from scaling_sim.predict.allocate import allocate
from scaling_sim.predict.discrepancy import Discrepancy, discrepancy_of
from scaling_sim.predict.efficiency import positive
from scaling_sim.predict.known import critical_loss
from scaling_sim.predict.quantity import Quantity
from scaling_sim.predict.source import Array, Fit, columns_of, compute_range, source_of

if TYPE_CHECKING:
    import pandas as pd

PER_DECADE = 12
"""Places per decade of compute at which the losses are drawn; ln L is interpolated between them."""
MARGIN = (1e-3, 1e6)
"""Compute considered, as multiples of the least and the largest asked for or run; a loss not reached there counts as
never reached."""
SURE = 0.95


@dataclass(frozen=True)
class Recipes:
    """A recipe against a base.

    Attributes
    ----------
    compute : (k,) FLOP at which the base is asked for its loss; for a loss that was asked for, the base's median C
    loss : (k,) nats per token: the one asked for, or the median of what the base reaches with ``compute``
    asked : (k,) "compute" or "loss"
    multiplier, law_alone : (n, k) draws of C_base/C_recipe at equal loss, with and without discrepancies;
        +∞ where the base never reaches the loss, 0 where the recipe never does
    lower : (n, k) whether the recipe's loss is the lower one at equal compute
    """

    names: tuple[str, str]
    law: str
    compute: Array
    loss: Array
    asked: tuple[str, ...]
    multiplier: Array
    law_alone: Array
    lower: Array
    curve: tuple[Array, Array, Array]
    """Compute (g,), and loss draws (n, g) of base and recipe, for figures."""
    converged: bool | None
    path: str
    beyond_runs: tuple[float, ...]
    """Decades of each compute beyond the largest run that both have; NaN if unknown."""
    notes: tuple[str, ...] = ()

    def quantity(self, i: int = 0) -> Quantity:
        """Draws of the multiplier at place i."""
        return Quantity("multiplier", self.multiplier[:, i], "ratio")

    @property
    def probability_better(self) -> Array:
        """(k,) probability that the recipe has the lower expected loss at equal compute."""
        return np.asarray(self.lower.mean(axis=0))

    @property
    def verdict(self) -> str:
        """Which is better at the first place asked for, in words."""
        p, (base, recipe) = float(self.probability_better[0]), self.names
        low, high = self.quantity().interval(0.9)
        where = f"at {self.compute[0]:.3g} FLOP (loss {self.loss[0]:.4g})"
        said = f"{recipe} is worth {self.quantity().median:.3g} times the compute of {base} {where}, 90 %: "
        said += f"{low:.3g} to {high:.3g}; better with probability {p:.3g}"
        return said if max(p, 1 - p) >= SURE else f"undecided: {said}"

    def to_json(self) -> dict[str, Any]:
        """One object per compute or loss asked for; the object itself if there is one."""
        places = [self._place(i) for i in range(len(self.compute))]
        opening = {
            "base": self.names[0],
            "recipe": self.names[1],
            "law": self.law,
            "path": self.path,
            "converged": self.converged,
            "verdict": self.verdict,
            "notes": list(self.notes),
        }
        return {**opening, **places[0]} if len(places) == 1 else {**opening, "places": places}

    def _place(self, i: int) -> dict[str, Any]:
        beyond = self.beyond_runs[i]
        return {
            "compute_flop": float(self.compute[i]),
            "loss_nats": float(self.loss[i]),
            "asked": self.asked[i],
            "multiplier": self.quantity(i).to_json(),
            "multiplier_law_alone": Quantity("multiplier", self.law_alone[:, i]).to_json(),
            "probability_better": float(self.probability_better[i]),
            "decades_beyond_runs": None if np.isnan(beyond) else beyond,
        }

    def to_dataframe(self) -> pd.DataFrame:
        """One row per place."""
        import pandas as pd

        rows = [
            (c, loss, self.quantity(i).median, *self.quantity(i).interval(0.5), *self.quantity(i).interval(0.9), p)
            for i, (c, loss, p) in enumerate(
                zip(self.compute.tolist(), self.loss.tolist(), self.probability_better.tolist(), strict=True)
            )
        ]
        columns = ["compute_flop", "loss_nats", "multiplier", "lo50", "hi50", "lo90", "hi90", "probability_better"]
        return pd.DataFrame(rows, columns=columns)

    def __str__(self) -> str:
        table = self.to_dataframe().to_string(index=False, float_format=lambda x: f"{x:.4g}")
        return "\n".join([self.verdict, table, *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        from html import escape

        table = self.to_dataframe().to_html(index=False, float_format=lambda x: f"{x:.4g}")
        return f"<p>{escape(self.verdict)}</p>{table}"


def compare_recipes(
    base: Fit,
    recipe: Fit,
    *,
    compute: ArrayLike | None = None,
    loss: ArrayLike | None = None,
    N: float | None = None,
    names: tuple[str, str] | None = None,
    discrepancy: bool = True,
    seed: int = 0,
) -> Recipes:
    """Return by how much a recipe multiplies the compute of a base, at given compute or loss.

    Parameters
    ----------
    base, recipe : Posterior or ConstantSet
        Two fits of one law, each to the runs of one recipe, whose losses are of the same text and tokenizer.
    compute : number or 1-D array
        FLOP spent with the base; default, without ``loss``: the largest run that both have.
    loss : number or 1-D array
        Nats per token to be reached by both.
    N : float
        Compare runs of this size rather than the compute-optimal ones; for ``kaplan`` at the critical batch.
    discrepancy : bool
        Let each expected loss differ from the law as its own runs do. The two are drawn independently: where the law
        errs alike for both recipes, the interval is wider than it need be.
    seed : int

    Raises
    ------
    LawError
        The laws differ, or the law has no compute frontier and no N was given.
    """
    law = _one_law(base, recipe, N)
    spans = [compute_range(base), compute_range(recipe)]
    largest = min((span[1] for span in spans if span), default=np.nan)
    budgets = np.empty(0) if compute is None else positive("compute", compute)
    targets = np.empty(0) if loss is None else positive("loss", loss)
    if compute is None and loss is None:
        if np.isnan(largest):
            raise ConfigError("give compute= or loss=: there are no runs behind these constants to take it from")
        budgets = np.array([largest])
    grid = _grid(spans, budgets)
    models, why = _models(base, recipe, discrepancy)
    rng = np.random.default_rng([seed, 6])
    with_shift = [_log_loss(m, grid, N, seed + k) for k, m in enumerate(models)]
    alone = [_log_loss(f, grid, N, None) for f in (base, recipe)]
    first, second = _paired(with_shift, rng)
    found = _multipliers(first, second, grid, budgets, targets)
    other = _multipliers(*_paired(alone, rng), grid, budgets, targets)
    C = np.concatenate([budgets, found.base_C])
    beyond = np.log10(C / largest) if np.isfinite(largest) else np.full(len(C), np.nan)
    return Recipes(
        names or (_name(base, "base"), _name(recipe, "recipe")),
        law,
        C,
        np.concatenate([found.base_loss, targets]),
        ("compute",) * len(budgets) + ("loss",) * len(targets),
        found.ratio,
        other.ratio,
        found.lower,
        (np.exp(grid), np.exp(first), np.exp(second)),
        _converged(base, recipe),
        "compute-optimal runs" if N is None else f"runs of N = {N:g}",
        tuple(float(x) for x in beyond),
        why,
    )


@dataclass(frozen=True)
class _Found:
    ratio: Array
    lower: Array
    base_loss: Array
    base_C: Array


def _multipliers(first: Array, second: Array, grid: Array, budgets: Array, targets: Array) -> _Found:
    """What is asked of log losses (n, g) of base and recipe over log compute (g,)."""
    at_budget = [_at(np.log(budgets), grid, rows) for rows in (first, second)]
    wanted = np.concatenate([at_budget[0], np.broadcast_to(np.log(targets), (len(first), len(targets)))], axis=1)
    paid = _first_below(first, grid, wanted)
    paid[:, : len(budgets)] = np.log(budgets)
    needed = _first_below(second, grid, wanted)
    with np.errstate(invalid="ignore"):
        ratio = np.exp(np.where(np.isinf(paid) & np.isinf(needed), np.nan, paid - needed))
    place = np.where(np.isinf(paid), grid[-1], paid)[:, len(budgets) :]
    middle = np.median(place, axis=0)
    there = [_at(middle, grid, rows) for rows in (first, second)]
    lower = np.concatenate([at_budget[1] < at_budget[0], there[1] < there[0]], axis=1)
    return _Found(ratio, lower, np.exp(np.median(at_budget[0], axis=0)), np.exp(middle))


def _first_below(rows: Array, grid: Array, wanted: Array) -> Array:
    """(n, k) least place of the grid at which row i has fallen to wanted[i]; ±∞ where it never or always has."""
    falling = np.minimum.accumulate(rows, axis=1)
    found = np.empty(wanted.shape)
    for k, target in enumerate(wanted.T):
        after = (falling > target[:, None]).sum(axis=1)
        right = np.clip(after, 1, len(grid) - 1)
        high, low = (np.take_along_axis(falling, place[:, None], axis=1)[:, 0] for place in (right - 1, right))
        share = (high - target) / np.maximum(high - low, 1e-300)
        place = grid[right - 1] + share * (grid[1] - grid[0])
        found[:, k] = np.where(after == 0, -np.inf, np.where(after == len(grid), np.inf, place))
    return found


def _at(places: Array, grid: Array, rows: Array) -> Array:
    """(n, k) linear interpolation of every row (n, g) at the same places (k,)."""
    at = np.clip((places - grid[0]) / (grid[1] - grid[0]), 0, len(grid) - 1)
    left = np.minimum(at.astype(np.int64), len(grid) - 2)
    return np.asarray(rows[:, left] * (1 - (at - left)) + rows[:, left + 1] * (at - left))


def _log_loss(fit: Fit, grid: Array, N: float | None, seed: int | None) -> Array:
    """(n, g) draws of the expected log loss over log compute (g,)."""
    C = np.exp(grid)
    if N is None:
        plan = allocate(fit, C, backtest=None)
        log_loss, sizes = np.log(plan.draws["law_alone_loss"]), np.median(plan.draws["N"], axis=0)
    else:
        log_loss, sizes = np.log(_fixed_size(fit, N, C)), np.full(len(C), N)
    if seed is None or not isinstance(fit, Discrepancy):
        return log_loss
    role = "curve" if fit.law.form in ("joint", "curve") else "final"
    return np.asarray(log_loss + fit.shift(C, sizes, role, seed))


def _fixed_size(fit: Fit, N: float, C: Array) -> Array:
    """(n, g) expected loss of runs of one size."""
    tokens, p = C / (6 * N), columns_of(fit)
    law = getattr(fit, "law", None) or get_law(fit.law_name)
    if law.form == "joint":
        return critical_loss(np.full(len(C), N), tokens, p)
    columns = {"N": np.full(1, N), "tokens": tokens, "D": tokens}
    return np.asarray(law.loss(p, {name: columns[name] for name in law.columns}), dtype=np.float64)


def _one_law(base: Fit, recipe: Fit, N: float | None) -> str:
    if base.law_name != recipe.law_name:
        raise LawError(
            f"both recipes must be fitted by one law, got {base.law_name!r} and {recipe.law_name!r}: what differs "
            "would be the laws"
        )
    name = base.law_name
    if N is not None:
        law = None if name == FRONTIER_LAW else get_law(getattr(base, "law", None) or name)
        if law is None or (law.form != "joint" and not {"N", "tokens"} <= set(law.columns)):
            raise LawError(f"{name!r} does not price runs of a given size; leave N out, or use kaplan or chinchilla")
    return name


def _models(base: Fit, recipe: Fit, wanted: bool) -> tuple[list[Fit], tuple[str, ...]]:
    """Each fit with its discrepancy, or both without one."""
    if not wanted:
        return [base, recipe], ()
    found = [discrepancy_of(fit) for fit in (base, recipe)]
    missing = tuple(dict.fromkeys(one for one in found if isinstance(one, str)))
    if missing:
        return [base, recipe], missing
    return [one for one in found if isinstance(one, Discrepancy)], ()


def _paired(rows: list[Array], rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw i of the one beside draw i of the other: independent posteriors, so any pairing is a fair one."""
    num = max(len(one) for one in rows)
    first, second = (one[rng.permutation(np.resize(np.arange(len(one)), num))] for one in rows)
    return first, second


def _grid(spans: list[tuple[float, float] | None], budgets: Array) -> Array:
    """Log compute, evenly."""
    lows = [span[0] for span in spans if span] + budgets.tolist()
    highs = [span[1] for span in spans if span] + budgets.tolist()
    low, high = min(lows, default=1e15) * MARGIN[0], max(highs, default=1e25) * MARGIN[1]
    return np.linspace(np.log(low), np.log(high), int(np.ceil(np.log10(high / low) * PER_DECADE)) + 1)


def _converged(base: Fit, recipe: Fit) -> bool | None:
    states = [getattr(fit, "converged", None) for fit in (base, recipe)]
    return None if states == [None, None] else all(state is not False for state in states)


def _name(fit: Fit, otherwise: str) -> str:
    return str(getattr(fit, "name", "") or (source_of(fit) if getattr(fit, "runs", None) is not None else otherwise))
