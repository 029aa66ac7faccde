"""Do the law, the isoFLOP minima and the envelope agree on the best size? Three readings of one sweep, with a verdict.

The three approaches of Hoffmann et al. (2022, arXiv 2203.15556) gave exponents of .46 to .50 on one set of runs, and
the difference told of a fault in one of them (Besiroglu et al. 2024). So they are made together:

law       N*(C) of every posterior draw of the law
isoflop   minima of a cubic in ln N at every budget that brackets one, and a power law through them
envelope  the size of least loss at every budget, and a power law through these, bootstrapped over runs
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_sim.errors import ConfigError, DataError, DesignError, LawError
from scaling_sim.predict.allocate import allocate
from scaling_sim.predict.envelope import MIN_POINTS, bracketed_envelope
from scaling_sim.predict.isoflop import Minima, isoflop_minima, power_law
from scaling_sim.predict.quantity import Quantity
from scaling_sim.predict.slices import Points, points_of, slices_of
from scaling_sim.predict.source import Fit, compute_range, head

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

WORDS = {"law": "the law", "isoflop": "the isoFLOP minima", "envelope": "the envelope"}
LEVEL = 0.9
"""Of intervals, and of the joint regions by which methods agree or not."""
NUM_DRAWS = 2000
ENVELOPE_PLACES = 60
"""Budgets at which the envelope of learning curves is read; it steps from size to size between them."""


@dataclass(frozen=True)
class Estimate:
    """What one method says: draws of the exponent a in N* ∝ C^a and of N* at each budget, (n_draws,) and (n_draws, k).

    ``span`` is the compute (FLOP) between which the method measured; beyond it N* follows its power law. ``basis`` says
    from what, ``budget`` is the first budget.
    """

    exponent: Quantity
    log_N: Array
    span: tuple[float, float] | None
    basis: str
    budget: float

    def N(self, i: int = 0) -> Quantity:
        """N* at budget ``i``, parameters."""
        return Quantity("N", np.exp(self.log_N[:, i]), "parameters")

    def at(self, compute: Array) -> Array:
        """Draws of ln N* along the power law through the first budget, (n_draws, k) at (k,) FLOP."""
        return np.asarray(self.log_N[:, :1] + self.exponent.draws[:, None] * np.log(compute / self.budget))


@dataclass(frozen=True)
class Difference:
    """N* of one method over that of another at the budget where they differ most surely, and of their exponents."""

    first: str
    second: str
    compute: float
    ratio: Quantity
    exponent: Quantity
    agree: bool
    """The joint region of (ln ratio, exponent difference) holds (0, 0): a question about two lines, whatever the
    budget at which N* is read. Over all pairs, two that truly agree are called apart in at most 10 % of sweeps."""


@dataclass(frozen=True)
class Methods:
    """Three methods side by side.

    Attributes
    ----------
    compute : (k,) budgets, FLOP paid, at which N* is given
    estimates : method → Estimate, of those that could be made
    refused : method → why it could not
    minima : the isoFLOP fits, for figures; None where there are none
    """

    compute: Array
    estimates: Mapping[str, Estimate]
    refused: Mapping[str, str]
    minima: Minima | None
    header: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    seed: int = 0
    _pairs: tuple[Difference, ...] = field(default=(), repr=False)

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Every pair of methods that could be made."""
        return self._pairs

    @property
    def agree(self) -> bool | None:
        """Whether all pairs agree; None if fewer than two methods could be made."""
        return all(pair.agree for pair in self._pairs) if self._pairs else None

    @property
    def verdict(self) -> str:
        """Agreement or disagreement in words, and which method could not be made and why."""
        failed = [f"{_capital(WORDS[name])} cannot be made: {why}." for name, why in self.refused.items()]
        return " ".join([_pair_words(self._pairs), *failed])

    def to_json(self) -> dict[str, Any]:
        """Per method the exponent and N* at every budget; the differences; the verdict."""
        made = {
            name: {
                "exponent": e.exponent.to_json(),
                "N_parameters": [e.N(i).to_json() for i in range(len(self.compute))],
                "measured_flop": None if e.span is None else list(e.span),
                "basis": e.basis,
            }
            for name, e in self.estimates.items()
        }
        pairs = [
            {"methods": [d.first, d.second], "agree": d.agree, "compute_flop": d.compute, "N_ratio": d.ratio.to_json(),
             "exponent_difference": d.exponent.to_json()}
            for d in self._pairs
        ]  # fmt: skip
        return {
            **self.header,
            "compute_flop": self.compute.tolist(),
            "agree": self.agree,
            "verdict": self.verdict,
            "methods": made,
            "cannot_be_made": dict(self.refused),
            "differences": pairs,
            "notes": list(self.notes),
        }

    def to_dataframe(self) -> pd.DataFrame:
        """One row per method and budget: exponent and N* with their 90 % intervals."""
        import pandas as pd

        rows = []
        for name, estimate in self.estimates.items():
            for i, C in enumerate(self.compute):
                rows.append((name, float(C), *_three(estimate.exponent), *_three(estimate.N(i))))
        names = ("exponent", "exponent_lo90", "exponent_hi90", "N", "N_lo90", "N_hi90")
        return pd.DataFrame(rows, columns=["method", "compute_flop", *names]).set_index("method")

    def __str__(self) -> str:
        return f"{self.to_dataframe().to_string(float_format=lambda x: f'{x:.4g}')}\n\n{self.verdict}"

    def _repr_html_(self) -> str:
        from html import escape

        table = self.to_dataframe().to_html(float_format=lambda x: f"{x:.4g}")
        return f"{table}<p>{escape(self.verdict)}</p>"


