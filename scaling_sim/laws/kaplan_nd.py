"""L(N, D) of early-stopped runs (Kaplan et al. 2020, eqs 1.5, 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Any

import numpy as np

from scaling_sim.laws import kaplan
from scaling_sim.laws.base import Array, Centre, Coordinate, Law, Normal, Parameters, log_expm1, stack
from scaling_sim.laws.floor import Floor
from scaling_sim.laws.observations import Observations, observations, stopped_rows, unusable
from scaling_sim.runs.table import RunTable


class KaplanND(Law):
    """L(N, D) = [ (N_c/N)^(α_N/α_D) + D_c/D ]^α_D, D unique tokens of runs stopped when their test loss no longer fell.

    Coordinates: the log loss at the centre of the data, the log of the overfit there (of log L(N, D) − log L(N, ∞)),
    and the log exponents. No allocation follows from it: its premise is many epochs.
    """

    name = "kaplan-nd"
    parameters = ("alpha_N", "N_c", "alpha_D", "D_c")
    columns = ("N", "D")
    form = "early-stopped"

    def coordinates(self, centre: Centre) -> tuple[Coordinate, ...]:
        """Overfit at the centre between 1 % and a factor of 3, exponents .02 to .5 (90 % of the prior)."""
        return (
            Coordinate("log_loss", Normal(0.0, 0.5), "log loss at the centre of the data, less the mean log loss"),
            Coordinate("log_overfit", Normal(log(0.1), 1.5), "log of log L(N, D)/L(N, ∞) at the centre"),
            Coordinate("log_alpha_N", Normal(log(0.1), 1.0)),
            Coordinate("log_alpha_D", Normal(log(0.1), 1.0)),
        )

    def formula_parameters(self, u: Array, centre: Centre) -> dict[str, Array]:
        """The exponents and the log scales of the coordinates."""
        overfit, alpha_N, alpha_D = np.exp(u[:, 1]), np.exp(u[:, 2]), np.exp(u[:, 3])
        log_size = u[:, 0] + centre["log_loss"] - overfit
        log_N_c = centre["log_N"] + log_size / alpha_N
        log_D_c = centre["log_D"] + data_scale(log_size, overfit, alpha_D)
        return {"alpha_N": alpha_N, "log_N_c": log_N_c, "alpha_D": alpha_D, "log_D_c": log_D_c}

    def from_parameters(self, parameters: Parameters, centre: Centre) -> Array:
        """Coordinates of the four parameters."""
        log_size = parameters["alpha_N"] * (np.log(parameters["N_c"]) - centre["log_N"])
        log_loss = kaplan.log_loss_nd(np.exp(centre["log_N"]), np.exp(centre["log_D"]), parameters)
        logs = [np.log(parameters[name]) for name in ("alpha_N", "alpha_D")]
        return stack(log_loss - centre["log_loss"], np.log(log_loss - log_size), *logs)

    def log_loss(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        """Eq. 1.5."""
        return kaplan.log_loss_nd(columns["N"], columns["D"], parameters)

    def observe(self, runs: RunTable) -> Observations:
        """Rows flagged as early-stopped; every final loss if none is."""
        return observations(runs, stopped_rows(runs, unusable(runs, self.columns)), self.columns)

    def limits(self) -> Mapping[str, str]:
        """Each limit is a one-variable law."""
        return {"D → ∞": "L → (N_c/N)^α_N", "N → ∞": "L → (D_c/D)^α_D, early-stopped", "N, D → ∞": "L → 0: must break"}


class KaplanNDFloor(Floor, KaplanND):
    """L(N, D) = E + [ (N_c/N)^(α_N/α_D) + D_c/D ]^α_D: `kaplan-nd` above an entropy floor E, from the same rows."""

    name = "kaplan-nd-floor"


def data_scale(log_size: Any, overfit: Any, alpha_D: Any) -> Any:
    """log(D_c/D) that raises the loss from exp(log_size) by ``overfit`` (in log): the inverse of eq. 4.3."""
    return log_size / alpha_D + log_expm1(overfit / alpha_D)
