"""Log axes with few, readable ticks, also where less than a decade is shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter, NullLocator

_STEPS: tuple[Sequence[float], ...] = (
    (1,),
    (1, 3),
    (1, 2, 5),
    (1, 1.5, 2, 3, 4, 5, 7),
    (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9),
    tuple(np.round(np.arange(1, 10, 0.1), 1)),
    tuple(np.round(np.arange(1, 10, 0.02), 2)),
)
_LABELS_WANTED = (3, 7)


def log_axes(axes: Axes, x: bool = True, y: bool = True) -> None:
    """Make the axes logarithmic with ticks chosen for their present limits; call it after drawing."""
    for wanted, axis, scale, limits in (
        (x, axes.xaxis, axes.set_xscale, axes.get_xlim),
        (y, axes.yaxis, axes.set_yscale, axes.get_ylim),
    ):
        if not wanted:
            continue
        scale("log")
        places = tick_places(*limits())
        axis.set_major_locator(FixedLocator(places))
        axis.set_major_formatter(FixedFormatter([tick_label(place) for place in places]))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())


def tick_places(low: float, high: float) -> list[float]:
    """Three to seven round numbers between ``low`` and ``high``, evenly useful on a log axis."""
    low, high = sorted((low, high))
    decades = range(int(np.floor(np.log10(low))) - 1, int(np.ceil(np.log10(high))) + 2)
    places: list[float] = []
    for steps in _STEPS:
        places = [float(f"{s * 10.0**k:.6g}") for k in decades for s in steps if low <= s * 10.0**k <= high]
        if len(places) >= _LABELS_WANTED[0]:
            break
    stride = int(np.ceil(len(places) / _LABELS_WANTED[1]))
    return places[::stride] if stride > 1 else places


def tick_label(value: float) -> str:
    """``2.5``, ``400``, ``10⁶`` or ``3·10⁶``."""
    if 1e-2 <= value < 1e4:
        return f"{value:g}"
    exponent = int(np.floor(np.log10(value) + 1e-9))
    factor = value / 10.0**exponent
    power = rf"10^{{{exponent}}}"
    return rf"${power}$" if abs(factor - 1) < 1e-6 else rf"${factor:g}{{\cdot}}{power}$"
