"""Figure 15 and section 6.3: where L(D(C_min)) meets L(C_min), so that a law must have broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scaling_sim.errors import ScalingSimError
from scaling_sim.laws.constants import PF_DAY
from scaling_sim.report.data import ReportData
from scaling_sim.report.figures import figure_crossover
from scaling_sim.report.figures.canvas import ReportFigure
from scaling_sim.report.table import number
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row
from scaling_sim.study.reproduce.kaplan.frontier import crossing

if TYPE_CHECKING:
    from scaling_sim.predict.crossover import Crossover
    from scaling_sim.study.reproduce.kaplan.data import Data

TEXT = "another text, in bytes, and far smaller models: need not agree"


def contradiction(data: Data) -> Finding:
    """Where the laws contradict one another."""
    found, n = crossing(data), data.fit("kaplan").runs.num_runs
    rows = (
        Row.of("C*", 1e4, found.C.draws / PF_DAY, n, "PF-days", TEXT),
        Row.of("N*", 1e12, found.N, n, "parameters", TEXT),
        Row.of("D*", 1e12, found.D, n, "tokens", TEXT),
        Row.of("L*", 1.7, found.loss, n, "nats per token", "theirs 1.7 nats per token of 4.3 characters: 0.40 a byte"),
        Row("probability of no crossing", None, found.probability_none, None, n),
        Row.of("decades of compute beyond the largest run", 3.0, found.decades_beyond_runs, n, "decades"),
        *_floor_rows(data),
    )
    remark = _remark(found, _with_floor(data))
    return Finding("F15", "Where the laws contradict one another", rows, lambda: _figure(data), remark)


def _with_floor(data: Data) -> Crossover | str:
    """The crossing of the fit with an entropy floor, or why there is none."""
    try:
        return crossing(data, "kaplan-floor")
    except ScalingSimError as error:
        return str(error)


def _floor_rows(data: Data) -> tuple[Row, ...]:
    found = _with_floor(data)
    if isinstance(found, str):
        return ()
    fit = data.shared("kaplan-floor")
    n, E = fit.runs.num_runs, fit.draws["E"]
    return (
        Row.of("C* with an entropy floor", None, found.C.draws / PF_DAY, n, "PF-days"),
        Row.of("L* with an entropy floor", None, found.loss, n, "nats per byte"),
        Row("probability of no crossing, with a floor", None, found.probability_none, None, n),
        Row.of("entropy floor E", None, E, n, "nats per byte"),
    )


def _remark(found: Crossover, floor: Crossover | str) -> str:
    C, far = found.C, found.decades_beyond_runs
    low, high = C.interval(0.9)
    if not np.isfinite(C.median):
        place = (
            f"{found.probability_none:.0%} of the draws have no crossing: these runs do not say where the laws meet."
        )
    else:
        place = (
            f"The compute-efficient loss falls below what its own data allow at about {number(C.median)} FLOP (90 %: "
            f"{number(low)} to {number(high)}; no crossing in {found.probability_none:.1%} of the draws), "
            f"{far.median:.1f} decades beyond the largest run. The interval is that of the parameters of laws that are "
            "taken as true; it is no forecast."
        )
    doubt = f" The runs do not determine it: {found.not_determined}." if found.not_determined else ""
    other = (
        f" With an entropy floor: {floor}."
        if isinstance(floor, str)
        else f" With an entropy floor the laws meet at {number(floor.C.median)} FLOP, at a loss of "
        f"{number(floor.loss.median)}: where they meet depends on the form more than on the runs."
    )
    return place + doubt + other


def _figure(data: Data) -> ReportFigure:
    fit = data.fit("kaplan")
    return figure_crossover(ReportData("", runs=fit.runs, fits={"kaplan": fit}, crossover=crossing(data)))
