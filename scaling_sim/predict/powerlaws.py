"""The four power laws of Kaplan's contradiction: L(C_min), L(D(C_min)), N(C_min), D(C_min), as straight lines in logs.

Appendix B makes them exact power laws of the reducible loss; published frontiers and fitted envelopes are such by
construction. Everything about the crossover is geometry of these lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling_sim.laws.constants import PF_DAY
from scaling_sim.predict.appendix_b import compute_exponent, log_compute_scale, log_optimal_size
from scaling_sim.predict.source import Array


@dataclass(frozen=True)
class Line:
    """y = at + slope·(c − ln PF-day): y is ln of a quantity, c is ln C_min in FLOP; (n_draws,) arrays."""

    at: Array
    slope: Array

    def __call__(self, log_C: Any) -> Any:
        """Return ln of the quantity at ln C_min."""
        return self.at + self.slope * (log_C - np.log(PF_DAY))


@dataclass(frozen=True)
class PowerLaws:
    """The lines of every draw. ``loss`` and ``data_loss`` are of the reducible loss, ``floor`` its entropy floor."""

    loss: Line
    data_loss: Line
    N: Line
    D: Line
    floor: Array

    @classmethod
    def of(cls, p: Mapping[str, Array]) -> PowerLaws:
        """Lines of ``kaplan`` parameters (Appendix B) or of a fitted frontier (N_e, p_N, …), (n_draws,) arrays."""
        return _from_frontier(p) if "N_e" in p else _from_kaplan(p)

    def log_crossing(self) -> Array:
        """ln C* of each draw; +∞ where L(D(C)) does not fall more slowly than L(C)."""
        closing = self.data_loss.slope - self.loss.slope
        gap = self.loss.at - self.data_loss.at
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(closing > 0, np.log(PF_DAY) + gap / closing, np.inf)

    def margin(self, log_C: float) -> Array:
        """ln L(C) − ln L(D(C)) at ln C: positive where data are not yet the limit."""
        return np.asarray(self.loss(log_C) - self.data_loss(log_C))


def _from_kaplan(p: Mapping[str, Array]) -> PowerLaws:
    """Lines by (B.6), (B.9) and D = 2·B_crit·S_min = 2·C_min/(6·N)."""
    curve = {**p, "alpha_N": p.get("alpha_N_curve", p["alpha_N"]), "N_c": p.get("N_c_curve", p["N_c"])}
    exponent = compute_exponent(curve["alpha_N"], curve["alpha_S"], curve["alpha_B"])
    loss = Line(exponent * (log_compute_scale(curve) - np.log(PF_DAY)), -exponent)
    size = Line(log_optimal_size(np.log(PF_DAY), curve), exponent / curve["alpha_N"])
    data = Line(np.log(PF_DAY / 3) - size.at, 1 - size.slope)
    return PowerLaws(loss, _data_limit(data, p), size, data, p.get("E", np.zeros_like(exponent)))


def _from_frontier(p: Mapping[str, Array]) -> PowerLaws:
    """Lines of power laws in C_min/PF-day."""
    data = Line(np.log(p["D_e"]), p["p_D"])
    return PowerLaws(
        Line(p["alpha_C_min"] * np.log(p["C_c_min"]), -p["alpha_C_min"]),
        _data_limit(data, p),
        Line(np.log(p["N_e"]), p["p_N"]),
        data,
        p.get("E", np.zeros_like(p["D_e"])),
    )


def _data_limit(data: Line, p: Mapping[str, Array]) -> Line:
    """ln (D_c/D)^αD, the N → ∞ limit of (1.5), along D(C_min)."""
    return Line(p["alpha_D"] * (np.log(p["D_c"]) - data.at), -p["alpha_D"] * data.slope)
