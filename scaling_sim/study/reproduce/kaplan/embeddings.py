"""Figure 6: counted with their embeddings models of different depth fan out; without, they fall on one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from scaling_sim.errors import DataError
from scaling_sim.report.figures.canvas import Colour, ReportFigure, colours, legend_below, line, points, sheet
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import number
from scaling_sim.study.reproduce.kaplan.equal_size import LEAST_ASPECT, Shapes, shapes_of
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row
from scaling_sim.study.reproduce.kaplan.shape import usual_heads

if TYPE_CHECKING:
    from scaling_sim.study.reproduce.kaplan.data import Data

Array = NDArray[np.float64]

NUM_DRAWS = 2000
LEAST_SHAPES = 6


@dataclass(frozen=True)
class Collapse:
    """How far shapes scatter about one power law.

    Attributes
    ----------
    middle : rms deviation of ln L
    spread : (n_draws,) the same of shapes resampled, brought to the same median: resampling repeats shapes and so
        makes it smaller
    line : coefficients of ln L in ln parameters, highest power first
    """

    middle: float
    spread: Array
    line: Array


def embeddings(data: Data) -> Finding:
    """Loss against all parameters and against those outside embeddings, by depth."""
    found = shapes_of(data)
    found = found.take(np.isclose(found.field("d_ff") / found.field("d_model"), 4) & usual_heads(found))
    deep = (found.field("n_layer") >= 2) & (found.field("d_model") >= LEAST_ASPECT * found.field("n_layer"))
    if deep.sum() < LEAST_SHAPES or len(np.unique(found.field("n_layer")[deep])) < 2:
        raise DataError(f"the collapse needs {LEAST_SHAPES} shapes of two depths or more with at least two layers")
    total, without = (collapse(x, found.log_loss, deep, seed=data.seed) for x in (found.N_total, found.N))

    def draw() -> ReportFigure:
        titles = ["Embeddings counted", "Embeddings left out"]
        figure, (left, right) = sheet(
            "embeddings", "Loss against parameters with and without embeddings", titles, height=4.3
        )
        for ax, sizes, one in ((left, found.N_total, total), (right, found.N, without)):
            _panel(ax, found, sizes, deep, one)
        left.set_xlabel("all parameters")
        right.set_xlabel("non-embedding parameters N")
        left.set_ylabel("loss, nats per byte")
        legend_below(left, 4)
        figure.reading = (
            "One colour per depth, all runs of equal length. Dashed: one power law through all shapes of two layers or "
            f"more with d_model/n_layer ≥ {LEAST_ASPECT:g}."
        )
        return figure

    rows = _rows(found, deep, total, without)
    return Finding(
        "F6", "Loss against parameters with and without embeddings", rows, draw, _remark(rows, total, without, found)
    )


def collapse(sizes: Array, log_loss: Array, use: NDArray[np.bool_], degree: int = 1, seed: int = 0) -> Collapse:
    """Spread of ``log_loss`` about one power law in ``sizes``, or a curve of higher degree; a bootstrap over shapes."""
    x, y = np.log(sizes[use]), log_loss[use]
    line = np.polyfit(x, y, degree)
    freedom = max(len(x) - degree - 1, 1)
    middle = float(np.sqrt(np.sum((y - np.polyval(line, x)) ** 2) / freedom))
    rows = np.random.default_rng([seed, 6]).integers(len(x), size=(NUM_DRAWS, len(x)))
    design = np.stack([(x - x.mean()) ** k for k in range(degree + 1)], axis=1)
    some, target = design[rows], y[rows][..., None]
    rest = target - some @ (np.linalg.pinv(some) @ target)
    spread = np.sqrt(np.sum(rest[..., 0] ** 2, axis=1) / freedom)
    return Collapse(middle, spread * (middle / np.median(spread)), line)


def _panel(ax: Axes, found: Shapes, sizes: Array, deep: NDArray[np.bool_], one: Collapse) -> None:
    layers = found.field("n_layer")
    for (label, here), colour in zip(_depths(layers), _shades(), strict=False):
        rows = np.flatnonzero(here & (sizes > 0))
        rows = rows[np.argsort(sizes[rows])]
        if rows.size:
            points(ax, sizes[rows], np.exp(found.log_loss[rows]), series=label, colour=colour, label=label)
        if rows.size and len(np.unique(layers[rows])) == 1:
            loss = np.exp(found.log_loss[rows])
            line(ax, sizes[rows], loss, series=label, colour=colour, width=0.9, alpha=0.5, keep=False)
    grid = np.geomspace(sizes[deep].min() / 1.2, sizes[deep].max() * 1.2, 30)
    text = f"one power law: {100 * one.middle:.1f} % spread"
    line(ax, grid, np.exp(np.polyval(one.line, np.log(grid))), series=text, colour="#1b2430", dashes="--", width=1.0)
    ax.annotate(text, (0.98, 0.97), xycoords="axes fraction", ha="right", va="top", fontsize=8.5)
    log_axes(ax)


def _depths(layers: Array) -> list[tuple[str, NDArray[np.bool_]]]:
    named = [(f"{k} layer{'s' if k != 1 else ''}", layers == k) for k in (0, 1, 2, 3)]
    return [*named, ("4-6 layers", (layers > 3) & (layers <= 6)), ("> 6 layers", layers > 6)]


def _shades() -> list[Colour]:
    return colours(6, "plasma")


def _rows(found: Shapes, deep: NDArray[np.bool_], total: Collapse, without: Collapse) -> tuple[Row, ...]:
    n = int(found.seeds[deep].sum())
    basis = "rms of ln L about one power law, bootstrap over shapes"
    layers = found.field("n_layer")
    rows = [
        Row.of("spread of ≥ 2 layers, embeddings left out", None, 100 * without.spread, n, "%", basis),
        Row.of("spread of ≥ 2 layers, embeddings counted", None, 100 * total.spread, n, "%", basis),
    ]
    bent = [collapse(x, found.log_loss, deep, degree=2) for x in (found.N, found.N_total)]
    text = "rms of ln L about one quadratic in logs: runs of one length bend away from a power law"
    for words, one in zip(("left out", "counted"), bent, strict=True):
        rows.append(Row.of(f"spread about a curve, embeddings {words}", None, 100 * one.spread, n, "%", text))
    for words, counted, out in (("a power law", total, without), ("a curve", bent[1], bent[0])):
        ratio = counted.spread[out.spread > 0] / out.spread[out.spread > 0]  # few distinct shapes fit exactly
        name = f"spread about {words}, counted over left out"
        rows.append(Row.of(name, None, ratio, n, "", "bootstrap over shapes; above 1 if leaving them out collapses"))
    for depth in (0, 1):
        use = (layers == depth) & (found.N_total > 0)
        if use.any():
            sizes = found.N_total if depth == 0 else found.N
            law = total if depth == 0 else without
            above = 100 * np.expm1(found.log_loss[use] - np.polyval(law.line, np.log(sizes[use])))
            largest = int(np.argmax(sizes[use]))
            rows.append(
                Row(f"{depth}-layer model above that line at its largest", None, float(above[largest]), None,
                    int(found.seeds[use].sum()), "%", "one shape: no interval; above it in the paper, too")
            )  # fmt: skip
    return tuple(rows)


def _remark(rows: Sequence[Row], total: Collapse, without: Collapse, found: Shapes) -> str:
    helps = [
        row.interval90 is not None and row.interval90[0] > 1 for row in rows if "counted over left out" in row.quantity
    ]
    verdict = (
        "leaving them out collapses the depths, as in the paper"
        if all(helps)
        else "about a curve instead of a power law that makes no difference, so that the paper's collapse is not shown"
        if helps[0]
        else "the difference does not exceed its interval, so that the paper's collapse is not shown"
    )
    return (
        f"Shapes of at least two layers scatter by {100 * without.middle:.1f} % about one power law without their "
        f"embeddings and by {100 * total.middle:.1f} % with them: {verdict}. Likely reasons: with "
        "256 bytes for 50257 tokens embeddings weigh less, widths of 16 to 64 limit a model by themselves, and at "
        f"{number(found.tokens, 2)} tokens runs are not converged as in the paper. Models of one layer and of none lie "
        "above, as there."
    )