def compare_methods(fit: Fit, compute: ArrayLike | None = None, *, seed: int = 0) -> Methods:
    """N*(C) and its exponent by the law, by isoFLOP minima and by the envelope of the same runs, with a verdict.

    Parameters
    ----------
    fit : Posterior
        With its runs; for a law without a compute-optimal size the other two methods are still made.
    compute : float or (k,) array
        Budgets in FLOP paid; by default the runs' median and largest compute. For fits that know B_crit a budget is
        spent at the critical batch.
    seed : int
        Of the resamples.
    """
    budgets, span = _budgets(fit, compute), compute_range(fit)
    rng = np.random.default_rng(seed)
    estimates: dict[str, Estimate] = {}
    refused: dict[str, str] = {}
    minima: Minima | None = None
    notes: list[str] = []
    try:
        estimates["law"] = _by_law(fit, budgets, span)
    except LawError as error:
        refused["law"] = _reason(error)
    try:
        points = points_of(fit)
    except DataError as error:
        refused |= {"isoflop": _reason(error), "envelope": _reason(error)}
    else:
        notes += [points.note] if points.note else []
        read, failed, minima = read_off(points, budgets, rng)
        estimates, refused = estimates | read, refused | failed
    names = list(combinations(estimates, 2))
    pairs = tuple(_difference(estimates, pair, len(names), budgets, rng) for pair in names)
    return Methods(budgets, estimates, refused, minima, head(fit), tuple(notes), seed, pairs)


def read_off(
    points: Points, budgets: Array, rng: np.random.Generator
) -> tuple[dict[str, Estimate], dict[str, str], Minima | None]:
    """N*(C) by isoFLOP minima and by the envelope of ``points``, whatever their N and C count; no law is needed.

    Parameters
    ----------
    points : Points
        `scaling_sim.predict.slices.points_of` a fit, or one's own.
    budgets : (k,) array
        Compute, counted as in ``points``, at which N* is given.

    Returns
    -------
    estimates by method, why the others could not be made, and the isoFLOP fits.
    """
    estimates: dict[str, Estimate] = {}
    refused: dict[str, str] = {}
    minima: Minima | None = None
    try:
        minima = isoflop_minima(slices_of(points), num_draws=NUM_DRAWS, seed=int(rng.integers(2**31)))
        estimates["isoflop"] = _by_minima(minima, budgets)
    except DesignError as error:
        refused["isoflop"] = _reason(error)
    try:
        estimates["envelope"] = _by_envelope(points, budgets, rng)
    except DesignError as error:
        refused["envelope"] = _reason(error)
    return estimates, refused, minima


