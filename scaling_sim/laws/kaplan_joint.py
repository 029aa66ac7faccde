"""The joint system of Kaplan et al. 2020: L(N, D), L(N, S_min) and B_crit(L) from one set of runs."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.laws import kaplan
from scaling_sim.laws.base import Array, Centre, Coordinate, Law, Normal, Parameters, log_sum_exp, stack
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
    "log_E": (Normal(-1.0, 2.0), "log of E over L − E at the centre of the curves"),
}


class KaplanJoint(Law):
    """The joint Kaplan system, α_N and N_c shared between its two forms.

    Early-stopped rows: L(N, D) = [ (N_c/N)^(α_N/α_D) + D_c/D ]^α_D (1.5). Curve rows: the root L of
    L = (N_c/N)^α_N + [ S_c (1 + B_crit(L)/B) / S ]^α_S (1.6 with 5.4), B_crit(L) = B*/L^(1/α_B) (1.4). Other rows are
    left out, counted and named.

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
    floor: bool = False
    """Whether the system is that of L − E (`kaplan-floor`)."""

    def __init__(self, shared: bool = True) -> None:
        self.shared = shared
        self.parameters = _SHARED + (() if shared else ("alpha_N_curve", "N_c_curve")) + (("E",) if self.floor else ())
        more = () if shared else ("log_loss_stopped", "log_alpha_N_curve")
        first = tuple(_PRIORS)[: len(_SHARED)]
        self._names = first + more + (("log_E",) if self.floor else ())

    def options(self) -> dict[str, Any]:
        """Whether α_N and N_c are shared."""
        return {} if self.shared else {"shared": False}

    def coordinates(self, centre: Centre) -> tuple[Coordinate, ...]:
        """Weak priors: 90 % of them within a factor of 5 (exponents) or 27 (ratios at the centre) of the median."""
        return tuple(Coordinate(name, *_PRIORS[name]) for name in self._names)

    def to_parameters(self, u: Array, centre: Centre) -> dict[str, Array]:
        """Natural parameters of the coordinates."""
        x = dict(zip(self._names, u.T, strict=True))
        alpha = {key: np.exp(x[f"log_{key}"]) for key in ("alpha_N", "alpha_D", "alpha_S", "alpha_B")}
        floor = x["log_E"] if self.floor else np.full(len(u), -np.inf)
        log_loss = x["log_loss"] + centre["log_loss"] - log_sum_exp(np.zeros(len(u)), floor)  # of L − E
        log_size = log_loss - log_sum_exp(np.zeros(len(u)), x["log_S_N"])
        alpha_curve = alpha["alpha_N"] if self.shared else np.exp(x["log_alpha_N_curve"])
        with np.errstate(over="ignore"):
            S_c, B_star = self._step_scales(x, log_size, log_loss, alpha, centre)
            N_c_curve = np.exp(centre["log_N"] + log_size / alpha_curve)
            N_c = N_c_curve if self.shared else self._own_scale(x, floor, log_loss, alpha["alpha_N"], centre)
            log_limit = alpha["alpha_N"] * (np.log(N_c) - centre["stopped_log_N"])
            log_D_c = centre["stopped_log_D"] + data_scale(log_limit, np.exp(x["log_overfit"]), alpha["alpha_D"])
            natural = alpha | {"N_c": N_c, "D_c": np.exp(log_D_c), "S_c": S_c, "B_star": B_star}
        natural |= {} if self.shared else {"alpha_N_curve": alpha_curve, "N_c_curve": N_c_curve}
        natural |= {"E": np.exp(log_loss + floor)} if self.floor else {}
        return {name: natural[name] for name in self.parameters}

    def from_parameters(self, parameters: Parameters, centre: Centre) -> Array:
        """Coordinates of natural parameters."""
        p, curve = parameters, curve_parameters(parameters)
        N, B, S = (np.exp(centre[f"log_{name}"]) for name in ("N", "B", "S"))
        reducible = kaplan.log_solve_loss(N, B, S, curve)
        log_E = np.log(p["E"]) if self.floor else np.full(np.shape(reducible), -np.inf)
        log_size = curve["alpha_N"] * (np.log(curve["N_c"]) - centre["log_N"])
        log_limit = p["alpha_N"] * (np.log(p["N_c"]) - centre["stopped_log_N"])
        stopped = kaplan.log_loss_nd(np.exp(centre["stopped_log_N"]), np.exp(centre["stopped_log_D"]), p)
        log_batch = np.log(p["B_star"]) - reducible / p["alpha_B"] - centre["log_B"]
        log_S_min = centre["log_S"] - np.logaddexp(0.0, log_batch)
        x = {f"log_{key}": np.log(value) for key, value in p.items() if key.startswith("alpha")}
        x["log_loss"] = log_sum_exp(reducible, log_E) - centre["log_loss"]
        x["log_S_N"] = p["alpha_S"] * (np.log(p["S_c"]) - log_S_min) - log_size
        x["log_batch"] = log_batch
        x["log_overfit"] = np.log(stopped - log_limit)
        x["log_loss_stopped"] = log_sum_exp(log_limit, log_E) - centre["stopped_log_loss"]
        x["log_E"] = log_E - reducible
        return stack(*[x[name] for name in self._names])

    def log_loss(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        """Log loss of each row by its form: (1.5) where ``stopped``, (1.6) elsewhere.

        Without a column ``stopped``, (1.6) if steps ``S`` are given, else (1.5).
        """
        if "stopped" not in columns:
            reducible = self._curve(parameters, columns) if "S" in columns else self._stopped(parameters, columns)
            return _with_floor(reducible, parameters)
        stopped = np.asarray(columns["stopped"], dtype=bool)
        rows = {name: np.asarray(columns[name], dtype=np.float64) for name in self.columns}
        first = self._stopped(parameters, {name: rows[name][stopped] for name in ("N", "D")})
        second = self._curve(parameters, {name: rows[name][~stopped] for name in ("N", "B", "S")})
        reducible = np.empty((*first.shape[:-1], len(stopped)))
        reducible[..., stopped], reducible[..., ~stopped] = first, second
        return _with_floor(reducible, parameters)

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
        end = "L → E" if self.floor else "L → 0: must break"
        return {
            "S → ∞, fresh data": "L → (N_c/N)^α_N, converged",
            "N → ∞, repeated data": "L → (D_c/D)^α_D, early-stopped",
            "B → ∞": "S → S_min",
            "N, S → ∞": end,
        }

    def _step_scales(
        self, x: Mapping[str, Array], log_size: Array, log_loss: Array, alpha: Mapping[str, Array], centre: Centre
    ) -> tuple[Array, Array]:
        """S_c and B* from the step term and B_crit/B at the centre of the curves."""
        log_S_min = centre["log_S"] - np.logaddexp(0.0, x["log_batch"])
        log_S_c = log_S_min + (log_size + x["log_S_N"]) / alpha["alpha_S"]
        return np.exp(log_S_c), np.exp(centre["log_B"] + x["log_batch"] + log_loss / alpha["alpha_B"])

    def _own_scale(
        self, x: Mapping[str, Array], floor: Array, log_loss: Array, alpha_N: Array, centre: Centre
    ) -> Array:
        """N_c of the early-stopped rows if it is not shared; their floor is that of the curves."""
        total = x["log_loss_stopped"] + centre["stopped_log_loss"]
        with np.errstate(invalid="ignore", divide="ignore"):  # a floor above the loss: no such parameters (NaN)
            reducible = total + np.log(-np.expm1(log_loss + floor - total))
        return np.asarray(np.exp(centre["stopped_log_N"] + reducible / alpha_N))

    def _stopped(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        return kaplan.log_loss_nd(columns["N"], columns["D"], parameters)

    def _curve(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        return kaplan.log_solve_loss(columns["N"], columns["B"], columns["S"], curve_parameters(parameters))


def curve_parameters(parameters: Parameters) -> dict[str, Any]:
    """The parameters of (1.6): the curves' own pair under the names ``alpha_N`` and ``N_c``, where it is not shared."""
    p = dict(parameters)
    if "alpha_N_curve" in p:
        p |= {"alpha_N": p["alpha_N_curve"], "N_c": p["N_c_curve"]}
    return p


def _with_floor(log_reducible: Array, parameters: Parameters) -> Array:
    if "E" not in parameters:
        return log_reducible
    return log_sum_exp(np.log(parameters["E"]), log_reducible)


def _role(runs: RunTable, flagged: NDArray[np.bool_], role: str, columns: tuple[str, ...]) -> Rows:
    """Rows with this flag whose columns are known."""
    reason = np.where(
        flagged, unusable(runs, columns), "neither an early-stopped result nor a point of a constant-rate curve"
    )
    return Rows(np.where(reason == "", role, "").astype(object), reason.astype(object))
