"""What the figures share: one colour per model size with its key, and the paper's lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import ArrayLike

from scaling_sim.report.figures.canvas import Colour, ReportFigure, colour_at
from scaling_sim.report.figures.ticks import tick_label, tick_places

RAMPS = {"N": "viridis", "D": "plasma", "B": "plasma", "C": "plasma"}


class Shades:
    """Colours of a positive quantity on a logarithmic ramp, light for small and dark for large values.

    Parameters
    ----------
    values : all values that are to be told apart
    symbol : "N" (green to blue), else yellow to violet; and what the key is called
    """

    def __init__(self, values: ArrayLike, symbol: str = "N", unit: str = "") -> None:
        found = np.unique(np.asarray(values, dtype=float))
        found = found[np.isfinite(found) & (found > 0)]
        self.low, self.high = float(found[0]), float(max(found[-1], found[0] * 1.0001))
        self.symbol, self.unit, self.ramp = symbol, unit, RAMPS.get(symbol, "plasma")

    def __call__(self, value: float) -> Colour:
        """The colour of one value."""
        place = np.log(value / self.low) / np.log(self.high / self.low)
        return colour_at(float(np.clip(place, 0, 1)), self.ramp)

    def key(self, figure: ReportFigure, axes: Axes | Sequence[Axes], label: str = "") -> None:
        """A colour bar beside the axes, which give it room."""
        ramp = ListedColormap([colour_at(x, self.ramp) for x in np.linspace(0, 1, 128)])
        scale = ScalarMappable(LogNorm(self.low, self.high), ramp)
        where: Any = list(axes) if isinstance(axes, Sequence) else axes
        bar = figure.colorbar(scale, ax=where, pad=0.015, aspect=32, fraction=0.04)
        bar.ax.yaxis.set_major_locator(FixedLocator(tick_places(self.low, self.high)))
        bar.ax.yaxis.set_minor_locator(NullLocator())
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_label(value)))
        bar.ax.grid(False)
        bar.outline.set_visible(False)
        bar.set_label(label or f"{WORDS.get(self.symbol, self.symbol)}{f', {self.unit}' if self.unit else ''}")


WORDS = {
    "N": "non-embedding parameters N",
    "D": "unique tokens D",
    "B": "batch, tokens",
    "C": "compute, FLOP",
}
