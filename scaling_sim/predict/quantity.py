"""One predicted quantity: its posterior draws and the numbers that people read off them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import ConfigError


@dataclass(frozen=True)
class Quantity:
    """Posterior draws of one quantity.

    Draws may be +∞ (no crossing, say); quantiles over all draws are then still right and may be ∞, a mean would not be,
    so there is none.
    """

    name: str
    draws: NDArray[np.float64]
    unit: str = ""

    @property
    def median(self) -> float:
        """Median over all draws."""
        return float(quantile(self.draws, 0.5))

    def interval(self, level: float = 0.9) -> tuple[float, float]:
        """Equal-tailed interval that holds ``level`` of all draws."""
        if not 0 < level < 1:
            raise ConfigError(f"level must lie strictly between 0 and 1, got {level}")
        tail = (1 - level) / 2
        return float(quantile(self.draws, tail)), float(quantile(self.draws, 1 - tail))

    def to_json(self) -> dict[str, Any]:
        """``{"median": …, "interval90": [lo, hi]}``; infinite bounds are the string "inf"."""
        low, high = self.interval(0.9)
        return {"median": _json(self.median), "interval90": [_json(low), _json(high)]}


class Loss:
    """Short ways to the loss of a prediction whose main answer it is."""

    loss: Quantity

    @property
    def median(self) -> float:
        """Median loss, nats per token."""
        return self.loss.median

    def interval(self, level: float = 0.9) -> tuple[float, float]:
        """Equal-tailed interval of the loss."""
        return self.loss.interval(level)

    @property
    def draws(self) -> NDArray[np.float64]:
        """Draws of the loss, (n,)."""
        return self.loss.draws


def quantile(draws: NDArray[np.float64], level: float) -> float:
    """Quantile that stays right when draws are infinite: linear between finite neighbours, else the upper neighbour."""
    ordered = np.sort(np.asarray(draws, dtype=np.float64).ravel())
    if ordered.size == 0 or np.isnan(ordered[-1]):
        return float("nan")
    place = level * (ordered.size - 1)
    below, above = ordered[int(np.floor(place))], ordered[int(np.ceil(place))]
    weight = place - np.floor(place)
    return float(below + weight * (above - below)) if np.isfinite(above) and np.isfinite(below) else float(above)


def _json(value: float) -> float | str:
    return value if np.isfinite(value) else str(value)
