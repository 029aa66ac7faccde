"""How well forecasts of larger runs would have done on the user's own runs: a rolling back-test over compute.

The runs up to a cut in compute are fitted as all of them are (`scaling_sim.predict.discrepancy`), and the runs beyond
it are forecast: at several cuts. Nothing is tuned to what comes out; it is the evidence that a forecast's interval
deserves its name on these runs, or that it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from warnings import warn

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import ConfigError, ConvergenceError, DesignError, LawError, RegimeWarning
from scaling_sim.laws.registry import get_law
from scaling_sim.predict.discrepancy import forecast_rows, learn
from scaling_sim.predict.law_alone import law_alone
from scaling_sim.predict.regime import RegimeChange, regime_change

if TYPE_CHECKING:
    import pandas as pd

    from scaling_sim.laws.base import Law
    from scaling_sim.laws.observations import Observations
    from scaling_sim.runs.table import RunTable

Array = NDArray[np.float64]

NUM_CUTS = 6
MIN_HELD_OUT = 3
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles that are kept of each forecast."""
NUM_DRAWS = 1000


@dataclass(frozen=True)
class Backtest:
    """Held-out rows of every cut, and what was forecast of them.

    "The law alone" is what a forecast would be if the law were true: the posterior of its parameters under errors that
    do not depend on compute (`scaling_sim.predict.law_alone`), and a Student-t error for each run on top.

    Attributes
    ----------
    cut, C, observed : (n,) arrays
        C_cut and C of the row in FLOP; its loss in nats per token.
    predicted : (n,) array
        Loss by the law alone, at the mode of its posterior.
    quantiles, law_quantiles : (n, 5) arrays
        5, 25, 50, 75 and 95 % quantiles of the forecast, and of the law alone, nats per token.
    crps, crps_law : (n,) arrays
        Continuous ranked probability score of the forecast, and of the law alone, in ln loss.
    skipped : dict
        Cut → why it was left out.
    fitted : dict
        Cut → point estimate of the law's parameters from the runs below it.
    regime : RegimeChange or None
        The smallest runs, if the others do not foretell them.
    """

    law_name: str
    cut: Array
    C: Array
    observed: Array
    predicted: Array
    quantiles: Array
    law_quantiles: Array
    crps: Array
    crps_law: Array
    largest: float
    skipped: dict[float, str] = field(default_factory=dict)
    fitted: dict[float, dict[str, float]] = field(default_factory=dict)
    regime: RegimeChange | None = None

    @property
    def h(self) -> Array:
        """ln(C/C_cut) of each held-out row."""
        return np.log(self.C / self.cut)

    @property
    def residual(self) -> Array:
        """ln(observed/predicted) of each held-out row, by the law alone."""
        return np.log(self.observed / self.predicted)

    @property
    def reach_decades(self) -> float:
        """The farthest that a cut could be checked, in decades of compute."""
        return float(self.h.max() / np.log(10))

    @property
    def drift(self) -> float:
        """How much ln loss moves away from the law alone per unit of ln C, the mean over cuts."""
        groups = [self.cut == value for value in np.unique(self.cut)]
        return float(np.mean([self.h[g] @ self.residual[g] / (self.h[g] @ self.h[g]) for g in groups]))

    def coverage(self, level: float = 0.9, *, law_alone: bool = False) -> float:
        """Share of held-out rows inside the central interval (0.5 or 0.9) of the forecast, or of the law alone."""
        if level not in (0.5, 0.9):
            raise ConfigError(f"the back-test keeps intervals of level 0.5 and 0.9, got {level}")
        quantiles = self.law_quantiles if law_alone else self.quantiles
        low, high = quantiles[:, [0, -1] if level == 0.9 else [1, 3]].T
        return float(np.mean((low <= self.observed) & (self.observed <= high)))

    def caveat(self) -> str:
        """One sentence on what the 90 % interval of a forecast is worth."""
        return (
            f"on the back-test the 90 % interval covered {self.coverage(0.9):.0%} of {len(self.C)} held-out rows of "
            f"{len(np.unique(self.cut))} cuts, which share rows" + ("" if self.regime is None else f"; {self.regime}")
        )

    def beyond(self, C: float) -> bool:
        """Whether C lies further from the runs than 1.5 times what the back-test reached."""
        from scaling_sim.predict.reach import Reach

        return Reach(self.largest, self.reach_decades).beyond(C)

    def to_json(self) -> dict[str, Any]:
        """Reach, coverage and CRPS with and without the discrepancy, and the drift of the law alone."""
        return {
            "law": self.law_name,
            "num_cuts": len(np.unique(self.cut)),
            "num_held_out": len(self.C),
            "reach_decades": self.reach_decades,
            "largest_run_flop": self.largest,
            "coverage90": self.coverage(0.9),
            "coverage50": self.coverage(0.5),
            "coverage90_law_alone": self.coverage(0.9, law_alone=True),
            "coverage50_law_alone": self.coverage(0.5, law_alone=True),
            "crps_log_loss": float(self.crps.mean()),
            "crps_log_loss_law_alone": float(self.crps_law.mean()),
            "drift_of_law_alone_log_loss_per_decade": self.drift * float(np.log(10)),
            "regime_change": None if self.regime is None else self.regime.to_json(),
            "skipped_cuts_flop": {f"{cut:.3g}": why for cut, why in self.skipped.items()},
        }

    def to_dataframe(self) -> pd.DataFrame:
        """One row per cut and held-out row."""
        import pandas as pd

        quantiles = {f"forecast_{level:g}_nats": self.quantiles[:, i] for i, level in enumerate(LEVELS)}
        return pd.DataFrame(
            {
                "cut_flop": self.cut,
                "C_flop": self.C,
                "decades": self.h / np.log(10),
                "observed_nats": self.observed,
                **quantiles,
                "law_alone_nats": self.predicted,
                "crps_log_loss": self.crps,
                "crps_log_loss_law_alone": self.crps_law,
            }
        )

    def summary(self) -> str:
        """Three sentences for a report."""
        j = self.to_json()
        return (
            f"Fitted to the runs below each of {j['num_cuts']} cuts in compute, forecasts were asked for "
            f"{j['num_held_out']} rows beyond, up to {self.reach_decades:.1f} decades away: their 90 % intervals "
            f"covered {j['coverage90']:.0%} and their 50 % intervals {j['coverage50']:.0%}. The law alone would have "
            f"covered {j['coverage90_law_alone']:.0%} with its 90 % intervals; its loss drifted by "
            f"{np.expm1(j['drift_of_law_alone_log_loss_per_decade']):+.1%} per decade. The forecasts' mean score "
            f"(CRPS, smaller is better) was {self.crps.mean() / self.crps_law.mean():.2f} of the law's."
        )

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p>{escape(self.summary())}</p>"


