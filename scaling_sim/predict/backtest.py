"""How wrong this law was about larger runs: a rolling back-test over compute on the user's own runs.

A posterior of a law's parameters is too narrow when it extrapolates, because no law is quite true. So the law is fitted
to the runs up to a cut in compute and asked for the rows beyond it, at several cuts. With h = ln(C/C_cut) and
r = ln(observed/predicted), each cut gives one slope d = Σ h·r/Σ h²; the slopes' mean (drift, shrunk to 0) and spread
make the discrepancy of a forecast at h beyond all runs: ln loss + d·h, with d drawn from a Student-t.

The cuts are nested, so their slopes share most held-out rows: they count as many as disjoint extrapolations of their
length fit into the held-out range. The spread is then widened until intervals made from the other cuts cover 90 % of
the held-out rows of each. A law with a floor E is shifted towards E and never below it (`shifted`).

The predictions are those of point fits, so r holds the law's error *and* that of its estimate: added to posterior
draws, the discrepancy errs on the wide side.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import ConfigError, ConvergenceError, DesignError, LawError
from scaling_sim.laws.registry import get_law

if TYPE_CHECKING:
    import pandas as pd

    from scaling_sim.laws.base import Law
    from scaling_sim.laws.observations import Observations
    from scaling_sim.runs.table import RunTable

Array = NDArray[np.float64]

NUM_CUTS = 6
MIN_HELD_OUT = 3
PRIOR_SLOPE = 0.005
"""Prior sd of the drift and prior scale of the spread, in ln loss per unit of ln C: a tenth of how fast losses fall."""
PRIOR_WEIGHT = 1.0
"""The prior of the spread counts as this many cuts."""
PRIOR_FREEDOM = 3.0
"""Degrees of freedom that the prior lends to the Student-t of the slope; its width is set by coverage anyway."""
LEVEL = 0.9
"""Intervals of this level must cover that share of the held-out rows."""


@dataclass(frozen=True)
class Slopes:
    """What the cuts say about d, the discrepancy of ln loss per unit of ln C.

    ``effective`` is the number of independent slopes, ``inflation`` what the scale is widened by to cover the rows.
    """

    drift: float
    drift_sd: float
    spread: float
    effective: float
    inflation: float = 1.0

    @classmethod
    def of(cls, slopes: Array, effective: float | None = None) -> Slopes:
        """Drift shrunk to 0 and spread shrunk to `PRIOR_SLOPE`, from slopes that count as ``effective`` ones."""
        num = len(slopes)
        count = float(num) if effective is None else min(effective, float(num))
        centre = float(np.mean(slopes)) if num else 0.0
        scatter = float(np.mean((slopes - centre) ** 2)) if num else 0.0
        squares = count * scatter + PRIOR_WEIGHT * PRIOR_SLOPE**2
        variance = squares / (max(count - 1, 0.0) + PRIOR_WEIGHT)
        precision = count / variance + 1 / max(PRIOR_SLOPE**2, centre**2)  # a large drift is no less likely a priori
        drift = count * centre / variance / precision
        return cls(drift, precision**-0.5, variance**0.5, count)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the Student-t."""
        return max(self.effective - 1, 0.0) + PRIOR_FREEDOM

    @property
    def scale(self) -> float:
        """Scale of the slope of the next, unseen extrapolation."""
        return self.inflation * float(np.hypot(self.spread, self.drift_sd))

    def draw(self, rng: np.random.Generator, num: int) -> Array:
        """(num,) slopes."""
        return self.drift + self.scale * rng.standard_t(self.freedom, size=num)


def shifted(loss: Array, floor: Any, shift: Array) -> Array:
    """Loss moved by ``shift`` in its logarithm; downwards it is L − E that shrinks, to the same first order.

    E + (L − E)·exp(shift·L/(L − E)) for shift < 0, L·exp(shift) above: smooth at 0 and never below E.
    """
    down = np.minimum(shift, 0.0)
    reducible = np.maximum(loss - floor, np.finfo(np.float64).tiny)
    with np.errstate(over="ignore"):
        return np.asarray(
            np.where(shift < 0, floor + reducible * np.exp(down * loss / reducible), loss * np.exp(shift))
        )


