"""Figure 24: depth at equal N makes no difference, on the training distribution or on other texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import DataError
from scaling_sim.report.figures.canvas import ReportFigure, colours, legend_below, line, points, sheet
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import number
from scaling_sim.study.reproduce.kaplan.equal_size import LEAST_ASPECT, Shapes, SizeSlope, groups_of_size, shapes_of
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row
from scaling_sim.study.reproduce.kaplan.shape import usual_heads

if TYPE_CHECKING:
    from scaling_sim.study.reproduce.kaplan.data import Data

Array = NDArray[np.float64]

LEAST = 3


@dataclass(frozen=True)
class Depths:
    """One text and one N: loss in nats against depth, the mismatch of N taken out; (n,) each."""

    split: str
    N: float
    n_layer: Array
    loss: Array
    error: Array
    slope: tuple[float, float, float]
    """% of loss per doubling of depth, from two layers on and d_model/n_layer ≥ 4: low, middle and high of 90 %."""
    depths: int
    """Behind ``slope``."""
    num_runs: int


def depth(data: Data) -> Finding:
    """Loss against depth at equal N, on every text."""
    splits = splits_of(data)
    found = [one for split in splits for one in depths_of(shapes_of(data, split), split)]
    if not found:
        raise DataError(f"no size was trained at {LEAST} depths or more")

    def draw() -> ReportFigure:
        sizes = sorted({round(one.N, -3) for one in found})
        figure, axes = sheet(
            "depth", "Loss against depth at equal N", [f"N ≈ {number(N, 2)}" for N in sizes], height=4.2
        )
        for ax, N in zip(axes, sizes, strict=True):
            here = [one for one in found if round(one.N, -3) == N]
            for one, colour in zip(here, colours(len(splits), "plasma"), strict=False):
                line(ax, one.n_layer, one.loss, series=one.split, colour=colour, width=1.0, alpha=0.6, keep=False)
                error = 1.645 * one.error * one.loss
                points(ax, one.n_layer, one.loss, series=one.split, colour=colour, label=one.split, error=error)
            ax.set_xlabel("layers")
            log_axes(ax)
        axes[0].set_ylabel("loss, nats per byte")
        legend_below(axes[0], 3)
        figure.reading = (
            "One line for each text; a mismatch of N is taken out by L(N). Bars: 90 % of the seeds' scatter."
        )
        return figure

    rows = [
        Row(
            f"loss on {one.split} per doubling of depth, N = {number(one.N, 2)}, 2 layers to aspect {LEAST_ASPECT:g}",
            0.0, one.slope[1], (one.slope[0], one.slope[2]), one.num_runs, "%",
            f"{one.depths} depths, without 1 layer and d_model/n_layer below {LEAST_ASPECT:g}; t interval",
        )
        for one in found if np.isfinite(one.slope[1])
    ]  # fmt: skip
    return Finding("F24", "Loss against depth at equal N, on every text", tuple(rows), draw, _remark(found))


def splits_of(data: Data) -> list[str]:
    """The test split and the held-out distributions that the shape runs were evaluated on."""
    known = {name for record in data.records("shape") for name in record.curve[-1].losses}
    return ["test", *sorted(known - {"test", "validation", "train"})]


def depths_of(found: Shapes, split: str) -> list[Depths]:
    """Every N with enough depths at d_ff = 4·d_model and the usual heads."""
    baseline, made = SizeSlope.of(found), []
    for group in groups_of_size(found):
        standard = np.isclose(group.field("d_ff") / group.field("d_model"), 4)
        chosen = group.take(standard & usual_heads(group))
        chosen = chosen.at(np.argsort(chosen.field("n_layer"), kind="stable"))
        n_layer = chosen.field("n_layer")
        if len(np.unique(n_layer)) < LEAST:
            continue
        N = float(np.exp(np.mean(np.log(chosen.N))))
        level = baseline.corrected(chosen, N)
        error = chosen.scatter / np.sqrt(chosen.seeds)
        use = (n_layer >= 2) & (chosen.field("d_model") / n_layer >= LEAST_ASPECT)
        slope = _slope(np.log2(n_layer[use]), level[use], error[use])
        runs = int(chosen.take(use).num_runs) if np.isfinite(slope[1]) else chosen.num_runs
        depths = len(np.unique(n_layer[use]))
        made.append(Depths(split, N, n_layer, np.exp(level), error, slope, depths, runs))
    return made


def _slope(x: Array, y: Array, error: Array) -> tuple[float, float, float]:
    """Slope in %, with its 90 % interval: the larger of the seeds' scatter and that about the line."""
    from scipy.stats import t

    if len(x) < LEAST:
        return (np.nan, np.nan, np.nan)
    weight = 1 / error**2
    away = x - np.average(x, weights=weight)
    precision = float(np.sum(weight * away**2))
    slope = float(np.sum(weight * away * y)) / precision
    rest = y - np.average(y, weights=weight) - slope * away
    excess = max(1.0, float(np.sum(weight * rest**2)) / max(len(x) - 2, 1))
    half = float(t.ppf(0.95, max(len(x) - 2, 1))) * (excess / precision) ** 0.5
    low, middle, high = 100 * np.expm1(np.array([slope - half, slope, slope + half]))
    return float(low), float(middle), float(high)


def _remark(found: list[Depths]) -> str:
    flat = all(one.slope[0] <= 0 <= one.slope[2] for one in found if one.split == "test" and np.isfinite(one.slope[1]))
    verdict = "Reproduced" if flat else "Not reproduced"
    parts = [
        f"{verdict} from 2 layers to d_model/n_layer = {LEAST_ASPECT:g}, about the paper's narrowest: there depth "
        f"makes {'no difference beyond the interval' if flat else 'a difference'}. Over all our depths it makes one:"
    ]
    told = []
    for N in sorted({one.N for one in found if one.split == "test"}):
        one = next(o for o in found if o.split == "test" and o.N == N)
        best = int(np.argmin(one.loss))
        worst = int(np.argmax(one.loss))
        told.append(
            f"at N ≈ {number(N, 2)} {one.n_layer[best]:.0f} layers are best and {one.n_layer[worst]:.0f} worst, "
            f"{100 * (one.loss[worst] / one.loss[best] - 1):.1f} % above"
        )
    return " ".join(parts) + (
        f" {'; '.join(told)}. The paper compared models of 1.5e9 parameters with 10 to 207 layers; at our N a single "
        "layer, or a width below 30, limits what a model can do at all. The cut, fixed before the runs, "
        "leaves few depths."
    )
