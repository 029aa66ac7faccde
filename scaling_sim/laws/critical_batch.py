"""B_crit(L) = B*/L^(1/α_B) from batch sweeps (Kaplan et al. 2020, eqs 1.4, 5.1-5.3)."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import ConfigError, LawError
from scaling_sim.laws import kaplan
from scaling_sim.laws.base import Array, Centre, Coordinate, Law, Normal, Parameters, stack
from scaling_sim.laws.batch_sweeps import MIN_BATCHES, BatchSweep, batch_sweeps, usable
from scaling_sim.laws.observations import Observations, Rows, observations
from scaling_sim.runs.table import RunTable

LEVELS = 8
"""Losses at which one batch sweep is read."""
SOURCES = ("auto", "measured", "sweep", "noise-scale")
_MEASURED = "B_crit as the source gives it"
_SWEEP = (
    "B_crit from lines S = S_min + S_min·B_crit/B through matched batch sweeps (eq. 5.1), S less half the warm-up; the "
    "losses at which one sweep is read are not independent, so intervals are too narrow"
)
_NOISE_SCALE = (
    "B_crit was not measured: the gradient noise scale of the curves stands for it (eq. 5.1 and McCandlish et al. 2018 "
    "say that they agree up to a factor); points along one run are not independent, so intervals are too narrow"
)


class CriticalBatch(Law):
    """B_crit(L) = B*/L^(1/α_B), in tokens.

    Read from matched batch sweeps: at one size N and one loss, steps and tokens needed lie on the hyperbola
    (S/S_min − 1)(E/E_min − 1) = 1 (5.1), which is the line S = S_min (1 + B_crit/B) in 1/B.

    Parameters
    ----------
    source : {"auto", "measured", "sweep", "noise-scale"}
        What stands for B_crit: a column ``B_crit`` of the table, its batch sweeps, or the gradient noise scale along
        its curves. "auto" takes the first of these that the table has.
    """

    name = "critical-batch"
    parameters = ("alpha_B", "B_star")
    columns = ("loss",)
    response = "B_crit"
    single_epoch = True

    def __init__(self, source: Literal["auto", "measured", "sweep", "noise-scale"] = "auto") -> None:
        if source not in SOURCES:
            raise ConfigError(f"the source of critical batches must be one of {', '.join(SOURCES)}, got {source!r}")
        self.source = source

    def options(self) -> dict[str, Any]:
        """The source, where it was chosen."""
        return {} if self.source == "auto" else {"source": self.source}

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
        """Needs a batch sweep, or measured critical batches, or noise scales along curves."""
        if self._source(runs):
            return ()
        sweep = "a batch sweep (curves of one N at three batches or more that pass the same losses)"
        needs = {"measured": "a column B_crit", "sweep": sweep, "noise-scale": "curve rows with a column noise_scale"}
        return (needs.get(self.source, f"{sweep}, or a column B_crit"),)

    def observe(self, runs: RunTable) -> Observations:
        """Points (loss, B_crit) of the `source`; a level of a batch sweep is a derived point, its row −1."""
        if (self._source(runs) or "sweep") == "sweep":
            return self._of_sweeps(runs)
        name, note = ("B_crit", _MEASURED) if self._source(runs) == "measured" else ("noise_scale", _NOISE_SCALE)
        batch = _extra(runs, name)
        known = np.isfinite(batch) & (batch > 0) & np.isfinite(runs.loss) & (runs.loss > 0)
        reason = np.where(known, "", f"{name} is unknown").astype(object)
        if name == "noise_scale":
            reason[known & ~runs.curve] = "not a point of a single-epoch curve at constant learning rate"
        role = np.where(reason == "", "batch", "").astype(object)
        data = observations(runs, Rows(role, reason, (note,)), self.columns)
        return Observations(**{**vars(data), "response": batch[data.row], "error": np.full(len(data), np.nan)})

    def _source(self, runs: RunTable) -> str:
        """Which source is read; empty if the table lacks it."""
        found = {
            "measured": bool(np.any(_extra(runs, "B_crit") > 0)),
            "sweep": len(sweep_points(runs)[0]) > 0,
            "noise-scale": bool(np.any((_extra(runs, "noise_scale") > 0) & runs.curve)),
        }
        asked = SOURCES[1:] if self.source == "auto" else (self.source,)
        return next((name for name in asked if found[name]), "")

    def _of_sweeps(self, runs: RunTable) -> Observations:
        loss, batch, run = sweep_points(runs)
        sizes = [float(name.removeprefix("N=")) for name in np.unique(run)]
        used = usable(runs) & np.isin([f"{N:g}" for N in runs.N], [f"{N:g}" for N in sizes])
        dropped = {"not a point of a batch sweep": runs.row_names(~used)} if not used.all() else {}
        return Observations(
            columns={"loss": loss},
            response=batch,
            error=np.full(len(loss), np.nan),
            role=np.full(len(loss), "batch"),
            run=run,
            row=np.full(len(loss), -1, dtype=np.int64),
            dropped=dropped,
            notes=(_SWEEP,),
        )

    def limits(self) -> Mapping[str, str]:
        """It diverges at loss 0 because the floor is unknown."""
        return {"L → 0": "B_crit → ∞"}


def sweep_points(runs: RunTable) -> tuple[Array, Array, NDArray[np.str_]]:
    """Losses, critical batches in tokens and names of their batch sweeps, (n,) each.

    One sweep is all curves of one N, each batch at its best learning rate. Levels are spaced evenly in log loss over
    the range that all its batches pass; a level whose line has no positive slope and intercept is left out.
    """
    loss: list[float] = []
    batch: list[float] = []
    name: list[str] = []
    for sweep in batch_sweeps(runs, LEVELS, passed_by=None):
        for level, critical in hyperbolas(sweep):
            loss.append(level)
            batch.append(critical)
            name.append(f"N={sweep.N:g}")
    return np.array(loss), np.array(batch), np.array(name, dtype=np.str_)


def hyperbolas(sweep: BatchSweep) -> list[tuple[float, float]]:
    """(loss, B_crit) of a sweep, one loss at a time, by the line S = S_min + S_min·B_crit/B."""
    points = []
    for level, steps in zip(sweep.loss.tolist(), sweep.full_steps().T, strict=True):
        known = np.isfinite(steps)
        if np.count_nonzero(known) < MIN_BATCHES:
            continue
        # relative weights: a step count is known to a fraction of itself
        slope, intercept = np.polyfit(1.0 / sweep.B[known], steps[known], 1, w=1.0 / steps[known])
        if slope > 0 and intercept > 0:
            points.append((level, float(slope / intercept)))
    return points


def _extra(runs: RunTable, name: str) -> Array:
    """A column of the source, (n,), or NaN throughout."""
    values = runs.extra.get(name)
    return np.full(len(runs), np.nan) if values is None else np.asarray(values, dtype=np.float64)
