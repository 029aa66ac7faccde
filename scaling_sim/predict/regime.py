"""Do the smallest runs follow another law than the rest? A back-test towards small compute.

Runs that never left warm-up, or whose learning rate or batch suited another size, bend a fit without being outliers one
by one. Widening intervals does not help; leaving them out does, and whether to is the user's decision.

Only a step is found: small runs apart from the rest. A penalty that fades smoothly with compute is not: the rest
carries part of it, from which a law with other constants and its discrepancy foretell the small runs. Neither a smaller
discrepancy nor fits with and without these runs tell it from sweeps of one law: see docs/explanation/extrapolation.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scaling_sim.errors import ConvergenceError, DesignError
from scaling_sim.predict.discrepancy import Array, forecast_rows, learn

if TYPE_CHECKING:
    from scaling_sim.laws.base import Law
    from scaling_sim.runs.table import RunTable

SHARES = (0.1, 0.2, 0.3)
"""Shares of the rows, from the smallest compute on, that are forecast from the others."""
MIN_ROWS = 3
FAR = 4.0
"""Standard deviations of its forecast beyond which a row does not belong."""
MANY = 0.25
"""Share of such rows that makes a regime."""


@dataclass(frozen=True)
class RegimeChange:
    """Small runs that the larger ones do not foretell.

    Attributes
    ----------
    below : largest compute among them, FLOP
    rows : names of those that lie more than 4 standard deviations from their forecast
    share : their share among all rows up to ``below``
    log_error : (n_rows,) ln(observed/forecast) of them
    """

    below: float
    rows: tuple[str, ...]
    share: float
    log_error: Array

    def __str__(self) -> str:
        listed = ", ".join(self.rows[:5]) + (f" and {len(self.rows) - 5} more" if len(self.rows) > 5 else "")
        middle = float(np.expm1(np.median(self.log_error)))
        return (
            f"the smallest runs follow another law than the rest: {self.share:.0%} of those up to {self.below:.3g} FLOP"
            f" lie over {FAR:g} standard deviations from what the others foretell (median {middle:+.1%}): {listed}. "
            "Had they left warm-up, and did learning rate and batch suit them? Fit again without them (--where), and "
            "compare"
        )

    def to_json(self) -> dict[str, Any]:
        """Where, which and how far."""
        return {
            "below_flop": self.below,
            "rows": list(self.rows),
            "share": self.share,
            "median_log_error": float(np.median(self.log_error)),
        }


def regime_change(runs: RunTable, law: Law) -> RegimeChange | None:
    """The smallest runs that lie apart from the rest, or None, which says nothing of penalties that fade with compute.

    A law that the rest cannot identify finds none.
    """
    data = law.observe(runs)
    C, found = runs.C[data.row], None
    order = np.argsort(C, kind="stable")
    for share in SHARES:
        low = order[: int(np.ceil(share * len(C)))]
        edge = float(C[low].max()) if len(low) else 0.0
        low = np.flatnonzero(np.less_equal(C, edge))
        if len(low) < MIN_ROWS:
            continue
        try:
            model = learn(runs.select(np.greater(runs.C, edge), "the smallest runs"), law, num_draws=1000)
        except (DesignError, ConvergenceError):
            break
        draws = forecast_rows(model, data.take(low), C[low], runs.N[data.row[low]])
        below, middle, above = np.quantile(draws, (0.16, 0.5, 0.84), axis=0)
        error = np.log(data.response[low]) - middle
        far = np.abs(error) > FAR * 0.5 * (above - below)
        if far.sum() >= MIN_ROWS and far.mean() > MANY and (found is None or far.sum() > len(found.rows)):
            mask = np.zeros(len(runs), dtype=np.bool_)
            mask[data.row[low[far]]] = True
            found = RegimeChange(edge, runs.row_names(mask), float(far.mean()), error[far])
    return found
