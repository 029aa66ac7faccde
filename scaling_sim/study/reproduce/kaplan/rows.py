"""Which runs feed which law, and how many they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
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
MIN_UPDATES = 40
"""Updates per epoch below which an early-stopped run is another regime (section 4.2: those runs lie off the fit)."""
MIN_LAYERS = 2
"""Of models that laws are fitted to (appendix D.7 leaves the 1-layer models out of L(C) and L(N))."""

Records = tuple["RunRecord", ...]


def size(record: RunRecord) -> int:
    """N of a run, non-embedding parameters."""
    return num_parameters(record.config.shape)


def last_loss(record: RunRecord, split: str = "test") -> float:
    """Loss at the end of a run, nats per token; ∞ if there is none."""
    loss = record.curve[-1].losses.get(split, np.nan)
    return float(loss) if np.isfinite(loss) else float("inf")


def family_records(data: Data) -> Records:
    """The family: one epoch at constant rate without dropout, all seeds, at the batch that most runs share."""
    found = data.records("curve", schedule="constant", early_stop=False, dropout=0.0)
    batches = Counter(record.config.recipe.batch_tokens for record in found if "batch" not in record.purposes)
    if not batches:
        raise DataError("there are no learning curves of the family, only those of the batch sweep")
    main = batches.most_common(1)[0][0]
    return tuple(r for r in found if r.config.recipe.batch_tokens == main and "batch" not in r.purposes and size(r))


def stopped_records(data: Data, dropout: float = DROPOUT) -> Records:
    """Early-stopped runs on subsets of the text that did stop."""
    found = data.records("data", early_stop=True, dropout=dropout)
    if stopped := tuple(record for record in found if record.status == "stopped"):
        return stopped
    raise DataError(f"none of the {len(found)} data-limited runs with dropout {dropout:g} stopped early")


def batch_records(data: Data) -> Records:
    """The batch sweep: at each size and batch the learning rate whose run ended lowest."""
    best: dict[tuple[int, int], RunRecord] = {}
    for record in data.records("batch", schedule="constant"):
        key = size(record), record.config.recipe.batch_tokens
        if key not in best or last_loss(record) < last_loss(best[key]):
            best[key] = record
    return tuple(best.values())


def updates_per_epoch(record: RunRecord) -> float:
    """D/B of a run."""
    return record.config.unique_tokens / record.config.recipe.batch_tokens


def fitted(records: Iterable[RunRecord]) -> Records:
    """Those that laws are fitted to: at least two layers, and enough updates per epoch where data repeat."""
    return tuple(
        record
        for record in records
        if record.config.shape.n_layer >= MIN_LAYERS
        and not (record.config.early_stop and updates_per_epoch(record) < MIN_UPDATES)
    )


def table_of(data: Data, records: Iterable[RunRecord]) -> RunTable:
    """Records as rows."""
    chosen = tuple(records)
    if not chosen:
        raise DataError(
            f"no run is left: laws are fitted to models of at least {MIN_LAYERS} layers, and to repeated data of at "
            f"least {MIN_UPDATES} updates per epoch"
        )
    return table_from_records(chosen, source=data.source)


def joint_rows(data: Data) -> RunTable:
    """Rows of the joint law: early-stopped runs with dropout, the family's curves, and the batch sweep if any."""
    records = {record.run_id: record for record in (*stopped_records(data), *family_records(data))}
    with suppress(DataError):  # of one batch only the fit says that B_crit is not identified
        records |= {record.run_id: record for record in batch_records(data)}
    return table_of(data, fitted(records.values()))


def stopped_rows(data: Data) -> RunTable:
    """Rows of L(N, D) alone."""
    return table_of(data, fitted(stopped_records(data)))


def largest_model_rows(data: Data, least: int = 4) -> RunTable:
    """Early-stopped runs of the largest model that saw at least so many D: the rows of L(D)."""
    records = fitted(stopped_records(data))
    counts = Counter({N: len({r.config.unique_tokens for r in records if size(r) == N}) for N in map(size, records)})
    enough = [N for N, count in counts.items() if count >= least]
    if not enough:
        raise DataError(
            f"L(D) needs one model on at least {least} amounts of data; the most are {max(counts.values())}"
        )
    return table_of(data, (record for record in records if size(record) == max(enough)))


def num_runs(table: RunTable, role: str | None = None) -> int:
    """Runs of a table, or those with rows of one role ("curve", "stopped")."""
    return len(np.unique(table.run if role is None else table.run[getattr(table, role)]))