def backtest(
    fit: Any, law: str | Law | None = None, *, num_cuts: int = NUM_CUTS, cuts: Sequence[float] | None = None
) -> Backtest:
    """Forecast the rows beyond several cuts in compute from those below each.

    Parameters
    ----------
    fit : Posterior or RunTable
        A posterior (its runs and its law), or runs with ``law``.
    law : str or Law, optional
        Needed with runs.
    num_cuts : int
        Cuts, spaced evenly in the rank of C over the upper half of the rows.
    cuts : sequence of float, optional
        Where to cut instead, FLOP; one is enough.

    Raises
    ------
    DesignError
        If fewer than two cuts (none of those given) leave enough rows on both sides.

    Warns
    -----
    RegimeWarning
        If the smallest runs follow another law than the rest.
    """
    runs, form = _runs_and_law(fit, law)
    if num_cuts < 2:
        raise ConfigError(f"a back-test needs at least 2 cuts, got num_cuts={num_cuts}")
    data = form.observe(runs)
    if form.response != "loss":
        raise LawError(f"{form.name!r} does not predict a loss, so no loss forecast of it can be back-tested")
    C = runs.C[data.row]
    parts: list[dict[str, Array]] = []
    skipped: dict[float, str] = {}
    fitted: dict[float, dict[str, float]] = {}
    for cut in spaced_cuts(C, num_cuts) if cuts is None else np.unique(np.asarray(cuts, dtype=np.float64)):
        try:
            columns, fitted[float(cut)] = _one_cut(form, runs, data, C, cut)
            parts.append(columns)
        except (DesignError, ConvergenceError) as error:
            skipped[float(cut)] = str(error)
    least = 2 if cuts is None else 1
    if len(parts) < least:
        why = "; ".join(dict.fromkeys(skipped.values())) or "the rows span too little compute"
        raise DesignError(
            f"a back-test needs at least {least} cut{'s'[: least - 1]} in compute with enough rows on both sides: {why}"
        )
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    regime = regime_change(runs, form)
    if regime is not None:
        warn(str(regime), RegimeWarning, stacklevel=2)
    return Backtest(form.name, largest=float(C.max()), skipped=skipped, fitted=fitted, regime=regime, **joined)


