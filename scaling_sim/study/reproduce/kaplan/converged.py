"""Finished runs near convergence: what stands for L(N) at infinite data and steps."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from scaling_sim.errors import DataError
from scaling_sim.laws.kaplan import loss_ns, solve_loss
from scaling_sim.laws.kaplan_joint import curve_parameters
from scaling_sim.study.reproduce.kaplan.rows import Records, family_records, fitted, size, table_of

if TYPE_CHECKING:
    from scaling_sim.runs.record import RunRecord
    from scaling_sim.runs.table import RunTable
    from scaling_sim.study.reproduce.kaplan.data import Data

NEAR = 0.1
"""Relative excess over the converged loss, by the fitted (1.6), at which a run still counts: that of an efficient run
(B.5), so that only sizes too large for one epoch are left out."""


def finished_records(data: Data) -> Records:
    """The longest decayed run of each size and seed; where there is none, the family's curves at constant rate."""
    with suppress(DataError):
        longest: dict[tuple[int, int], RunRecord] = {}
        for record in data.records("final", dropout=0.0, early_stop=False):
            key = size(record), record.config.recipe.seed
            if size(record) and (key not in longest or record.config.tokens > longest[key].config.tokens):
                longest[key] = record
        most = max(record.config.tokens for record in longest.values())
        return tuple(record for record in longest.values() if record.config.tokens > 0.5 * most)
    return family_records(data)


def excess(data: Data, record: RunRecord) -> float:
    """How far the end of a run lies above the converged loss of its size by (1.6), at median parameters."""
    p = curve_parameters({name: float(np.median(values)) for name, values in data.fit("kaplan").draws.items()})
    N, recipe = float(size(record)), record.config.recipe
    return float(solve_loss(N, float(recipe.batch_tokens), float(recipe.steps), p) / loss_ns(N, np.inf, p)) - 1


def converged_records(data: Data) -> Records:
    """Finished runs of models of at least two layers that are within `NEAR` of their converged loss."""
    return tuple(record for record in fitted(finished_records(data)) if excess(data, record) < NEAR)


def converged_rows(data: Data) -> RunTable:
    """Those as rows."""
    found = converged_records(data)
    if len({size(record) for record in found}) < 4:
        raise DataError(f"fewer than 4 sizes finished within {NEAR:.0%} of their converged loss: L(N) was not fitted")
    return table_of(data, found)
