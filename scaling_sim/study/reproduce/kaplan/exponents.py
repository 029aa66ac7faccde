"""Which accounts of why N* ∝ C^.73 became C^.5 our runs bear out: each switched on and off.

Kaplan et al. 2020 left embeddings and head out of N and C, warmed up for long and cut one cosine early; Porian et al.
2024 (arXiv 2406.19146) and Pearce & Song 2024 (arXiv 2406.12907) undo these one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from scaling_sim.errors import DataError, DesignError, ScalingSimError
from scaling_sim.predict.surface import Surface, surface_minima
from scaling_sim.report.figures.canvas import ACCENT, GREY, OURS, PAPER, ReportFigure, legend_below, points, sheet
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row
from scaling_sim.study.reproduce.kaplan.protocols import (
    COUNTS,
    Protocol,
    constant_rate,
    decayed,
    fixed_horizon,
    matched_horizon,
)

if TYPE_CHECKING:
    from scaling_sim.study.reproduce.kaplan.data import Data

COLOURS = {"non-embedding": PAPER, "with head": "#7c3aed", "exact FLOP": ACCENT, "total": OURS}
PUBLISHED = {
    ("fixed horizon", "non-embedding"): (0.864, "Porian et al. 2024, OpenWebText2; the paper's own fit: .88"),
    ("fixed horizon", "with head"): (0.699, "Porian et al. 2024, OpenWebText2"),
    ("matched horizon", "with head"): (0.574, "Porian et al. 2024, OpenWebText2, warm-up and cosine matched"),
}
"""(protocol, count) → exponent and its source, of the same protocol; its sizes differ from ours in all of them."""
OTHERS = {
    "non-embedding": "Pearce & Song 2024, runs of .8 to 4.6M parameters: .74",
    "total": "Pearce & Song 2024, runs of .8 to 4.6M parameters: .49",
}
"""Count → what runs of another protocol gave, said beside our constant rate."""


HALF = 0.5
FEW = 10
"""Runs below which a bootstrap over them is named as doubtful."""


@dataclass(frozen=True)
class Cell:
    """One protocol under one count."""

    protocol: Protocol
    count: str
    surface: Surface

    @property
    def interval(self) -> tuple[float, float]:
        """90 % of the exponent."""
        return self.surface.exponent.interval()


def exponents(data: Data) -> Finding:
    """How the exponent of N*(C) moves with counting, warm-up and schedule."""
    protocols, missing = protocols_of(data)
    cells, refused = [], []
    for k, protocol in enumerate(protocols):
        for count in COUNTS.values():
            try:  # one seed for all counts of a protocol, so that their differences share its noise
                surface = surface_minima(protocol.counted(count), seed=data.seed + 1000 * k)
                cells.append(Cell(protocol, count.name, surface))
            except (DesignError, DataError) as error:
                refused.append(f"{protocol.name}, {count.name}: {error}")
    if not cells:
        raise DataError("; ".join([*missing, *refused]))
    mapped = mapped_rows(data)

    def draw() -> ReportFigure:
        titles = ["Exponent a of N* ∝ C^a", "N*(C)"]
        figure, (left, right) = sheet(
            "exponents", "What moves the exponent of the best size", titles, height=4.8, log=""
        )
        _switches(left, cells)
        _sizes(right, cells)
        figure.reading = (
            "Left: each protocol under each way to count, with 90 % intervals; hollow diamonds are published values of "
            "the same change at other sizes. Right: the best sizes themselves, each as it is counted."
        )
        return figure

    shifts = tuple(_shifts(cells))
    remark = " ".join((_remark(cells, shifts), *(f"Not made: {why}." for why in (*missing, *refused))))
    rows = (*_rows(cells), *shifts, *mapped)
    return Finding("Porian, Pearce-Song", "What moves the exponent of N*(C) on our runs", rows, draw, remark)


def protocols_of(data: Data) -> tuple[list[Protocol], list[str]]:
    """Protocols that the runs allow, the paper's first, and why others are missing.

    The family at constant rate stands there twice: with all sizes, and with those of the cosine runs, beside them.
    """
    found: dict[str, Protocol] = {}
    missing = []
    for make in (fixed_horizon, matched_horizon, constant_rate, decayed):
        try:
            protocol = make(data)
            if len(protocol.sizes) < 4:
                raise DataError(f"{protocol.name}: {len(protocol.sizes)} sizes, 4 needed")
            found[protocol.name] = protocol
        except ScalingSimError as error:
            missing.append(str(error))
    if "constant rate" in found and "fixed horizon" in found:
        sizes = found["fixed horizon"].sizes
        same = found["constant rate"].of_sizes(
            sizes, "constant rate, same sizes", "short warm-up, constant rate, sizes of the cosine runs"
        )
        if len(same.sizes) >= 4:
            found[same.name] = same
    order = ("fixed horizon", "constant rate, same sizes", "matched horizon", "constant rate", "decay branches")
    return [found[name] for name in order if name in found], missing


def mapped_rows(data: Data) -> Iterator[Row] | tuple[Row, ...]:
    """Pearce & Song's mapping: what the law of all parameters would show by non-embedding counts, on our range."""
    from scaling_sim.predict.definitions import compare_definitions
    from scaling_sim.study.reproduce.kaplan.approaches import finished_rows

    with suppress(ScalingSimError):
        table, basis = finished_rows(data)
        found = compare_definitions(table, num_draws=500, seed=data.seed)
        n = table.num_runs
        text = f"{basis}; parametric law of each definition, posterior"
        rows = [
            Row.of(f"exponent by the law, {name}", None, row.exponent, n, "", text)
            for name, row in found.rows.items()
            if name in ("own", "non-embedding", "with head", "total", "exact FLOP")
        ]
        if found.mapped is not None:
            words = "exponent that the law of all parameters shows outside embeddings (mapping of Pearce & Song)"
            note = f"ω = {found.omega:.3g}; the paper's range of sizes gives .78 or .74"
            rows.append(Row.of(words, 0.74, found.mapped, n, "", note))
        return tuple(rows)
    return ()


