"""Several laws on the same runs: leave-one-out predictive density, which judges interpolation only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import DataError
from scaling_sim.inference.posterior import Posterior

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """Expected log predictive density of each law, best first; a unit is an independent row or a whole curve.

    Attributes
    ----------
    elpd : law → Σ of the units' leave-one-out log densities
    pointwise : law → (n_units,) the summands
    pareto_k : law → (n_units,) reliability of each summand
    k_limit : summands with a larger k are not reliable
    """

    elpd: Mapping[str, float]
    pointwise: Mapping[str, Array]
    pareto_k: Mapping[str, Array]
    k_limit: float
    units: tuple[str, ...]

    @property
    def unreliable(self) -> dict[str, tuple[str, ...]]:
        """Law → units whose importance weights are too heavy-tailed; refit without them to be sure of the ranking."""
        return {
            law: tuple(np.array(self.units)[k > self.k_limit].tolist())
            for law, k in self.pareto_k.items()
            if np.any(k > self.k_limit)
        }

    def to_dataframe(self) -> pd.DataFrame:
        """Per law: elpd, difference from the best and its standard error, worst Pareto k, unreliable units."""
        import pandas as pd

        best = next(iter(self.elpd))
        rows = []
        for law, values in self.pointwise.items():
            loss = self.pointwise[best] - values
            rows.append(
                {
                    "law": law,
                    "elpd": self.elpd[law],
                    "difference": float(loss.sum()),
                    "difference_se": float(np.sqrt(len(loss)) * loss.std(ddof=1)),
                    "max_pareto_k": float(self.pareto_k[law].max()),
                    "num_unreliable": len(self.unreliable.get(law, ())),
                }
            )
        return pd.DataFrame(rows).set_index("law")


def compare(fits: Sequence[Posterior]) -> Comparison:
    """PSIS-LOO of fits to the same rows (Vehtari, Gelman & Gabry 2017), best law first.

    Raises
    ------
    DataError
        Fewer than two fits, two of one law, or fits that read different rows.
    """
    from arviz_stats.base import array_stats

    names = [fit.law_name for fit in fits]
    if len(fits) < 2 or len(set(names)) < len(names):
        raise DataError(f"compare needs fits of two or more different laws, got {', '.join(names) or 'none'}")
    rows = [(fit.runs.data_hash, tuple(fit.data.row)) for fit in fits]
    if len(set(rows)) > 1:
        used = ", ".join(f"{fit.law_name} {fit.n_used}" for fit in fits)
        raise DataError(f"all fits must use the same rows of one table to be compared; rows used: {used}")
    pointwise, pareto_k, units = {}, {}, ()
    for fit in fits:
        density, labels = fit.pointwise_log_likelihood()
        units = tuple(labels.tolist())
        elpd, k, _ = array_stats.loo(density.T, chain_axis=None, draw_axis=-1)
        pointwise[fit.law_name] = np.asarray(elpd, dtype=np.float64)
        pareto_k[fit.law_name] = np.asarray(k, dtype=np.float64)
    size = len(fits[0].u)
    order = sorted(names, key=lambda name: -float(pointwise[name].sum()))
    return Comparison(
        elpd={name: float(pointwise[name].sum()) for name in order},
        pointwise={name: pointwise[name] for name in order},
        pareto_k={name: pareto_k[name] for name in order},
        k_limit=min(1.0 - 1.0 / float(np.log10(size)), 0.7),
        units=units,
    )
