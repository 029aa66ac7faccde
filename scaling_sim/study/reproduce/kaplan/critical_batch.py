"""Figures 10 and 18: the critical batch from batch sweeps beside the noise scale, and the contours behind it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from scaling_sim.errors import DataError, DesignError
from scaling_sim.laws.critical_batch import hyperbolas
from scaling_sim.laws.kaplan import critical_batch as batch_at
from scaling_sim.predict.critical_batches import Contours, CriticalBatches, critical_batches
from scaling_sim.predict.noise_scales import NoiseScales, noise_scales
from scaling_sim.report.figures.canvas import (
    GREY,
    INK,
    OURS,
    PAPER,
    ReportFigure,
    band,
    legend_below,
    line,
    points,
    sheet,
)
from scaling_sim.report.figures.curves import pinned, span
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import exact, number
from scaling_sim.runs.table import table_from_records
from scaling_sim.study.reproduce.kaplan import rows
from scaling_sim.study.reproduce.kaplan.drawing import Shades
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row

if TYPE_CHECKING:
    from scaling_sim.runs.table import RunTable
    from scaling_sim.study.reproduce.kaplan.data import Data

ALPHA_B = 0.21
"""Table 5 of Kaplan et al. 2020; their text rounds 1/α_B to 4.8."""
AFTER_WARMUP = 10
"""Times the warm-up that are left out: the laws of steps hold after a transient only (section 5.2). With 4, our sweeps
depart from hyperbolas by 2.8 % of the loss, with 10 by 1.6 %."""
MOST_CONTOURS = 6
UNIT = "B* is B_crit at a loss of 1 nat per token: losses of bytes and of the paper's tokens are not comparable"


@dataclass(frozen=True)
class Measured:
    """What batch sweeps and noise scales say; either may be None."""

    sweeps: CriticalBatches | None
    scales: NoiseScales | None


def measured(data: Data) -> Measured:
    """Batch sweeps, the family's own batch included, and noise scales along the family.

    Raises
    ------
    DataError
        There is neither.
    """
    family: rows.Records = ()
    sweeps, scales = None, None
    with suppress(DataError):
        family = rows.family_records(data)
    with suppress(DataError, DesignError):
        swept = data.records("batch", schedule="constant")
        sizes = {rows.size(record) for record in swept}
        beside = [record for record in family if rows.size(record) in sizes]
        sweeps = critical_batches(_late(data, (*swept, *beside)), seed=data.seed)
    with suppress(DataError, DesignError):
        scales = noise_scales(_late(data, family), seed=data.seed)
    if sweeps is None and scales is None:
        raise DataError("neither a batch sweep (three batches of one size) nor a gradient noise scale was measured")
    return Measured(sweeps, scales)


def _late(data: Data, records: rows.Records) -> RunTable:
    table = table_from_records(records, source=data.source)
    return table.select(AFTER_WARMUP * table.warmup <= table.S, "in the transient after warm-up")


def critical_batch(data: Data) -> Finding:
    """The critical batch and the loss."""
    found = data.once("critical batches", lambda: measured(data))
    return Finding(
        "F10",
        "The critical batch and the loss",
        (*_sweep_rows(found.sweeps), *_scale_rows(found)),
        lambda: _figure(found),
        _remark(found),
    )


def _sweep_rows(sweeps: CriticalBatches | None) -> list[Row]:
    if sweeps is None:
        return []
    n = sum(one.sweep.num_curves for one in sweeps.contours)
    found = [
        Row.of("α_B of batch sweeps", ALPHA_B, sweeps.draws["alpha_B"], n),
        Row.of("B* of batch sweeps", 2.1e8, sweeps.draws["B_star"], n, "tokens", UNIT),
    ]
    ratio, loss = sweeps.ratio(), sweeps.shared_loss
    if ratio is not None and loss is not None:
        found.append(Row.of(f"B_crit at {loss:.2f} nats", None, sweeps.B_crit(loss), n, "tokens"))
        first, last = (exact(one.sweep.N) for one in (sweeps.contours[0], sweeps.contours[-1]))
        remark = f"N = {last} over N = {first}, each by its own sweep; 1 if B_crit depends on the loss alone"
        found.append(Row.of(f"B_crit ratio of two sizes at {loss:.2f} nats", 1.0, ratio, n, "", remark))
    return found


def _scale_rows(found: Measured) -> list[Row]:
    scales, sweeps = found.scales, found.sweeps
    if scales is None:
        return []
    n = scales.num_runs
    told = [
        Row.of("α_B of the gradient noise scale", ALPHA_B, scales.draws["alpha_B"], n, "", "runs resampled"),
        Row.of(
            "N-exponent of the noise scale at equal loss",
            0.0,
            scales.size_exponent,
            n,
            "",
            "0 if it depends on the loss alone",
        ),
    ]
    if sweeps is not None and sweeps.shared_loss is not None:
        loss = sweeps.shared_loss
        ratio = _at(scales, loss) / sweeps.B_crit(loss)[:, 0]
        told.append(
            Row.of(f"noise scale over B_crit at {loss:.2f} nats", 1.0, ratio, n, "", "the paper: roughly equal")
        )
    return told


def _at(scales: NoiseScales, loss: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.asarray(batch_at(loss, scales.draws))


def _remark(found: Measured) -> str:
    """What reproduced, from the numbers themselves."""
    said = []
    if found.sweeps is None:
        said.append("No batch sweep was run: only the gradient noise scale is shown.")
    else:
        low, high = np.quantile(found.sweeps.draws["alpha_B"], (0.05, 0.95))
        verdict = "holds" if low <= ALPHA_B <= high else "does not hold"
        said.append(f"The interval of α_B {verdict} the paper's .21.")
        ratio = found.sweeps.ratio()
        if ratio is not None:
            low, high = ratio.interval(0.9)
            said.append(
                f"At equal loss, B_crit of the larger size is {number(low, 2)} to {number(high, 2)} times that of the "
                f"smaller: {_depends(float(low), float(high))}."
            )
        said.append(_caution(found.sweeps))
    if found.scales is not None:
        low, high = np.quantile(found.scales.draws["alpha_B"], (0.05, 0.95))
        gamma = np.quantile(found.scales.size_exponent, (0.05, 0.95))
        depends = "no dependence on N beyond its error" if gamma[0] <= 0 <= gamma[1] else "a dependence on N"
        said.append(
            f"The gradient noise scale of the family gives α_B from {low:.2f} to {high:.2f} and {depends}; both are "
            f"read after {AFTER_WARMUP} times warm-up."
        )
    said.append("T5 has α_B and B* of the same sweeps given the learning curves, too, which differ a little.")
    said.append("Losses are nats per byte, so that only exponents and ratios can be compared with the paper's.")
    return " ".join(said)


def _depends(low: float, high: float) -> str:
    """What an interval of the ratio says of N."""
    if not low <= 1 <= high:
        return "a sign that it depends on N"
    return f"no sign that it depends on N, though a factor of {max(high, 1 / low):.1f} is not excluded"


def _caution(sweeps: CriticalBatches) -> str:
    """What the sweeps themselves make doubtful."""
    small = float(np.median([_left_over(one) for one in sweeps.contours]))
    return (
        f"At {100 * sweeps.at_edge:.0f} % of the batches and losses the best learning rate is the lowest or highest of "
        f"those tried, and at the smallest batch the lowest losses take {small:.2g} times the steps of the hyperbola: "
        "at a constant rate the noise of a small batch keeps the loss up. Both move B_crit, not equally at all sizes."
    )


def _left_over(one: Contours) -> float:
    """Steps at the smallest batch over those of the hyperbola, median over the lower half of the losses."""
    loss = one.sweep.loss[len(one.sweep.loss) // 2 :]
    expected = np.median((1 + one.E_min / one.S_min / one.sweep.B[0]) * one.S_min, axis=0)[-len(loss) :]
    steps = one.sweep.full_steps(float(np.median(one.warmup_share)))[0][-len(loss) :]
    return float(np.nanmedian(steps / expected))


def _figure(found: Measured) -> ReportFigure:
    figure, (ax,) = sheet("critical-batch", "The critical batch", [""], height=4.6)
    sweeps, scales = found.sweeps, found.scales
    sizes = [] if sweeps is None else [one.sweep.N for one in sweeps.contours]
    shades = Shades([*sizes, *([] if scales is None else scales.N.tolist())])
    if scales is not None:
        for N in np.unique(scales.N):
            own = scales.N == N
            points(ax, scales.loss[own], scales.scale[own], series=f"noise scale, N = {N:g}", colour=shades(N),
                   size=2.4, alpha=0.55)  # fmt: skip
        points(ax, [], [], series="key", colour=GREY, size=2.4, label="gradient noise scale of the family")
    if sweeps is not None:
        _sweep_marks(ax, sweeps, shades)
        L = span(np.concatenate([one.sweep.loss for one in sweeps.contours]), 1.12, 1.12)
        low, middle, high = np.quantile(sweeps.draws["alpha_B"], (0.05, 0.5, 0.95))
        text = rf"batch sweeps: $\alpha_B$ = {middle:.3f} ({low:.3f} to {high:.3f})"
        line_of = band(ax, L, sweeps.B_crit(L), series="B_crit(L)", colour=OURS, label=text)[2]
        line(ax, L, pinned(L, line_of, -1 / ALPHA_B), series="Kaplan et al., slope", colour=PAPER, dashes="--",
             width=1.2, label=r"slope of Kaplan et al.: $\alpha_B$ = 0.21")  # fmt: skip
    ax.invert_xaxis()
    ax.set_xlabel("test loss, nats per byte (training goes to the right)")
    ax.set_ylabel("batch, tokens")
    log_axes(ax)
    legend_below(ax, 2)
    shades.key(figure, ax)
    figure.reading = "Diamonds: B_crit read from each batch sweep, one loss at a time; band: the law fitted to them."
    return figure


def _sweep_marks(ax: Axes, sweeps: CriticalBatches, shades: Shades) -> None:
    for one in sweeps.contours:
        loss, batch = np.array(hyperbolas(one.sweep)).reshape(-1, 2).T
        text = f"sweep of N = {exact(one.sweep.N)}"
        points(ax, loss, batch, series=text, colour=shades(one.sweep.N), marker="D", size=6, label=text)
        L = np.geomspace(one.sweep.loss.min(), one.sweep.loss.max(), 30)
        line(ax, L, np.median(one.B_crit(L), axis=0), series=f"{text}, its own fit", colour=shades(one.sweep.N),
             label="its own fit", dashes=":", width=1.3)  # fmt: skip


def contours(data: Data) -> Finding:
    """Tokens against steps at equal loss: hyperbolas."""
    sweeps = data.once("critical batches", lambda: measured(data)).sweeps
    if sweeps is None:
        raise DataError("there is no batch sweep: curves of one size at three batches that pass the same losses")
    told = [row for one in sweeps.contours for row in _contour_rows(one)]
    n = sum(one.sweep.num_curves for one in sweeps.contours)
    told.append(Row.of("error of ln L about the hyperbolas", None, sweeps.error, n, "", "misfit of (5.1) and noise"))
    remark = (
        "Steps and tokens to equal loss, each batch at its best learning rate, follow (S/S_min − 1)(E/E_min − 1) = 1 "
        f"to within {100 * float(np.median(sweeps.error)):.1f} % of the loss. Curves are read after {AFTER_WARMUP} "
        "times warm-up; batches whose runs end before that have no points."
    )
    return Finding("F18", "Tokens against steps at equal loss", tuple(told), lambda: _contour_figure(sweeps), remark)


def _contour_rows(one: Contours) -> list[Row]:
    where = f"at {one.sweep.loss[-1]:.2f} nats, N = {exact(one.sweep.N)}"
    n = one.sweep.num_curves
    return [
        Row.of(f"S_min {where}", None, one.S_min[:, -1], n, "steps"),
        Row.of(f"E_min {where}", None, one.E_min[:, -1], n, "tokens"),
    ]


def _contour_figure(sweeps: CriticalBatches) -> ReportFigure:
    titles = [f"N = {exact(one.sweep.N)}" for one in sweeps.contours]
    figure, axes = sheet("contours", "Tokens against steps at equal loss", titles, height=4.4)
    shades = Shades(np.concatenate([one.sweep.loss for one in sweeps.contours]), "loss", "nats per byte")
    for ax, one in zip(axes, sweeps.contours, strict=True):
        _panel(ax, one, shades)
        ax.set_xlabel("updates S, at full learning rate")
    axes[0].set_ylabel("tokens processed, E = B·S")
    shades.key(figure, axes, "test loss, nats per byte")
    figure.reading = "Points: each batch where it passes the loss; bands: the hyperbolas (5.1) with their posterior."
    return figure


def _panel(ax: Axes, one: Contours, shades: Shades) -> None:
    steps, B = one.sweep.full_steps(float(np.median(one.warmup_share))), one.sweep.B
    kept = np.unique(np.linspace(0, len(one.sweep.loss) - 1, MOST_CONTOURS).round().astype(int))
    for j in kept.tolist():
        loss = float(one.sweep.loss[j])
        S = np.geomspace(1.02 * float(np.quantile(one.S_min[:, j], 0.95)), 2 * float(np.nanmax(steps[:, j])), 60)
        E = one.E_min[:, j, None] * S / (S - one.S_min[:, j, None])
        band(ax, S, E, series=f"L = {loss:.2f}", colour=shades(loss), width=1.2)
        points(ax, steps[:, j], steps[:, j] * B, series=f"L = {loss:.2f}", colour=shades(loss), size=4.5)
    known = np.isfinite(steps[:, kept])
    tokens = (steps * B[:, None])[:, kept][known]
    ax.set_xlim(float(steps[:, kept][known].min()) / 1.7, 1.7 * float(steps[:, kept][known].max()))
    ax.set_ylim(float(tokens.min()) / 1.7, 1.7 * float(tokens.max()))
    for batch in B:
        span_S = np.array(ax.get_xlim())
        line(ax, span_S, span_S * batch, series="B", colour=INK, dashes=":", width=0.5, alpha=0.35, keep=False)
    log_axes(ax)
