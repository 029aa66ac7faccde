"""Figures 2 and 19: larger models reach a loss in fewer steps and on fewer tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from scaling_sim.errors import ScalingSimError
from scaling_sim.laws.batch_sweeps import read_curves
from scaling_sim.laws.kaplan_joint import curve_parameters
from scaling_sim.predict.appendix_b import compute_ratio, size_ratio, step_ratio
from scaling_sim.predict.efficiency import Efficiency
from scaling_sim.predict.efficiency import efficiency as expected
from scaling_sim.predict.reached import Reached, reached
from scaling_sim.report.figures.canvas import INK, ReportFigure, band, line, points, sheet
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import exact, number
from scaling_sim.study.reproduce.kaplan import rows
from scaling_sim.study.reproduce.kaplan.drawing import Shades
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row

if TYPE_CHECKING:
    from scaling_sim.runs.table import RunTable
    from scaling_sim.study.reproduce.kaplan.data import Data

Array = NDArray[np.float64]

NUM_LOSSES = 6
"""Losses shown in figure 19."""
LATE = 0.02
"""Excess over the converged loss at which training is usually stopped, f' of section B.3."""


def family_table(data: Data) -> RunTable:
    """Curves of the whole family."""
    return data.once("family table", lambda: rows.table_of(data, rows.family_records(data)))


def after_transient(table: RunTable) -> RunTable:
    """Points that the law of steps may describe; the joint fit leaves out some more."""
    late = rows.TRANSIENT_STEPS * table.warmup <= table.S
    return table.select(late, "transient at the start of its curve")


def training_efficiency(data: Data) -> Finding:
    """Larger models reach a loss on fewer tokens; efficient training stops early."""
    table = family_table(data)
    told, remark, stops = _fewer_tokens(reached(table, _last_shared(table))), "", []
    try:
        fit = data.fit("kaplan")
    except ScalingSimError as error:
        remark = f" Where efficient training stops is not known: {error}"
    else:
        p, n = curve_parameters(fit.draws), rows.num_runs(table)
        told, excess = [*_stop_rows(p, n), *told], float(np.median(p["alpha_N"] / p["alpha_S"]))
        middle = {name: float(np.median(values)) for name, values in p.items()}
        stops = _stops(table, np.unique(fit.runs.N[fit.runs.curve]), middle)
        remark = (
            f" Circles: where each curve passes 1 + α_N/α_S = {1 + excess:.2f} times its converged loss by the fitted "
            "law, which is where training of that size is compute-efficient; sizes of one layer are not fitted."
        )
    title = "Larger models are more sample-efficient"
    first = "Larger models reach a given loss on fewer tokens, as in the paper."
    return Finding("F2", title, tuple(told), lambda: _curves_figure(table, stops), first + remark)


def _stop_rows(p: Mapping[str, Array], n: int) -> list[Row]:
    excess = p["alpha_N"] / p["alpha_S"]
    compute = compute_ratio(excess, LATE, p["alpha_N"], p["alpha_S"])
    return [
        Row.of("excess over the converged loss where efficient training stops, α_N/α_S (B.5)", 0.10, excess, n),
        Row.of("compute there over compute when stopping at 2 % (B.14)", 0.35, compute, n),
        Row.of("size, the same (B.12)", 2.7, size_ratio(excess, LATE, p["alpha_N"]), n),
        Row.of("updates, the same (B.13)", 0.13, step_ratio(excess, LATE, p["alpha_S"]), n),
    ]


def _last_shared(table: RunTable, N: float | None = None) -> float:
    """The lowest loss, nearly, that the curves of one size reach; of the smallest by default."""
    size = table.N[table.curve].min() if N is None else N
    return float(table.loss[table.curve & (size == table.N)].min()) * 1.005


def _fewer_tokens(found: Reached) -> list[Row]:
    tokens = found.paid["tokens"][:, 0]
    passed = np.flatnonzero(np.isfinite(tokens))
    if len(passed) < 2:
        return []
    first, last = passed[0], passed[-1]
    told = f"N = {exact(float(found.N[first]))} over N = {exact(float(found.N[last]))}, as measured"
    name = f"tokens to {found.loss[0]:.2f} nats, smallest over largest size measured there"
    return [Row(name, None, float(tokens[first] / tokens[last]), None, 2, "", told)]


def _curves_figure(table: RunTable, stops: list[tuple[float, float, float]]) -> ReportFigure:
    figure, axes = sheet("training-efficiency", "Learning curves of the family", ["Tokens", "Compute"], height=4.4)
    shades = Shades(table.N)
    for ax, x, factor in ((axes[0], table.tokens, False), (axes[1], table.C, True)):
        for run in dict.fromkeys(table.run[table.curve].tolist()):
            own = np.flatnonzero((table.run == run) & table.curve)
            line(ax, x[own], table.loss[own], series=run, colour=shades(float(table.N[own][0])), width=1.0)
        for N, tokens, loss in stops:
            place = tokens * (6 * N if factor else 1)
            points(ax, [place], [loss], series="efficient stop", colour=shades(N), hollow=True, size=5.5)
        log_axes(ax)
        if stops:
            points(ax, [], [], series="key", colour=INK, hollow=True, size=5.5, label="efficient stop")
            ax.legend(loc="upper right")
    axes[0].set_xlabel("tokens processed")
    axes[1].set_xlabel("compute C = 6·N·tokens, FLOP")
    axes[0].set_ylabel("test loss, nats per byte")
    shades.key(figure, axes)
    figure.reading = "Every curve at constant learning rate within one epoch, after warm-up."
    return figure