def _needed_shift(loss: Array, floor: Array | float, observed: Array) -> Array:
    """Return the shift by which `shifted` reaches ``observed``; −∞ at or below the floor."""
    reducible = np.maximum(loss - floor, np.finfo(np.float64).tiny)
    with np.errstate(divide="ignore"):
        down = np.log(np.maximum(observed - floor, 0.0) / reducible) * reducible / loss
    return np.asarray(np.where(observed < loss, down, np.log(observed / loss)))


@dataclass(frozen=True)
class Backtest:
    """Held-out rows of every cut, and the discrepancy learned from them.

    Attributes
    ----------
    cut, C, predicted, observed : (n,) arrays
        C_cut and C of the row in FLOP; losses in nats per token.
    noise : (n,) array
        Residual scale (in ln loss) of the fit that predicted the row.
    skipped : dict
        Cut → why it was left out.
    floor : (n,) array
        E of the fit that predicted the row, 0 for laws without a floor.
    fitted : dict
        Cut → point estimate of the law's parameters from the runs below it.
    """

    law_name: str
    cut: Array
    C: Array
    predicted: Array
    observed: Array
    noise: Array
    slopes: Slopes
    largest: float
    skipped: dict[float, str]
    floor: Array | float = 0.0
    fitted: dict[float, dict[str, float]] = field(default_factory=dict)

    @property
    def h(self) -> Array:
        """ln(C/C_cut) of each held-out row."""
        return np.log(self.C / self.cut)

    @property
    def residual(self) -> Array:
        """ln(observed/predicted) of each held-out row."""
        return np.log(self.observed / self.predicted)

    @property
    def reach_decades(self) -> float:
        """The farthest that a cut could be checked, in decades of compute."""
        return float(self.h.max() / np.log(10))

    def discrepancy(self, C: Any, num: int, seed: int = 0) -> Array:
        """(num, k) draws of the shift of ln loss at C (k,) FLOP; 0 inside the runs, one slope per draw."""
        h = np.maximum(np.log(np.atleast_1d(C) / self.largest), 0.0)
        return self.slopes.draw(np.random.default_rng(seed), num)[:, None] * h

    def shift_loss(self, loss: Array, floor: Any, C: Any, seed: int = 0) -> Array:
        """Add the discrepancy at C (k,) FLOP to (n_draws, k) losses of a law with this floor (0: none)."""
        return shifted(loss, floor, self.discrepancy(C, len(loss), seed))

    def coverage(self, level: float = LEVEL, discrepancy: bool = True) -> float:
        """Share of held-out rows inside the central interval of this level.

        With the discrepancy, a cut is judged by the slopes of the other cuts; without it, by the residual scale alone,
        as an i.i.d. fit would be.
        """
        from scipy.stats import norm

        if not discrepancy:
            return float(np.mean(np.abs(self.residual) <= norm.ppf((1 + level) / 2) * self.noise))
        needed = _needed_shift(self.predicted, self.floor, self.observed)
        return float(np.mean(self._inflation_needed(needed, level) <= self.slopes.inflation * (1 + 1e-9)))

    def _inflation_needed(self, shift: Array, level: float) -> Array:
        """Factor on the scale of the other cuts' slopes at which each row's shift enters the interval."""
        from scipy.stats import t

        factor = np.full(len(self.C), np.inf)
        for cut in np.unique(self.cut):
            rows = self.cut == cut
            others = _learned(self.cut[~rows], self.h[~rows], self.residual[~rows])
            off = np.abs(shift[rows] - others.drift * self.h[rows]) / float(t.ppf((1 + level) / 2, others.freedom))
            factor[rows] = np.sqrt(np.maximum(off**2 - self.noise[rows] ** 2, 0.0)) / (others.scale * self.h[rows])
        return factor

    def calibrated(self, level: float = LEVEL) -> Backtest:
        """Return this back-test with the spread widened until the intervals cover ``level`` of the held-out rows.

        A floor is left aside here, for no spread reaches below it; `coverage` counts what it costs.
        """
        needed = np.sort(self._inflation_needed(self.residual, level))
        factor = max(1.0, float(needed[int(np.ceil(level * len(needed))) - 1]))
        return replace(self, slopes=replace(self.slopes, inflation=factor))

    def caveat(self) -> str:
        """One sentence on what the 90 % interval of a forecast is worth."""
        covered = self.coverage(LEVEL)
        words = f"on the back-test the 90 % interval covered {covered:.0%} of the held-out rows"
        if self.slopes.inflation > 1:
            words += f", with the spread between cuts widened {self.slopes.inflation:.2g} times"
        if covered < LEVEL and np.any(np.asarray(self.floor) > 0):
            below = float(np.mean(self.observed <= self.floor))
            words += f"; it cannot reach below the fitted floor E, where {below:.0%} of the rows fell"
        return words

    def beyond(self, C: float) -> bool:
        """Whether C lies further from the runs than 1.5 times what the back-test reached."""
        from scaling_sim.predict.reach import Reach

        return Reach(self.largest, self.reach_decades).beyond(C)

    def to_json(self) -> dict[str, Any]:
        """Drift and spread per decade of compute, reach, and coverage with and without the discrepancy."""
        decade = float(np.log(10))
        return {
            "law": self.law_name,
            "num_cuts": len(np.unique(self.cut)),
            "num_held_out": len(self.C),
            "reach_decades": self.reach_decades,
            "largest_run_flop": self.largest,
            "num_effective_cuts": self.slopes.effective,
            "spread_inflation": self.slopes.inflation,
            "drift_log_loss_per_decade": self.slopes.drift * decade,
            "scale_log_loss_per_decade": self.slopes.scale * decade,
            "coverage90_law_alone": self.coverage(0.9, discrepancy=False),
            "coverage90_with_discrepancy": self.coverage(0.9),
            "skipped_cuts_flop": {f"{cut:.3g}": why for cut, why in self.skipped.items()},
        }

    def to_dataframe(self) -> pd.DataFrame:
        """One row per cut and held-out row."""
        import pandas as pd

        return pd.DataFrame(
            {
                "cut_flop": self.cut,
                "C_flop": self.C,
                "decades": self.h / np.log(10),
                "predicted_nats": self.predicted,
                "observed_nats": self.observed,
                "log_residual": self.residual,
            }
        )

    def summary(self) -> str:
        """Two sentences for a report."""
        j = self.to_json()
        return (
            f"Fitted to the runs below each of {j['num_cuts']} cuts in compute, the law was asked for "
            f"{j['num_held_out']} rows beyond, up to {self.reach_decades:.1f} decades away. Its loss drifted by "
            f"{np.expm1(j['drift_log_loss_per_decade']):+.1%} per decade; the 90 % interval covered "
            f"{j['coverage90_law_alone']:.0%} of the rows by the law alone and "
            f"{j['coverage90_with_discrepancy']:.0%} with the discrepancy that forecasts carry."
        )

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p>{escape(self.summary())}</p>"


