"""Which law to use: leave-one-out densities for interpolation, weights by back-test for extrapolation, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import DataError
from scaling_sim.inference.comparison import LeaveOneOut, check_comparable, leave_one_out, stack
from scaling_sim.inference.posterior import Posterior
from scaling_sim.predict.backtest import Backtest, backtest_of

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

NU = 4.0
"""Degrees of freedom of held-out errors."""
MIN_CUTS = 3
CLEAR = 2.0
"""Standard errors beyond which leave-one-out tells two laws apart."""


@dataclass(frozen=True)
class BacktestWeights:
    """Held-out rows that all laws predicted from below the same cuts in compute.

    At each cut a law's predictive density is a Student-t about its prediction whose squared scale a² + (b·h)²,
    h = ln(C/C_cut), fits its errors at the *other* cuts: a law that errs far beyond its cuts pays with its width.
    Each cut counts the same. The cuts are nested, so that they share most held-out rows: these are weights for a
    mixture, not evidence that adds up.

    Attributes
    ----------
    weights : law → share in the mixture of laws that gives held-out rows the highest mean log density (stacking)
    log_score : law → mean over cuts of the mean log density of ln loss
    crps : law → mean over cuts of the CRPS of ln loss, i.e. about the relative error that it is worth
    error : law → mean over cuts of |ln(observed/predicted)|
    wins : law → cuts at which its log score is the highest
    """

    weights: Mapping[str, float]
    log_score: Mapping[str, float]
    crps: Mapping[str, float]
    error: Mapping[str, float]
    wins: Mapping[str, int]
    num_rows: int
    num_cuts: int
    reach_decades: float

    @property
    def best(self) -> str:
        """The law of the highest mean log score."""
        return max(self.log_score, key=lambda law: self.log_score[law])


@dataclass(frozen=True)
class Comparison:
    """Laws compared on the same runs.

    Attributes
    ----------
    loo : leave-one-out densities, which judge interpolation; or why there are none
    backtest : weights by back-test, which judge extrapolation; or why there are none
    not_identified : law → parameters that the runs do not identify
    converged : law → whether its posterior converged
    """

    loo: LeaveOneOut | str
    backtest: BacktestWeights | str
    not_identified: Mapping[str, tuple[str, ...]]
    converged: Mapping[str, bool]

    @property
    def verdict(self) -> str:
        """What both say in words, whether they disagree, and which parameters are not known."""
        parts = [_loo_words(self.loo), _backtest_words(self.backtest)]
        if not isinstance(self.loo, str) and not isinstance(self.backtest, str):
            parts.append(_together(self.loo, self.backtest))
        parts += [f"{law}: {', '.join(names)} not identified." for law, names in self.not_identified.items() if names]
        parts += [f"{law} did not converge." for law, fine in self.converged.items() if not fine]
        return " ".join(parts)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per law: leave-one-out columns, back-test columns, what is not identified."""
        import pandas as pd

        frame = pd.DataFrame(index=pd.Index(list(self.converged), name="law"))
        if not isinstance(self.loo, str):
            frame = self.loo.to_dataframe()
        if not isinstance(self.backtest, str):
            for name in ("weights", "log_score", "crps", "error"):
                label = "backtest_weight" if name == "weights" else f"backtest_{name}"
                frame[label] = pd.Series(dict(getattr(self.backtest, name)))
        frame["not_identified"] = pd.Series({law: ", ".join(names) for law, names in self.not_identified.items()})
        return frame

    def to_json(self) -> dict[str, Any]:
        """``loo`` and ``backtest`` by law, or the reason why there is none; the verdict."""
        return {
            "converged": all(self.converged.values()),
            "verdict": self.verdict,
            "loo": {"cannot_be_made": self.loo} if isinstance(self.loo, str) else _loo_json(self.loo),
            "backtest": (
                {"cannot_be_made": self.backtest} if isinstance(self.backtest, str) else _backtest_json(self.backtest)
            ),
            "not_identified": {law: list(names) for law, names in self.not_identified.items()},
        }

    def __str__(self) -> str:
        return f"{self.to_dataframe().to_string(float_format=lambda x: f'{x:.4g}')}\n\n{self.verdict}"

    def _repr_html_(self) -> str:
        from html import escape

        table = self.to_dataframe().to_html(float_format=lambda x: f"{x:.4g}")
        return f"{table}<p>{escape(self.verdict)}</p>"


