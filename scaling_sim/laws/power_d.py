"""L(D) = (D_c/D)^α_D: early-stopped, models too large to limit the loss (Kaplan et al. 2020, eqs 1.2, 3.2)."""

from __future__ import annotations

import numpy as np

from scaling_sim.laws.floor import Floor
from scaling_sim.laws.observations import Observations, observations, stopped_rows, unusable
from scaling_sim.laws.power import PowerLaw
from scaling_sim.runs.table import RunTable


class PowerD(PowerLaw):
    """L(D) = (D_c/D)^α_D (eq. 1.2), D unique tokens.

    Where rows are flagged as early-stopped, those of the largest model are read, as in the paper; otherwise every
    final loss.
    """

    name = "power-d"
    parameters = ("alpha_D", "D_c")
    columns = ("D",)
    form = "early-stopped"
    column, exponent, scale = "D", "alpha_D", "D_c"

    def observe(self, runs: RunTable) -> Observations:
        """Early-stopped rows of the largest model, or all final rows."""
        reason = unusable(runs, self.columns)
        flagged = (reason == "") & runs.stopped
        if np.any(flagged):
            smaller = flagged & (np.max(runs.N[flagged]) > runs.N)
            reason[smaller] = "not of the largest model: L(D) is the limit of many parameters"
        return observations(runs, stopped_rows(runs, reason), self.columns)


class PowerDFloor(Floor, PowerD):
    """L(D) = E + (D_c/D)^α_D: `power-d` above an entropy floor E, read from the same rows."""

    name = "power-d-floor"
