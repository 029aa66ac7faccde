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

from scaling_sim.errors import DataError, DesignError
from scaling_sim.inference.approximate import ApproximateFit, approximate_fit
from scaling_sim.predict.counts import countings
from scaling_sim.predict.isoflop import Minima
from scaling_sim.predict.methods import Estimate, compare_methods, read_off
from scaling_sim.report.figures.canvas import ACCENT, OURS, PAPER, ReportFigure, band, line, points, sheet
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import number
from scaling_sim.runs.table import RunTable, table_from_records
from scaling_sim.study.reproduce.kaplan.drawing import Shades
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row
from scaling_sim.study.reproduce.kaplan.protocols import COUNTS, MIN_SIZES, constant_rate
from scaling_sim.study.reproduce.kaplan.rows import family_records

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
CHINCHILLA_BETA = 0.28
SEVERAL = 3
"""Lengths of a size from which decay branches can take the place of curves."""
THINNING = 8
CURVES = "points of constant-rate curves, each taken as a run (no decay)"
TOO_NARROW = "points of one curve err together, so that the interval is too narrow"


@dataclass(frozen=True)
class Way:
    """One way to count: the law's fit, what each approach says, why others cannot, and the valleys."""

    name: str
    fit: ApproximateFit | None
    estimates: dict[str, Estimate]
    refused: dict[str, str]
    minima: Minima | None


def approaches(data: Data) -> Finding:
    """Best size against compute by envelope, isoFLOP minima and parametric law."""
    table, basis = finished_rows(data)
    ways = [way for name in WAYS if (way := _way(data, table, name)) is not None]
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
            "Right: a level line is a = .5, numbers are a with 90 % intervals; bands 90 and 50 %; "
            "pale without embeddings."
        )
        return figure

    curves = len(family_records(data)) if any("envelope" in w.estimates or w.minima for w in ways) else 0
    rows = tuple(row for way in ways for row in _rows(way, basis, curves))
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


def _way(data: Data, table: RunTable, name: str) -> Way | None:
    """The runs counted one way: the law fitted to ``table``, the others read off the curves; None if neither can be."""
    found = countings(table)
    count = found["own"] if name == "non-embedding" else found[name]
    estimates: dict[str, Estimate] = {}
    refused: dict[str, str] = {}
    minima = fit = None
    changed = replace(table, N=count.N, C=count.cost, data_hash="")
    try:
        fit = approximate_fit(changed, "chinchilla", num_draws=1000, seed=data.seed)
        estimates["law"] = compare_methods(fit, seed=data.seed).estimates["law"]
    except (DesignError, DataError) as error:
        refused["law"] = str(error)
    try:
        points = constant_rate(data).counted(COUNTS[name])
    except DataError as error:
        refused |= {"envelope": str(error), "isoflop": str(error)}
    else:
        budgets = np.exp(np.quantile(points.log_C, [0.5, 1.0]))
        read, failed, minima = read_off(points, budgets, np.random.default_rng(data.seed))
        estimates, refused = estimates | read, refused | failed
    return Way(name, fit, estimates, refused, minima) if estimates else None


def _rows(way: Way, basis: str, curves: int) -> Iterator[Row]:
    finished = 0 if way.fit is None else way.fit.runs.num_runs
    narrow = f"; {TOO_NARROW}" if basis == CURVES else ""
    how = {
        "envelope": ("bootstrap over runs; constant-rate curves", curves),
        "isoflop": ("draws of the minima; constant-rate curves", curves),
        "law": (f"posterior; {basis}{narrow}", finished),
    }
    for name, words in APPROACHES.items():
        paper = CHINCHILLA[name] if way.name == "total" else None
        label, (remark, n) = f"a in N* ∝ C^a, {words}, {WAYS[way.name]}", how[name]
        if name in way.estimates:
            draws = way.estimates[name].exponent.draws
            yield Row.of(label, paper, draws, n, "", remark)
            tokens = label.replace("a in N* ∝ C^a", "b in tokens* ∝ C^b")
            yield Row.of(tokens, None if paper is None else round(1 - paper, 2), 1 - draws, n, "", "1 − a")
        else:
            yield Row(label, paper, float("nan"), None, 0, "", way.refused[name])
    if way.fit is not None:
        for key, symbol, paper in (("alpha", "α", 0.34), ("beta", "β", 0.28), ("E", "E", None)):
            text = f"{symbol} of E + A/N^α + B/tokens^β, {WAYS[way.name]}"
            known = paper if way.name == "total" else None
            yield Row.of(
                text, known, way.fit.draws[key], finished, "nats per byte" if key == "E" else "", f"posterior{narrow}"
            )


def _valleys(figure: ReportFigure, ax: Axes, way: Way) -> None:
    minima = way.minima
    if minima is None:
        why = "\n".join(wrap(way.refused.get("isoflop", "no minima"), 52))
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
        estimate = way.estimates.get(name)
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


def _verdict(ways: list[Way]) -> str:
    """Whether the exponents are those of Hoffmann et al., all parameters counted, and agree with each other."""
    found = {
        name: estimate.exponent.interval()
        for way in ways
        if way.name == "total"
        for name, estimate in way.estimates.items()
        if name in CHINCHILLA
    }
    if not found:
        return "Their count of all parameters could not be made."
    same = [name for name, (low, high) in found.items() if low <= CHINCHILLA[name] <= high]
    agree = max(low for low, _ in found.values()) <= min(high for _, high in found.values())
    seen = "Reproduced" if len(same) == len(found) else "Reproduced in part" if same else "Not reproduced"
    return (
        f"{seen}: {len(same)} of {len(found)} intervals hold those of Hoffmann et al. (.46 to .50, all parameters). "
        f"{'Reproduced' if agree else 'Not reproduced'}: the approaches agree with each other."
    )


def _remark(ways: list[Way], basis: str) -> str:
    parts = [_verdict(ways)]
    parts.append(f"Parametric law from {basis}; envelope and isoFLOP minima from constant-rate curves.")
    for way in ways:
        said = ", ".join(
            f"{way.estimates[n].exponent.median:.2f} ({words.split(', ')[1]})"
            for n, words in APPROACHES.items()
            if n in way.estimates
        )
        parts.append(f"{WAYS[way.name][0].upper() + WAYS[way.name][1:]}: a = {said}.")
        if way.fit is not None and not way.fit.converged:
            parts.append(f"Importance sampling of the law failed ({way.fit.ess:.0f} effective draws).")
    fit = ways[0].fit
    if fit is not None and np.quantile(fit.draws["beta"], 0.05) > CHINCHILLA_BETA:
        parts.append(
            f"Our β = {np.median(fit.draws['beta']):.2f} is far above Hoffmann et al.'s .28 and near the "
            "paper's α_S = .76: at one fixed batch and with tokens plentiful for such small models, the term in tokens "
            "is likely one of steps, and a = β/(α + β) is large for that. No interval covers what one batch does."
        )
    return " ".join(parts)
