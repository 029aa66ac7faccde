"""Known sizes by published constants and by this report's fits: how over- or undertrained, and what that costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scaling_sim.predict.quantity import Quantity
from scaling_sim.report.figures.canvas import (
    LIGHT,
    Colour,
    NothingToShow,
    ReportFigure,
    colours,
    drawn,
    legend_below,
    sheet,
)
from scaling_sim.report.figures.dots import dot, name_rows, within_reason
from scaling_sim.report.table import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from scaling_sim.predict.known import KnownRow, KnownSize, KnownSizes
    from scaling_sim.report.data import ReportData


@drawn
def figure_known(data: ReportData | KnownSizes) -> ReportFigure:
    """Each known size over the best one for its compute, by source, and the loss above the best, in per cent.

    Raises
    ------
    NothingToShow
        The report has no fit that says which size is best.
    """
    found = _known(data)
    sizes = sorted({row.size for row in found.rows}, key=lambda size: size.C)
    sources = list(dict.fromkeys(row.source for row in found.rows))
    titles = ["Size over the best one for its compute", "Loss above that of the best size"]
    height = 1.9 + 0.34 * len(sources)
    figure, (left, right) = sheet("known", "Known sizes: over- or undertrained?", titles, height=height, log="")
    left.set_xscale("log")
    shades = dict(zip(sizes, colours(len(sizes)), strict=True))
    for row in found.rows:
        _row(left, right, row, sources.index(row.source), shades)
    name_rows(left, sources)
    name_rows(right, [""] * len(sources))
    left.axvspan(0.8, 1.25, color=LIGHT, lw=0, zorder=0.5)
    left.set_xlabel("N/N*:  overtrained < 1 < undertrained")
    right.set_xlabel("100 · (loss/best loss − 1)")
    right.set_xlim(left=min(0.0, right.get_xlim()[0]))
    cut = " Bars that touch the edge go on beyond it." if within_reason(left) else ""
    legend_below(left, 2)
    figure.reading = f"{_disagreement(found)} {found.notes[0]}; losses compare within a row only.{cut}"
    return figure


def _known(data: ReportData | KnownSizes) -> KnownSizes:
    from scaling_sim.laws.constants import CONSTANTS
    from scaling_sim.predict.known import KnownSizes, known_sizes

    if isinstance(data, KnownSizes):
        return data
    if not data.fits:
        raise NothingToShow("no law was fitted that known sizes could be judged by")
    fits = list(data.fits.values())
    if not known_sizes(fits).rows:
        raise NothingToShow("no law that was fitted says which size is best for a budget")
    return known_sizes([*fits, *CONSTANTS])


def _row(left: Axes, right: Axes, row: KnownRow, place: int, shades: dict[KnownSize, Colour]) -> None:
    shift = 0.1 * (list(shades).index(row.size) - 0.5 * (len(shades) - 1))
    text, colour = _words(row.size), shades[row.size]
    series = f"{row.source}: {text}"
    dot(left, place + shift, row.size_ratio, series=series, colour=colour, label=text if place == 0 else None)
    if row.excess is not None:
        percent = Quantity("excess", 100 * row.excess.draws)
        dot(right, place + shift, percent, series=series, colour=colour)


def _words(size: KnownSize) -> str:
    like = f" ({size.like})" if size.like else ""
    return f"{number(size.N)} on {number(size.tokens)}{like}"


def _disagreement(found: KnownSizes) -> str:
    """Between which ratios the sources lie for the size that they disagree most about."""
    ratios: dict[KnownSize, list[float]] = {}
    for row in found.rows:
        ratios.setdefault(row.size, []).append(row.size_ratio.median)
    size, values = max(ratios.items(), key=lambda item: max(item[1]) / min(item[1]))
    return (
        f"{_words(size)} has {number(min(values), 2)} to {number(max(values), 2)} times the best size for its compute, "
        "depending on whom one asks."
    )
