"""Which runs feed which law."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from scaling_sim.errors import DataError
from scaling_sim.model.count import num_parameters
from scaling_sim.runs.table import RunTable, table_from_records

if TYPE_CHECKING:
    from scaling_sim.runs.record import RunRecord
    from scaling_sim.study.reproduce.kaplan.data import Data

DROPOUT = 0.1
"""Of the early-stopped runs behind L(N, D) (Kaplan et al. 2020, section 4.2)."""


def size(record: RunRecord) -> int:
    """N of a run."""
    return num_parameters(record.config.shape)


def curve_records(data: Data) -> tuple[RunRecord, ...]:
    """Runs of the family at constant rate in one epoch, each size with at least two layers or N ≤ 3072."""
    found = data.records("curve", schedule="constant", early_stop=False, dropout=0.0)
    return tuple(record for record in found if size(record) > 0)


def stopped_records(data: Data, dropout: float = DROPOUT) -> tuple[RunRecord, ...]:
    """Early-stopped runs of the data system."""
    return data.records("data", early_stop=True, dropout=dropout)


def batch_records(data: Data) -> tuple[RunRecord, ...]:
    """The batch sweep: at each size and batch the learning rate whose run ended lowest."""
    best: dict[tuple[int, int], RunRecord] = {}
    for record in data.records("batch", schedule="constant"):
        key = size(record), record.config.recipe.batch_tokens
        if key not in best or last_loss(record) < last_loss(best[key]):
            best[key] = record
    return tuple(best.values())


def last_loss(record: RunRecord, split: str = "test") -> float:
    """Loss at the end of a run, nats per token."""
    loss = record.curve[-1].losses.get(split, np.nan)
    return loss if np.isfinite(loss) else np.inf


def joint_rows(data: Data) -> RunTable:
    """Rows of the joint law: early-stopped runs, one-epoch curves, and the batch sweep where there is one."""
    records = {record.run_id: record for record in (*stopped_records(data), *curve_records(data))}
    with suppress(DataError):  # of one batch only the fit says that B_crit is not identified
        records |= {record.run_id: record for record in batch_records(data)}
    return table_from_records(records.values(), source=data.source)
