"""Section 6.3: do L(C) and L(D) contradict each other near the entropy? On a language whose entropy is known.

Pure power laws are fitted to the early part of the runs: the compute frontier at our batch, L(C) and N*(C), and
early-stopped runs, L(N, D). They cross at L*; the paper conjectures that L* estimates the entropy per token, and that
the power laws break down there or before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from statistics import mode
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from scaling_sim.errors import DataError, ScalingSimError
from scaling_sim.inference.approximate import approximate_fit
from scaling_sim.laws.constants import PF_DAY
from scaling_sim.predict.crossover import Crossover, crossover
from scaling_sim.predict.quantity import Quantity
from scaling_sim.report.figures.canvas import (
    ACCENT,
    GREY,
    OURS,
    PAPER,
    ReportFigure,
    band,
    legend_below,
    line,
    points,
    sheet,
)
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.runs.table import RunTable, table_from_records
from scaling_sim.study.reproduce.kaplan.drawing import Shades
from scaling_sim.study.reproduce.kaplan.early import (
    BENT,
    DRAWS,
    EARLY_C,
    EARLY_D,
    Bend,
    Early,
    bend_of,
    bracketed,
    early_end,
    early_laws,
    limits_of,
    settled,
)
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row

if TYPE_CHECKING:
    from scaling_sim.study.reproduce.kaplan.data import Data

Array = NDArray[np.float64]

CORPUS = "synthetic"
MORE_D = 0.3
"""A wider share of the data-limited runs than `EARLY_D`, to see what the choice does."""
NEAR = 0.05
"""Relative distance from the entropy below which L(D) lies on it, so that a crossing says nothing."""
SAME = 1e-6
"""Nats within which two entropies are those of one language."""


def conjecture(data: Data) -> Finding:
    """Crossing of pure power laws on a language of known entropy, and where its curves bend."""
    entropy = entropy_of(data)
    table = table_from_records(settled(data.records(corpus=CORPUS)), source=data.source)
    early = early_laws(table, data.seed)
    crossing = crossover(early, backtest=None)
    bend = bend_of(table, early)
    floors = dict(_floors(table, data.seed))

    def draw() -> ReportFigure:
        titles = ["Early power laws and their crossing", "Departure from the early power law"]
        figure, (left, right) = sheet(
            "conjecture", "Crossing and bend on a language of known entropy", titles, height=4.8
        )
        _laws(left, table, early, crossing, entropy)
        _departure(right, bend, crossing, entropy)
        figure.reading = (
            "Left: filled points are the frontier up to a hundredth of the compute, to which L(C) was fitted, hollow "
            "ones the rest; L(D(C)) is what early-stopped runs say of the data that the frontier uses. Right: measured "
            "frontier over the early power law."
        )
        return figure

    limit = limits_of(early, table) / entropy
    wider = _wider_row(table, data.seed)
    rows = (
        *_rows(table, crossing, bend, floors, entropy),
        *_limit_rows(limit, table.num_runs),
        *_window_row(data, entropy),
        *wider,
    )
    remark = _remark(crossing, bend, floors, entropy, limit, wider)
    return Finding("§6.3", "The crossing on a language of known entropy", rows, draw, remark)


def entropy_of(data: Data) -> float:
    """Entropy rate of the synthetic corpus, nats per token.

    Raises
    ------
    DataError
        The experiment has no such corpus, or does not say its entropy.
    """
    for facts in data.experiment.corpora.values():
        if facts.key == CORPUS and facts.entropy is not None:
            return float(facts.entropy)
    raise DataError("the experiment has no synthetic corpus of known entropy")


def _floors(table: RunTable, seed: int) -> Iterator[tuple[str, tuple[Array, int]]]:
    """E of laws with a floor, each fitted to all its rows."""
    for law in ("kaplan-floor", "kaplan-ns-floor", "kaplan-nd-floor", "chinchilla"):
        with suppress(ScalingSimError):
            rows = table.select(table.N > 0, "N = 0")
            if law == "chinchilla" and np.unique(rows.tokens[rows.decayed]).size < 3:
                continue
            fit = approximate_fit(rows, law, num_draws=DRAWS, seed=seed)
            if fit.converged:
                yield law, (fit.draws["E"], fit.runs.num_runs)


def _rows(
    table: RunTable, crossing: Crossover, bend: Bend, floors: Mapping[str, tuple[Array, int]], entropy: float
) -> Iterator[Row]:
    n = table.num_runs
    yield Row("known entropy rate H", None, entropy, (entropy, entropy), 0, "nats", "exact; the paper's L* is 1.7 nats")
    crosses = np.isfinite(crossing.C.draws)
    share = f"{np.mean(crosses):.0%} of the draws cross"
    kept = Quantity("loss", np.where(crosses, crossing.loss.draws, 0.0), "nats")
    yield Row.of(
        "L* where the early L(C) and L(D(C)) cross", None, kept, n, "nats", f"draws of fits and bootstrap; {share}"
    )
    yield Row.of("L*/H", 1.0, kept.draws / entropy, n, "", "1 by the conjecture")
    excess = (kept.draws - entropy) / (early_end(bend) - entropy)
    words = "distance of L* from H over that of the last early loss"
    yield Row.of(words, 0.0, excess, n, "", "0 by the conjecture; all losses lie near H, so that L*/H says little")
    yield Row.of("C* of the crossing", None, crossing.C, n, "FLOP", "compute paid at our batch")
    beyond = Quantity("decades", np.log10(crossing.C.draws / table.C.max()))
    yield Row.of("decades of compute from the largest run to C*", None, beyond, n, "", "negative: within the runs")
    bent = np.where(np.isfinite(bend.at), bend.at, 0.0)
    remark = (
        f"departure of {BENT:.0%} from the early power law; bends within the runs in {bend.probability:.0%} of draws"
    )
    yield Row.of("loss at which the frontier bends", None, bent, n, "nats", remark)
    for law, (draws, runs) in floors.items():
        yield Row.of(
            f"floor E by {law}", None, draws, runs, "nats", f"all rows; H = {entropy:.4f}; importance sampling"
        )


def _limit_rows(limit: Array, n: int) -> Iterator[Row]:
    """Where L(D(C)) lies along the runs: near 1 a crossing at H is foregone."""
    for place, words in enumerate(("least", "largest")):
        remark = "a crossing lies on this line: at 1 throughout it is near H whatever L(C) is"
        yield Row.of(f"early L(D(C)) over H at the {words} compute", None, limit[:, place], n, "", remark)


def _wider_row(table: RunTable, seed: int) -> tuple[Row, ...]:
    """L* with more of the data-limited runs."""
    with suppress(ScalingSimError):
        found = crossover(early_laws(table, seed, MORE_D), backtest=None)
        star = np.where(np.isfinite(found.C.draws), found.loss.draws, 0.0)
        words = f"L* with data-limited runs of up to {MORE_D:g} of the largest D instead of {EARLY_D:g}"
        return (Row.of(words, None, star, table.num_runs, "nats", "what the choice of the early part does"),)
    return ()


def _window_row(data: Data, entropy: float) -> Iterator[Row]:
    """What the best predictor of our windows pays, if the language is the experiment's."""
    from scaling_sim.data.synthetic import SyntheticLanguage
    from scaling_sim.data.window_entropy import window_entropy
    from scaling_sim.study.kaplan.scales import H200

    language = SyntheticLanguage(H200.language.synthetic)
    n_ctx = mode(record.config.shape.n_ctx for record in data.records(corpus=CORPUS))
    if abs(language.entropy_rate - entropy) < SAME:
        floor = window_entropy(language, n_ctx)
        text = f"entropy of windows of {n_ctx} tokens cut at random"
        yield Row(
            text, None, floor, (floor, floor), 0, "nats", "exact to 1e-5: what a model of this context could reach"
        )


