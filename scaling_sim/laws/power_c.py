"""L(C) = (C_c/C)^α_C: the best loss that an amount of compute bought (Kaplan et al. 2020, eq. 3.3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scaling_sim.laws.floor import Floor
from scaling_sim.laws.observations import Observations, curve_rows, final_rows, observations, unusable
from scaling_sim.laws.power import PowerLaw
from scaling_sim.runs.table import RunTable


class PowerC(PowerLaw):
    """L(C) = (C_c/C)^α_C (eq. 3.3), C = 6·N·tokens in FLOP, N chosen best at each C.

    Only rows on the frontier are read: those that no cheaper row beats. With learning curves, the frontier is that of
    all their points; its points are then treated as independent.
    """

    name = "power-c"
    parameters = ("alpha_C", "C_c")
    columns = ("C",)
    column, exponent, scale = "C", "alpha_C", "C_c"
    single_epoch = True

    def observe(self, runs: RunTable) -> Observations:
        """Rows on the compute frontier."""
        reason = unusable(runs, self.columns)
        rows = curve_rows(runs, reason) if np.any(runs.curve) else final_rows(runs, reason, single_epoch=True)
        beaten = (rows.role != "") & ~frontier(runs.C, runs.loss, rows.role != "")
        rows.role[beaten], rows.reason[beaten] = "", "not on the compute frontier: a cheaper run did better"
        rows.role[rows.role == "curve"] = "final"
        return observations(runs, rows, self.columns)


class PowerCFloor(Floor, PowerC):
    """L(C) = E + (C_c/C)^α_C: `power-c` above an entropy floor E, read from the same rows."""

    name = "power-c-floor"


def frontier(C: NDArray[np.float64], loss: NDArray[np.float64], candidates: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n,) mask of candidates whose loss is below that of every cheaper candidate."""
    index = np.flatnonzero(candidates)
    order = index[np.lexsort((loss[index], C[index]))]
    best_before = np.concatenate([[np.inf], np.minimum.accumulate(loss[order])[:-1]])
    mask = np.zeros(len(C), dtype=bool)
    mask[order[loss[order] < best_before]] = True
    return mask
