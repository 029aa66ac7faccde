"""Can these runs identify this law? Asked before any fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import DesignError
from scaling_sim.inference.curves import MAX_POINTS, thinned
from scaling_sim.laws.base import Law
from scaling_sim.laws.observations import Observations
from scaling_sim.laws.registry import get_law, law_names
from scaling_sim.runs.columns import nearest_columns
from scaling_sim.runs.table import RunTable

Array = NDArray[np.float64]

COLLINEAR = 0.999
"""|correlation| of two log columns above which their exponents cannot be told apart."""
MIN_RANGE = 1.5
"""A column that varies by less than this factor counts as one value."""
EXACT = 1e-7
"""Typical residual of the log response below which it was computed from the law: no training run repeats to 7 digits,
and below it chains mix slowly (τ 27 steps at 5e-7, 176 at 5e-9)."""
THINNED = f"curve thinned to {MAX_POINTS} points"
_EXPONENTS = {
    "N": ("alpha_N", "alpha"), "N_curve": ("alpha_N_curve",),
    "tokens": ("beta",), "D": ("alpha_D", "R_D"), "C": ("alpha_C",), "S": ("alpha_S",),
    "B": ("alpha_B",), "loss": ("alpha_B",),
}  # fmt: skip


def prepare(runs: RunTable, law: Law) -> Observations:
    """Observations of a law after every check: rows in their roles, curves thinned, notes on a weak design.

    Raises
    ------
    DesignError
        The runs cannot identify the law; the message names the parameter and what is missing.
    """
    missing = law.missing(runs)
    if missing:
        raise DesignError(
            f"{law.name} needs {'; '.join(missing)}; {runs.source or 'the table'} has none{_near(missing, runs)}. "
            f"Laws that its columns allow: {', '.join(allowed_laws(runs)) or 'none'}"
        )
    data = law.observe(runs)
    _check_number(law, data)
    _check_response(law, data)
    notes = _check_design(law, data)
    return _thin(data.take(np.arange(len(data)), notes), runs)


def _near(missing: tuple[str, ...], runs: RunTable) -> str:
    """What to map the lacking columns from, where the table has columns of like names."""
    hints = (nearest_columns(name, name, list(runs.extra)) for name in missing)
    return "".join(f", perhaps {hint}" for hint in hints if hint)


def check_noise(law: Law, data: Observations, residuals: Array) -> None:
    """Refuse a posterior where the law leaves nothing over: its error scale would tend to 0, and nothing would mix.

    Parameters
    ----------
    residuals : (n_rows,) log response less log prediction at the law's best point
    """
    for role in np.unique(data.role):
        rows = (data.role == role) & ~(np.nan_to_num(data.error) > 0)
        size = float(np.median(np.abs(residuals[rows]))) if rows.any() else np.inf
        if size < EXACT:
            digits = min(15, int(-np.log10(max(size, 1e-300))))
            raise DesignError(
                f"a posterior needs errors, and the {rows.sum()} {role} losses follow {law.name} exactly, to {digits} "
                "digits: take the point estimate (--point, point_fit), or give them the noise of real runs "
                "(simulate with noise)"
            )


def left_out(runs: RunTable, data: Observations) -> dict[str, tuple[str, ...]]:
    """Reason → names of all rows that a fit of ``data`` does not use: by the reader of ``runs``, or by the law."""
    reasons = dict.fromkeys((*runs.dropped, *data.dropped))
    return {reason: (*runs.dropped.get(reason, ()), *data.dropped.get(reason, ())) for reason in reasons}


def allowed_laws(runs: RunTable) -> tuple[str, ...]:
    """Names of the laws whose columns and kinds of rows the table has."""
    return tuple(name for name in law_names() if not get_law(name).missing(runs))


def _check_number(law: Law, data: Observations) -> None:
    need = len(law.parameters) + 2
    if len(data) < need:
        raise DesignError(
            f"{law.name} has {len(law.parameters)} parameters and needs at least {need} points, got {len(data)}"
            f"{_without(data)}; add runs or choose a law with fewer parameters"
        )


def _check_response(law: Law, data: Observations) -> None:
    if law.response == "loss" and np.ptp(np.log(data.response)) < EXACT:
        raise DesignError(
            f"{law.name} cannot be fitted: all {len(data)} losses are {data.response[0]:g}{_without(data)}; "
            "is another column the loss?"
        )


def _without(data: Observations) -> str:
    """`` (748 left out: earlier point of its learning curve)``: what else a user may have meant to fit."""
    reasons = "; ".join(f"{len(names)} left out: {reason}" for reason, names in data.dropped.items())
    return f" ({reasons})" if reasons else ""


def _check_design(law: Law, data: Observations) -> tuple[str, ...]:
    """Refuse what cannot be identified; return notes on what hardly can.

    Groups may share a parameter (α_N of early-stopped runs and of curves): the one that spans most then counts.
    """
    widest: dict[str, tuple[str, Array]] = {}
    for group in law.design(data):
        logs = {name: np.log(values) for name, values in group.items() if name in _EXPONENTS}
        _check_collinear(law, logs, data)
        for name, values in logs.items():
            exponent = _exponent(law, name)
            if exponent not in widest or np.ptp(values) > np.ptp(widest[exponent][1]):
                widest[exponent] = name, values
    return tuple(note for name, values in widest.values() for note in _check_range(law, name, values, data))


def _check_collinear(law: Law, logs: Mapping[str, Array], data: Observations) -> None:
    varied = [name for name, values in logs.items() if np.ptp(values) >= np.log(MIN_RANGE)]
    for first, second in combinations(varied, 2):
        correlation = float(np.corrcoef(logs[first], logs[second])[0, 1])
        if abs(correlation) > COLLINEAR:
            raise DesignError(
                f"{law.name} cannot tell {_exponent(law, first)} from {_exponent(law, second)}: log {first} and log "
                f"{second} are collinear in these runs (correlation {correlation:.5f}){_without(data)}; "
                f"add runs with another ratio of {second} to {first}"
            )


def _check_range(law: Law, name: str, log_values: Array, data: Observations) -> list[str]:
    """One value is refused (a note, for the batch: its prior is proper); less than a decade is noted."""
    spread, exponent = float(np.ptp(log_values)), _exponent(law, name)
    if spread < np.log(MIN_RANGE) and name not in ("B", "loss"):
        raise DesignError(
            f"{law.name} cannot identify {exponent}: {name} must vary, got a range of ×{np.exp(spread):.3g} over "
            f"{len(log_values)} points{_without(data)}; add runs with other {name} (a decade or more)"
        )
    if spread < np.log(MIN_RANGE) and name == "B":
        return [f"only one batch: {exponent}, B_star and S_c are not identified apart from their priors"]
    if spread < np.log(10.0) and name not in ("B", "loss"):
        return [f"{name} spans {spread / np.log(10.0):.2f} decades, less than one: {exponent} rests on a short range"]
    return []


def _exponent(law: Law, column: str) -> str:
    """The parameter that is lost if the column does not vary."""
    return next((name for name in _EXPONENTS[column] if name in law.parameters), f"the exponent of {column}")


def _thin(data: Observations, runs: RunTable) -> Observations:
    """At most `MAX_POINTS` points of each curve, and a note if any was thinned."""
    curve = np.flatnonzero(data.role == "curve")
    kept = curve[thinned(data.run[curve], np.log(data.columns["S"][curve]))] if len(curve) else curve
    if len(kept) == len(curve):
        return data
    thinner = f"{len(curve) - len(kept)} of {len(curve)} curve points"
    note = f"{thinner} thinned: at most {MAX_POINTS} per curve are fitted, even in log S"
    thinner_data = data.take(np.sort(np.concatenate([np.flatnonzero(data.role != "curve"), kept])), (note,))
    away = np.isin(np.arange(len(runs)), np.setdiff1d(data.row, thinner_data.row))
    return replace(thinner_data, dropped={**data.dropped, THINNED: runs.row_names(away)})