def _rows(cells: list[Cell]) -> Iterator[Row]:
    for cell in cells:
        paper, source = PUBLISHED.get((cell.protocol.name, cell.count), (None, ""))
        other = OTHERS.get(cell.count, "") if cell.protocol.name == "constant rate" else ""
        basis = "surface, wild bootstrap over runs"
        few = ", few: one seed of each size" if cell.protocol.num_runs < FEW else ""
        text = "; ".join(filter(None, (COUNTS[cell.count].words, basis + few, source, other)))
        yield Row.of(
            f"a, {cell.protocol.name}, {cell.count}", paper, cell.surface.exponent, cell.protocol.num_runs, "", text
        )


def _shifts(cells: list[Cell]) -> Iterator[Row]:
    """Differences that one switch makes."""
    by = {(c.protocol.name, c.count): c for c in cells}
    pairs: tuple[tuple[str, tuple[str, str], tuple[str, str], float | None, str], ...] = (
        ("counting the head", ("fixed horizon", "with head"), ("fixed horizon", "non-embedding"), -0.165,
         "Porian et al."),
        ("counting all parameters", ("constant rate", "total"), ("constant rate", "non-embedding"), -0.25,
         "Pearce & Song, their runs"),
        ("head and attention in C alone", ("constant rate", "exact FLOP"), ("constant rate", "non-embedding"), None,
         ""),
        ("warm-up and cosine matched", ("matched horizon", "with head"), ("fixed horizon", "with head"), -0.125,
         "Porian et al."),
        ("short warm-up, no cosine", ("constant rate, same sizes", "non-embedding"), ("fixed horizon", "non-embedding"),
         None, ""),
    )  # fmt: skip
    for words, after, before, paper, source in pairs:
        if after in by and before in by:
            first, second = by[after].surface.exponent.draws, by[before].surface.exponent.draws
            k = min(len(first), len(second))
            note = "; ".join(filter(None, ("difference of two rows above", source)))
            runs = by[after].protocol.num_runs
            yield Row.of(f"change of a by {words}", paper, first[:k] - second[:k], runs, "", note)


