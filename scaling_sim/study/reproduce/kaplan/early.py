"""Pure power laws of the early part of some runs, and where the later part leaves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import DataError
from scaling_sim.inference.approximate import approximate_fit
from scaling_sim.laws.constants import FRONTIER_LAW, PF_DAY
from scaling_sim.laws.power_c import frontier
from scaling_sim.predict.slices import Points
from scaling_sim.predict.surface import surface_minima
from scaling_sim.runs.record import RunRecord
from scaling_sim.runs.table import RunTable

Array = NDArray[np.float64]

EARLY_C = 0.01
"""Share of the largest compute up to which the frontier is early."""
EARLY_D = 0.1
"""The same of the unique tokens of early-stopped runs; C is about ∝ D² along a frontier."""
BENT = 0.02
"""Relative departure from the early power law that counts as a bend: the paper's scatter between seeds."""
SETTLED = 0.005
"""Fall of the loss during the last doubling of the tokens below which a run counts as converged."""
DRAWS = 1000


@dataclass(frozen=True)
class Early:
    """Power laws of the early part: draws as of a published frontier, for `scaling_sim.predict.crossover`."""

    draws: Mapping[str, Array]
    runs: RunTable
    law_name: str = FRONTIER_LAW


@dataclass(frozen=True)
class Bend:
    """Where measured losses leave the early power law upwards.

    Attributes
    ----------
    loss : (k,) measured along the frontier, in order of compute;  late : (k,) whether beyond the early part
    departure : (n_draws, k) measured over predicted, less 1
    at : (n_draws,) loss from which on the departure exceeds `BENT`; NaN in draws where it does not at the end
    """

    loss: Array
    late: NDArray[np.bool_]
    departure: Array
    at: Array

    @property
    def probability(self) -> float:
        """Share of draws in which the curve bends within the data."""
        return float(np.mean(np.isfinite(self.at)))


def settled(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs; those on repeated data whose loss had settled when their steps ended count as stopped.

    Small models hardly overfit: their loss on held-out text levels out, and nothing stops them before the last step.
    """
    return [msgspec.structs.replace(r, status="stopped") if _level(r) else r for r in records]


def _level(record: RunRecord) -> bool:
    """Whether a run that was to stop early ended first, having fallen by less than `SETTLED` while tokens doubled."""
    if not record.config.early_stop or record.status != "done" or len(record.curve) < 2:
        return False
    tokens = np.array([point.tokens for point in record.curve], dtype=float)
    loss = np.array([point.losses.get(record.config.stop_split, np.nan) for point in record.curve])
    before = loss[tokens <= 0.5 * tokens[-1]]
    return bool(before.size and before[-1] / loss[-1] - 1 < SETTLED)


def early_laws(table: RunTable, seed: int = 0, share_D: float = EARLY_D) -> Early:
    """L(C) and N*(C) of the early frontier, α_D and D_c of the early data-limited runs.

    Raises
    ------
    DesignError, DataError
        Too few runs of either kind.
    """
    curves = table.select(table.curve & (table.N > 0), "not a point of a curve")
    if not len(curves):
        raise DataError("there are no learning curves on the synthetic language")
    soon = curves.select(EARLY_C * curves.C.max() >= curves.C, "later part")
    limited = table.select(table.stopped, "not early-stopped")
    if not len(limited):
        raise DataError("no data-limited run on the synthetic language was stopped early")
    few = limited.select(share_D * limited.D.max() >= limited.D, "later part")
    size = surface_minima(_points(soon), num_draws=DRAWS, seed=seed)
    x = size.log_C - size.log_C.mean()
    alpha_C = -size.log_loss @ x / np.sum(x**2)
    log_C_c = size.log_C.mean() + size.log_loss.mean(axis=1) / alpha_C
    limit = approximate_fit(few, "kaplan-nd", num_draws=DRAWS, seed=seed).draws
    p_N = size.exponent.draws
    log_N_e = size.log_N.mean(axis=1) + p_N * (np.log(PF_DAY) - size.log_C.mean())
    return Early(
        {
            "alpha_C_min": alpha_C,
            "C_c_min": np.exp(log_C_c - np.log(PF_DAY)),
            "N_e": np.exp(log_N_e),
            "p_N": p_N,
            "D_e": np.exp(np.log(PF_DAY / 6) - log_N_e),
            "p_D": 1 - p_N,
            "alpha_D": limit["alpha_D"],
            "D_c": limit["D_c"],
        },
        soon,
    )


def limits_of(early: Early, table: RunTable) -> Array:
    """(n_draws, 2) the early L(D(C)) at the least compute of a curve and at the largest, nats."""
    p = {name: np.asarray(values)[:, None] for name, values in early.draws.items()}
    C = table.C[table.curve & (table.N > 0)]
    D = np.log(p["D_e"]) + p["p_D"] * np.log(np.array([C.min(), C.max()]) / PF_DAY)
    return np.asarray(np.exp(p["alpha_D"] * (np.log(p["D_c"]) - D)))


def bracketed(curves: RunTable) -> RunTable:
    """Rows where the best size of the frontier lies between sizes: neither the smallest nor the largest model's."""
    on = frontier(curves.C, curves.loss, np.ones(len(curves), dtype=bool))
    inner = on & (curves.N.min() < curves.N) & (curves.N.max() > curves.N)
    if inner.sum() < 4:
        raise DataError("fewer than four points of the frontier belong to sizes between the smallest and the largest")
    return curves.select(inner, "not on the frontier between sizes")


def bend_of(table: RunTable, early: Early) -> Bend:
    """The frontier against the early L(C)."""
    curves = table.select(table.curve & (table.N > 0), "not a point of a curve")
    on = bracketed(curves)
    order = np.argsort(on.C)
    C, loss = on.C[order], on.loss[order]
    late = np.asarray(C / curves.C.max() > EARLY_C)
    a, scale = early.draws["alpha_C_min"][:, None], np.log(early.draws["C_c_min"] * PF_DAY)[:, None]
    departure = loss / np.exp(a * (scale - np.log(C))) - 1
    past = late & np.flip(np.minimum.accumulate(np.flip(departure > BENT, axis=1), axis=1), axis=1)
    first = past.argmax(axis=1)
    at = np.where(past.any(axis=1), loss[first], np.nan)
    return Bend(loss, late, departure, at)


def early_end(bend: Bend) -> float:
    """Loss at the end of the early part of the frontier, nats."""
    return float(bend.loss[~bend.late][-1])


def _points(curves: RunTable) -> Points:
    _, run = np.unique(curves.run, return_inverse=True)
    return Points(np.log(curves.C), np.log(curves.N), np.log(curves.loss), run.astype(np.int64), True)