def backtest(fit: Any, law: str | Law | None = None, *, num_cuts: int = NUM_CUTS) -> Backtest:
    """Fit the law below several cuts in compute and compare it with the rows beyond each.

    Parameters
    ----------
    fit : Posterior or RunTable
        A posterior (its runs and its law), or runs with ``law``.
    law : str or Law, optional
        Needed with runs.
    num_cuts : int
        Cuts, spaced evenly in the rank of C over the upper half of the rows.

    Raises
    ------
    DesignError
        If fewer than two cuts leave enough rows on both sides.
    """
    runs, form = _runs_and_law(fit, law)
    if num_cuts < 2:
        raise ConfigError(f"a spread needs at least 2 cuts, got num_cuts={num_cuts}")
    data = form.observe(runs)
    if form.response != "loss":
        raise LawError(f"{form.name!r} does not predict a loss, so no loss forecast of it can be back-tested")
    C = runs.C[data.row]
    parts: list[tuple[Array, ...]] = []
    skipped: dict[float, str] = {}
    fitted: dict[float, dict[str, float]] = {}
    for cut in _cuts(C, num_cuts):
        try:
            columns, parameters = _one_cut(form, runs, data, C, cut)
            parts.append(columns)
            fitted[float(cut)] = parameters
        except (DesignError, ConvergenceError) as error:
            skipped[float(cut)] = str(error)
    if len(parts) < 2:
        why = "; ".join(dict.fromkeys(skipped.values())) or "the rows span too little compute"
        raise DesignError(f"a back-test needs at least 2 cuts in compute with enough rows on both sides: {why}")
    cuts, held, predicted, observed, noise, floor = (np.concatenate(column) for column in zip(*parts, strict=True))
    slopes = _learned(cuts, np.log(held / cuts), np.log(observed / predicted))
    largest = float(C.max())
    return Backtest(
        form.name, cuts, held, predicted, observed, noise, slopes, largest, skipped, floor, fitted
    ).calibrated()


