"""What the figures share: one colour per model size with its key, and the paper's lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import ArrayLike

from scaling_sim.report.figures.canvas import GREY, PAPER, Colour, ReportFigure, colour_at, line, points
from scaling_sim.report.figures.curves import Array, learning_curves, pinned
from scaling_sim.report.figures.ticks import tick_label, tick_places

if TYPE_CHECKING:
    from scaling_sim.inference import Posterior
    from scaling_sim.runs.table import RunTable

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

LOSS = "test loss, nats per byte"
"""English runs read bytes: a token is a byte."""


def law_draws(fit: Posterior, count: int = 400) -> dict[str, Array]:
    """At most ``count`` evenly spaced draws of the parameters, each (n, 1); none whose scales no float can hold."""
    draws = {name: np.asarray(values, dtype=float) for name, values in fit.draws.items()}
    good = np.flatnonzero(np.all([np.isfinite(values) & (values > 0) for values in draws.values()], axis=0))
    rows = good[np.unique(np.linspace(0, len(good) - 1, min(count, len(good))).round().astype(int))]
    return {name: values[rows, None] for name, values in draws.items()}


def power(x: ArrayLike, scale: Array, exponent: Array) -> Array:
    """(X_c/x)^α for every draw, (n, k); the arrays of parameters are (n, 1)."""
    return np.asarray(np.exp(exponent * (np.log(scale) - np.log(np.asarray(x, dtype=float)))))


def slope_line(ax: Axes, x: Array, middle: Array, exponent: float, text: str, dashes: str = "--") -> None:
    """The paper's slope through the middle of our curve: its constants are of another text and not drawn."""
    y = pinned(x, middle, exponent)
    line(ax, x, y, series=text, colour=PAPER, dashes=dashes, width=1.2, label=text)


def runs_as_lines(
    ax: Axes, table: RunTable, x: Array, shades: Shades, *, width: float = 0.9, alpha: float = 0.75
) -> None:
    """Every learning curve of a table against a column ``x`` (n,), in the colour of its size."""
    for rows in learning_curves(table, table.curve):
        N = float(table.N[rows[0]])
        series = f"N = {N:.0f}, {table.run[rows[0]]}"
        line(ax, x[rows], table.loss[rows], series=series, colour=shades(N), width=width, alpha=alpha)


def size_points(ax: Axes, shades: Shades, N: Array, x: Array, y: Array, **options: Any) -> None:
    """Points in the colours of their sizes."""
    for value in np.unique(N):
        rows = value == N
        points(ax, x[rows], y[rows], series=f"N = {value:.0f}", colour=shades(float(value)), **options)


def hollow_key(ax: Axes, label: str = "not fitted") -> None:
    """Name the hollow points in the next legend."""
    ax.plot([], [], "o", mfc="white", mec=GREY, ms=4.5, label=label)