def compare(fits: Sequence[Posterior]) -> Comparison:
    """Several laws on one table of runs: PSIS-LOO, weights by back-test, identifiability, and a verdict in words.

    Laws that read different rows are judged on the units (rows, whole curves) that all of them read.

    Raises
    ------
    DataError
        Fewer than two fits, two of one law, different tables or responses, or nothing that all laws read: neither
        leave-one-out nor a back-test can be made.
    """
    check_comparable(fits)
    loo: LeaveOneOut | str
    try:
        loo = leave_one_out(fits)
    except DataError as error:
        loo = str(error)
    weights = backtest_weights({fit.law_name: backtest_of(fit) for fit in fits})
    if isinstance(loo, str) and isinstance(weights, str):
        raise DataError(f"{loo}; nor by back-test: {weights}")
    order = list(loo.elpd) if not isinstance(loo, str) else [fit.law_name for fit in fits]
    named = {fit.law_name: fit for fit in fits}
    return Comparison(
        loo,
        weights,
        {law: tuple(named[law].not_identified) for law in order},
        {law: named[law].converged for law in order},
    )


def backtest_weights(tests: Mapping[str, Backtest | str]) -> BacktestWeights | str:
    """Weights from the held-out rows that all laws' back-tests share; in words why there are none."""
    refused = [f"{law}: {test}" for law, test in tests.items() if isinstance(test, str)]
    if refused:
        return "; ".join(refused)
    made = {law: test for law, test in tests.items() if not isinstance(test, str)}
    keys = {law: _keys(test) for law, test in made.items()}
    first = next(iter(keys.values()))
    common = [key for key in first if all(key in own for own in keys.values())]
    cut = np.array([key[0] for key in common])
    cuts, which = np.unique(cut, return_inverse=True)
    if len(cuts) < MIN_CUTS:
        return f"the laws' back-tests share held-out rows at {len(cuts)} cuts in compute, {MIN_CUTS} needed"
    h = np.log(np.array([key[1] for key in common]) / cut)
    errors = {law: _errors(test)[[keys[law][key] for key in common]] for law, test in made.items()}
    scored = {law: _score(error, h, which) for law, error in errors.items()}
    share = 1.0 / np.bincount(which)[which] / len(cuts)
    density = np.stack([s[0] for s in scored.values()], axis=1)
    by_cut = np.stack([np.bincount(which, column * share * len(cuts)) for column in density.T], axis=1)
    winner = np.bincount(by_cut.argmax(axis=1), minlength=len(made))
    laws = list(made)
    return BacktestWeights(
        weights=dict(zip(laws, stack(density, share).tolist(), strict=True)),
        log_score={law: float(share @ scored[law][0]) for law in laws},
        crps={law: float(share @ scored[law][1]) for law in laws},
        error={law: float(share @ np.abs(errors[law])) for law in laws},
        wins=dict(zip(laws, winner.tolist(), strict=True)),
        num_rows=len(common),
        num_cuts=len(cuts),
        reach_decades=float(h.max() / np.log(10)),
    )


def _keys(test: Backtest) -> dict[tuple[float, float, float, int], int]:
    """Cut, compute and observed loss of each held-out row (and a count, where two rows share them) → its place."""
    seen: Counter[tuple[float, float, float]] = Counter()
    places = {}
    for i, key in enumerate(zip(test.cut.tolist(), test.C.tolist(), test.observed.tolist(), strict=True)):
        places[*key, seen[key]] = i
        seen[key] += 1
    return places


def _errors(test: Backtest) -> Array:
    return np.asarray(np.log(test.observed / test.predicted))


def _score(error: Array, h: Array, which: NDArray[np.int64]) -> tuple[Array, Array]:
    """Log density and CRPS of each row's error, the scale learned at the other cuts."""
    from scipy.stats import t

    density, crps = np.empty(len(error)), np.empty(len(error))
    for k in range(int(which.max()) + 1):
        here = which == k
        a, b = _scale(error[~here], h[~here], which[~here])
        scale = np.hypot(a, b * h[here])
        density[here] = t.logpdf(error[here] / scale, NU) - np.log(scale)
        crps[here] = scale * _crps(error[here] / scale)
    return density, crps


