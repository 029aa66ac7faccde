"""The sheet that every figure is drawn on: one look, sensible log axes, and a record of the numbers shown.

Only matplotlib's object interface is used (no pyplot, no backend, no lasting change of settings), so that reports can
be written from any thread of any program.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd

P = ParamSpec("P")
Colour = str | tuple[float, float, float]

WIDTH_INCHES = 9.0
"""Width of a figure; the report's column is as wide, so that a 9 pt letter is shown as 12.5 px."""
TEXT_PIXELS = 105
"""Room that "beyond the data" needs, at 100 dots per inch."""
INK, GREY, LIGHT = "#1b2430", "#6b7280", "#e5e7eb"
OURS, PAPER, ACCENT = "#1f5a94", "#c2410c", "#0f766e"

STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.usetex": False,
    "mathtext.fontset": "dejavusans",
    "text.color": INK,
    "axes.edgecolor": "#9aa3af",
    "axes.facecolor": "white",
    "axes.labelcolor": INK,
    "axes.labelsize": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 7.0,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.which": "major",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": "#eceff3",
    "grid.linewidth": 0.7,
    "grid.linestyle": "-",
    "xtick.color": "#9aa3af",
    "ytick.color": "#9aa3af",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.minor.size": 2.0,
    "ytick.minor.size": 2.0,
    "legend.frameon": False,
    "legend.fontsize": 8.2,
    "legend.handlelength": 1.8,
    "legend.borderaxespad": 0.3,
    "legend.labelspacing": 0.35,
    "lines.linewidth": 1.6,
    "figure.facecolor": "white",
    "figure.dpi": 100.0,
    "path.simplify": True,
    "svg.fonttype": "path",
    "svg.hashsalt": "scaling_sim",
}
"""Matplotlib settings of every figure; in force only while one is drawn or saved."""

_lock = threading.RLock()


@contextmanager
def style() -> Iterator[None]:
    """Our settings inside the block, the caller's own after it; one thread at a time."""
    with _lock, matplotlib.rc_context(cast(Any, STYLE)):
        yield


class NothingToShow(Exception):
    """A figure's data do not exist in this report; the message says what is missing."""


class ReportFigure(Figure):
    """A matplotlib figure that remembers what it shows.

    Attributes
    ----------
    name : str
        Used for file names and anchors.
    heading, reading : str
        Title, and one plain sentence about what the figure shows.
    rows : list of dict
        The numbers drawn: panel, series, kind, x, y and the bounds of bands.
    """

    def __init__(self, name: str, heading: str, height: float, *, fitted: bool = True) -> None:
        """Lay out axes and labels so that nothing overlaps if ``fitted``; that is slow for dozens of axes."""
        super().__init__(figsize=(WIDTH_INCHES, height), layout="constrained" if fitted else None)
        FigureCanvasAgg(self)
        self.name, self.heading, self.reading = name, heading, ""
        self.rows: list[dict[str, Any]] = []

    def to_dataframe(self) -> pd.DataFrame:
        """Every number drawn, one row per point; bands have their 50 and 90 % bounds."""
        import pandas as pd

        return pd.DataFrame(self.rows)

    def record(self, axes: Axes, series: str, kind: str, x: ArrayLike, **columns: ArrayLike) -> None:
        """Remember points ``x`` (n,) and further (n,) columns that were drawn on ``axes``."""
        names = list(columns)
        for row in zip(np.asarray(x).tolist(), *(np.asarray(columns[name]).tolist() for name in names), strict=True):
            values = dict(zip(["x", *names], row, strict=True))
            self.rows.append({"panel": axes.get_label(), "series": series, "kind": kind, **values})


def drawn(build: Callable[P, ReportFigure]) -> Callable[P, ReportFigure]:
    """Run a figure builder under the report's style."""

    @wraps(build)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> ReportFigure:
        with style():
            return build(*args, **kwargs)

    return wrapper


def sheet(
    name: str, heading: str, panels: Sequence[str], *, height: float = 3.6, log: str = "xy"
) -> tuple[ReportFigure, list[Axes]]:
    """A figure with titled panels side by side; the axes named in ``log`` are logarithmic."""
    figure = ReportFigure(name, heading, height)
    grid = figure.add_gridspec(1, len(panels))
    axes = [figure.add_subplot(grid[0, i], label=title or f"panel {i + 1}") for i, title in enumerate(panels)]
    for ax, title in zip(axes, panels, strict=True):
        ax.set_title(title)
        log_scales(ax, log)
    return figure, axes


def log_scales(axes: Axes, log: str) -> None:
    """Make the axes named in ``log`` ("x", "y", "xy") logarithmic before anything is drawn."""
    if "x" in log:
        axes.set_xscale("log")
    if "y" in log:
        axes.set_yscale("log")


def colours(count: int, name: str = "viridis") -> list[Colour]:
    """``count`` colours from light (first) to dark, distinguishable without colour vision and in print."""
    return [colour_at(k / (count - 1) if count > 1 else 0.6, name) for k in range(count)]


