"""The paper's own way to its laws: B_crit(L) from batch sweeps, curves moved to S_min by it, then L(N, S_min).

Appendix B then takes its parameters from separate fits (Kaplan et al. 2020, sections 5.2 and 6). What each step leaves
uncertain is carried on: L(N, S_min) is fitted anew for draws of B_crit(L). The joint law `kaplan` fits all at once;
where L(N, S_min) is not quite true its B_crit bends to help, and then differs from that of the batch sweeps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import DataError
from scaling_sim.inference.approximate import ApproximateFit, approximate_fit
from scaling_sim.laws.kaplan import min_steps
from scaling_sim.laws.registry import get_law
from scaling_sim.study.reproduce.kaplan.rows import after_transient, family_rows, joint_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scaling_sim.runs.table import RunTable
    from scaling_sim.study.reproduce.kaplan.data import Data

Array = NDArray[np.float64]

NUM_BATCH_DRAWS = 20
"""Draws of B_crit(L) for which L(N, S_min) is fitted: they set its interval where B_crit is the larger doubt."""
DRAWS_EACH = 200


def stepwise(data: Data) -> ApproximateFit:
    """Parameters of ``kaplan`` with pairs (α_N, N_c) of their own, from L(N, D), batch sweeps and L(N, S_min)."""
    batch = _batch_draws(data)
    table = after_transient(data, family_rows(data))
    middle = approximate_fit(_at_least_steps(table, _median(batch)), "kaplan-ns", num_draws=DRAWS_EACH, seed=data.seed)
    rng = np.random.default_rng(data.seed)
    picks = rng.choice(len(batch["alpha_B"]), NUM_BATCH_DRAWS, replace=False)
    parts = [_one(table, {name: float(values[k]) for name, values in batch.items()}, data.seed) for k in picks]
    draws = {name: np.concatenate([part[0][name] for part in parts]) for name in parts[0][0]}
    limited = data.fit("kaplan-nd-plain")
    rows = rng.choice(len(limited.draws["alpha_N"]), len(draws["alpha_B"]))
    draws |= {name: np.asarray(values)[rows] for name, values in limited.draws.items()}
    point = {**limited.point, **_named(middle.point), **_median(batch)}
    ess = min(middle.ess, *(part[1] for part in parts))
    return ApproximateFit(get_law("kaplan", shared=False), draws, point, joint_rows(data), ess)


def least_steps(fit: ApproximateFit, table: RunTable) -> Array:
    """S_min of rows (n,) by (5.4) with the central B_crit(L) of a fit."""
    return np.asarray(min_steps(table.loss, table.B, table.S, {k: fit.point[k] for k in ("alpha_B", "B_star")}))


def _batch_draws(data: Data) -> dict[str, Array]:
    from scaling_sim.study.reproduce.kaplan.critical_batch import measured

    sweeps = data.once("critical batches", lambda: measured(data)).sweeps
    if sweeps is None:
        raise DataError("B_crit(L) was not measured: there is no batch sweep of three batches")
    return {name: np.asarray(sweeps.draws[name]) for name in ("alpha_B", "B_star")}


def _one(table: RunTable, batch: dict[str, float], seed: int) -> tuple[dict[str, Array], float]:
    """Draws of L(N, S_min) given one B_crit(L), with that beside them, and their effective number."""
    found = approximate_fit(_at_least_steps(table, batch), "kaplan-ns", num_draws=DRAWS_EACH, seed=seed)
    draws = {name: np.asarray(values) for name, values in _named(found.draws).items()}
    return draws | {name: np.full(DRAWS_EACH, value) for name, value in batch.items()}, found.ess


def _at_least_steps(table: RunTable, batch: Mapping[str, float]) -> RunTable:
    """The table with S_min (5.4) in place of the steps made."""
    return replace(table, S=min_steps(table.loss, table.B, table.S, batch), data_hash="")


def _named(values: Mapping[str, object]) -> dict[str, object]:
    """Parameters of L(N, S) under the names that the joint law gives to them."""
    return {f"{name}_curve" if name in ("alpha_N", "N_c") else name: value for name, value in values.items()}


def _median(draws: Mapping[str, Array]) -> dict[str, float]:
    """The draw whose exponent is the median one: B* goes with it."""
    k = int(np.argsort(draws["alpha_B"])[len(draws["alpha_B"]) // 2])
    return {name: float(values[k]) for name, values in draws.items()}
