"""Figure 15 and section 6.3: where L(D(C_min)) meets L(C_min), so that a law must have broken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from scaling_sim.laws.constants import PF_DAY
from scaling_sim.laws.kaplan import loss_nd
from scaling_sim.laws.kaplan_joint import curve_parameters
from scaling_sim.predict.appendix_b import compute_exponent
from scaling_sim.report.figures.canvas import ACCENT, OURS, PAPER, ReportFigure, band, shade_beyond, sheet
from scaling_sim.report.figures.curves import efficient
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import number
from scaling_sim.study.reproduce.kaplan.drawing import LOSS, law_draws
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row, gathered
from scaling_sim.study.reproduce.kaplan.frontier import crossing, main_fit
from scaling_sim.study.reproduce.kaplan.rows import CHARACTERS

if TYPE_CHECKING:
    from scaling_sim.inference import Posterior
    from scaling_sim.inference.approximate import ApproximateFit
    from scaling_sim.predict.crossover import Crossover
    from scaling_sim.predict.quantity import Quantity
    from scaling_sim.study.reproduce.kaplan.data import Data

Array = NDArray[np.float64]

TITLE = "Where the laws contradict one another"
TEXT = "another text, in bytes, and far smaller models: need not agree"
FITS = {"": "The paper's laws", "kaplan-floor": "The same above an entropy floor"}
BEYOND = "∞: not within 12 decades of compute beyond the largest run"
FAR = 12.0
"""Decades of compute beyond the largest run up to which a crossing is called one."""


def contradiction(data: Data) -> Finding:
    """Where the laws contradict one another."""
    ways = {"": _rows, "kaplan": _joint_rows, "kaplan-floor": _floor_rows}
    rows, missing = gathered({name: partial(make, data) for name, make in ways.items()})
    made = [name for name in FITS if name not in missing]
    return Finding("F15", TITLE, rows, lambda: _figure(data, made), _remark(data, made, missing))


def _rows(data: Data) -> Iterator[Row]:
    fit, found = main_fit(data), crossing(data)
    n = fit.runs.num_runs
    by_compute, by_data = exponents(fit.draws)
    yield Row.of("exponent of L(C_min)", 0.050, by_compute, n, remark="Appendix B")
    yield Row.of("exponent of L(D(C_min))", 0.025, by_data, n, remark="α_D·p_D; the paper prints 0.03")
    yield Row("probability of a crossing within 12 decades", None, _probability(found), None, n)
    yield Row.of("C*", 1e4, _within(found, found.C) / PF_DAY, n, "PF-days", f"{TEXT}; {BEYOND}")
    yield Row.of("N*", 1e12, _within(found, found.N), n, "parameters", f"{TEXT}; {BEYOND}")
    yield Row.of("D*", 1e12, _within(found, found.D), n, "tokens", f"{TEXT}; {BEYOND}")
    if _probability(found) > 0.5:
        yield Row.of("L*", 1.7 / CHARACTERS, found.loss, n, "nats per byte", "paper: 1.7 per token of 4.3 characters")
    yield Row("probability of no crossing", None, found.probability_none, None, n)


def _within(found: Crossover, quantity: Quantity) -> Array:
    """Draws of a scale; ∞ where the laws do not cross within `FAR` decades of the runs."""
    return np.where(found.decades_beyond_runs.draws <= FAR, quantity.draws, np.inf)


def _probability(found: Crossover) -> float:
    return float(np.mean(found.decades_beyond_runs.draws <= FAR))


def exponents(draws: Mapping[str, Array]) -> tuple[Array, Array]:
    """Of L(C_min), by (1.8), and of L(D(C_min)) = (D_c/D)^α_D with D = 2·B_crit·S_min ∝ C_min^(α_C/α_B + α_C/α_S)."""
    p = curve_parameters(draws)
    alpha_C = compute_exponent(p["alpha_N"], p["alpha_S"], p["alpha_B"])
    return alpha_C, p["alpha_D"] * alpha_C * (1 / p["alpha_B"] + 1 / p["alpha_S"])


def _joint_rows(data: Data) -> Iterator[Row]:
    """The same laws fitted jointly, every point of every curve: other exponents, so another answer."""
    fit = data.shared("kaplan")
    by_compute, by_data = exponents(fit.draws)
    n, words = fit.runs.num_runs, "of the laws fitted jointly (1.6)"
    yield Row.of(f"exponent of L(C_min), {words}", 0.050, by_compute, n)
    yield Row.of(f"exponent of L(D(C_min)), {words}", 0.025, by_data, n)
    share = _probability(crossing(data, "kaplan"))
    yield Row(f"probability of a crossing within 12 decades, {words}", None, share, None, n)


def _floor_rows(data: Data) -> Iterator[Row]:
    found, fit = crossing(data, "kaplan-floor"), data.shared("kaplan-floor")
    n = fit.runs.num_runs
    yield Row("probability of a crossing within 12 decades, with a floor", None, _probability(found), None, n)
    yield Row.of("C* with an entropy floor", None, _within(found, found.C) / PF_DAY, n, "PF-days", BEYOND)
    yield Row.of("N* with an entropy floor", None, _within(found, found.N), n, "parameters", BEYOND)
    yield Row.of("L* with an entropy floor", None, found.loss, n, "nats per byte", "over all draws that cross")
    yield Row.of("entropy floor E", None, fit.draws["E"], n, "nats per byte")
    yield Row("probability of no crossing, with a floor", None, found.probability_none, None, n)


def _fit(data: Data, name: str) -> ApproximateFit | Posterior:
    return data.shared(name) if name else main_fit(data)


def _remark(data: Data, made: list[str], missing: dict[str, str]) -> str:
    parts = [_in_words(data, name) for name in made] + [f"{FITS[name]}: {why}." for name, why in missing.items()]
    parts.append(
        "The same laws fitted jointly to all curves have other exponents (rows of (1.6)): whether the lines meet hangs "
        "on the way of fitting more than the intervals say. These are of the parameters of laws that are taken as "
        "true, far beyond the runs: statements about the laws, not forecasts. At the bottom: the density of log C* "
        "over the draws that cross. A loss below the floor that our own runs show, last but one row, is no loss that "
        "this text can have: by then pure power laws have broken, wherever they cross."
    )
    return " ".join(parts)


def _in_words(data: Data, name: str) -> str:
    found, share = crossing(data, name), _probability(crossing(data, name))
    near = found.decades_beyond_runs.draws <= FAR
    where = (
        f", there at a median of {number(float(np.median(found.C.draws[near])))} FLOP and a loss of "
        f"{float(np.median(found.loss.draws[near])):.2f}"
        if share > 0.01
        else ""
    )
    told = f"{FITS[name]} meet within {FAR:.0f} decades beyond the largest run in {share:.0%} of the draws{where}"
    if name:  # above a floor neither is a power law
        return f"{told}."
    by_compute, by_data = (float(np.median(x)) for x in exponents(_fit(data, name).draws))
    return (
        f"{told}: the loss that the data allow falls as C to the power −{by_data:.3f}, that of compute-efficient "
        f"training as −{by_compute:.3f} (paper: −0.025 and −0.050)."
    )


def _figure(data: Data, made: list[str]) -> ReportFigure:
    figure, axes = sheet("contradiction", TITLE, [FITS[name] for name in made], height=4.4)
    for ax, name in zip(axes, made, strict=True):
        _panel(ax, data, name)
    axes[0].set_ylabel(LOSS)
    return figure


def _panel(ax: Axes, data: Data, name: str) -> None:
    found, fit = crossing(data, name), _fit(data, name)
    measured = fit.runs.C[fit.runs.curve]
    C = np.geomspace(measured.min(), _right_end(found, float(measured.max())), 80)
    p = law_draws(fit, 300)
    best = efficient(C, p)
    band(ax, C, best.loss, series="L(C_min)", colour=OURS, label="$L(C_{min})$: compute-efficient training")
    band(
        ax,
        C,
        loss_nd(np.inf, best.D, p),
        series="L(D(C_min))",
        colour=PAPER,
        label="$L(D(C_{min}))$: the least its data allow",
    )
    low, high = ax.get_ylim()
    ax.set_ylim(low * (low / high) ** 0.22, high * (high / low) ** 0.12)
    ax.set_xlim(C[0], C[-1])
    shade_beyond(ax, float(measured.max()))
    ax.set_xlabel("compute $C_{min}$, FLOP")
    log_axes(ax)
    _density(ax, found, C)
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 0.16))


def _right_end(found: Crossover, measured: float) -> float:
    """Far enough for most crossings, were most draws to have one; else six decades beyond the runs."""
    middle = found.C.interval(0.5)[1]
    return float(np.clip(30 * middle, 100 * measured, 10**FAR * measured)) if np.isfinite(middle) else 1e6 * measured


def _density(ax: Axes, found: Crossover, C: Array) -> None:
    """A strip at the bottom of the panel with the density of log10 C*, and the share of draws without one in reach."""
    strip = ax.inset_axes((0.0, 0.0, 1.0, 0.14), zorder=1)
    strip.set_xscale("log")
    strip.set_xlim(C[0], C[-1])
    edges = np.linspace(np.log10(C[0]), np.log10(C[-1]), 51)
    near = found.decades_beyond_runs.draws <= FAR
    counts, _ = np.histogram(np.log10(found.C.draws[near]), bins=edges)
    strip.stairs(counts, 10**edges, fill=True, color=ACCENT, alpha=0.4, lw=0)
    strip.set_ylim(0, max(1.3 * counts.max(), 1.0))
    strip.patch.set_alpha(0.0)
    strip.axis("off")
    text = f"none within {FAR:.0f} decades: {1 - _probability(found):.0%} of draws"
    strip.text(0.02, 0.85, text, transform=strip.transAxes, va="top", fontsize=8.0)
