"""L(N) = (N_c/N)^α_N: converged models with unlimited data (Kaplan et al. 2020, eqs 1.1, 3.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scaling_sim.laws.floor import Floor
from scaling_sim.laws.observations import Observations, Rows, final_rows, observations, unusable
from scaling_sim.laws.power import PowerLaw
from scaling_sim.runs.table import RunTable

SHORTER = "a shorter run of its N: L(N) is the limit of converged runs"
_NOTE = (
    "sizes were trained for several lengths: the longest run of each N stands for the converged one; kaplan estimates "
    "the limit from all of them"
)


class PowerN(PowerLaw):
    """L(N) = (N_c/N)^α_N (eq. 1.1).

    Reads final losses. A run that has not converged does not belong in it: where one N was trained for several lengths,
    only the longest are read (equally long ones all).
    """

    name = "power-n"
    parameters = ("alpha_N", "N_c")
    columns = ("N",)
    column, exponent, scale = "N", "alpha_N", "N_c"
    single_epoch = True

    def observe(self, runs: RunTable) -> Observations:
        """Final losses of the longest runs of each N."""
        rows = final_rows(runs, unusable(runs, self.columns), single_epoch=True)
        shorter = (rows.role != "") & ~longest_of_size(runs, rows.role != "")
        if not np.any(shorter):
            return observations(runs, rows, self.columns)
        rows.role[shorter], rows.reason[shorter] = "", SHORTER
        return observations(runs, Rows(rows.role, rows.reason, (*rows.notes, _NOTE)), self.columns)


class PowerNFloor(Floor, PowerN):
    """L(N) = E + (N_c/N)^α_N: `power-n` above an entropy floor E, read from the same rows."""

    name = "power-n-floor"


def longest_of_size(runs: RunTable, candidates: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n,) mask of candidates that processed as many tokens as any of their N, to 1 %; unknown tokens count as most."""
    sizes, place = np.unique(runs.N, return_inverse=True)
    tokens = np.where(np.isfinite(runs.tokens), runs.tokens, np.inf)
    most = np.zeros(len(sizes))
    np.maximum.at(most, place[candidates], tokens[candidates])
    return candidates & (tokens >= 0.99 * most[place])
