"""What training itself showed: learning curves, and the critical batch (Kaplan et al. 2020, figure 10)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from scaling_sim.report.figures.canvas import (
    OURS,
    PAPER,
    Colour,
    NothingToShow,
    ReportFigure,
    band,
    colours,
    drawn,
    legend_below,
    line,
    points,
    shade_beyond,
    sheet,
)
from scaling_sim.report.figures.curves import PAPER as PAPER_EXPONENTS
from scaling_sim.report.figures.curves import (
    Array,
    exponent_text,
    need_fit,
    pinned,
    span,
    thinned,
)
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import exact

if TYPE_CHECKING:
    from scaling_sim.report.data import ReportData
    from scaling_sim.runs.record import RunRecord

SPLIT = "test"
PRIORITY = ("curve", "final", "data")


@drawn
def figure_learning_curves(data: ReportData) -> ReportFigure:
    """Test loss along training: one epoch on the left, repeated data on the right."""
    single = [r for r in data.records if "curve" in r.purposes and len(r.curve) > 1]
    repeated = [r for r in data.records if "data" in r.purposes and len(r.curve) > 1]
    if not single and not repeated:
        raise NothingToShow("the report has no learning curves")
    shown = [(t, r) for t, r in (("Every token seen once", single), ("Limited data, repeated", repeated)) if r]
    figure, axes = sheet("learning-curves", "Learning curves", [title for title, _ in shown], height=4.2)
    for ax, (title, records) in zip(axes, shown, strict=True):
        if title.startswith("Every"):
            _by_size(ax, records)
        else:
            _by_data(ax, records)
        ax.set_xlabel("tokens processed")
        log_axes(ax)
        legend_below(ax, 3)
    axes[0].set_ylabel(f"{SPLIT} loss, nats per token")
    figure.reading = (
        "Every run as it was trained; larger models learn more from each token. Where data repeat, the loss stops "
        "falling and rises again: the circle marks the early stop that counts as the run's result."
    )
    return figure


def _by_size(ax: Axes, records: list[RunRecord]) -> None:
    sizes = sorted({size(record) for record in records})
    for value, colour in zip(sizes, colours(len(sizes)), strict=True):
        label: str | None = f"N = {exact(value)}"
        for record in (r for r in records if size(r) == value):
            _curve(ax, record, colour, label)
            label = None


def _by_data(ax: Axes, records: list[RunRecord]) -> None:
    largest = max(size(record) for record in records)
    kept = sorted((r for r in records if size(r) == largest), key=lambda r: r.config.unique_tokens)
    amounts = sorted({r.config.unique_tokens for r in kept})
    ramp = dict(zip(amounts, colours(len(amounts), "plasma"), strict=True))
    labelled: set[int] = set()
    for record in kept:
        amount = record.config.unique_tokens
        _curve(ax, record, ramp[amount], None if amount in labelled else f"D = {exact(float(amount))}")
        labelled.add(amount)
        if record.result is not None:
            place = [record.result.tokens], [record.result.losses[SPLIT]]
            points(ax, *place, series=f"{record.run_id} result", colour=ramp[amount], hollow=True, size=6)
    ax.set_title(f"Limited data, repeated (N = {exact(largest)})")


def _curve(ax: Axes, record: RunRecord, colour: Colour, label: str | None) -> None:
    shown = [point for point in record.curve if SPLIT in point.losses and point.step > 0]
    x, y = [p.tokens for p in shown], [p.losses[SPLIT] for p in shown]
    line(ax, x, y, series=record.run_id, colour=colour, label=label, width=1.2)


def size(record: RunRecord) -> float:
    """N of a record: non-embedding parameters."""
    from scaling_sim.model.count import num_parameters

    return float(num_parameters(record.config.shape))


@drawn
def figure_critical_batch(data: ReportData) -> ReportFigure:
    """B_crit(L) with the gradient noise scale measured along the runs (Kaplan fig 10)."""
    fit = need_fit(data, "alpha_B", "B_star")
    from scaling_sim.laws.kaplan import critical_batch

    figure, (ax,) = sheet("critical-batch", "The critical batch", [""], height=4.0)
    losses, scales = _noise_scale_points(ax, data)
    table = data.table
    measured = [losses] + ([table.loss[table.curve]] if table is not None and table.curve.any() else [fit.runs.loss])
    L = span(np.concatenate(measured), 1.15, 1.0)
    text = exponent_text(r"$1/\alpha_B$", 1 / np.asarray(fit.draws["alpha_B"]))
    middle = band(ax, L, critical_batch(L, thinned(fit)), series="B_crit(L)", colour=OURS, label=text)[2]
    value = 1 / PAPER_EXPONENTS["alpha_B"]
    line(
        ax,
        L,
        pinned(L, middle, -value),
        series="Kaplan et al., slope",
        colour=PAPER,
        dashes="--",
        width=1.2,
        label=rf"Kaplan et al.: $1/\alpha_B$ = {value:.1f}",
    )
    ax.invert_xaxis()
    ax.set_xlabel("test loss, nats per token (training goes to the right)")
    ax.set_ylabel("batch, tokens")
    log_axes(ax)
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    figure.reading = (
        "Above this batch, more sequences per step hardly save steps; below it, smaller batches hardly save compute. "
        "The line comes from the losses of runs at several batches." + _noise_scale_text(losses, scales, fit.draws)
    )
    return figure


def _noise_scale_text(losses: Array, scales: Array, draws: Mapping[str, Array]) -> str:
    """How far the gradient noise scale lies from the fitted B_crit, in numbers."""
    from scaling_sim.laws.kaplan import critical_batch

    if not len(losses):
        return " No gradient noise scale was measured beside it."
    middle = {name: float(np.median(values)) for name, values in draws.items()}
    low, half, high = np.quantile(scales / critical_batch(losses, middle), [0.1, 0.5, 0.9])
    return (
        f" The points are the gradient noise scale, measured independently: over {len(losses)} of them its median is "
        f"{half:.2g} times the line (80 % of the points: {low:.2g} to {high:.2g} times)."
    )


def _noise_scale_points(ax: Axes, data: ReportData) -> tuple[Array, Array]:
    found: dict[float, list[tuple[float, float]]] = {}
    for record in data.records:
        for point in record.curve:
            if point.noise_scale is not None and point.noise_scale > 0 and SPLIT in point.losses:
                found.setdefault(size(record), []).append((point.losses[SPLIT], point.noise_scale))
    sizes = sorted(found)
    for value, colour in zip(sizes, colours(len(sizes)), strict=True):
        x, y = np.array(found[value]).T
        text = f"noise scale, N = {exact(value)}"
        points(ax, x, y, series=text, colour=colour, label=text, size=3.2, alpha=0.7)
    pairs = np.array([pair for value in sizes for pair in found[value]], dtype=float).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


@drawn
def figure_batch_sweep(data: ReportData) -> ReportFigure:
    """Loss against steps for each batch size of a batch sweep."""
    from scaling_sim.laws.kaplan import solve_loss
    from scaling_sim.laws.kaplan_joint import curve_parameters

    table = data.table
    if table is None or not table.curve.any() or np.unique(table.B[table.curve]).size < 2:
        raise NothingToShow("fewer than two batch sizes were tried")
    fit = data.fit_with("alpha_N", "N_c", "alpha_S", "S_c", "alpha_B", "B_star")
    N, rows = _sweep_size(data)
    figure, (ax,) = sheet("batch-sweep", "Batch sweep", [f"N = {exact(N)}"], height=3.8)
    batches = np.unique(table.B[rows])
    for batch, colour in zip(batches, colours(len(batches), "plasma"), strict=True):
        k = rows[table.B[rows] == batch]
        text = f"B = {exact(float(batch))} tokens"
        label = text if fit is None else None
        points(ax, table.S[k], table.loss[k], series=text, colour=colour, label=label, size=3.5)
        if fit is not None:
            S = span(table.S[k], 1.0, 2.0, 40)
            curve = solve_loss(N, float(batch), S, curve_parameters(thinned(fit)))
            band(ax, S, curve, series=text, colour=colour, label=text)
    ax.set_xlabel("parameter updates S")
    ax.set_ylabel("test loss, nats per token")
    shade_beyond(ax, float(table.S[rows].max()))
    log_axes(ax)
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    figure.reading = (
        "The same model at several batch sizes: where the curves lie on one another, a larger batch saves nothing. "
        "Their spacing is what identifies the critical batch."
    )
    return figure


def _sweep_size(data: ReportData) -> tuple[float, Array]:
    """The size with the most batch sizes, and its curve rows."""
    table = data.table
    assert table is not None
    index = np.flatnonzero(table.curve)
    sizes = np.unique(table.N[index])
    counts = [np.unique(table.B[index][table.N[index] == size]).size for size in sizes]
    chosen = sizes[len(sizes) - 1 - int(np.argmax(counts[::-1]))]
    return float(chosen), index[table.N[index] == chosen]
