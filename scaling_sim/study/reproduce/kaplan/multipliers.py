"""Figure 3: what more compute should be spent on."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import ScalingSimError
from scaling_sim.laws.kaplan_joint import curve_parameters
from scaling_sim.predict.appendix_b import compute_exponent
from scaling_sim.report.figures.canvas import GREY, INK, ReportFigure, line, sheet
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import number
from scaling_sim.study.reproduce.kaplan.critical_batch import measured
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row

if TYPE_CHECKING:
    from scaling_sim.predict.critical_batches import CriticalBatches
    from scaling_sim.study.reproduce.kaplan.data import Data

Array = NDArray[np.float64]

GROWTH = 1e9
"""Times the compute, as in the paper's figure."""
SHARES = {"S": ("updates", 0.03, "#94a3b8"), "B": ("batch", 0.24, "#5b8fb9"), "N": ("model size", 0.73, "#1f5a94")}
"""What it is, its exponent in Table 6 of Kaplan et al. 2020, and its colour; from the bottom upwards."""


def multipliers(data: Data) -> Finding:
    """What a billion times the compute buys: size, batch and updates."""
    fit = data.fit("kaplan")
    p = curve_parameters(fit.draws)
    sweeps = _sweeps(data)
    if sweeps is not None:
        draws = sweeps.draws["alpha_B"]
        p["alpha_B"] = np.random.default_rng(data.seed).choice(draws, len(p["alpha_N"]))
    exponents, n = exponents_of(p), fit.runs.num_runs
    told = [
        Row.of(f"{SHARES[key][0]}, exponent in C_min", SHARES[key][1], values, n, "", "theory, eqs 1.7 and 1.8")
        for key, values in exponents.items()
    ]
    told += [
        Row.of(f"{SHARES[key][0]} for 10⁹ times the compute", GROWTH ** SHARES[key][1], GROWTH**values, n, "times")
        for key, values in exponents.items()
    ]
    if sweeps is not None:
        other = "the batch sweeps read directly, which are used here, give another; see F10"
        told.append(Row.of("α_B of the joint law", 0.21, fit.draws["alpha_B"], n, "", other))
    grown = {key: float(np.median(GROWTH**values)) for key, values in exponents.items()}
    remark = (
        f"Most of the compute goes into larger models here, too: {number(grown['N'], 2)} times the parameters, "
        f"{number(grown['B'], 2)} times the batch and {number(grown['S'], 2)} times the updates."
        if grown["N"] > grown["B"] * grown["S"]
        else f"Unlike in the paper, less than half of ln C goes into larger models ({number(grown['N'], 2)} times)."
    )
    source = "the batch sweeps" if sweeps is not None else "the same fit"
    remark += (
        f" α_N and α_S are those of the fitted law without an entropy floor, α_B that of {source}, as in the paper. "
        "Other ways to the same exponents (F11, F13, F14, T6) give other values, in part outside these intervals, "
        "which are of one law taken as true."
    )
    return Finding("F3", "What more compute buys", tuple(told), lambda: _figure(exponents), remark)


def _sweeps(data: Data) -> CriticalBatches | None:
    with suppress(ScalingSimError):
        return data.once("critical batches", lambda: measured(data)).sweeps
    return None


def exponents_of(p: dict[str, Array]) -> dict[str, Array]:
    """Exponents of S_min, B_crit and N in C_min (1.7); their sum is 1."""
    alpha_C = compute_exponent(p["alpha_N"], p["alpha_S"], p["alpha_B"])
    return {"S": alpha_C / p["alpha_S"], "B": alpha_C / p["alpha_B"], "N": alpha_C / p["alpha_N"]}


def _figure(exponents: dict[str, Array]) -> ReportFigure:
    figure, axes = sheet("multipliers", "What more compute buys", ["Ours", "Kaplan et al., Table 6"], height=4.2)
    C = np.geomspace(1.0, GROWTH, 60)
    for ax, ours in zip(axes, (True, False), strict=True):
        below = np.zeros(1)
        for key, (what, paper, colour) in SHARES.items():
            share = exponents[key] if ours else np.array([paper])
            low, high = C ** float(np.median(below)), C ** float(np.median(below + share))
            ax.fill_between(C, low, high, color=colour, alpha=0.75, lw=0, zorder=1)
            below = below + share
            if ours and key != "N":
                bounds = np.quantile(below, (0.05, 0.95))
                ax.fill_between(C, *(C**bound for bound in bounds), color="white", alpha=0.55, lw=0, zorder=1.5)
            figure.record(ax, what, "upper edge", C, y=high)
            grown = GROWTH ** float(np.median(share))
            height = 1.06 if key == "S" else float(low[-1] ** 0.6 * high[-1] ** 0.4)
            place = GROWTH**0.97, height
            ax.annotate(
                f"{what} × {number(grown, 2)}",
                place,
                ha="right",
                va="bottom" if key == "S" else "center",
                fontsize=8.6,
                color="white" if key == "N" else INK,
                zorder=4,
            )
        line(ax, C, C, series="compute", colour=GREY, width=1.0, keep=False)
        ax.set_xlim(1, GROWTH)
        ax.set_ylim(1, GROWTH)
        ax.set_xlabel("compute, times as much")
        log_axes(ax)
    axes[0].set_ylabel("product of the shares, times as much")
    figure.reading = "White: 90 % intervals of the edges. Each share's height is its part of the logarithm of compute."
    return figure
