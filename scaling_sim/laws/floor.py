"""An entropy floor under any law of the loss: L = E + the law's own form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scaling_sim.laws.base import Array, Centre, Coordinate, Law, Normal, Parameters, log_of, log_sum_exp


class Floor(Law):
    """Mixin that adds an entropy floor E to the law after it: ``class PowerNFloor(Floor, PowerN)``.

    The law's formula becomes that of the reducible loss L − E. Its coordinates stay, those whose names begin with
    ``log_loss`` now of L; E is one more, through its ratio to L − E at the centre of the data, so that its prior knows
    no unit: a factor of 27 about .37 (90 % of it).
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a law that the floor could not reach."""
        super().__init_subclass__(**kwargs)
        if cls.to_parameters is not Law.to_parameters:
            raise TypeError(f"{cls.__name__} needs a law that defines formula_parameters, not to_parameters")

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.parameters = (*self.parameters, "E")

    def coordinates(self, centre: Centre) -> tuple[Coordinate, ...]:
        """Those of the law, and the log-ratio of E to L − E."""
        ratio = Coordinate("log_E", Normal(-1.0, 2.0), "log of E over L − E at the centre of the data")
        return (*super().coordinates(centre), ratio)  # type: ignore[safe-super]

    def formula_parameters(self, u: Array, centre: Centre) -> dict[str, Array]:
        """Those of the law for the reducible loss, and log E."""
        reducible = u[:, :-1] - self._loss_coordinates(centre) * _total(u[:, -1:])
        log_E = u[:, -1] + reducible[:, 0] + centre["log_loss"]
        return {**super().formula_parameters(reducible, centre), "log_E": log_E}

    def from_parameters(self, parameters: Parameters, centre: Centre) -> Array:
        """Coordinates of the law's parameters and E."""
        reducible = super().from_parameters(parameters, centre)  # type: ignore[safe-super]
        ratio = (np.log(parameters["E"]) - reducible[:, 0] - centre["log_loss"])[:, None]
        return np.hstack([reducible + self._loss_coordinates(centre) * _total(ratio), ratio])

    def log_loss(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        """log(E + reducible loss)."""
        return log_sum_exp(log_of(parameters, "E"), super().log_loss(parameters, columns))

    def limits(self) -> Mapping[str, str]:
        """Those of the law, above E."""
        above = {where: limit.replace("L → ", "L → E + ") for where, limit in super().limits().items()}
        return {where: "L → E" if limit.startswith("L → E + 0") else limit for where, limit in above.items()}

    def _loss_coordinates(self, centre: Centre) -> Array:
        """1 for each coordinate of the law that is a log loss, else 0; the first one must be."""
        names = [coordinate.name for coordinate in self.coordinates(centre)[:-1]]
        return np.array([float(name.startswith("log_loss")) for name in names])


def _total(ratio: Array) -> Array:
    """log of L/(L − E), from the log of E/(L − E)."""
    return np.asarray(np.logaddexp(0.0, ratio))