def _laws(ax: Axes, table: RunTable, early: Early, crossing: Crossover, entropy: float) -> None:
    curves = table.select(table.curve & (table.N > 0), "not a point of a curve")
    shades = Shades(curves.N)
    for run in np.unique(curves.run):
        rows = np.flatnonzero(curves.run == run)
        rows = rows[np.argsort(curves.C[rows])]
        line(
            ax,
            curves.C[rows],
            curves.loss[rows],
            series=run,
            colour=shades(float(curves.N[rows[0]])),
            width=0.7,
            alpha=0.7,
        )
    on = bracketed(curves)
    edge = EARLY_C * curves.C.max()
    for rows, hollow in ((edge >= on.C, False), (edge < on.C, True)):
        points(ax, on.C[rows], on.loss[rows], series="frontier", colour=OURS, size=3.2, hollow=hollow)
    _, high = crossing.C.interval()
    far = min(high if np.isfinite(high) else 1e3 * edge, 1e4 * curves.C.max())
    grid = np.geomspace(on.C.min(), max(far, 3 * curves.C.max()), 50)
    p = {name: values[:, None] for name, values in early.draws.items()}
    x = np.log(grid / PF_DAY)
    band(ax, grid, np.exp(p["alpha_C_min"] * (np.log(p["C_c_min"]) - x)), series="L(C), early", colour=OURS,
         label="L(C), early power law")  # fmt: skip
    D = np.log(p["D_e"]) + p["p_D"] * x
    band(ax, grid, np.exp(p["alpha_D"] * (np.log(p["D_c"]) - D)), series="L(D(C)), early", colour=PAPER,
         label="L(D(C)), early power law")  # fmt: skip
    ax.axhline(entropy, color=ACCENT, lw=1.2, ls="--", label=f"entropy H = {entropy:.3f}")
    shown = np.log(curves.loss[on.C.min() <= curves.C])
    ax.set_ylim(entropy * np.exp(-0.5 * (shown.max() - np.log(entropy))), float(np.exp(shown.max())) * 1.01)
    ax.set_xlim(float(curves.C.min()), float(grid[-1]))
    ax.set_xlabel("compute 6·N·tokens, FLOP")
    ax.set_ylabel("loss, nats per token")
    log_axes(ax)
    legend_below(ax)


