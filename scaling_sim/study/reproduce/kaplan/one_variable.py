"""Figure 1: loss against compute, data and size, each a power law where only that one limits it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scaling_sim.report.figures.canvas import ReportFigure, line, sheet
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.study.reproduce.kaplan.drawing import Shades
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row

if TYPE_CHECKING:
    from scaling_sim.study.reproduce.kaplan.data import Data


def one_variable(data: Data) -> Finding:
    """Loss against compute, data and size."""
    fit = data.fit("kaplan")
    table = fit.runs

    def draw() -> ReportFigure:
        figure, (ax,) = sheet("one-variable", "Loss against compute", ["Compute"])
        shades = Shades(table.N)
        for run in dict.fromkeys(table.run[table.curve].tolist()):
            rows = table.run == run
            N = float(table.N[rows][0])
            line(ax, table.C[rows], table.loss[rows], series=run, colour=shades(N), width=0.9)
        ax.set_xlabel("compute C = 6·N·tokens, FLOP")
        ax.set_ylabel("test loss, nats per byte")
        log_axes(ax)
        shades.key(figure, ax)
        return figure

    rows = (Row.of("α_N", 0.076, fit.draws["alpha_N"], table.num_runs),)
    return Finding("F1", "Loss against compute, data and size", rows, draw)
