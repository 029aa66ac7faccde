"""The joint system of Kaplan et al. 2020: L(N, D), L(N, S_min) and B_crit(L) from one set of runs."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.laws import kaplan
from scaling_sim.laws.base import Array, Centre, Coordinate, Law, Normal, Parameters, log_sum_exp, stack
from scaling_sim.laws.floor import Floor
from scaling_sim.laws.kaplan_nd import data_scale
from scaling_sim.laws.kaplan_ns import missing_curves
from scaling_sim.laws.observations import Observations, Rows, merge_rows, observations, unusable
from scaling_sim.runs.table import RunTable

_SHARED = ("alpha_N", "N_c", "alpha_D", "D_c", "alpha_S", "S_c", "alpha_B", "B_star")
_PRIORS = {
    "log_loss": (Normal(0.0, 0.5), "log loss at the centre of the curves, less the mean log loss"),
    "log_S_N": (Normal(-1.0, 2.0), "log of the step term over (N_c/N)^α_N at the centre of the curves"),
    "log_batch": (Normal(0.0, 2.0), "log of B_crit over the batch at the centre of the curves"),
    "log_overfit": (Normal(log(0.1), 1.5), "log of log L(N, D)/L(N, ∞) at the centre of the early-stopped runs"),
    "log_alpha_N": (Normal(log(0.1), 1.0), ""),
    "log_alpha_D": (Normal(log(0.1), 1.0), ""),
    "log_alpha_S": (Normal(log(0.6), 0.75), ""),
    "log_alpha_B": (Normal(log(0.3), 0.75), ""),
    "log_loss_stopped": (
        Normal(0.0, 0.5),
        "log L(N, ∞) at the centre of the early-stopped runs, less their mean log loss",
    ),
    "log_alpha_N_curve": (Normal(log(0.1), 1.0), ""),
}


class KaplanJoint(Law):
    """The joint Kaplan system, α_N and N_c shared between its two forms.

    Early-stopped rows: L(N, D) = [ (N_c/N)^(α_N/α_D) + D_c/D ]^α_D (1.5). Curve rows: the root L of
    L = (N_c/N)^α_N + [ S_c (1 + B_crit(L)/B) / S ]^α_S (1.6 with 5.4), B_crit(L) = B*/L^(1/α_B) (1.4). Other rows are
    left out, counted and named.

    Its allocation is closed at the critical batch (Appendix B, B.5-B.10): L = (1 + α_N/α_S) L(N, ∞), N ∝ C^(α_C/α_N),
    1/α_C = 1/α_S + 1/α_B + 1/α_N.

    Parameters
    ----------
    shared : bool
        If False, curves have a pair of their own (``alpha_N_curve``, ``N_c_curve``), to be compared with the other.

    Notes
    -----
    Every formula is in terms of the loss at the centre of the curves, where B_crit and the two terms are coordinates:
    S_c and B* follow without solving anything.
    """

    name = "kaplan"
    columns = ("N", "D", "B", "S")
    form = "joint"

    def __init__(self, shared: bool = True) -> None:
        self.shared = shared
        self.parameters = _SHARED + (() if shared else ("alpha_N_curve", "N_c_curve"))
        more = () if shared else ("log_loss_stopped", "log_alpha_N_curve")
        first = tuple(_PRIORS)[: len(_SHARED)]
        self._names = first + more

    def options(self) -> dict[str, Any]:
        """Whether α_N and N_c are shared."""
        return {} if self.shared else {"shared": False}

    def coordinates(self, centre: Centre) -> tuple[Coordinate, ...]:
        """Weak priors: 90 % of them within a factor of 5 (exponents) or 27 (ratios at the centre) of the median."""
        return tuple(Coordinate(name, *_PRIORS[name]) for name in self._names)

    def formula_parameters(self, u: Array, centre: Centre) -> dict[str, Array]:
        """The exponents and the log scales of the coordinates."""
        x = dict(zip(self._names, u.T, strict=True))
        alpha = {key: np.exp(x[f"log_{key}"]) for key in ("alpha_N", "alpha_D", "alpha_S", "alpha_B")}
        log_loss = x["log_loss"] + centre["log_loss"]
        log_size = log_loss - log_sum_exp(np.zeros(len(u)), x["log_S_N"])
        alpha_curve = alpha["alpha_N"] if self.shared else np.exp(x["log_alpha_N_curve"])
        curve = {"alpha_N_curve": alpha_curve, "log_N_c_curve": centre["log_N"] + log_size / alpha_curve}
        log_S_min = centre["log_S"] - np.logaddexp(0.0, x["log_batch"])
        scales = {"log_S_c": log_S_min + (log_size + x["log_S_N"]) / alpha["alpha_S"]}
        scales["log_B_star"] = centre["log_B"] + x["log_batch"] + log_loss / alpha["alpha_B"]
        log_limit = (  # log L(N, ∞) at the centre of the early-stopped runs
            alpha_curve * (curve["log_N_c_curve"] - centre["stopped_log_N"])
            if self.shared
            else x["log_loss_stopped"] + centre["stopped_log_loss"]
        )
        scales["log_N_c"] = centre["stopped_log_N"] + log_limit / alpha["alpha_N"]
        overfit = data_scale(log_limit, np.exp(x["log_overfit"]), alpha["alpha_D"])
        scales["log_D_c"] = centre["stopped_log_D"] + overfit
        return alpha | scales | ({} if self.shared else curve)

    def from_parameters(self, parameters: Parameters, centre: Centre) -> Array:
        """Coordinates of natural parameters."""
        p, curve = parameters, curve_parameters(parameters)
        N, B, S = (np.exp(centre[f"log_{name}"]) for name in ("N", "B", "S"))
        log_loss = kaplan.log_solve_loss(N, B, S, curve)
        log_size = curve["alpha_N"] * (np.log(curve["N_c"]) - centre["log_N"])
        log_limit = p["alpha_N"] * (np.log(p["N_c"]) - centre["stopped_log_N"])
        stopped = kaplan.log_loss_nd(np.exp(centre["stopped_log_N"]), np.exp(centre["stopped_log_D"]), p)
        log_batch = np.log(p["B_star"]) - log_loss / p["alpha_B"] - centre["log_B"]
        log_S_min = centre["log_S"] - np.logaddexp(0.0, log_batch)
        x = {f"log_{key}": np.log(value) for key, value in p.items() if key.startswith("alpha")}
        x["log_loss"] = log_loss - centre["log_loss"]
        x["log_S_N"] = p["alpha_S"] * (np.log(p["S_c"]) - log_S_min) - log_size
        x["log_batch"] = log_batch
        x["log_overfit"] = np.log(stopped - log_limit)
        x["log_loss_stopped"] = log_limit - centre["stopped_log_loss"]
        return stack(*[x[name] for name in self._names])

    def log_loss(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        """Log loss of each row by its form: (1.5) where ``stopped``, (1.6) elsewhere.

        Without a column ``stopped``, (1.6) if steps ``S`` are given, else (1.5).
        """
        if "stopped" not in columns:
            return self._curve(parameters, columns) if "S" in columns else self._stopped(parameters, columns)
        stopped = np.asarray(columns["stopped"], dtype=bool)
        rows = {name: np.asarray(columns[name], dtype=np.float64) for name in self.columns}
        first = self._stopped(parameters, {name: rows[name][stopped] for name in ("N", "D")})
        second = self._curve(parameters, {name: rows[name][~stopped] for name in ("N", "B", "S")})
        log_loss = np.empty((*first.shape[:-1], len(stopped)))
        log_loss[..., stopped], log_loss[..., ~stopped] = first, second
        return log_loss

    def missing(self, runs: RunTable) -> tuple[str, ...]:
        """Needs both kinds of rows: a table with N, D and loss alone cannot identify the system."""
        stopped = () if np.any(runs.stopped) else ("stopped rows (early-stopped results on D repeated tokens)",)
        return (*super().missing(runs), *stopped, *missing_curves(runs))

    def observe(self, runs: RunTable) -> Observations:
        """Early-stopped rows and curve rows, each in its role."""
        stopped = _role(runs, runs.stopped, "stopped", ("N", "D"))
        curve = _role(runs, runs.curve & ~runs.stopped, "curve", ("N", "B", "S"))
        rows = merge_rows(stopped, curve)
        data = observations(runs, Rows(rows.role, rows.reason), self.columns)
        columns = {**data.columns, "stopped": (data.role == "stopped").astype(np.float64)}
        return Observations(**{**vars(data), "columns": columns})

    def design(self, data: Observations) -> tuple[Mapping[str, Array], ...]:
        """N and D of the early-stopped rows; N, B and S of the curves."""
        stopped, curve = data.role == "stopped", data.role == "curve"
        first = {name: data.columns[name][stopped] for name in ("N", "D")}
        second = {name: data.columns[name][curve] for name in ("N", "S", "B")}
        return (first, second if self.shared else {"N_curve": second.pop("N"), **second})

    def centre(self, data: Observations) -> dict[str, float]:
        """Means over the curve rows, and of N, D and loss over the early-stopped ones (``stopped_log_N``, …)."""
        logs = {f"log_{name}": np.log(data.columns[name]) for name in ("N", "D", "B", "S")} | {
            "log_loss": np.log(data.response)
        }
        curve, stopped = data.role == "curve", data.role == "stopped"
        means = {name: float(np.mean(logs[name][curve])) for name in ("log_N", "log_B", "log_S", "log_loss")}
        return means | {
            f"stopped_{name}": float(np.mean(logs[name][stopped])) for name in ("log_N", "log_D", "log_loss")
        }

    def limits(self) -> Mapping[str, str]:
        """Those of the two forms."""
        return {
            "S → ∞, fresh data": "L → (N_c/N)^α_N, converged",
            "N → ∞, repeated data": "L → (D_c/D)^α_D, early-stopped",
            "B → ∞": "S → S_min",
            "N, S → ∞": "L → 0: must break",
        }

    def remarks(self, draws: Mapping[str, Array]) -> tuple[str, ...]:
        """With pairs of their own: whether early-stopped runs and curves agree about α_N."""
        if self.shared:
            return ()
        low, median, high = np.quantile(draws["alpha_N"] - draws["alpha_N_curve"], (0.05, 0.5, 0.95)).tolist()
        verdict = "which holds 0: one α_N serves both" if low <= 0 <= high else "which excludes 0: they disagree"
        return (
            f"alpha_N of early-stopped runs less that of curves: {median:+.4g} (90 %: {low:+.4g} to {high:+.4g}), "
            f"{verdict}",
        )

    def _stopped(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        return kaplan.log_loss_nd(columns["N"], columns["D"], parameters)

    def _curve(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        return kaplan.log_solve_loss(columns["N"], columns["B"], columns["S"], curve_parameters(parameters))


class KaplanFloor(Floor, KaplanJoint):
    """The joint system `kaplan` for the reducible loss L − E, read from the same rows.

    L − E takes the place of L in (1.4), (1.5) and (1.6); B_crit diverges as L → E. So it does in the closed allocation.
    """

    name = "kaplan-floor"


def curve_parameters(parameters: Parameters) -> dict[str, Any]:
    """The parameters of (1.6): the curves' own pair under the names ``alpha_N`` and ``N_c``, where it is not shared."""
    p = dict(parameters)
    if "alpha_N_curve" in p:
        p |= {"alpha_N": p["alpha_N_curve"]}
        p |= {name: p[f"{name}_curve"] for name in ("N_c", "log_N_c") if f"{name}_curve" in p}
    return p


def _role(runs: RunTable, flagged: NDArray[np.bool_], role: str, columns: tuple[str, ...]) -> Rows:
    """Rows with this flag whose columns are known."""
    reason = np.where(
        flagged, unusable(runs, columns), "neither an early-stopped result nor a point of a constant-rate curve"
    )
    return Rows(np.where(reason == "", role, "").astype(object), reason.astype(object))