def _departure(ax: Axes, bend: Bend, crossing: Crossover, entropy: float) -> None:
    low, middle, high = 100 * np.quantile(bend.departure, [0.05, 0.5, 0.95], axis=0)
    for rows, hollow in ((~bend.late, False), (bend.late, True)):
        error = np.stack([middle - low, high - middle])[:, rows]
        points(ax, bend.loss[rows], middle[rows], series="departure", colour=OURS, size=3.5, hollow=hollow, error=error)
    ax.axhline(0, color=GREY, lw=0.8)
    ax.axhline(100 * BENT, color=GREY, lw=0.8, ls=":")
    ax.axvline(entropy, color=ACCENT, lw=1.2, ls="--")
    star = Quantity("L", np.where(np.isfinite(crossing.C.draws), crossing.loss.draws, 0.0))
    a, b = star.interval()
    ax.axvspan(max(a, 0.5 * entropy), b, color=PAPER, alpha=0.15, lw=0, label="L* of the crossing, 90 %")
    if star.median > 0.5 * entropy:
        ax.axvline(star.median, color=PAPER, lw=1.2)
    ax.set_yscale("linear")
    ax.set_xlim(min(entropy, max(star.median, 0.7 * entropy)) * 0.95, bend.loss.max() * 1.03)
    ax.invert_xaxis()
    ax.set_xlabel("measured loss, nats per token (falling)")
    ax.set_ylabel("loss above the early power law, %")
    ax.set_ylim(1.1 * min(low.min(), 0.0) - 0.2, 1.1 * high.max())
    log_axes(ax, y=False)
    legend_below(ax)


def _remark(
    crossing: Crossover,
    bend: Bend,
    floors: Mapping[str, tuple[Array, int]],
    entropy: float,
    limit: Array,
    wider: tuple[Row, ...],
) -> str:
    star = np.where(np.isfinite(crossing.C.draws), crossing.loss.draws, 0.0) / entropy
    low, middle, high = np.quantile(star, [0.05, 0.5, 0.95])
    where = "at" if low <= 1 <= high else "above" if low > 1 else "below"
    first, last = np.median(limit, axis=0)
    foregone = max(abs(first - 1), abs(last - 1)) < NEAR
    verdict = "Neither confirmed nor refuted" if foregone else "Reproduced" if where == "at" else "Not reproduced"
    parts = [
        f"{verdict}: the crossing of early power laws lies {where} H, L* = {middle:.2f} H ({low:.2f} to {high:.2f})."
    ]
    if foregone:
        parts.append(
            f"That is foregone: the loss of data-limited runs lies at H almost everywhere (L(D(C)) falls from "
            f"{first:.2f} to {last:.2f} H along the runs), so that any crossing is near it."
        )
    for row in wider:
        assert row.interval90 is not None
        share = [value / entropy for value in (row.ours, *row.interval90)]
        parts.append(
            f"With data-limited runs of up to {MORE_D:g} of the largest D instead of {EARLY_D:g} it is "
            f"{share[0]:.2f} H ({share[1]:.2f} to {share[2]:.2f})."
        )
    parts.append(
        f"The frontier leaves its early power law by {BENT:.0%} at {np.nanmedian(bend.at) / entropy:.2f} H, above the "
        "entropy; before that it is no straight line either (right)."
        if bend.probability > 0.5
        else f"Within the runs, down to {bend.loss.min() / entropy:.2f} H, the frontier does not clearly bend."
    )
    told = [
        f"{law}: {np.quantile(draws, 0.05):.3f} to {np.quantile(draws, 0.95):.3f}" for law, (draws, _) in floors.items()
    ]
    parts += [f"Laws with a floor put it at {'; '.join(told)} nats (H = {entropy:.3f})."] * bool(told)
    parts.append(
        "The text is synthetic: its excess loss is a power law by construction, which text need not be; windows of 128 "
        "tokens cost slightly more than H."
    )
    return " ".join(parts)
