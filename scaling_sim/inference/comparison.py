"""How well laws predict runs that they have not seen among those that they have: leave-one-out predictive density.

It judges interpolation only; `scaling_sim.predict.weights` sets extrapolation beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import DataError
from scaling_sim.inference.posterior import Posterior

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

MIN_UNITS = 5
"""Units that all laws must have in common: fewer have no standard error worth the name."""


@dataclass(frozen=True)
class LeaveOneOut:
    """Expected log predictive density of each law, best first, over the units that all laws read.

    A unit is an independent row, or a whole learning curve.

    Attributes
    ----------
    elpd : law → Σ of the units' leave-one-out log densities
    pointwise : law → (n_units,) the summands
    pareto_k : law → (n_units,) reliability of each summand
    k_limit : law → min(1 − 1/log10 S, .7), S its draws (Vehtari et al. 2024): summands with a larger k are unreliable
    units : names of the runs
    weights : law → share in the mixture that predicts best (stacking, Yao et al. 2018)
    other : law → units that it read and others did not; they informed it and are not judged
    """

    elpd: Mapping[str, float]
    pointwise: Mapping[str, Array]
    pareto_k: Mapping[str, Array]
    k_limit: Mapping[str, float]
    units: tuple[str, ...]
    weights: Mapping[str, float] = field(default_factory=dict)
    other: Mapping[str, int] = field(default_factory=dict)

    @property
    def best(self) -> str:
        """The law of largest elpd."""
        return next(iter(self.elpd))

    @property
    def unreliable(self) -> dict[str, tuple[str, ...]]:
        """Law → units whose importance weights are too heavy-tailed; refit without them to be sure of the ranking."""
        names = np.array(self.units)
        bad = {law: tuple(names[k > self.k_limit[law]].tolist()) for law, k in self.pareto_k.items()}
        return {law: units for law, units in bad.items() if units}

    def difference(self, law: str) -> tuple[float, float]:
        """elpd of the best law less that of ``law``, and its standard error √n · sd of the summands."""
        loss = self.pointwise[self.best] - self.pointwise[law]
        return float(loss.sum()), float(np.sqrt(len(loss)) * loss.std(ddof=1))

    def to_dataframe(self) -> pd.DataFrame:
        """Per law: elpd, difference from the best and its standard error, worst Pareto k, unreliable units, weight."""
        import pandas as pd

        rows = []
        for law in self.elpd:
            difference, error = self.difference(law)
            rows.append(
                {
                    "law": law,
                    "elpd": self.elpd[law],
                    "difference": difference,
                    "difference_se": error,
                    "max_pareto_k": float(self.pareto_k[law].max()),
                    "num_unreliable": len(self.unreliable.get(law, ())),
                    "loo_weight": self.weights[law],
                }
            )
        return pd.DataFrame(rows).set_index("law")


def leave_one_out(fits: Sequence[Posterior]) -> LeaveOneOut:
    """PSIS-LOO (Vehtari, Gelman & Gabry 2017) of fits to one table, over the units that all of them read.

    Raises
    ------
    DataError
        Fewer than two fits, two of one law, different tables or responses, or too few common units.
    """
    from arviz_stats.base import array_stats

    check_comparable(fits)
    units = [fit.units() for fit in fits]
    common = sorted(set.intersection(*(set(one) for one in units)), key=list(units[0]).index)
    if len(common) < MIN_UNITS:
        read = ", ".join(f"{fit.law_name} {_roles(fit)}" for fit in fits)
        raise DataError(
            f"laws can be compared on runs that all of them read, at least {MIN_UNITS} of them; these have "
            f"{len(common)} in common ({read}): a whole learning curve is not the same datum as its last point"
        )
    pointwise, pareto_k = {}, {}
    for fit, own in zip(fits, units, strict=True):
        density, _ = fit.pointwise_log_likelihood()
        chosen = density[:, [own[key] for key in common]]
        elpd, k, _ = array_stats.loo(chosen.T, chain_axis=None, draw_axis=-1)
        pointwise[fit.law_name] = np.asarray(elpd, dtype=np.float64)
        pareto_k[fit.law_name] = np.asarray(k, dtype=np.float64)
    order = sorted(pointwise, key=lambda name: -float(pointwise[name].sum()))
    shares = stack(np.stack([pointwise[name] for name in order], axis=1))
    names = fits[0].pointwise_log_likelihood()[1]
    return LeaveOneOut(
        elpd={name: float(pointwise[name].sum()) for name in order},
        pointwise={name: pointwise[name] for name in order},
        pareto_k={name: pareto_k[name] for name in order},
        k_limit={fit.law_name: min(1.0 - 1.0 / float(np.log10(len(fit.u))), 0.7) for fit in fits},
        units=tuple(str(names[units[0][key]]) for key in common),
        weights=dict(zip(order, shares.tolist(), strict=True)),
        other={fit.law_name: len(own) - len(common) for fit, own in zip(fits, units, strict=True)},
    )


def check_comparable(fits: Sequence[Posterior]) -> None:
    """Raise a DataError unless these are fits of different laws for one response of one table."""
    names = [fit.law_name for fit in fits]
    if len(fits) < 2 or len(set(names)) < len(names):
        raise DataError(f"compare needs fits of two or more different laws, got {', '.join(names) or 'none'}")
    if len({fit.runs.data_hash for fit in fits}) > 1:
        tables = ", ".join(f"{fit.law_name}: {fit.runs.source or fit.runs.data_hash}" for fit in fits)
        raise DataError(f"laws can be compared on one table of runs only, got fits of different ones ({tables})")
    if len({fit.law.response for fit in fits}) > 1:
        predicted = ", ".join(f"{fit.law_name} {fit.law.response}" for fit in fits)
        raise DataError(f"laws must predict the same quantity to be compared, these predict: {predicted}")


def stack(log_density: Array, row_weight: Array | None = None, tolerance: float = 1e-6) -> Array:
    """(k,) weights on the simplex that maximise the (weighted) mean of log Σ_k w_k p_ik, log densities (n, k).

    EM for the weights of a mixture of fixed components: every step raises the concave objective; it ends when the
    duality gap, max_k mean_i p_ik/Σ_j w_j p_ij − 1, is below ``tolerance``.
    """
    n, k = log_density.shape
    share = np.full(n, 1.0 / n) if row_weight is None else row_weight / row_weight.sum()
    density = np.exp(log_density - log_density.max(axis=1, keepdims=True))
    weights = np.full(k, 1.0 / k)
    for _ in range(100_000):
        gain = share @ (density / (density @ weights)[:, None])
        if gain.max() - 1 < tolerance:
            break
        weights = weights * gain
    return np.asarray(weights / weights.sum())


def _roles(fit: Posterior) -> str:
    words = {"final": "final rows", "stopped": "early-stopped rows", "curve": "points of curves"}
    return " and ".join(f"{count} {words.get(role, role)}" for role, count in fit.roles.items())
