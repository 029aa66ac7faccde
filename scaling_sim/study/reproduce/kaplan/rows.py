"""Which runs feed which law, and how many they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from scaling_sim.errors import DataError
from scaling_sim.model.count import num_parameters
from scaling_sim.runs.table import RunTable, table_from_records

if TYPE_CHECKING:
    from scaling_sim.runs.record import RunRecord
    from scaling_sim.study.reproduce.kaplan.data import Data

DROPOUT = 0.1
"""Of the early-stopped runs behind L(N, D) (Kaplan et al. 2020, section 4.2)."""
MIN_UPDATES = 20
"""Updates per epoch below which a data-limited run is not fitted. The paper's runs of 41 lie off its fit (section 4.2).
40 was chosen before our runs, 20 after them: without those of 24, L(D) would have three points. With dropout the two
largest models lie 3 to 5 % above the law there."""
SETTLED = 0.03
"""Relative fall of the loss over the second half of a data-limited run below which it counts as finished, if nothing
stopped it: its loss would have ceased to fall rather than risen."""
TRANSIENT_STEPS, TRANSIENT_TOKENS = 10, 20
"""In warm-ups of the family, steps and tokens of a curve before which (1.6) is not fitted; its formula is poor at few
steps (section 5.2). Without this our curves scatter by 5 % about the law, with it by 1.7 %."""
CHARACTERS = 4.3
"""Per token of the paper's text, about: a loss per token is as many times one per byte."""
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
    found = tuple(r for r in found if r.config.recipe.batch_tokens == main and "batch" not in r.purposes and size(r))
    return one_shape_per_size(found)


def one_shape_per_size(records: Records) -> Records:
    """Of shapes with equal N the widest: the family has one of each size, and the data system deep ones besides."""
    width = {N: max(r.config.shape.d_model for r in records if size(r) == N) for N in set(map(size, records))}
    return tuple(record for record in records if record.config.shape.d_model == width[size(record)])


def limited_records(data: Data, dropout: float = DROPOUT) -> Records:
    """All data-limited runs, with the status of an early stop at its minimum, also if it rose no more."""
    found = data.records("data", early_stop=True, dropout=dropout)
    return tuple(msgspec.structs.replace(record, status="stopped") for record in found)


def stopped_records(data: Data, dropout: float = DROPOUT) -> Records:
    """Those whose loss rose, so that early stopping ended them."""
    found = data.records("data", early_stop=True, dropout=dropout)
    if stopped := tuple(record for record in found if record.status == "stopped"):
        return stopped
    raise DataError(f"none of the {len(found)} data-limited runs with dropout {dropout:g} stopped early")


def settled(record: RunRecord) -> bool:
    """Whether the test loss had ceased to fall when the run ended: see `SETTLED`."""
    steps = np.array([point.step for point in record.curve])
    loss = np.array([point.losses.get("test", np.nan) for point in record.curve])
    early = loss[steps <= max(steps[-1] / 2, steps[0])]
    return bool(np.nanmin(early) < (1 + SETTLED) * np.nanmin(loss))


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
    """Those that laws are fitted to: two layers or more; settled and of enough updates per epoch where data repeat."""
    return tuple(
        record
        for record in records
        if record.config.shape.n_layer >= MIN_LAYERS
        and not (record.config.early_stop and (updates_per_epoch(record) < MIN_UPDATES or not settled(record)))
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
    """Rows of the joint law: data-limited runs, the family's curves after their transient, the batch sweep if any.

    The data-limited runs are those without dropout: L(N, D) and L(N, S) share α_N and N_c, so that both must come from
    one recipe, and dropout costs small models up to a tenth of the loss. With it only where there are no others.
    """
    family = family_records(data)
    records = {record.run_id: record for record in (*plain_records(data), *family)}
    with suppress(DataError):  # of one batch only the fit says that B_crit is not identified
        records |= {record.run_id: record for record in batch_records(data)}
    return after_transient(data, table_of(data, fitted(records.values())))


def after_transient(data: Data, table: RunTable) -> RunTable:
    """The rows of a table without the start of each curve, where (1.6) is not meant to hold."""
    recipe = family_records(data)[0].config.recipe
    late = (TRANSIENT_STEPS * recipe.warmup_steps <= table.S) & (
        table.tokens >= TRANSIENT_TOKENS * recipe.warmup_steps * recipe.batch_tokens
    )
    return table.select(table.stopped | late, "transient at the start of its curve")


def plain_records(data: Data) -> Records:
    """Data-limited runs without dropout; with it where there are no others."""
    with suppress(DataError):
        return limited_records(data, 0.0)
    return limited_records(data)


def family_rows(data: Data) -> RunTable:
    """Rows of the family's curves that laws are fitted to, from twice the warm-up on: what frontiers are read from."""
    return table_of(data, fitted(family_records(data)))


def limited_rows(data: Data, dropout: float = DROPOUT) -> RunTable:
    """Rows of L(N, D) alone."""
    return table_of(data, fitted(limited_records(data, dropout)))


def largest_model_rows(data: Data, least: int = 4) -> RunTable:
    """Data-limited runs, without dropout if there are such, of the largest model with so many D: rows of L(D)."""
    records = fitted(plain_records(data))
    counts = Counter({N: len({r.config.unique_tokens for r in records if size(r) == N}) for N in map(size, records)})
    enough = [N for N, count in counts.items() if count >= least]
    if not enough:
        most = max(counts.values(), default=0)
        raise DataError(f"L(D) needs one model on at least {least} amounts of data; the most are {most}")
    return table_of(data, (record for record in records if size(record) == max(enough)))


def num_runs(table: RunTable, role: str | None = None) -> int:
    """Runs of a table, or those with rows of one role ("curve", "stopped")."""
    return len(np.unique(table.run if role is None else table.run[getattr(table, role)]))