def _stops(table: RunTable, sizes: Array, p: dict[str, float]) -> list[tuple[float, float, float]]:
    """(N, tokens, loss) where each size passes (1 + α_N/α_S)·(N_c/N)^α_N (B.5)."""
    stops = []
    for N in sizes.tolist():
        loss = (1 + p["alpha_N"] / p["alpha_S"]) * (p["N_c"] / N) ** p["alpha_N"]
        for B, curves in read_curves(table, N).items():
            tokens = B * float(np.exp(curves[0].log_steps(np.log([loss]))[0]))
            stops += [(N, tokens, loss)] if np.isfinite(tokens) else []
    return stops


def minimal_cost(data: Data) -> Finding:
    """Steps and tokens that each size needs at least to reach a loss."""
    table, fit = after_transient(family_table(data)), data.fit("kaplan")
    sizes = np.unique(table.N[table.curve])
    small = float(fit.runs.N[fit.runs.curve].min())
    losses = _losses(table, small)
    grid = np.geomspace(sizes.min(), sizes.max(), 40)
    law = expected(fit, losses, grid, discrepancy=False, seed=data.seed)
    found = reached(table, losses, fit)
    told = f"at {_last_shared(table, small):.2f} nats, N = {exact(small)} over N = {exact(float(sizes[-1]))}"
    ends = expected(fit, _last_shared(table, small), [small, sizes[-1]], discrepancy=False, seed=data.seed)
    E, S = (ends.draws[name][:, 0, 0] / ends.draws[name][:, 0, 1] for name in ("E_min", "S_min"))
    n = rows.num_runs(table)
    found_rows = (
        Row.of("E_min, smallest over largest size", 100.0, E, n, "", f"{told}, by the law; the paper: up to 100"),
        Row.of(
            "S_min, smallest over largest size", None, S, n, "", f"{told}, by the law; derived: equal to that of E_min"
        ),
    )
    remark = (
        f"Both fall with N: {told} of the fitted law takes {number(float(np.median(E)), 2)} times the tokens. The two "
        "ratios are equal because B_crit depends on the loss alone. Points that leave the lines belong to sizes near "
        "convergence or, the smallest, to sizes that the law is not fitted to (fewer than two layers)."
    )
    return Finding("F19", "Steps and tokens to reach a loss", found_rows, lambda: _cost_figure(law, found), remark)


def _losses(table: RunTable, N: float) -> Array:
    """Losses from what this size reaches down to nearly the lowest."""
    low, high = float(table.loss[table.curve].min()) * 1.03, _last_shared(table, N)
    return np.asarray(np.geomspace(high, low, NUM_LOSSES))


def _cost_figure(law: Efficiency, found: Reached) -> ReportFigure:
    titles = ["Least updates", "Least tokens"]
    figure, axes = sheet("minimal-cost", "What each size needs to reach a loss", titles, height=4.4)
    shades = Shades(law.loss, "loss", "nats per byte")
    for ax, name in zip(axes, ("S_min", "E_min"), strict=True):
        for j in range(len(law.loss)):
            _cost(ax, law, found, name, j, shades)
        ax.set_xlabel("non-embedding parameters N")
        shown = found.least[name][1][np.isfinite(found.least[name][1])]
        ax.set_ylim(shown.min() / 2.5, shown.max() * 2.5)
        log_axes(ax)
    axes[0].set_ylabel("$S_{min}$, updates")
    axes[1].set_ylabel("$E_{min}$, tokens")
    shades.key(figure, axes, "test loss, nats per byte")
    figure.reading = "Points: measured, moved to B ≫ B_crit (left) and B ≪ B_crit (right); bands: the fitted law."
    return figure


def _cost(ax: Axes, law: Efficiency, found: Reached, name: str, j: int, shades: Shades) -> None:
    loss = float(law.loss[j])
    draws = law.draws[name][:, j]
    reach = np.mean(np.isfinite(draws), axis=0) > 0.95
    if reach.sum() > 1:
        band(ax, law.N[reach], np.where(np.isfinite(draws[:, reach]), draws[:, reach], 1e300),
             series=f"{name}, L = {loss:.2f}", colour=shades(loss), width=1.2)  # fmt: skip
    low, middle, high = found.least[name][:, :, j]
    known = np.isfinite(middle)
    error = np.stack([(middle - low)[known], (high - middle)[known]])
    points(ax, found.N[known], middle[known], series=f"measured, L = {loss:.2f}", colour=shades(loss), error=error)
