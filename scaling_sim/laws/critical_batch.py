"""B_crit(L) = B*/L^(1/α_B) from batch sweeps (Kaplan et al. 2020, eqs 1.4, 5.1-5.3)."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import LawError
from scaling_sim.laws import kaplan
from scaling_sim.laws.base import Array, Centre, Coordinate, Law, Normal, Parameters, stack
from scaling_sim.laws.observations import Observations
from scaling_sim.runs.table import RunTable

LEVELS = 8
"""Losses at which one batch sweep is read."""


class CriticalBatch(Law):
    """B_crit(L) = B*/L^(1/α_B), in tokens.

    Read from matched batch sweeps: at one size N and one loss, the steps needed lie on S = S_min (1 + B_crit/B) (5.1),
    so a line in 1/B gives B_crit. A column ``B_crit`` of the source (or the measured ``noise_scale``) is taken as it
    is instead.
    """

    name = "critical-batch"
    parameters = ("alpha_B", "B_star")
    columns = ("loss",)
    response = "B_crit"
    single_epoch = True

    def coordinates(self, centre: Centre) -> tuple[Coordinate, ...]:
        """B_crit at the centre within a factor of 5 of the mean, α_B .09 to 1 (90 % of the prior)."""
        return (
            Coordinate("log_B_crit", Normal(0.0, 1.0), "log B_crit at the mean log loss, less the mean log B_crit"),
            Coordinate("log_alpha_B", Normal(log(0.3), 0.75)),
        )

    def to_parameters(self, u: Array, centre: Centre) -> dict[str, Array]:
        """α_B and B* of the coordinates."""
        alpha = np.exp(u[:, 1])
        with np.errstate(over="ignore"):
            return {"alpha_B": alpha, "B_star": np.exp(u[:, 0] + centre["log_B_crit"] + centre["log_loss"] / alpha)}

    def from_parameters(self, parameters: Parameters, centre: Centre) -> Array:
        """Coordinates of α_B and B*."""
        log_batch = np.log(parameters["B_star"]) - centre["log_loss"] / parameters["alpha_B"]
        return stack(log_batch - centre["log_B_crit"], np.log(parameters["alpha_B"]))

    def loss(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        """Not given by this law, which predicts a batch."""
        raise LawError("critical-batch predicts B_crit from the loss, not the loss; ask for kaplan to have both")

    def log_response(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        """log B_crit at these losses."""
        return np.asarray(np.log(parameters["B_star"]) - np.log(columns["loss"]) / parameters["alpha_B"])

    def predict(self, parameters: Parameters, loss: Any) -> Array:
        """Critical batch in tokens at a loss in nats per token."""
        return kaplan.critical_batch(loss, parameters)

    def missing(self, runs: RunTable) -> tuple[str, ...]:
        """Needs a batch sweep or measured critical batches."""
        if _measured(runs) is not None or len(sweep_points(runs)[0]):
            return ()
        return (
            "a batch sweep (curves of one N at three batches or more that pass the same losses), or a column B_crit",
        )

    def observe(self, runs: RunTable) -> Observations:
        """Points (loss, B_crit) of measured critical batches, else of hyperbolas through batch sweeps."""
        measured = _measured(runs)
        if measured is not None:
            loss, batch = runs.loss, measured
            used = np.flatnonzero(np.isfinite(batch) & (batch > 0) & np.isfinite(loss))
            loss, batch, row, note = loss[used], batch[used], used, "B_crit as measured in the source"
            run = runs.run[used].astype(np.str_)
        else:
            loss, batch, run = sweep_points(runs)
            row, note = (
                np.full(len(loss), -1),
                "B_crit from lines S = S_min + S_min·B_crit/B through matched batch sweeps",
            )
        return Observations(
            columns={"loss": loss},
            response=batch,
            error=np.full(len(loss), np.nan),
            role=np.full(len(loss), "batch"),
            run=run,
            row=row.astype(np.int64),
            notes=(note,),
        )

    def limits(self) -> Mapping[str, str]:
        """It diverges at loss 0 because the floor is unknown."""
        return {"L → 0": "B_crit → ∞"}


def sweep_points(runs: RunTable) -> tuple[Array, Array, NDArray[np.str_]]:
    """Losses, critical batches in tokens and names of their batch sweeps, (n,) each.

    One sweep is all curves of one N. Levels are spaced evenly in log loss over the range that all its batches pass; a
    level whose line has no positive slope and intercept is left out.
    """
    loss: list[float] = []
    batch: list[float] = []
    name: list[str] = []
    usable = runs.curve & np.isfinite(runs.B) & np.isfinite(runs.S)
    for N in np.unique(runs.N[usable]):
        curves = _curves_by_batch(runs, usable & (runs.N == N))
        for level, critical in _hyperbolas(curves) if len(curves) >= 3 else ():
            loss.append(level)
            batch.append(critical)
            name.append(f"N={N:g}")
    return np.array(loss), np.array(batch), np.array(name, dtype=np.str_)


def _curves_by_batch(runs: RunTable, rows: NDArray[np.bool_]) -> dict[float, tuple[Array, Array]]:
    """Batch → (log loss, log S), sorted by falling loss, only points below all earlier ones."""
    curves = {}
    for B in np.unique(runs.B[rows]):
        points = np.flatnonzero(rows & (runs.B == B))
        points = points[np.argsort(runs.S[points])]
        low = np.minimum.accumulate(runs.loss[points])
        keep = np.concatenate([[True], low[1:] < low[:-1]])
        if np.count_nonzero(keep) >= 3:
            curves[float(B)] = (np.log(runs.loss[points][keep]), np.log(runs.S[points][keep]))
    return curves


def _hyperbolas(curves: Mapping[float, tuple[Array, Array]]) -> list[tuple[float, float]]:
    """(loss, B_crit) at `LEVELS` losses that all curves pass."""
    high = min(float(loss[0]) for loss, _ in curves.values())
    low = max(float(loss[-1]) for loss, _ in curves.values())
    inverse_B = np.array([1.0 / B for B in curves])
    points = []
    for level in np.linspace(low, high, LEVELS + 2)[1:-1] if low < high else ():
        steps = np.exp([np.interp(-level, -loss, log_S) for loss, log_S in curves.values()])
        # relative weights: a step count is known to a fraction of itself
        slope, intercept = np.polyfit(inverse_B, steps, 1, w=1.0 / steps)
        if slope > 0 and intercept > 0:
            points.append((float(np.exp(level)), float(slope / intercept)))
    return points


def _measured(runs: RunTable) -> Array | None:
    """The source's own critical batches in tokens, if it has any."""
    for name in ("B_crit", "noise_scale"):
        if name in runs.extra and np.any(np.isfinite(np.asarray(runs.extra[name], dtype=np.float64))):
            return np.asarray(runs.extra[name], dtype=np.float64)
    return None
