"""What the crossing depends on: elasticities of C* draw by draw, and whose uncertainty its spread is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from scaling_sim.predict.powerlaws import PowerLaws
from scaling_sim.predict.source import Array

Draws = Mapping[str, Array]
STEP = 1e-5
LAWS: Mapping[str, tuple[str, ...]] = {
    "L(N)": ("alpha_N", "N_c"),
    "L(N) of curves": ("alpha_N_curve", "N_c_curve"),
    "L(S_min)": ("alpha_S", "S_c"),
    "B_crit(L)": ("alpha_B", "B_star"),
    "L(D)": ("alpha_D", "D_c"),
    "L(C_min)": ("alpha_C_min", "C_c_min"),
    "D(C_min)": ("D_e", "p_D"),
}
"""Exponent and scale of one law move together, so that only their sum is a share that can be read."""


@dataclass(frozen=True)
class Sensitivity:
    """Of ln C* to the logarithm of one parameter.

    Attributes
    ----------
    elasticity : median of ∂ ln C*/∂ ln θ over the draws that cross
    sd_log : posterior sd of ln θ; of θ over its median where draws of θ differ in sign
    standardised : their product, what this parameter alone would do
    rank_correlation : Spearman's between θ and C* over all draws, those without a crossing ranked highest
    variance_share : of the variance of ln C* to first order; see `variance_shares`
    """

    elasticity: float
    sd_log: float
    standardised: float
    rank_correlation: float
    variance_share: float


def elasticities(draws: Draws) -> dict[str, Array]:
    """∂ ln C*/∂ ln θ of every draw, (n,); NaN where the laws never cross. Constants without any effect are left out."""
    every = {name: _elasticity(draws, name) for name in draws}
    return {name: found for name, found in every.items() if np.any(np.nan_to_num(found) != 0)}


def _elasticity(draws: Draws, name: str) -> Array:
    up, down = ({**draws, name: draws[name] * np.exp(step)} for step in (STEP, -STEP))
    high, low = PowerLaws.of(up).log_crossing(), PowerLaws.of(down).log_crossing()
    crosses = np.isfinite(high) & np.isfinite(low)
    change = np.where(crosses, high, 0.0) - np.where(crosses, low, 0.0)
    return np.where(crosses, change / (2 * STEP), np.nan)


def variance_shares(draws: Draws) -> dict[str, float]:
    """Share of each parameter in the variance of ln C*, to first order around the posterior medians; they add up to 1.

    eᵢ(Σe)ᵢ/(eᵀΣe), e the elasticities at the medians, Σ the covariance of the logarithms over all draws, so that draws
    without a crossing count and none is infinite. Parameters that move together share what they do together, and a
    share can be negative: read exponent and scale of one law as a sum (`shares_by_law`). Empty where the medians do
    not cross, or nothing varies.
    """
    middle = {name: np.median(values, keepdims=True) for name, values in draws.items()}
    slopes = {name: float(found[0]) for name, found in elasticities(middle).items()}
    if not slopes:
        return {}
    e, logs = np.array(list(slopes.values())), np.array([_logs(draws[name]) for name in slopes])
    covariance = np.atleast_2d(np.cov(logs[:, np.isfinite(logs).all(axis=0)], bias=True))
    parts = e * (covariance @ e)
    return dict(zip(slopes, (parts / parts.sum()).tolist(), strict=True)) if parts.sum() > 0 else {}


def shares_by_law(shares: Mapping[str, float]) -> dict[str, float]:
    """The same, exponent and scale of each law together."""
    return {
        law: sum(shares[name] for name in names if name in shares)
        for law, names in LAWS.items()
        if not shares.keys().isdisjoint(names)
    }


def sensitivities(draws: Draws, C: Array) -> Iterator[tuple[str, Sensitivity]]:
    """Of each parameter on which the crossing ``C`` (n,) depends."""
    shares = variance_shares(draws)
    for name, found in elasticities(draws).items():
        crosses = np.isfinite(found)
        middle = float(np.median(found[crosses])) if crosses.any() else float("nan")
        spread = float(np.std(_logs(draws[name])))
        yield (
            name,
            Sensitivity(
                middle, spread, middle * spread, _rank_correlation(draws[name], C), shares.get(name, float("nan"))
            ),
        )


def _logs(values: Array) -> Array:
    """ln θ, up to a constant; where fitted exponents differ in sign, relative deviations, the same to first order."""
    return np.asarray(np.log(values) if np.all(values > 0) else values / np.median(values))


def _rank_correlation(x: Array, y: Array) -> float:
    """Spearman's rank correlation with mid-ranks (draws tied at +∞ count as equal); NaN if either is constant."""
    a, b = _mid_ranks(x), _mid_ranks(y)
    spread = a.std() * b.std()
    return float(np.mean((a - a.mean()) * (b - b.mean())) / spread) if spread > 0 else float("nan")


def _mid_ranks(x: Array) -> Array:
    _, group, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[group.ravel()]