_CACHE: dict[tuple[str, str, str], Backtest | str] = {}


def backtest_of(fit: Any) -> Backtest | str:
    """Return the back-test of a posterior's runs, made once per data set and law; in words why there is none."""
    runs = getattr(fit, "runs", None)
    if runs is None:
        return "no back-test: there are no runs behind these constants"
    _, form = _runs_and_law(fit, None)
    key = (runs.data_hash, form.name, repr(form.options()))
    if key not in _CACHE:
        if len(_CACHE) >= 64:
            _CACHE.clear()
        try:
            _CACHE[key] = backtest(fit)
        except (DesignError, LawError) as error:
            _CACHE[key] = str(error)
    return _CACHE[key]


def _runs_and_law(fit: Any, law: str | Law | None) -> tuple[RunTable, Law]:
    runs = getattr(fit, "runs", None)
    if runs is not None:
        return runs, get_law(law or getattr(fit, "law", None) or fit.law_name)
    if hasattr(fit, "loss") and hasattr(fit, "C") and law is not None:
        return fit, get_law(law)
    raise DesignError("a back-test needs a posterior, or runs with law=; published constants come without runs")


def _cuts(C: Array, num_cuts: int) -> Array:
    """Compute at evenly spaced ranks of the upper half of the rows, the largest left out."""
    values = np.sort(C)
    places = np.linspace(0.5, 1.0, num_cuts + 1)[:-1] * (len(values) - 1)
    return np.unique(values[places.astype(np.int64)])


def _one_cut(
    law: Law, runs: RunTable, data: Observations, C: Array, cut: float
) -> tuple[tuple[Array, ...], dict[str, float]]:
    """C_cut, C, predicted and observed loss, residual scale and floor of the rows beyond one cut; the fit below it."""
    from scaling_sim.inference.point import point_fit

    beyond = np.flatnonzero(np.greater(C, cut))
    if len(beyond) < MIN_HELD_OUT:
        raise DesignError(f"fewer than {MIN_HELD_OUT} rows lie beyond a cut")
    below = runs.select(np.less_equal(runs.C, cut), "beyond the cut of a back-test")
    fitted = point_fit(below, law, "posterior")  # the mode of what is sampled: outliers count as little as there
    held = data.take(beyond)
    predicted = np.exp(law.log_response(fitted.parameters, held.columns))
    scale = 1.4826 * float(np.median(np.abs(fitted.residuals)))
    full = np.ones(len(beyond))
    parameters = {name: float(np.ravel(value)[0]) for name, value in fitted.parameters.items()}
    columns = (cut * full, C[beyond], predicted * full, held.response, scale * full, parameters.get("E", 0.0) * full)
    return columns, parameters


def _slopes(cut: Array, h: Array, residual: Array) -> Array:
    """One least-squares slope through the origin per cut."""
    groups = [cut == value for value in np.unique(cut)]
    return np.array([float(h[g] @ residual[g] / (h[g] @ h[g])) for g in groups])


def _learned(cut: Array, h: Array, residual: Array) -> Slopes:
    """Slopes of the cuts, counted as many as disjoint extrapolations of their mean length fit into the rows' range."""
    groups = [cut == value for value in np.unique(cut)]
    if not groups:
        return Slopes.of(np.array([]))
    ends = np.array([(np.log(cut[g][0]), np.log(cut[g][0]) + h[g].max()) for g in groups])
    blocks = (ends[:, 1].max() - ends[:, 0].min()) / float(np.mean(ends[:, 1] - ends[:, 0]))
    return Slopes.of(_slopes(cut, h, residual), effective=max(1.0, float(blocks)))
