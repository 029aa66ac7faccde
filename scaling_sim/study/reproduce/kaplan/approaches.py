"""The three approaches of Hoffmann et al. 2022 (arXiv 2203.15556) on our runs, counted with and without embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from scaling_sim.errors import DataError, DesignError, ScalingSimError
from scaling_sim.inference.approximate import ApproximateFit, approximate_fit
from scaling_sim.predict.counts import countings
from scaling_sim.predict.methods import Estimate, Methods, compare_methods
from scaling_sim.report.figures.canvas import ACCENT, OURS, PAPER, ReportFigure, band, line, points, sheet
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import number
from scaling_sim.runs.table import RunTable, table_from_records
from scaling_sim.study.reproduce.kaplan.drawing import Shades
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row
from scaling_sim.study.reproduce.kaplan.protocols import MIN_SIZES, family_records

if TYPE_CHECKING:
    from scaling_sim.study.reproduce.kaplan.data import Data

APPROACHES = {
    "envelope": "approach 1, envelope",
    "isoflop": "approach 2, isoFLOP cubics",
    "law": "approach 3, parametric",
}
COLOURS = {"envelope": ACCENT, "isoflop": PAPER, "law": OURS}
CHINCHILLA = {"envelope": 0.50, "isoflop": 0.49, "law": 0.46}
"""Exponents of Hoffmann et al. 2022, Table 2, all parameters counted."""
WAYS = {"total": "all parameters", "non-embedding": "non-embedding N"}
SEVERAL = 3
"""Lengths of a size from which decay branches can take the place of curves."""
THINNING = 8
CURVES = "points of constant-rate curves, each taken as a run (no decay)"
TOO_NARROW = "points of one curve err together, so that the interval is too narrow"


@dataclass(frozen=True)
class Way:
    """One way to count, with the law fitted to it and what the three approaches say."""

    name: str
    fit: ApproximateFit
    methods: Methods


def approaches(data: Data) -> Finding:
    """Best size against compute by envelope, isoFLOP minima and parametric law."""
    table, basis = finished_rows(data)
    ways = [way for name in WAYS if (way := _way(table, name, data.seed)) is not None]
    if not ways:
        raise DataError("the runs identify no law of N and tokens under either count")

    def draw() -> ReportFigure:
        titles = [f"IsoFLOP valleys, {WAYS[ways[0].name]}", "Tokens per parameter at the best size"]
        figure, (left, right) = sheet("approaches", "Chinchilla's three approaches", titles, height=5.0)
        _valleys(figure, left, ways[0])
        for way in ways:
            _ratios(right, way)
        right.set_xlabel("compute 6·N·tokens, FLOP")
        right.set_ylabel("tokens per parameter")
        log_axes(right)
        figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        figure.reading = (
            f"Runs: {basis}. Right: a level line is a = .5, numbers are a with 90 % intervals; bands 90 and 50 %; "
            "pale without embeddings."
        )
        return figure

    rows = tuple(row for way in ways for row in _rows(way, basis))
    return Finding("Chinchilla 1-3", "Chinchilla's three approaches on our runs", rows, draw, _remark(ways, basis))


def finished_rows(data: Data) -> tuple[RunTable, str]:
    """Runs whose rate decayed where they end, several lengths of each size; else points of the curves, and which."""
    with suppress(DataError):
        table = table_from_records(data.records("final", schedule="decay"), source=data.source)
        table = table.select(table.N > 0, "N = 0: outside a power law of N")
        _, lengths = np.unique(table.N, return_counts=True)
        if np.sum(lengths >= SEVERAL) >= 5:
            return table, "decay branches, each decayed where it ends"
    return _points_as_runs(data), CURVES


def _points_as_runs(data: Data) -> RunTable:
    """Some points of each curve, evenly spaced in ln tokens, as if each were a run that ended there."""
    table = table_from_records(family_records(data), source=data.source)
    if (sizes := len(np.unique(table.N))) < MIN_SIZES:
        raise DataError(f"curves of {sizes} sizes, {MIN_SIZES} needed")
    keep = np.zeros(len(table), dtype=bool)
    for run in np.unique(table.run):
        rows = np.flatnonzero(table.run == run)
        wanted = np.linspace(np.log(table.tokens[rows].min()), np.log(table.tokens[rows].max()), THINNING)
        keep[rows[np.unique(np.abs(np.log(table.tokens[rows])[:, None] - wanted).argmin(axis=0))]] = True
    table = table.select(keep, "thinned")
    names = np.array(table.row_names())
    none = np.zeros(len(table), dtype=bool)
    return replace(table, run=names, curve=none, decayed=~none, data_hash="")


def _way(table: RunTable, name: str, seed: int) -> Way | None:
    """The table counted one way, fitted and compared; None if the law is not identified."""
    found = countings(table)
    count = found["own"] if name == "non-embedding" else found[name]
    changed = replace(table, N=count.N, C=count.cost, data_hash="")
    try:
        fit = approximate_fit(changed, "chinchilla", num_draws=1000, seed=seed)
        return Way(name, fit, compare_methods(fit, seed=seed))
    except (DesignError, DataError):
        return None


def _rows(way: Way, basis: str) -> Iterator[Row]:
    n = way.fit.runs.num_runs
    for name, words in APPROACHES.items():
        paper = CHINCHILLA[name] if way.name == "total" else None
        label = f"a in N* ∝ C^a, {words}, {WAYS[way.name]}"
        if name in way.methods.estimates:
            estimate = way.methods.estimates[name]
            how = (
                "posterior" if name == "law" else "bootstrap over runs" if name == "envelope" else "draws of the minima"
            )
            narrow = f"; {TOO_NARROW}" if basis == CURVES else ""
            yield Row.of(label, paper, estimate.exponent, n, "", f"{how}; {basis}{narrow}")
            tokens = label.replace("a in N* ∝ C^a", "b in tokens* ∝ C^b")
            yield Row.of(
                tokens, None if paper is None else round(1 - paper, 2), 1 - estimate.exponent.draws, n, "", "1 − a"
            )
        else:
            yield Row(label, paper, float("nan"), None, 0, "", way.methods.refused[name])
    p = way.fit.draws
    for key, paper in (("alpha", 0.34), ("beta", 0.28), ("E", None)):
        text = f"{ {'alpha': 'α', 'beta': 'β', 'E': 'E'}[key] } of E + A/N^α + B/tokens^β, {WAYS[way.name]}"
        remark = "posterior" + ("; nats per byte, no paper value to compare" if key == "E" else "")
        yield Row.of(text, paper if way.name == "total" else None, p[key], n, "nats" if key == "E" else "", remark)


def _valleys(figure: ReportFigure, ax: Axes, way: Way) -> None:
    minima = way.methods.minima
    if minima is None:
        why = "\n".join(wrap(way.methods.refused.get("isoflop", "no minima"), 52))
        ax.annotate(why, (0.03, 0.95), xycoords="axes fraction", va="top", fontsize=8.0).set_in_layout(False)
        return
    shades = Shades(np.exp(minima.log_C), "C")
    for valley, one in zip(minima.valleys, minima.slices, strict=True):
        colour = shades(float(np.exp(valley.log_C)))
        text = f"{number(float(np.exp(valley.log_C)), 2)} FLOP"
        points(ax, np.exp(one.log_N), np.exp(one.log_loss), series=text, colour=colour, size=3.0)
        grid = np.linspace(*valley.span, 50)
        line(ax, np.exp(grid), np.exp(valley.log_loss(grid)), series=text, colour=colour, width=1.1)
        best = np.array([valley.log_N])
        points(ax, np.exp(best), np.exp(valley.log_loss(best)), series=f"minimum, {text}", colour=colour, hollow=True)
    ax.set_xlabel("parameters")
    ax.set_ylabel("loss, nats per byte")
    log_axes(ax)
    shades.key(figure, ax)


def _ratios(ax: Axes, way: Way) -> None:
    """Tokens per parameter, C/(6·N*²), by every approach over the compute that it measured."""
    for name, words in APPROACHES.items():
        estimate = way.methods.estimates.get(name)
        if estimate is None or estimate.span is None:
            continue
        grid = np.geomspace(*estimate.span, 30)
        draws = grid / (6 * np.exp(2 * estimate.at(grid)))
        text = f"{words.split(', ')[1]}, {WAYS[way.name]}: a = {_text(estimate)}"
        red, green, blue = to_rgb(COLOURS[name])
        pale = (1 + red) / 2, (1 + green) / 2, (1 + blue) / 2
        shade = (red, green, blue) if way.name == "total" else pale
        dashes = "-" if way.name == "total" else "--"
        band(ax, grid, draws, series=text, colour=shade, label=text, dashes=dashes, width=1.3)


def _text(estimate: Estimate) -> str:
    low, high = estimate.exponent.interval()
    return f"{estimate.exponent.median:.2f} ({low:.2f}-{high:.2f})"


def _remark(ways: list[Way], basis: str) -> str:
    middle = {
        (way.name, name): estimate.exponent.median for way in ways for name, estimate in way.methods.estimates.items()
    }
    parts = []
    for way in ways:
        said = ", ".join(f"{middle[way.name, n]:.2f} ({n})" for n in APPROACHES if (way.name, n) in middle)
        parts.append(f"{WAYS[way.name][0].upper() + WAYS[way.name][1:]}: a = {said}.")
        if not way.fit.converged:
            parts.append(f"Importance sampling of the law failed ({way.fit.ess:.0f} effective draws).")
    with suppress(ScalingSimError):
        parts.append(ways[0].methods.verdict)
    return f"Runs: {basis}. " + " ".join(parts)