def _scale(error: Array, h: Array, which: NDArray[np.int64]) -> tuple[float, float]:
    """a and b of the scale √(a² + b²h²) that give the errors the highest mean log density, each cut counting the same.

    Found on a grid of ratios b/a; given the ratio, the scale of a Student-t follows by a few steps of EM.
    """
    share = 1.0 / np.bincount(which)[which]
    share = share / share.sum()
    span = float(np.median(h))
    best = (-np.inf, 1.0, 0.0)
    for ratio in (0.0, *np.geomspace(0.1, 100.0, 25)):
        shape = np.sqrt(1.0 + (ratio * h / span) ** 2)
        z2 = (error / shape) ** 2
        variance = max(float(share @ z2), 1e-24)
        for _ in range(50):
            variance = max(float(share @ (z2 * (NU + 1) / (NU + z2 / variance))), 1e-24)
        value = float(
            share @ (-0.5 * (NU + 1) * np.log1p(z2 / (NU * variance)) - np.log(shape)) - 0.5 * np.log(variance)
        )
        if value > best[0]:
            best = (value, variance**0.5, variance**0.5 * ratio / span)
    return best[1], best[2]


def _crps(z: Array) -> Array:
    """CRPS of a standard Student-t_ν at z (Jordan, Krüger & Lerch 2019, appendix A)."""
    from scipy.special import beta
    from scipy.stats import t

    spread = 2 * np.sqrt(NU) / (NU - 1) * beta(0.5, NU - 0.5) / beta(0.5, 0.5 * NU) ** 2
    return np.asarray(z * (2 * t.cdf(z, NU) - 1) + 2 * t.pdf(z, NU) * (NU + z**2) / (NU - 1) - spread)


def _loo_words(loo: LeaveOneOut | str) -> str:
    if isinstance(loo, str):
        return f"Leave-one-out cannot be made: {loo}."
    parts = []
    for law in list(loo.elpd)[1:]:
        difference, error = loo.difference(law)
        clear = "" if difference > CLEAR * error else ", which does not tell them apart"
        parts.append(f"{law} by {difference:.1f} ± {error:.1f} nats{clear}")
    words = (
        f"Among the runs (leave-one-out over {len(loo.units)}) {loo.best} predicts best, ahead of {'; '.join(parts)}."
    )
    for law, units in loo.unreliable.items():
        listed = ", ".join(units[:5]) + (f" and {len(units) - 5} more" if len(units) > 5 else "")
        words += f" For {law} this is unreliable at {listed} (Pareto k above {loo.k_limit[law]:.2f})."
    for law, count in loo.other.items():
        if count:
            words += f" {law} also learned from {count} units that not all laws read; they are not judged."
    return words


def _backtest_words(test: BacktestWeights | str) -> str:
    if isinstance(test, str):
        return f"Weights by back-test cannot be made: {test}."
    shares = ", ".join(f"{law} {w:.0%}" for law, w in sorted(test.weights.items(), key=lambda item: -item[1]))
    errors = ", ".join(f"{law} {e:.2%}" for law, e in test.error.items())
    return (
        f"Beyond the runs that it was fitted to (back-test: {test.num_rows} held-out rows of {test.num_cuts} cuts, up "
        f"to {test.reach_decades:.1f} decades) {test.best} predicts best, at {test.wins[test.best]} of the cuts; "
        f"weights {shares}; mean errors of the loss {errors}."
    )


def _together(loo: LeaveOneOut, test: BacktestWeights) -> str:
    if loo.best == test.best:
        return f"Both prefer {loo.best}."
    difference, error = loo.difference(test.best)
    if difference <= CLEAR * error:
        return (
            f"They do not contradict each other: leave-one-out leaves open what the back-test decides for {test.best}."
        )
    return (
        f"They disagree: {loo.best} interpolates better, {test.best} extrapolates better. For larger runs than these "
        f"rely on {test.best}, or on both by their back-test weights."
    )


def _loo_json(loo: LeaveOneOut) -> dict[str, Any]:
    rows = loo.to_dataframe().to_dict(orient="index")
    laws = {str(law): {str(key): value for key, value in row.items()} for law, row in rows.items()}
    unreliable = {law: list(units) for law, units in loo.unreliable.items()}
    return {
        "best": loo.best,
        "num_units": len(loo.units),
        "pareto_k_limit": dict(loo.k_limit),
        "laws": laws,
        "unreliable": unreliable,
        "units_not_judged": dict(loo.other),
    }


def _backtest_json(test: BacktestWeights) -> dict[str, Any]:
    laws = {
        law: {
            "weight": test.weights[law],
            "log_score": test.log_score[law],
            "crps_log_loss": test.crps[law],
            "mean_abs_log_error": test.error[law],
            "cuts_won": test.wins[law],
        }
        for law in test.weights
    }
    return {
        "best": test.best,
        "num_held_out": test.num_rows,
        "num_cuts": test.num_cuts,
        "reach_decades": test.reach_decades,
        "laws": laws,
    }
