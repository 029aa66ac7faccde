"""Power laws fitted to the lower envelope of a user's own runs: L(C_min) and N(C_min), bootstrapped over runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import DesignError
from scaling_sim.laws.constants import PF_DAY
from scaling_sim.laws.kaplan import critical_batch
from scaling_sim.predict.source import Array, Fit

if TYPE_CHECKING:
    from scaling_sim.runs.table import RunTable

MIN_POINTS = 4
BINS_PER_DECADE = 4
NO_CRITICAL_BATCH = {"B_star": float("inf")}
"""With which C_min is the compute paid."""


def envelope_draws(
    fit: Fit, rng: np.random.Generator, num_draws: int = 1000, *, adjusted: bool = True
) -> dict[str, Array]:
    """Return draws of a fitted frontier: alpha_C_min, C_c_min, N_e, p_N, D_e, p_D (C_min in PF-days), L(D) of the fit.

    Each draw takes one posterior draw (for B_crit in (5.5), for L(D) and for the floor) and one resample of the runs
    with replacement; the frontier is then the least loss in each of 4 bins per decade of C_min, if smaller and
    larger sizes were measured there too, and both lines are least squares in logs. D = 2·C_min/(6·N): one pass at
    the critical batch.

    Parameters
    ----------
    adjusted : bool
        If False, the compute paid takes the place of C_min, as if every batch were free: the paper's naive trend (3.3).

    Raises
    ------
    DesignError
        If fewer than four bins hold a bracketed optimum, or the envelope does not fall.
    """
    runs, use = _usable(fit)
    names, group = np.unique(runs.run[use], return_inverse=True)
    if len(names) < MIN_POINTS:
        raise DesignError(
            f"a frontier needs at least {MIN_POINTS} single-pass runs with a known batch, got {len(names)}"
        )
    N, B, C, loss = (np.asarray(column[use], dtype=np.float64) for column in (runs.N, runs.B, runs.C, runs.loss))
    total = len(next(iter(fit.draws.values())))
    picks = rng.choice(total, size=min(num_draws, total), replace=False)
    frontiers = []
    for pick in picks:
        p = {name: float(values[pick]) for name, values in fit.draws.items()}
        kept = np.isin(group.ravel(), rng.integers(len(names), size=len(names)))
        p |= {} if adjusted else NO_CRITICAL_BATCH
        frontiers.append(_fit_frontier(N[kept], B[kept], C[kept], loss[kept], p))
    found = np.array([f for f in frontiers if f is not None])
    if len(found) < 0.9 * len(picks):
        raise DesignError(
            f"the runs show no compute frontier: the least losses must fall over {MIN_POINTS} bins of C_min "
            f"in which smaller and larger sizes were measured too; so in {len(found)} of {len(picks)} resamples. "
            "Run more sizes over a wider range of compute"
        )
    return _named(
        found, {n: np.asarray(v)[picks] for n, v in fit.draws.items()}, np.array([f is not None for f in frontiers])
    )


def envelope_points(fit: Fit, *, adjusted: bool = True) -> tuple[Array, Array, Array]:
    """Return the frontier's points, (k,) each: C_min in FLOP at median parameters, loss in nats per token, N.

    ``adjusted`` as for `envelope_draws`. For figures: k may be 0.
    """
    runs, use = _usable(fit)
    p = {name: float(np.median(values)) for name, values in fit.draws.items()} | ({} if adjusted else NO_CRITICAL_BATCH)
    C = np.asarray(runs.C[use] / (1 + runs.B[use] / critical_batch(runs.loss[use], p)), dtype=np.float64)
    best = bracketed_envelope(np.log(C / PF_DAY), np.log(runs.loss[use]), np.log(runs.N[use]))
    return C[best], np.asarray(runs.loss[use][best]), np.asarray(runs.N[use][best])


def _usable(fit: Fit) -> tuple[RunTable, NDArray[np.bool_]]:
    """The runs of a fit and a mask of the single-pass rows with a known batch."""
    runs = getattr(fit, "runs", None)
    if runs is None:
        raise DesignError("method='frontier' fits the envelope of runs, and published constants come without runs")
    return runs, ~runs.stopped & np.isfinite(runs.B) & (runs.C > 0) & (runs.N > 0) & np.isfinite(runs.loss)


def _fit_frontier(N: Array, B: Array, C: Array, loss: Array, p: dict[str, float]) -> tuple[float, ...] | None:
    """Slopes and intercepts at 1 PF-day of ln(L − E) and ln N against ln C_min; None without a frontier."""
    reducible = loss - p.get("E", 0.0)
    above = reducible > 0
    if above.sum() < MIN_POINTS:
        return None
    log_C = np.log(C[above] / (1 + B[above] / critical_batch(loss[above], p)) / PF_DAY)
    log_L, log_N = np.log(reducible[above]), np.log(N[above])
    best = bracketed_envelope(log_C, log_L, log_N)
    if len(best) < MIN_POINTS:
        return None
    slope_L, at_L = np.polyfit(log_C[best], log_L[best], 1)
    slope_N, at_N = np.polyfit(log_C[best], log_N[best], 1)
    return (float(slope_L), float(at_L), float(slope_N), float(at_N)) if slope_L < 0 else None


def bracketed_envelope(log_C: Array, log_L: Array, log_N: Array) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Indices of the least loss per bin of C_min, where both a smaller and a larger size were measured in that bin.

    Without the second condition the ends of the envelope follow the edges of the sweep.
    """
    bins = np.floor(log_C / np.log(10) * BINS_PER_DECADE)
    best = []
    for value in np.unique(bins):
        rows = np.flatnonzero(bins == value)
        least = rows[np.argmin(log_L[rows])]
        if log_N[rows].min() < log_N[least] < log_N[rows].max():
            best.append(least)
    return np.array(best, dtype=np.int64)


def _named(found: Array, draws: dict[str, Array], ok: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> dict[str, Array]:
    slope_L, at_L, slope_N, at_N = found.T
    limits = ("alpha_N", "N_c", "alpha_D", "D_c", "E")
    kept: dict[str, Array] = {name: values[ok] for name, values in draws.items() if name in limits}
    return {
        "alpha_C_min": -slope_L,
        "C_c_min": np.exp(at_L / -slope_L),
        "N_e": np.exp(at_N),
        "p_N": slope_N,
        "D_e": PF_DAY / 3 / np.exp(at_N),
        "p_D": 1 - slope_N,
        **kept,
    }
