"""The posterior and how it was sampled: corner plot with priors, traces and ranks of the ensembles."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import blended_transform_factory

from scaling_sim.report.figures.canvas import GREY, OURS, PAPER, Colour, NothingToShow, ReportFigure, colours, drawn
from scaling_sim.report.figures.checks import need_law
from scaling_sim.report.figures.curves import Array

if TYPE_CHECKING:
    from scaling_sim.inference import Posterior
    from scaling_sim.report.data import ReportData

LABELS = {
    "alpha_N": r"$\alpha_N$",
    "alpha_D": r"$\alpha_D$",
    "alpha_S": r"$\alpha_S$",
    "alpha_B": r"$\alpha_B$",
    "alpha_C": r"$\alpha_C$",
    "N_c": r"$\log_{10} N_c$",
    "D_c": r"$\log_{10} D_c$",
    "S_c": r"$\log_{10} S_c$",
    "B_star": r"$\log_{10} B_*$",
    "C_c": r"$\log_{10} C_c$",
    "alpha": r"$\alpha$",
    "beta": r"$\beta$",
    "A": r"$\log_{10} A$",
    "B": r"$\log_{10} B$",
    "E": "$E$",
}
MOST_TRACED, TRACE_POINTS, NUM_PRIOR_DRAWS = 12, 120, 4000

LABEL_WIDTH = 16
"""Letters of a coordinate's name beside its trace before it takes a second line."""


def is_scale(values: Array) -> bool:
    """True for amplitudes, which are shown by their logarithm."""
    return bool(np.all(values > 0) and (np.median(values) > 20 or np.ptp(np.log10(values)) > 1.5))


def shown_values(fit: Posterior) -> dict[str, tuple[Array, bool]]:
    """Draws of each natural parameter as shown, and whether they are logarithms to base 10."""
    found = {}
    for name in fit.law.parameters:
        values = np.asarray(fit.draws[name], dtype=float)
        scale = is_scale(values)
        found[name] = (np.log10(values) if scale else values, scale)
    return found


@drawn
def figure_corner(data: ReportData, law: str | None = None) -> ReportFigure:
    """Marginal posteriors with their priors, and pairs with their 50 and 90 % regions."""
    fit = need_law(data, law)
    shown = shown_values(fit)
    prior = prior_draws(fit)
    count = len(shown)
    height = min(1.15 * count + 0.6, 9.0)
    figure = ReportFigure(f"corner-{fit.law_name}", f"Posterior: {fit.law_name}", height, fitted=False)
    edges = {"left": 0.085, "right": 0.99, "bottom": 0.62 / height, "top": 1 - 0.08 / height}
    grid = figure.add_gridspec(count, count, **edges, hspace=0.1, wspace=0.1)
    names = list(shown)
    for i, row in enumerate(names):
        for j, column in enumerate(names[: i + 1]):
            ax = figure.add_subplot(grid[i, j], label=f"{column} × {row}" if i != j else column)
            if i == j:
                _marginal(ax, shown[row], prior.get(row))
            else:
                _pair(ax, shown[column][0], shown[row][0])
            _corner_labels(ax, i, j, count, names, shown)
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(), loc="upper right", bbox_to_anchor=(0.98, 0.98), fontsize=9.0
    )
    figure.reading = (
        "Diagonal: what the data say about each parameter (blue) against what was assumed before (dashed). Below: "
        "which parameters trade against one another; the regions hold 50 and 90 % of the posterior."
    )
    return figure


def _marginal(ax: Axes, shown: tuple[Array, bool], prior: Array | None) -> None:
    values, scale = shown
    low, high = _window(values)
    counts, edges = np.histogram(values, bins=30, range=(low, high), density=True)
    ax.stairs(counts, edges, fill=True, color=OURS, alpha=0.3, lw=0)
    ax.stairs(counts, edges, color=OURS, lw=1.1, label="posterior")
    centres = (edges[:-1] + edges[1:]) / 2
    figure = ax.get_figure(root=True)
    assert isinstance(figure, ReportFigure)
    figure.record(ax, "posterior density", "density", centres, y=counts)
    if prior is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            assumed = np.log10(prior) if scale else prior
        density = _prior_density(assumed[np.isfinite(assumed)], centres)
        ax.plot(centres, density, "--", color=PAPER, lw=1.1, label="prior")
        figure.record(ax, "prior density", "density", centres, y=density)
    ax.set_xlim(low, high)
    ax.set_ylim(0, None)


