"""Does the law describe the runs? Residuals and the posterior predictive check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from scaling_sim.report.figures.canvas import (
    ACCENT,
    GREY,
    OURS,
    PAPER,
    Colour,
    NothingToShow,
    ReportFigure,
    drawn,
    points,
    sheet,
)
from scaling_sim.report.figures.curves import Array, thinned
from scaling_sim.report.figures.ticks import log_axes

if TYPE_CHECKING:
    from scaling_sim.inference import Posterior
    from scaling_sim.report.data import ReportData

ROLE_COLOURS: dict[str, Colour] = {"curve": OURS, "stopped": PAPER, "final": ACCENT}
ROLE_WORDS = {"curve": "learning curves", "stopped": "early-stopped runs", "final": "final losses"}


def need_law(data: ReportData, law: str | None) -> Posterior:
    """The fit of this law, or the first one."""
    if not data.fits:
        raise NothingToShow("nothing was fitted")
    return data.fits[law] if law is not None else next(iter(data.fits.values()))


@dataclass(frozen=True)
class Predicted:
    """Observed rows beside what the posterior expects of them."""

    role: NDArray[np.str_]
    columns: dict[str, Array]
    observed: Array
    """(n,) log response."""
    expected: Array
    """(n_draws, n) expected log response."""
    error: Array
    """(n,) measured standard error of the log response, NaN if unknown."""

    @property
    def residual(self) -> Array:
        """(n,) observed less median expected, in units of log loss."""
        return np.asarray(self.observed - np.median(self.expected, axis=0))


def predicted(fit: Posterior) -> Predicted:
    """Expected log response of every row that the fit used."""
    seen = fit.data
    columns = {name: np.asarray(values, dtype=float) for name, values in seen.columns.items()}
    expected = np.asarray(fit.law.log_response(thinned(fit), columns), dtype=float)
    return Predicted(np.asarray(seen.role), columns, np.log(seen.response), expected, seen.error / seen.response)


@drawn
def figure_residuals(data: ReportData, law: str | None = None) -> ReportFigure:
    """Residuals against N, tokens (or D) and the fitted loss."""
    fit = need_law(data, law)
    seen = predicted(fit)
    wanted = [("N", "parameters N"), ("D", "unique tokens D"), ("tokens", "tokens processed"), ("S", "steps S")]
    shown = [
        (seen.columns[name], words) for name, words in wanted if name in seen.columns and _varies(seen.columns[name])
    ]
    limit = _residual_limit(100 * np.abs(seen.residual))
    outlying = _outlying(fit)
    shown = [*shown[:2], (np.exp(np.median(seen.expected, axis=0)), f"fitted {fit.law.response}")]
    figure, axes = sheet(
        f"residuals-{fit.law_name}", f"Residuals: {fit.law_name}", [words for _, words in shown], height=3.2, log="x"
    )
    for ax, (x, words) in zip(axes, shown, strict=True):
        keep = np.isfinite(x) & (x > 0)
        for role in dict.fromkeys(seen.role[keep].tolist()):
            k = keep & (seen.role == role)
            colour, text = ROLE_COLOURS.get(role, GREY), ROLE_WORDS.get(role, role)
            _residual_points(ax, x[k], 100 * seen.residual[k], limit, colour)
            points(ax, x[k], 100 * seen.residual[k], series=text, colour=colour, label=text, size=2.8, alpha=0.6)
        marked = keep & outlying
        heights = np.clip(100 * seen.residual[marked], -0.97 * limit, 0.97 * limit)
        ax.plot(x[marked], heights, "o", ms=7.5, mfc="none", mec=PAPER, mew=1.0, zorder=4)
        ax.axhline(0, color=GREY, lw=0.9)
        ax.set_ylim(-limit, limit)
        ax.set_xlabel(words)
        ax.set_title("")
        log_axes(ax, y=False)
    axes[0].set_ylabel("observed − fitted, % of the loss")
    if len(set(seen.role.tolist())) > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    spread = float(np.median(np.abs(seen.residual)))
    outside = int(np.count_nonzero(np.abs(100 * seen.residual) > limit))
    edge = f" Triangles at the edge: {outside} rows that it misses by more, up to {_largest(seen):.0%}."
    circles = " Circles: rows of runs that are more likely outliers than not."
    figure.reading = (
        f"Half of the losses lie within {spread:.2%} of the law. A pattern along an axis would mean that the form is "
        f"wrong there.{circles if outlying.any() else ''}{edge if outside else ''}"
    )
    return figure


def _outlying(fit: Posterior) -> NDArray[np.bool_]:
    """(n_used,) rows of units whose outlier probability exceeds one half."""
    marked = np.zeros(len(fit.data), dtype=bool)
    for unit, probability in zip(fit.likelihood.units(), fit.outlier_probability()[0], strict=True):
        marked[unit] = probability > 0.5
    return marked


def _residual_limit(sizes: Array) -> float:
    """End of the residual axis: the largest one, unless a few lie so far out that nothing else could be seen."""
    largest, usual = float(sizes.max()), float(np.quantile(sizes, 0.95))
    return max(1.05 * largest if largest < 3 * usual else 1.5 * usual, 1e-9)


def _residual_points(ax: Axes, x: Array, y: Array, limit: float, colour: Colour) -> None:
    """Mark residuals beyond the axis at its edge."""
    for marker, beyond, edge in (("^", y > limit, 0.97 * limit), ("v", y < -limit, -0.97 * limit)):
        ax.plot(x[beyond], np.full(int(beyond.sum()), edge), marker, ms=4.5, mfc="none", mec=colour, mew=0.9)


def _largest(seen: Predicted) -> float:
    return float(np.max(np.abs(np.expm1(seen.residual))))


@drawn
def figure_predictive_check(data: ReportData, law: str | None = None) -> ReportFigure:
    """Posterior predictive check: observed against predicted, and where observations fall in their predictions."""
    fit = need_law(data, law)
    seen = predicted(fit)
    place = predictive_places(fit, seen)
    titles = ["Observed against expected", "Place of each run in its prediction"]
    figure, (left, right) = sheet(
        f"predictive-{fit.law_name}", f"Posterior predictive check: {fit.law_name}", titles, height=3.4, log=""
    )
    middle = np.exp(np.median(seen.expected, axis=0))
    for role in dict.fromkeys(seen.role.tolist()):
        k = seen.role == role
        text = ROLE_WORDS.get(role, role)
        points(
            left,
            middle[k],
            np.exp(seen.observed[k]),
            series=text,
            colour=ROLE_COLOURS.get(role, GREY),
            label=text,
            size=3,
        )
    ends = [float(middle.min()), float(middle.max())]
    left.plot(ends, ends, color=GREY, lw=0.9, zorder=2)
    left.set_xlabel(f"expected {fit.law.response}")
    left.set_ylabel(f"observed {fit.law.response}")
    log_axes(left)
    left.legend(loc="upper left")
    _histogram(right, place)
    inside = {level: float(np.mean(np.abs(place - 0.5) <= level / 2)) for level in (0.5, 0.9)}
    figure.reading = (
        f"{inside[0.5]:.0%} of the losses lie in their 50 % predictive interval and {inside[0.9]:.0%} in their 90 % "
        "interval. The bars should stay near the line (grey: where 90 % of the bars of independent runs would lie)."
    )
    return figure


def _histogram(ax: Axes, place: Array) -> None:
    from scipy.stats import binom

    bins = int(np.clip(len(place) // 12, 5, 20))
    counts, edges = np.histogram(place, bins=bins, range=(0, 1))
    low, high = (float(binom.ppf(level, len(place), 1 / bins)) for level in (0.05, 0.95))
    ax.axhspan(low, high, color=GREY, alpha=0.15, lw=0)
    ax.axhline(len(place) / bins, color=GREY, lw=0.9)
    ax.stairs(counts, edges, fill=True, color=OURS, alpha=0.6)
    figure = ax.get_figure(root=True)
    assert isinstance(figure, ReportFigure)
    figure.record(ax, "runs per bin", "count", (edges[:-1] + edges[1:]) / 2, y=counts)
    ax.set_xlim(0, 1)
    ax.set_xlabel("share of the prediction below the observed value")
    ax.set_ylabel("number of losses")


def predictive_places(fit: Posterior, seen: Predicted) -> Array:
    """P(replicated ≤ observed) of every row (n,), averaged over draws: uniform if law and noise model hold."""
    from scipy.stats import t

    total = np.zeros(len(seen.observed))
    size = len(next(iter(fit.draws.values())))
    rows = np.unique(np.linspace(0, size - 1, len(seen.expected)).round().astype(int))
    noise = {name: np.asarray(values, dtype=float)[rows] for name, values in fit.noise.items()}
    for role in dict.fromkeys(seen.role.tolist()):
        k = seen.role == role
        scale = np.sqrt(noise_variance(noise, role)[:, None] + np.nan_to_num(seen.error[k], nan=0.0) ** 2)
        nu = np.asarray(_noise(noise, "nu", role, 5.0))[:, None]
        total[k] = np.mean(t.cdf((seen.observed[k] - seen.expected[:, k]) / scale, nu), axis=0)
    return total


def noise_variance(noise: dict[str, Array], role: str) -> Array:
    """Squared scale of one row's log residual, (n_draws,): white noise and, on learning curves, the correlated part."""
    white = _noise(noise, "sigma", role, 0.0) ** 2
    return np.asarray(white + _noise(noise, "tau", role, 0.0) ** 2)


def _noise(noise: dict[str, Array], name: str, role: str, default: float) -> Array:
    """A noise parameter of a role: ``name_role`` where roles differ, else ``name``."""
    size = len(next(iter(noise.values()), np.empty(1)))
    return np.asarray(noise.get(f"{name}_{role}", noise.get(name, np.full(size, default))))


def _varies(values: Array) -> bool:
    return np.unique(values[np.isfinite(values)]).size > 1
