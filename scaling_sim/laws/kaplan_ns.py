"""L(N, S_min) of learning curves (Kaplan et al. 2020, eqs 1.6, 5.6)."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Any

import numpy as np

from scaling_sim.laws import kaplan
from scaling_sim.laws.base import Array, Centre, Coordinate, Law, Normal, Parameters, log_sum_exp, stack
from scaling_sim.laws.floor import Floor
from scaling_sim.laws.observations import Observations, curve_rows, observations, unusable
from scaling_sim.runs.table import RunTable


class KaplanNS(Law):
    """L(N, S) = (N_c/N)^α_N + (S_c/S)^α_S, with the steps made in place of S_min.

    It reads the curves of one batch, the one with most sizes N (the largest of equals): at a batch that is not far
    above B_crit its S_c absorbs a mean adjustment. The joint law `kaplan` makes the adjustment instead. No allocation
    follows from it alone: S_min has no price without B_crit(L).
    """

    name = "kaplan-ns"
    parameters = ("alpha_N", "N_c", "alpha_S", "S_c")
    columns = ("N", "S")
    form = "curve"
    single_epoch = True

    def coordinates(self, centre: Centre) -> tuple[Coordinate, ...]:
        """Terms within a factor of 70 of each other at the centre; α_N .02 to .5, α_S .17 to 2 (90 % of the prior)."""
        return (
            Coordinate("log_loss", Normal(0.0, 0.5), "log loss at the centre of the data, less the mean log loss"),
            Coordinate("log_S_N", Normal(-1.0, 2.0), "log of (S_c/S)^α_S over (N_c/N)^α_N at the centre"),
            Coordinate("log_alpha_N", Normal(log(0.1), 1.0)),
            Coordinate("log_alpha_S", Normal(log(0.6), 0.75)),
        )

    def formula_parameters(self, u: Array, centre: Centre) -> dict[str, Array]:
        """The exponents and the log scales of the coordinates."""
        log_size = u[:, 0] + centre["log_loss"] - log_sum_exp(np.zeros(len(u)), u[:, 1])
        alpha_N, alpha_S = np.exp(u[:, 2]), np.exp(u[:, 3])
        log_N_c = centre["log_N"] + log_size / alpha_N
        log_S_c = centre["log_S"] + (log_size + u[:, 1]) / alpha_S
        return {"alpha_N": alpha_N, "log_N_c": log_N_c, "alpha_S": alpha_S, "log_S_c": log_S_c}

    def from_parameters(self, parameters: Parameters, centre: Centre) -> Array:
        """Coordinates of the four parameters."""
        log_size = parameters["alpha_N"] * (np.log(parameters["N_c"]) - centre["log_N"])
        log_steps = parameters["alpha_S"] * (np.log(parameters["S_c"]) - centre["log_S"])
        logs = [np.log(parameters[name]) for name in ("alpha_N", "alpha_S")]
        return stack(log_sum_exp(log_size, log_steps) - centre["log_loss"], log_steps - log_size, *logs)

    def log_loss(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        """Eq. 1.6."""
        return kaplan.log_loss_ns(columns["N"], columns["S"], parameters)

    def missing(self, runs: RunTable) -> tuple[str, ...]:
        """Needs points of learning curves."""
        return (*super().missing(runs), *missing_curves(runs))

    def observe(self, runs: RunTable) -> Observations:
        """Curve rows of one batch."""
        reason = unusable(runs, self.columns)
        batch = main_batch(runs)
        reason[runs.curve & (batch != runs.B) & np.isfinite(batch) & (reason == "")] = f"batch is not {batch:g} tokens"
        notes = ("the steps made stand for S_min (B ≫ B_crit is assumed)",)
        rows = curve_rows(runs, reason)
        return observations(runs, type(rows)(rows.role, rows.reason, notes), self.columns)

    def limits(self) -> Mapping[str, str]:
        """Each limit is a one-variable law."""
        return {"S → ∞": "L → (N_c/N)^α_N, converged", "N → ∞": "L → (S_c/S)^α_S", "N, S → ∞": "L → 0: must break"}


class KaplanNSFloor(Floor, KaplanNS):
    """L(N, S) = E + (N_c/N)^α_N + (S_c/S)^α_S: `kaplan-ns` above an entropy floor E, read from the same rows."""

    name = "kaplan-ns-floor"


def main_batch(runs: RunTable) -> float:
    """Batch in tokens with which most sizes were trained, the largest of equals; NaN if batches are unknown."""
    usable = runs.curve & np.isfinite(runs.B)
    batches = np.unique(runs.B[usable])
    if not len(batches):
        return float("nan")
    sizes = [len(np.unique(runs.N[usable & (batch == runs.B)])) for batch in batches]
    return float(max(zip(sizes, batches, strict=True))[1])


def missing_curves(runs: RunTable) -> tuple[str, ...]:
    """In words, the lack of learning-curve rows."""
    return (
        () if np.any(runs.curve) else ("curve rows (single-epoch points at constant learning rate, with N, B and S)",)
    )