def _prior_density(values: Array, centres: Array) -> Array:
    """Gaussian kernel density at ``centres``; a robust spread, so that a few far draws do not flatten it."""
    spread = (np.quantile(values, 0.75) - np.quantile(values, 0.25)) / 1.349
    width = max(0.9 * float(spread) * len(values) ** -0.2, 1e-12)
    z = (centres[:, None] - values) / width
    return np.asarray(np.exp(-0.5 * z**2).sum(axis=1) / (len(values) * width * np.sqrt(2 * np.pi)))


def _pair(ax: Axes, x: Array, y: Array) -> None:
    """Filled contours of the smallest regions that hold 90 and 50 % of the draws."""
    from scipy.ndimage import gaussian_filter

    window = [_window(x), _window(y)]
    counts, x_edges, y_edges = np.histogram2d(x, y, bins=36, range=window)
    smooth = gaussian_filter(counts, 1.8)
    ordered = np.sort(smooth.ravel())[::-1]
    share = np.cumsum(ordered) / ordered.sum()
    levels = [float(ordered[np.searchsorted(share, level)]) for level in (0.9, 0.5)]
    centres = [(edges[:-1] + edges[1:]) / 2 for edges in (x_edges, y_edges)]
    if levels[0] < levels[1] < ordered[0]:
        from matplotlib.colors import to_rgba

        fills = [to_rgba(OURS, 0.18), to_rgba(OURS, 0.45)]
        ax.contourf(*centres, smooth.T, levels=[*levels, float(ordered[0]) * 1.01], colors=fills)
    ax.set_xlim(window[0])
    ax.set_ylim(window[1])


def _corner_labels(
    ax: Axes, i: int, j: int, count: int, names: list[str], shown: dict[str, tuple[Array, bool]]
) -> None:
    figure = ax.get_figure(root=True)
    assert figure is not None
    ax.grid(False)
    ax.locator_params(nbins=3)
    small = 7.2 if count > 5 else 8.2
    ax.tick_params(labelsize=small, length=2, labelbottom=i == count - 1, labelleft=j == 0 and i > 0)
    ax.tick_params(axis="x", rotation=40)
    if i == j:
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    if i == count - 1:
        ax.set_xlabel(label(names[j], shown[names[j]][1]))
        below = blended_transform_factory(ax.transAxes, figure.transFigure)
        ax.xaxis.set_label_coords(0.5, 0.16 / figure.get_figheight(), transform=below)
    if j == 0 and i > 0:
        ax.set_ylabel(label(names[i], shown[names[i]][1]))
        left = blended_transform_factory(figure.transFigure, ax.transAxes)
        ax.yaxis.set_label_coords(0.026, 0.5, transform=left)


def label(name: str, logarithm: bool) -> str:
    """Axis label of a parameter."""
    plain = LABELS.get(name, name.replace("_", " "))
    if logarithm and "log" not in plain:
        return f"log₁₀ {plain}"
    return plain.replace(r"\log_{10} ", "") if not logarithm else plain


def _window(values: Array) -> tuple[float, float]:
    low, high = np.quantile(values, [0.002, 0.998])
    pad = 0.08 * (high - low) or 1e-6 * max(abs(float(low)), 1.0)
    return float(low - pad), float(high + pad)


