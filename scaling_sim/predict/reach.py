"""How far a prediction extrapolates beyond its runs, and how far a back-test could check such extrapolation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scaling_sim.laws.kaplan import critical_batch
from scaling_sim.predict.quantity import Quantity
from scaling_sim.predict.source import Fit, compute_range

if TYPE_CHECKING:
    from scaling_sim.predict.backtest import Backtest

ALLOWANCE = 1.5
"""Outputs beyond this multiple of the back-tested decades carry ``beyond_backtest``."""


@dataclass(frozen=True)
class Reach:
    """How far runs and a back-test of them reach.

    Attributes
    ----------
    largest, least : compute behind a prediction, FLOP; NaN and 0 if unknown
    backtested : decades above the largest that a back-test reached; None if there was none
    """

    largest: float
    backtested: float | None
    least: float = 0.0

    @classmethod
    def of(cls, span: tuple[float, float] | None, backtest: Backtest | None) -> Reach:
        """Reach of runs that span this compute."""
        least, largest = span or (0.0, float("nan"))
        return cls(largest, backtest.reach_decades if backtest else None, least)

    def decades(self, C: Quantity) -> Quantity:
        """Decades between the largest run and C, draw by draw; negative inside the runs."""
        return Quantity("decades_beyond_runs", np.log10(C.draws) - np.log10(self.largest), "decades")

    def below(self, C: float) -> bool:
        """Whether C lies below the least run, where no back-test looks."""
        return self.least * (1 - 1e-9) > C

    def beyond(self, C: float) -> bool:
        """Whether C lies beyond 1.5 times the back-tested decades or below the runs; true if these are unknown."""
        distance = np.log10(C) - np.log10(self.largest)
        return self.below(C) or not distance <= ALLOWANCE * (self.backtested or 0.0)

    def to_json(self, C: Quantity) -> dict[str, Any]:
        """Decades beyond the runs, and how many a back-test reached; None where there was none."""
        known = np.isfinite(self.largest)
        return {
            "decades_beyond_runs": self.decades(C).to_json() if known else None,
            "backtested_decades": self.backtested,
        }


def efficient_range(fit: Fit) -> tuple[float, float] | None:
    """Least and largest C_min (FLOP) of the single-pass runs behind a fit, by (5.5) at median parameters.

    Rows without a batch count with the compute paid; published constants with the range that their paper shows.
    """
    runs = getattr(fit, "runs", None)
    if runs is None or "B_star" not in fit.draws:
        return compute_range(fit)
    middle = {name: float(np.median(values)) for name, values in fit.draws.items()}
    use = ~runs.stopped & np.isfinite(runs.C) & (runs.C > 0) & np.isfinite(runs.loss)
    if not use.any():
        return compute_range(fit)
    ratio = runs.B[use] / critical_batch(runs.loss[use], middle)
    C_min = runs.C[use] / (1 + np.where(np.isfinite(ratio), ratio, 0.0))
    return float(C_min.min()), float(C_min.max())
