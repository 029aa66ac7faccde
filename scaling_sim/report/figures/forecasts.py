"""Learning curves to come, sample efficiency (Kaplan et al. 2020, Fig. 19), losses on other texts (Fig. 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.report.figures.canvas import (
    GREY,
    OURS,
    NothingToShow,
    ReportFigure,
    band,
    colours,
    drawn,
    legend_below,
    line,
    points,
    quantile_band,
    shade_beyond,
    sheet,
)
from scaling_sim.report.figures.curves import thinned
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from scaling_sim.inference import Posterior
    from scaling_sim.predict import Forecast
    from scaling_sim.predict.efficiency import Efficiency
    from scaling_sim.report.data import ReportData
    from scaling_sim.runs.table import RunTable

Array = NDArray[np.float64]

NUM_LOSSES = 5
SIZES = 80
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_CURVES = 40
"""Learning curves of runs that are drawn behind forecasts."""


@dataclass(frozen=True)
class _Draws:
    """Some draws of a fit: enough for a band."""

    law: Any
    law_name: str
    draws: dict[str, Array]


@drawn
def figure_forecast(data: ReportData) -> ReportFigure:
    """Learning curves of the forecast runs with their bands, over those of the runs that were made.

    Raises
    ------
    NothingToShow
        No forecast has a learning curve.
    """
    shown = [one for one in data.forecasts if one.curve is not None and one.curve.tokens is not None]
    if not shown:
        raise NothingToShow("no law of learning curves made a forecast")
    figure, (ax,) = sheet("forecast", "Runs to come", ["Learning curves"], height=4.6)
    if data.table is not None:
        _made(ax, data.table)
    for one, colour in zip(shown, colours(len(shown)), strict=True):
        _to_come(ax, one, colour)
    ax.set_xlabel("tokens processed")
    ax.set_ylabel("loss, nats per token")
    log_axes(ax)
    legend_below(ax, 2)
    figure.reading = (
        "Bands hold 50 and 90 % of the expected curves, discrepancy from the law included; the bar at the end is the "
        "90 % interval of the loss that one run will be measured to have."
    )
    return figure


def _made(ax: Axes, runs: RunTable) -> None:
    names = list(dict.fromkeys(runs.run[runs.curve].tolist()))[:MOST_CURVES]
    for k, name in enumerate(names):
        rows = runs.curve & (runs.run == name)
        order = np.argsort(runs.tokens[rows])
        label = "runs that were made" if k == 0 else None
        tokens, loss = runs.tokens[rows][order], runs.loss[rows][order]
        line(ax, tokens, loss, series=f"run {name}", colour=GREY, width=0.7, alpha=0.5, label=label)


def _to_come(ax: Axes, one: Forecast, colour: Any) -> None:
    assert one.curve is not None
    assert one.curve.tokens is not None
    size = "" if one.run.N is None else f"N = {number(one.run.N)}"
    text = f"{one.header.get('law', '')}, {size}"
    band(ax, one.curve.tokens, one.curve.draws, series=text, colour=colour, label=text)
    low, high = one.interval(0.9)
    error = np.array([[one.median - low], [high - one.median]])
    points(ax, one.curve.tokens[-1:], [one.median], series=f"{text}, final", colour=colour, error=error, size=5)


@drawn
def figure_efficiency(data: ReportData) -> ReportFigure:
    """What each size needs to reach each of some losses: steps and tokens, or tokens and compute.

    Raises
    ------
    NothingToShow
        No law relates size and steps or tokens.
    """
    fit = _efficiency_fit(data)
    found = _efficiency(fit)
    keys = {"S_min": "least steps S_min", "E_min": "least tokens E_min"}
    if "S_min" not in found.draws:
        keys = {"tokens": "tokens", "C": "compute, FLOP"} if "tokens" in found.draws else {"S": "steps"}
    titles = [words[0].upper() + words[1:] for words in keys.values()]
    figure, axes = sheet("efficiency", f"Sample efficiency, by {fit.law_name}", titles, height=4.2)
    for ax, (name, words) in zip(axes, keys.items(), strict=True):
        quantiles = found.quantiles(name, LEVELS)
        for i, colour in enumerate(colours(len(found.loss), "plasma")):
            text = f"loss {found.loss[i]:.3g}"
            finite = np.where(np.isfinite(quantiles[:, i]), quantiles[:, i], np.nan)
            quantile_band(ax, found.N, finite, series=text, colour=colour, label=text, width=1.2)
        ax.set_xlabel("parameters N")
        ax.set_ylabel(words)
        shade_beyond(ax, float(fit.runs.N.max()))
        log_axes(ax)
    legend_below(axes[0], 3)
    figure.reading = (
        "Larger models reach a loss with fewer tokens; a line begins where a model is just large enough to reach it at "
        "all. The bands hold the uncertainty of the parameters only."
    )
    return figure


def _efficiency_fit(data: ReportData) -> Posterior:
    usable = ("kaplan", "kaplan-floor", "chinchilla", "data-constrained", "kaplan-ns", "kaplan-ns-floor")
    for name in usable:
        if name in data.fits:
            return data.fits[name]
    raise NothingToShow("no law relates the loss to size and to steps or tokens")


def _efficiency(fit: Posterior) -> Efficiency:
    from scaling_sim.predict.efficiency import efficiency

    runs, rows = fit.runs, fit.data.row[fit.data.row >= 0]
    loss, N = runs.loss[rows], runs.N[rows]
    targets = np.geomspace(1.01 * float(loss.min()), float(np.quantile(loss, 0.8)), NUM_LOSSES)
    sizes = np.geomspace(float(N[N > 0].min()), 30 * float(N.max()), SIZES)
    draws = {name: values[:, 0] for name, values in thinned(fit).items()}
    return efficiency(_Draws(fit.law, fit.law_name, draws), targets, sizes, discrepancy=False)


@drawn
def figure_offsets(data: ReportData) -> ReportFigure:
    """Losses on other texts against the loss on the training distribution, and how far above it they lie.

    Raises
    ------
    NothingToShow
        The runs carry one loss only.
    """
    from scaling_sim.predict.offsets import PREFIX, offsets, split_columns

    runs = data.table
    if runs is None or not split_columns(runs):
        raise NothingToShow("the runs carry no losses on other texts (columns loss_<split>)")
    learned = offsets(runs).splits
    if not learned:
        raise NothingToShow("too few runs carry losses on other texts")
    titles = ["Other texts", "Offset from the training distribution"]
    figure, (left, right) = sheet("offsets", "Losses on other texts", titles, height=4.2)
    right.set_yscale("linear")
    for (name, one), colour in zip(learned.items(), colours(len(learned)), strict=True):
        other = np.asarray(runs.extra[PREFIX + name], dtype=np.float64)
        use = np.isfinite(other) & np.isfinite(runs.loss)
        text = f"{name}: slope {one.slope.median:.3f} ({one.slope.interval()[0]:.3f} to {one.slope.interval()[1]:.3f})"
        grid = np.geomspace(*one.span, 40)
        away = one.level.draws[:, None] + (one.slope.draws[:, None] - 1) * (np.log(grid) - one.centre)
        points(left, runs.loss[use], other[use], series=name, colour=colour, size=3.0, alpha=0.7)
        band(left, grid, grid * np.exp(away), series=name, colour=colour, label=text, width=1.1)
        points(right, runs.loss[use], 100 * np.log(other[use] / runs.loss[use]), series=name, colour=colour, size=3.0)
        band(right, grid, 100 * away, series=name, colour=colour, width=1.1)
    for ax in (left, right):
        ax.set_xlabel("loss on the training distribution, nats per token")
    left.set_ylabel("loss on the other text, nats per token")
    right.set_ylabel("100 · ln(other/own)")
    right.axhline(0, color=OURS, lw=0.8)
    log_axes(left)
    log_axes(right, y=False)
    legend_below(left, 1)
    figure.reading = (
        "Points are measured losses of runs of all sizes, converged or not; lines are fits in log loss with bands. "
        "A slope of 1 means that the offset does not change while the loss falls."
    )
    return figure