def _budgets(fit: Fit, compute: ArrayLike | None) -> Array:
    """The budgets asked for, in rising order; else the median and the largest compute of the runs."""
    runs = getattr(fit, "runs", None)
    if compute is None and runs is not None:
        known = runs.C[np.isfinite(runs.C) & (runs.C > 0)]
        compute = np.quantile(known, [0.5, 1.0], method="higher") if known.size else None
    if compute is None:
        raise ConfigError("give compute=: the fit has no runs from whose compute a budget could be taken")
    budgets = np.unique(np.asarray(compute, dtype=np.float64))
    if not (budgets.size and np.all(np.isfinite(budgets)) and np.all(budgets > 0)):
        raise ConfigError(f"compute must be positive numbers of FLOP, got {compute}")
    return budgets


def _by_law(fit: Fit, budgets: Array, span: tuple[float, float] | None) -> Estimate:
    """Draws of N*, and the slope of ln N* between the ends of the runs' compute."""
    ends = np.array(span if span is not None and span[0] < span[1] else (budgets[0] / 10, budgets[-1]))
    log_N = np.log(allocate(fit, np.concatenate([budgets, ends]), backtest=None).draws["N"])
    slope = (log_N[:, -1] - log_N[:, -2]) / np.log(ends[1] / ends[0])
    return Estimate(
        Quantity("exponent", slope), log_N[:, :-2], span, f"{fit.law_name}, every posterior draw", float(budgets[0])
    )


def _by_minima(minima: Minima, budgets: Array) -> Estimate:
    slope, level, centre = power_law(minima.log_C, minima.log_N)
    log_N = level[:, None] + slope[:, None] * (np.log(budgets) - centre)
    ends = float(np.exp(minima.log_C.min())), float(np.exp(minima.log_C.max()))
    words = f"cubic minima at {len(minima.log_C)} budgets"
    return Estimate(Quantity("exponent", slope), log_N, ends, words, float(budgets[0]))


def _by_envelope(points: Points, budgets: Array, rng: np.random.Generator) -> Estimate:
    """Least loss per budget, if a smaller and a larger size were measured there; runs resampled with replacement."""
    pick = _curve_envelope(points) if points.curves else _point_envelope(points)
    all_runs = np.ones(points.num_runs, dtype=bool)
    x = pick(all_runs)[0]
    if len(x) < MIN_POINTS:
        raise DesignError(
            f"the least loss lies between a smaller and a larger size at {len(x)} budgets, {MIN_POINTS} needed"
        )
    centre, lines = float(x.mean()), []
    for _ in range(NUM_DRAWS):
        kept = np.zeros(points.num_runs, dtype=bool)
        kept[rng.integers(points.num_runs, size=points.num_runs)] = True
        u, v = pick(kept)
        if len(u) >= MIN_POINTS and np.ptp(u) > 0:
            lines.append(np.polyfit(u - centre, v, 1))
    if len(lines) < 0.9 * NUM_DRAWS:
        share = len(lines) / NUM_DRAWS
        raise DesignError(
            f"the envelope has {MIN_POINTS} bracketed budgets in {share:.0%} of the resamples of runs only"
        )
    slope, level = np.array(lines).T
    log_N = level[:, None] + slope[:, None] * (np.log(budgets) - centre)
    ends = float(np.exp(x.min())), float(np.exp(x.max()))
    words = f"least loss at {len(x)} budgets, bootstrap over runs"
    return Estimate(Quantity("exponent", slope), log_N, ends, words, float(budgets[0]))


def _point_envelope(points: Points) -> Any:
    """Function of the runs kept (n_runs,) bool → ln C and ln N of the envelope of finished runs."""

    def pick(kept: NDArray[np.bool_]) -> tuple[Array, Array]:
        rows = np.flatnonzero(kept[points.run])
        C, N = points.log_C[rows], points.log_N[rows]
        best = bracketed_envelope(C, points.log_loss[rows], N)
        return C[best], N[best]

    return pick