def colour_at(place: float, name: str = "viridis") -> Colour:
    """Colour of ``place`` in [0, 1] on a ramp from light to dark; its ends, too pale and too black, are left out."""
    red, green, blue, _ = matplotlib.colormaps[name](0.82 - 0.74 * float(place))
    return float(red), float(green), float(blue)


def points(
    axes: Axes,
    x: ArrayLike,
    y: ArrayLike,
    *,
    series: str,
    colour: Colour,
    label: str | None = None,
    marker: str = "o",
    size: float = 4.5,
    hollow: bool = False,
    error: ArrayLike | None = None,
    alpha: float = 0.9,
) -> None:
    """Draw and record points; ``error`` (n,) or (2, n) adds vertical bars."""
    face = "white" if hollow else colour
    axes.plot(
        x, y, marker, ms=size, mfc=face, mec=colour, mew=0.9 if hollow else 0.3, alpha=alpha, label=label, zorder=3
    )
    columns: dict[str, ArrayLike] = {"y": y}
    if error is not None:
        bars = np.broadcast_to(np.asarray(error, dtype=float), (2, np.size(y)))
        axes.errorbar(x, y, yerr=bars, fmt="none", ecolor=colour, elinewidth=0.9, alpha=0.7, zorder=2.5)
        columns |= {"lo": np.asarray(y) - bars[0], "hi": np.asarray(y) + bars[1]}
    _recorder(axes).record(axes, series, "point", x, **columns)


def line(
    axes: Axes,
    x: ArrayLike,
    y: ArrayLike,
    *,
    series: str,
    colour: Colour,
    label: str | None = None,
    dashes: str = "-",
    width: float = 1.6,
    alpha: float = 1.0,
    keep: bool = True,
) -> None:
    """Draw a line and record it (unless ``keep`` is False)."""
    axes.plot(x, y, dashes, color=colour, lw=width, alpha=alpha, label=label, zorder=2.8)
    if keep:
        _recorder(axes).record(axes, series, "line", x, y=y)


def band(
    axes: Axes,
    x: ArrayLike,
    draws: ArrayLike,
    *,
    series: str,
    colour: Colour,
    label: str | None = None,
    width: float = 1.6,
    dashes: str = "-",
) -> NDArray[np.float64]:
    """Draw the median with 50 and 90 % intervals of ``draws`` (n_draws, n_x); return the five quantiles (5, n_x)."""
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    quantiles = np.asarray(np.nanquantile(np.asarray(draws, dtype=float), levels, axis=0), dtype=float)
    quantile_band(axes, x, quantiles, series=series, colour=colour, label=label, width=width, dashes=dashes)
    return quantiles


def quantile_band(
    axes: Axes,
    x: ArrayLike,
    quantiles: NDArray[np.float64],
    *,
    series: str,
    colour: Colour,
    label: str | None = None,
    width: float = 1.6,
    dashes: str = "-",
) -> None:
    """Draw (5, n_x) quantiles at 5, 25, 50, 75 and 95 % as a median with 50 and 90 % intervals."""
    x = np.asarray(x, dtype=float)
    axes.fill_between(x, quantiles[0], quantiles[4], color=colour, alpha=0.16, lw=0, zorder=1.5)
    axes.fill_between(x, quantiles[1], quantiles[3], color=colour, alpha=0.24, lw=0, zorder=1.6)
    axes.plot(x, quantiles[2], dashes, color=colour, lw=width, label=label, zorder=2.8)
    names = ("lo90", "lo50", "y", "hi50", "hi90")
    _recorder(axes).record(axes, series, "median and band", x, **dict(zip(names, quantiles, strict=True)))


def legend_below(axes: Axes, columns: int = 1) -> None:
    """A legend below the axis label, where it hides no data."""
    below = offset_copy(axes.transAxes, axes.get_figure(root=True), y=-34, units="points")
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, 0.0), bbox_transform=below, ncols=columns, borderaxespad=0.0)


def shade_beyond(axes: Axes, edge: float, text: str = "beyond the data") -> None:
    """Shade the part of the x axis above ``edge``: nothing was measured there."""
    low, high = axes.get_xlim()
    if not edge < high:
        return
    axes.axvspan(max(edge, low), high, color="#f3f1ec", zorder=0.2, lw=0)
    axes.axvline(edge, color="#c9c3b6", lw=0.8, ls=(0, (3, 3)), zorder=0.3)
    axes.set_xlim(low, high)
    share = np.log(high / edge) / np.log(high / low) if axes.get_xscale() == "log" else (high - edge) / (high - low)
    axes.annotate(
        text if share * axes.bbox.width > TEXT_PIXELS else text.replace(" ", "\n", 1),
        (edge, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(4, -3),
        textcoords="offset points",
        va="top",
        fontsize=7.8,
        color="#8a8373",
    )


def _recorder(axes: Axes) -> ReportFigure:
    figure = axes.get_figure(root=True)
    assert isinstance(figure, ReportFigure)
    return figure
