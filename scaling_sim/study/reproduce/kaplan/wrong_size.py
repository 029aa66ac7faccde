"""Figure 12: what a model of the wrong size costs at equal loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from scaling_sim.laws.kaplan_joint import curve_parameters
from scaling_sim.predict.appendix_b import compute_needed, compute_penalty, smallest_size, step_penalty
from scaling_sim.predict.reached import Reached, reached
from scaling_sim.report.figures.canvas import GREY, OURS, PAPER, ReportFigure, band, legend_below, line, points, sheet
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.study.reproduce.kaplan import rows
from scaling_sim.study.reproduce.kaplan.drawing import Shades
from scaling_sim.study.reproduce.kaplan.efficiency import after_transient
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row

if TYPE_CHECKING:
    from scaling_sim.study.reproduce.kaplan.data import Data

Array = NDArray[np.float64]

PUBLISHED = {"alpha_N": 0.076, "alpha_S": 0.76}
MORE = 1.2
"""Times the least compute at which the width of the bowl is read."""
SIZES = np.geomspace(0.05, 50, 1501)
NUM_LOSSES = 8
FEWEST = 4
"""Sizes that must reach a loss for its bowl to be shown."""


def wrong_size(data: Data) -> Finding:
    """Compute and updates of models of the wrong size, at equal loss."""
    fit, table = data.fit("kaplan"), after_transient(rows.table_of(data, rows.fitted(rows.family_records(data))))
    p = {name: np.asarray(v, dtype=np.float64)[:, None] for name, v in curve_parameters(fit.draws).items()}
    n = rows.num_runs(table)
    low, high = _ends(compute_penalty(SIZES, p["alpha_N"], p["alpha_S"]))
    told = (
        Row.of("smallest N/N_eff within 20 % of the least compute (B.16)", 0.6, low, n),
        Row.of("largest N/N_eff within 20 % of the least compute (B.16)", 2.2, high, n),
        Row.of("updates at 2.2 times the size (B.17)", 0.55, step_penalty(2.2, p["alpha_N"], p["alpha_S"]), n, "times"),
        Row.of("least N/N_eff that reaches the loss at all", 0.285, smallest_size(p["alpha_N"], p["alpha_S"]), n, "",
               "from the paper's exponents"),
    )  # fmt: skip
    high, low = np.quantile(table.loss[table.curve], (0.9, 0.02)).tolist()
    losses = np.geomspace(high, low, NUM_LOSSES)
    places = _places(reached(table, losses, fit), {name: float(np.median(v)) for name, v in p.items()})
    remark = (
        "Lines follow from the two exponents; points are measured: the family's curves at a few losses, moved to "
        "C_min and S_min, over the least compute of the fitted law at that loss, so that points below 1 are the law's "
        "misfit there. The paper shows the lines only."
    )
    return Finding("F12", "Models of the wrong size", told, lambda: _figure(p, places), remark)


def _ends(penalty: Array) -> tuple[Array, Array]:
    """(n,) least and largest N/N_eff whose penalty (n, k) at `SIZES` is at most `MORE`."""
    inside = penalty <= MORE
    return SIZES[np.argmax(inside, axis=1)], SIZES[len(SIZES) - 1 - np.argmax(inside[:, ::-1], axis=1)]


def _places(found: Reached, p: dict[str, float]) -> list[tuple[float, Array, Array, Array]]:
    """Of each loss that enough sizes reach: loss, N/N_eff, C_min/C_eff and S_min/S_eff of those sizes.

    N_eff = N_c·[(1 + αN/αS)/L]^(1/αN) (B.5); C_eff by (B.15).
    """
    places = []
    for j, loss in enumerate(found.loss.tolist()):
        known = np.isfinite(found.least["C_min"][1, :, j])
        if np.count_nonzero(known) >= FEWEST:
            N_eff = p["N_c"] * ((1 + p["alpha_N"] / p["alpha_S"]) / loss) ** (1 / p["alpha_N"])
            C_eff = float(compute_needed(N_eff, loss, p))
            C = found.least["C_min"][1, known, j] / C_eff
            size = found.N[known] / N_eff
            places.append((loss, size, C, C / size))
    return places


def _figure(p: dict[str, Array], places: list[tuple[float, Array, Array, Array]]) -> ReportFigure:
    titles = ["Compute", "Updates"]
    figure, axes = sheet("wrong-size", "Models of the wrong size, at equal loss", titles, height=4.4)
    shades = Shades([loss for loss, *_ in places] or [1.0, 2.0], "loss")
    for ax, penalty, k, limits in ((axes[0], compute_penalty, 2, (0.5, 6.0)), (axes[1], step_penalty, 3, (0.1, 12.0))):
        _lines(ax, penalty(SIZES, p["alpha_N"], p["alpha_S"]), penalty(SIZES, *PUBLISHED.values()))
        for place in places:
            points(ax, place[1], place[k], series=f"L = {place[0]:.2f}", colour=shades(place[0]), size=4)
        ax.set_ylim(*limits)
        ax.set_xlim(SIZES[0], SIZES[-1])
        ax.set_xlabel("size over the compute-efficient one, $N/N_{eff}$")
        log_axes(ax)
        legend_below(ax)
    axes[0].set_ylabel("$C/C_{eff}$")
    axes[1].set_ylabel("$S/S_{eff}$")
    if places:
        shades.key(figure, axes, "test loss, nats per byte")
    return figure


def _lines(ax: Axes, ours: Array, paper: Array) -> None:
    line(ax, SIZES[[0, -1]], [1, 1], series="best", colour=GREY, dashes=":", width=0.9, keep=False)
    shown = np.where(np.isfinite(ours), ours, 1e6)[:, ::10]
    band(ax, SIZES[::10], shown, series="ours", colour=OURS, label="(B.16), (B.17) with our exponents")
    line(ax, SIZES, np.where(np.isfinite(paper), paper, 1e6), series="paper", colour=PAPER, dashes="--", width=1.2,
         label="with those of Kaplan et al.")  # fmt: skip
