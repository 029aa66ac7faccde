"""One-variable power laws L(X) = (X_c/X)^α_X: the common part of `power-n`, `power-d` and `power-c`."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Any

import numpy as np

from scaling_sim.laws.base import Array, Centre, Coordinate, Law, Normal, Parameters, log_of, stack


class PowerLaw(Law):
    """L(X) = (X_c/X)^α, X one column of the runs.

    Coordinates: the log loss at the centre of the data and log α. No allocation follows from a law of one variable.
    """

    column: str
    exponent: str
    scale: str

    def coordinates(self, centre: Centre) -> tuple[Coordinate, ...]:
        """Log loss at the centre within a factor of 1.6 of the mean, exponent .02 to .5 (each one sd and a half)."""
        return (
            Coordinate("log_loss", Normal(0.0, 0.5), "log loss at the centre of the data, less the mean log loss"),
            Coordinate(f"log_{self.exponent}", Normal(log(0.1), 1.0)),
        )

    def formula_parameters(self, u: Array, centre: Centre) -> dict[str, Array]:
        """Exponent and log scale of the coordinates."""
        alpha = np.exp(u[:, 1])
        log_scale = centre[f"log_{self.column}"] + (u[:, 0] + centre["log_loss"]) / alpha
        return {self.exponent: alpha, f"log_{self.scale}": log_scale}

    def from_parameters(self, parameters: Parameters, centre: Centre) -> Array:
        """Coordinates of exponent and scale."""
        alpha, scale = np.asarray(parameters[self.exponent]), np.asarray(parameters[self.scale])
        log_loss = alpha * (np.log(scale) - centre[f"log_{self.column}"])
        return stack(log_loss - centre["log_loss"], np.log(alpha))

    def log_loss(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        """α (log X_c − log X)."""
        return np.asarray(parameters[self.exponent] * (log_of(parameters, self.scale) - np.log(columns[self.column])))

    def limits(self) -> Mapping[str, str]:
        """The loss falls to 0: the form has no entropy floor and must break."""
        return {f"{self.column} → ∞": "L → 0: no entropy floor, so the form must break somewhere beyond the data"}