_CACHE: dict[tuple[Any, ...], Backtest | str] = {}


def backtest_of(fit: Any, cuts: tuple[float, ...] | None = None) -> Backtest | str:
    """Return the back-test of a posterior's runs, made once per data set, law and cuts; in words why there is none."""
    runs = getattr(fit, "runs", None)
    if runs is None:
        return "no back-test: there are no runs behind these constants"
    _, form = _runs_and_law(fit, None)
    key = (runs.data_hash, type(form), repr(form.options()), cuts)  # the class: a user may register a name again
    if key not in _CACHE:
        if len(_CACHE) >= 64:
            _CACHE.clear()
        try:
            _CACHE[key] = backtest(fit, cuts=cuts)
        except (DesignError, LawError) as error:
            _CACHE[key] = str(error)
    return _CACHE[key]


def crps(draws: Array, observed: Array) -> Array:
    """Continuous ranked probability scores (k,), E|X − y| − E|X − X'|/2, of draws (n, k) against observations (k,)."""
    ordered, n = np.sort(draws, axis=0), len(draws)
    rank = (2.0 * np.arange(1, n + 1) - n - 1) / n**2
    return np.asarray(np.abs(ordered - observed).mean(axis=0) - rank @ ordered)


def _runs_and_law(fit: Any, law: str | Law | None) -> tuple[RunTable, Law]:
    runs = getattr(fit, "runs", None)
    if runs is not None:
        return runs, get_law(law or getattr(fit, "law", None) or fit.law_name)
    if hasattr(fit, "loss") and hasattr(fit, "C") and law is not None:
        return fit, get_law(law)
    raise DesignError("a back-test needs a posterior, or runs with law=; published constants come without runs")


def spaced_cuts(C: Array, num_cuts: int = NUM_CUTS) -> Array:
    """Compute at evenly spaced ranks of the upper half of the rows, the largest left out."""
    values = np.sort(C)
    if not len(values):
        return values
    places = np.linspace(0.5, 1.0, num_cuts + 1)[:-1] * (len(values) - 1)
    return np.unique(values[places.astype(np.int64)])


def _one_cut(
    law: Law, runs: RunTable, data: Observations, C: Array, cut: float
) -> tuple[dict[str, Array], dict[str, float]]:
    """What `Backtest` keeps of the rows beyond one cut, and the law's point estimate below it."""
    beyond = np.flatnonzero(np.greater(C, cut))
    if len(beyond) < MIN_HELD_OUT:
        raise DesignError(f"fewer than {MIN_HELD_OUT} rows lie beyond a cut")
    below = runs.select(np.less_equal(runs.C, cut), "beyond the cut of a back-test")
    held, full = data.take(beyond), np.ones(len(beyond))
    point, alone = law_alone(below, law, held, NUM_DRAWS)
    forecast = forecast_rows(learn(below, law, num_draws=NUM_DRAWS), held, C[beyond], runs.N[held.row])
    observed = np.log(held.response)
    columns = {
        "cut": cut * full,
        "C": C[beyond],
        "observed": held.response,
        "predicted": np.exp(law.log_response(point, held.columns) * full),
        "quantiles": _quantiles(forecast),
        "law_quantiles": _quantiles(alone),
        "crps": crps(forecast, observed),
        "crps_law": crps(alone, observed),
    }
    return columns, {name: float(np.ravel(value)[0]) for name, value in point.items()}


def _quantiles(log_loss: Array) -> Array:
    """(k, 5) quantiles, in nats, of draws (n, k); the nearest draws, which may be infinite."""
    return np.asarray(np.exp(np.quantile(log_loss, LEVELS, axis=0, method="nearest")).T)