def prior_draws(fit: Posterior) -> dict[str, Array]:
    """Natural parameters drawn from the prior, each (n,); empty if the law's priors are not known."""
    coordinates = fit.law.coordinates(fit.centre)
    normal = np.random.Generator(np.random.Philox(key=20)).standard_normal((NUM_PRIOR_DRAWS, len(coordinates)))
    mean = np.array([c.prior.mean for c in coordinates])
    sd = np.array([c.prior.sd for c in coordinates])
    with np.errstate(over="ignore", invalid="ignore"):
        return {name: np.asarray(v) for name, v in fit.law.to_parameters(mean + sd * normal, fit.centre).items()}


@drawn
def figure_traces(data: ReportData, law: str | None = None) -> ReportFigure:
    """Each coordinate along the chain and its ranks, one line per independent ensemble."""
    fit = need_law(data, law)
    chain = np.asarray(fit.chain, dtype=float)
    if chain.ndim != 3 or chain.shape[1] < 8:
        raise NothingToShow("no chain was kept with this fit")
    names = coordinate_names(fit)[:MOST_TRACED]
    height = 0.72 * len(names) + 0.6
    figure = ReportFigure(f"traces-{fit.law_name}", f"Chains: {fit.law_name}", height, fitted=False)
    edges = {"left": 0.185, "right": 0.99, "bottom": 0.45 / height, "top": 1 - 0.1 / height}
    grid = figure.add_gridspec(len(names), 2, width_ratios=[2.4, 1], hspace=0.25, wspace=0.08, **edges)
    palette = colours(chain.shape[0])
    for i, name in enumerate(names):
        trace = figure.add_subplot(grid[i, 0], label=f"{name} trace")
        ranks = figure.add_subplot(grid[i, 1], label=f"{name} ranks")
        _trace(trace, chain[:, :, i], palette)
        _ranks(ranks, chain[:, :, i], palette)
        trace.set_ylabel(
            textwrap.fill(name.replace("_", " "), LABEL_WIDTH), rotation=0, ha="right", va="center", fontsize=8
        )
        trace.yaxis.set_label_coords(-0.115, 0.5)
        for ax in (trace, ranks):
            ax.tick_params(labelsize=7, labelbottom=i == len(names) - 1)
            ax.locator_params(axis="y", nbins=3)
    figure.axes[-2].set_xlabel("step kept")
    figure.axes[-1].set_xlabel("rank among all ensembles")
    worst = max(fit.diagnostics.r_hat.values(), default=float("nan"))
    figure.reading = (
        f"{chain.shape[0]} ensembles that started apart must look alike: traces without drift, ranks level (90 % of "
        f"the bars inside the grey band if draws were independent). Largest R-hat: {worst:.4f}."
    )
    return figure


def coordinate_names(fit: Posterior) -> list[str]:
    """Names of the columns of ``fit.chain``."""
    return [str(getattr(c, "name", c)) for c in fit.coordinates]


def _trace(ax: Axes, chain: Array, palette: list[Colour]) -> None:
    steps = np.unique(np.linspace(0, chain.shape[1] - 1, TRACE_POINTS).round().astype(int))
    figure = ax.get_figure(root=True)
    assert isinstance(figure, ReportFigure)
    for k, (values, colour) in enumerate(zip(chain, palette, strict=True)):
        ax.plot(steps, values[steps], color=colour, lw=0.6, alpha=0.8)
        figure.record(ax, f"ensemble {k}", "trace", steps, y=np.round(values[steps], 6))
    ax.set_xlim(0, chain.shape[1] - 1)
    ax.grid(False)


def _ranks(ax: Axes, chain: Array, palette: list[Colour]) -> None:
    from scipy.stats import binom, rankdata

    ranks = rankdata(chain, axis=None).reshape(chain.shape) / chain.size
    bins = 10
    low, high = binom.ppf([0.05, 0.95], chain.shape[1], 1 / bins) / (chain.shape[1] / bins)
    ax.axhspan(low, high, color=GREY, alpha=0.15, lw=0)
    for values, colour in zip(ranks, palette, strict=True):
        counts, edges = np.histogram(values, bins=bins, range=(0, 1))
        ax.stairs(counts / (chain.shape[1] / bins), edges, color=colour, lw=0.9)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 2)
    ax.grid(False)