def _switches(ax: Axes, cells: list[Cell]) -> None:
    names = list(dict.fromkeys(cell.protocol.name for cell in cells))
    counts = list(COUNTS)
    for cell in cells:
        y = names.index(cell.protocol.name) + 0.17 * (counts.index(cell.count) - 1.5)
        low, high = cell.interval
        colour = COLOURS[cell.count]
        ax.hlines(y, low, high, color=colour, lw=1.8, alpha=0.6)
        points(ax, [cell.surface.exponent.median], [y], series=f"{cell.protocol.name}, {cell.count}", colour=colour)
        known = PUBLISHED.get((cell.protocol.name, cell.count))
        if known:
            points(
                ax, [known[0]], [y], series=f"published, {cell.count}", colour=colour, marker="D", hollow=True, size=4
            )
    for count in counts:
        ax.plot([], [], "o", color=COLOURS[count], ms=5, label=count)
    ax.plot([], [], "D", mfc="white", mec=GREY, ms=4, label="published")
    for value, text in ((0.5, "Chinchilla"), (0.73, "Kaplan")):
        ax.axvline(value, color=GREY, lw=0.8, ls=(0, (3, 3)), zorder=0.5)
        ax.annotate(text, (value, 1.0), xycoords=("data", "axes fraction"), xytext=(3, -2), textcoords="offset points",
                    va="top", fontsize=7.8, color=GREY)  # fmt: skip
    ax.set_yticks(range(len(names)), [name.replace(", ", ",\n") for name in names])
    ax.set_ylim(len(names) - 0.4, -0.7)
    ax.set_xlabel("exponent a")
    ax.grid(False, axis="y")
    legend_below(ax, 3)


def _sizes(ax: Axes, cells: list[Cell]) -> None:
    from scaling_sim.report.figures.ticks import log_axes

    shown = [cell for cell in cells if cell.protocol.name == "constant rate"] or cells
    for cell in shown:
        low, middle, high = np.exp(np.quantile(cell.surface.log_N, [0.05, 0.5, 0.95], axis=0))
        C, colour = np.exp(cell.surface.log_C), COLOURS[cell.count]
        ax.fill_between(C, low, high, color=colour, alpha=0.15, lw=0)
        ax.plot(C, middle, color=colour, lw=1.5, label=cell.count)
    ax.set_xlabel("compute, FLOP, as counted")
    ax.set_ylabel("best size, parameters, as counted")
    log_axes(ax)
    ax.set_title(f"N*(C), {shown[0].protocol.name}")


def _borne_out(row: Row) -> str:
    """Whether a switch moved the exponent the way that its authors say."""
    assert row.interval90 is not None
    low, high = row.interval90
    moved = low > 0 or high < 0
    words = row.quantity.removeprefix("change of a by ")
    told = f"{words} moves a by {row.ours:+.2f} ({low:+.2f} to {high:+.2f})"
    if row.paper is None:
        return f"{told[0].upper() + told[1:]}{'' if moved else ', nothing beyond the interval'}."
    seen = "Not reproduced" if not moved or row.ours * row.paper < 0 else "Reproduced"
    if seen == "Reproduced" and not low <= row.paper <= high:
        seen += " in direction"
    return f"{seen}: {told}, theirs by {row.paper:+.2f}."


def _at_half(by: Mapping[tuple[str, str], Cell]) -> str:
    """Which rows allow a = .5."""
    names = [", ".join(key) for key, cell in by.items() if cell.interval[0] <= HALF <= cell.interval[1]]
    listed = f" ({'; '.join(names)})" if names else ""
    return f".5 is inside the interval of {len(names)} of {len(by)}{listed}"


def _remark(cells: list[Cell], shifts: Sequence[Row]) -> str:
    by = {(c.protocol.name, c.count): c for c in cells}
    middle = {key: cell.surface.exponent.median for key, cell in by.items()}
    first, last = max(middle, key=lambda key: middle[key]), min(middle, key=lambda key: middle[key])
    parts = [_borne_out(row) for row in shifts]
    low, high = by[last].interval
    parts.append(
        f"Over all of it a goes from {middle[first]:.2f} ({', '.join(first)}) to {middle[last]:.2f} "
        f"({', '.join(last)}; {low:.2f} to {high:.2f}); {_at_half(by)}."
    )
    same, fixed = ("constant rate, same sizes", "non-embedding"), ("fixed horizon", "non-embedding")
    if same in middle and fixed in middle and middle[fixed] < middle[same]:
        parts.append(
            "That cutting one cosine early does not raise a, unlike in their account, is likely since our horizon is "
            "only as long as our longest runs: at equal compute small models are further along it and profit from its "
            "decay."
        )
    return " ".join(parts) + (
        " With 256 byte tokens our embeddings and head weigh far less than with the paper's 50257: below N of about "
        "1e5. Long and short warm-up differ in our runs together with the schedule, so that these two switches of "
        "Porian et al. are shown as one; and all runs have one batch, while theirs was tuned."
    )
