"""Weights over laws by how well each forecast rows beyond cuts in compute that all of them have seen the runs up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.inference.comparison import stack
from scaling_sim.inference.posterior import Posterior
from scaling_sim.predict.backtest import Backtest, backtest_of, spaced_cuts

Array = NDArray[np.float64]

NU = 4.0
"""Degrees of freedom of held-out errors."""
MIN_CUTS = 3
"""Fewer shared cuts give weights, too, but the verdict says that they rest on little."""


@dataclass(frozen=True)
class BacktestWeights:
    """Held-out rows that all laws predicted from below the same cuts in compute.

    At each cut a law's predictive density is a Student-t about its prediction whose squared scale a² + (b·h)²,
    h = ln(C/C_cut), fits its errors at the *other* cuts (of those shared; where these are fewer than three, of all that
    the law was tested at): a law that errs far beyond its cuts pays with its width.
    Each cut counts the same. The cuts are nested, so that they share most held-out rows: these are weights for a
    mixture, not evidence that adds up.

    Attributes
    ----------
    weights : law → share in the mixture of laws that gives held-out rows the highest mean log density (stacking)
    log_score : law → mean over cuts of the mean log density of ln loss
    crps : law → mean over cuts of the CRPS of ln loss, i.e. about the relative error that it is worth
    error : law → mean over cuts of |ln(observed/predicted)|
    wins : law → cuts at which its log score is the highest
    without : law → why it has no back-test, hence no weight
    """

    weights: Mapping[str, float]
    log_score: Mapping[str, float]
    crps: Mapping[str, float]
    error: Mapping[str, float]
    wins: Mapping[str, int]
    num_rows: int
    num_cuts: int
    reach_decades: float
    without: Mapping[str, str] = field(default_factory=dict)

    @property
    def best(self) -> str:
        """The law of the highest mean log score."""
        return max(self.log_score, key=lambda law: self.log_score[law])

    @property
    def lacks(self) -> tuple[str, ...]:
        """What is missing for these weights to be trusted, in words."""
        few = f"these weights rest on {self.num_cuts} of {MIN_CUTS} cuts in compute that they should have"
        return (
            *((few,) if self.num_cuts < MIN_CUTS else ()),
            *(f"{law} has no weight: {why}" for law, why in self.without.items()),
        )

    @property
    def verdict(self) -> str:
        """Which law predicts larger runs best, with which weights and errors, and what is missing."""
        shares = ", ".join(f"{law} {w:.0%}" for law, w in sorted(self.weights.items(), key=lambda item: -item[1]))
        errors = ", ".join(f"{law} {e:.2%}" for law, e in self.error.items())
        return (
            f"Beyond the runs that it was fitted to (back-test: {self.num_rows} held-out rows of {self.num_cuts} cuts, "
            f"up to {self.reach_decades:.1f} decades) {self.best} predicts best, at {self.wins[self.best]} of the "
            f"cuts; weights {shares}; mean errors of the loss {errors}."
            + "".join(f" But {what}." for what in self.lacks)
        )

    def to_json(self) -> dict[str, Any]:
        """The weights and scores by law, and what they rest on."""
        laws = {
            law: {
                "weight": self.weights[law],
                "log_score": self.log_score[law],
                "crps_log_loss": self.crps[law],
                "mean_abs_log_error": self.error[law],
                "cuts_won": self.wins[law],
            }
            for law in self.weights
        }
        return {
            "best": self.best,
            "num_held_out": self.num_rows,
            "num_cuts": self.num_cuts,
            "reach_decades": self.reach_decades,
            "laws": laws,
            "lacks": list(self.lacks),
        }


def backtests_of(fits: Sequence[Posterior]) -> dict[str, Backtest | str]:
    """The back-test of each law, or why it has none; at cuts of their common rows if their own cuts differ too much.

    A law that reads few of the rows (``power-c``: the lower envelope) has cuts elsewhere than the others.
    """
    tests = {fit.law_name: backtest_of(fit) for fit in fits}
    cuts = [set() if isinstance(test, str) else set(test.cut.tolist()) for test in tests.values()]
    if len(set.intersection(*cuts)) >= MIN_CUTS:
        return tests
    common = set.intersection(*(set(fit.data.row[fit.data.row >= 0].tolist()) for fit in fits))
    C = fits[0].runs.C[sorted(common)]
    C = C[np.isfinite(C)]
    if len(np.unique(C)) <= MIN_CUTS:
        return tests
    shared = tuple(spaced_cuts(C).tolist())
    return {fit.law_name: backtest_of(fit, shared) for fit in fits}


def backtest_weights(tests: Mapping[str, Backtest | str]) -> BacktestWeights | str:
    """Weights from the held-out rows that all laws' back-tests share; in words why there are none.

    A law without a back-test is left out, and named.
    """
    without = {law: test for law, test in tests.items() if isinstance(test, str)}
    made = {law: test for law, test in tests.items() if not isinstance(test, str)}
    if len(made) < 2:
        return "; ".join(f"{law}: {why}" for law, why in without.items())
    places = _shared(made)
    first = next(iter(made))
    cut, C = made[first].cut[places[first]], made[first].C[places[first]]
    if not len(cut):
        return f"the back-tests of {', '.join(made)} share no row held out beyond the same cut in compute"
    cuts, which = np.unique(cut, return_inverse=True)
    alike = len(cuts) >= MIN_CUTS
    scored = {law: _score(t, places[law], places[law] if alike else np.arange(len(t.cut))) for law, t in made.items()}
    share = 1.0 / np.bincount(which)[which] / len(cuts)
    density = np.stack([s[0] for s in scored.values()], axis=1)
    by_cut = np.stack([np.bincount(which, column * share * len(cuts)) for column in density.T], axis=1)
    winner = np.bincount(by_cut.argmax(axis=1), minlength=len(made))
    return BacktestWeights(
        weights=dict(zip(made, stack(density, share).tolist(), strict=True)),
        log_score={law: float(share @ scored[law][0]) for law in made},
        crps={law: float(share @ scored[law][1]) for law in made},
        error={law: float(share @ np.abs(_errors(t)[places[law]])) for law, t in made.items()},
        wins=dict(zip(made, winner.tolist(), strict=True)),
        num_rows=len(cut),
        num_cuts=len(cuts),
        reach_decades=float(np.log10(C / cut).max()),
        without=without,
    )


def _shared(tests: Mapping[str, Backtest]) -> dict[str, NDArray[np.int64]]:
    """Places of the rows that all laws predicted from below the same cut, in one order."""
    keys = {law: _keys(test) for law, test in tests.items()}
    common = [key for key in next(iter(keys.values())) if all(key in own for own in keys.values())]
    return {law: np.array([own[key] for key in common], dtype=np.int64) for law, own in keys.items()}


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


def _score(test: Backtest, judged: NDArray[np.int64], learned: NDArray[np.int64]) -> tuple[Array, Array]:
    """Log density and CRPS of each judged row's error, its scale learned at the other cuts."""
    from scipy.stats import t

    error, h = _errors(test), np.log(test.C / test.cut)
    density, crps = np.empty(len(judged)), np.empty(len(judged))
    for cut in np.unique(test.cut[judged]):
        here, other = test.cut[judged] == cut, learned[test.cut[learned] != cut]
        a, b = _scale(error[other], h[other], np.unique(test.cut[other], return_inverse=True)[1])
        rows = judged[here]
        scale = np.hypot(a, b * h[rows])
        density[here] = t.logpdf(error[rows] / scale, NU) - np.log(scale)
        crps[here] = scale * _crps(error[rows] / scale)
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