def _curve_envelope(points: Points) -> Any:
    """The same of learning curves, at budgets even in ln C."""
    slices = slices_of(points, ENVELOPE_PLACES)
    at = np.array([s.at for s in slices])
    loss = np.full((len(slices), points.num_runs), np.inf)
    size = np.zeros(points.num_runs)
    for k, one in enumerate(slices):
        loss[k, one.run] = one.log_loss
        size[one.run] = one.log_N

    def pick(kept: NDArray[np.bool_]) -> tuple[Array, Array]:
        seen = np.where(kept, loss, np.inf)
        there = np.isfinite(seen)
        low = np.where(there, size, np.inf).min(axis=1, initial=np.inf)
        high = np.where(there, size, -np.inf).max(axis=1, initial=-np.inf)
        best = size[np.argmin(seen, axis=1)] if len(seen) else np.array([])
        inside = (low < best) & (best < high)
        return at[inside], best[inside]

    return pick


def _difference(
    estimates: Mapping[str, Estimate],
    names: tuple[str, str],
    num_pairs: int,
    budgets: Array,
    rng: np.random.Generator,
) -> Difference:
    """Draws of the two paired at random. Both read the same runs, so that their errors share a part: this errs wide."""
    first, second = (estimates[name] for name in names)
    i = rng.integers(len(first.log_N), size=2 * NUM_DRAWS)
    j = rng.integers(len(second.log_N), size=2 * NUM_DRAWS)
    apart = first.log_N[i] - second.log_N[j]
    k = int(np.argmax(np.abs(np.median(apart, axis=0)) / np.ptp(np.quantile(apart, [0.05, 0.95], axis=0), axis=0)))
    exponent = first.exponent.draws[i] - second.exponent.draws[j]
    agree = _holds_zero(np.stack([apart[:, k], exponent], axis=1), 1 - (1 - LEVEL) / num_pairs)
    ratio = Quantity("N_ratio", np.exp(apart[:, k]))
    return Difference(*names, float(budgets[k]), ratio, Quantity("exponent_difference", exponent), agree)


def _holds_zero(draws: Array, level: float) -> bool:
    """Whether 0 lies in the elliptic region around the median that holds ``level`` of draws (n_draws, 2)."""
    centre = np.median(draws, axis=0)
    precision = np.linalg.pinv(np.cov(draws.T))
    distance = np.einsum("di,ij,dj->d", draws - centre, precision, draws - centre)
    return bool(centre @ precision @ centre <= np.quantile(distance, level))


def _pair_words(pairs: tuple[Difference, ...]) -> str:
    if not pairs:
        return "Fewer than two methods could be made: there is nothing to compare."
    apart = [pair for pair in pairs if not pair.agree]
    if not apart:
        names = _join(list(dict.fromkeys(name for pair in pairs for name in (pair.first, pair.second))))
        worst = max((pair.ratio.median for pair in pairs), key=lambda r: abs(np.log(r)))
        return (
            f"{names} agree on N*(C) and its exponent within their joint 90 % uncertainty; their medians of N* differ "
            f"by a factor of {max(worst, 1 / worst):.2f} at most."
        )
    return " ".join(_disagreement(pair) for pair in apart)


def _disagreement(pair: Difference) -> str:
    (low, high), (a, b) = pair.ratio.interval(LEVEL), pair.exponent.interval(LEVEL)
    return (
        f"{_join([pair.first, pair.second])} disagree by more than their joint 90 % uncertainty: at {pair.compute:.3g} "
        f"FLOP N* by {WORDS[pair.first]} is {pair.ratio.median:.2f} ({low:.2f} to {high:.2f}) times that by "
        f"{WORDS[pair.second]}, the exponents differ by {pair.exponent.median:+.3f} ({a:+.3f} to {b:+.3f})."
    )


def _join(names: list[str]) -> str:
    words = [WORDS[name] for name in names]
    return _capital(f"{', '.join(words[:-1])} and {words[-1]}")


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _reason(error: Exception) -> str:
    return str(error).rstrip(".")


def _three(quantity: Quantity) -> tuple[float, float, float]:
    return (quantity.median, *quantity.interval(LEVEL))
