"""Anyone's runs as one validated table: what a fit reads.

Reading is done by `read_runs`; rows come from a file, a DataFrame or the run store.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_sim.errors import DataError
from scaling_sim.runs.columns import missing_column
from scaling_sim.runs.columns import parse_columns as parse_columns
from scaling_sim.runs.record import RunRecord
from scaling_sim.runs.where import Condition, parse_conditions

if TYPE_CHECKING:
    import pandas as pd

Column = NDArray[np.float64]

NUMBERS = ("N", "D", "tokens", "C", "B", "S", "loss", "loss_error", "warmup")
FLAGS = ("decayed", "stopped", "curve")


@dataclass(frozen=True, eq=False)
class RunTable:
    """Rows of training runs, validated, one row per measured loss. All columns are read-only (n,) arrays.

    Words are those of the documentation: ``D`` unique training tokens, ``tokens`` = B·S tokens processed,
    C = 6·N·tokens. Several rows with one ``run`` are points of one learning curve. A column that the source cannot give
    is NaN throughout; `require` turns that into an error with a cure.
    """

    run: NDArray[np.str_]
    """Run id; rows that share it form one learning curve."""
    N: Column
    """Parameters by the definition of the source (non-embedding for our own runs); 0 for a model without layers."""
    D: Column
    """Unique training tokens."""
    tokens: Column
    """Tokens processed."""
    C: Column
    """Compute paid, FLOP."""
    B: Column
    """Batch in tokens per step; NaN if unknown."""
    S: Column
    """Steps made; NaN if unknown."""
    loss: Column
    """Nats per token."""
    loss_error: Column
    """Standard error of the loss, nats; NaN if unknown."""
    warmup: Column
    """Warm-up in steps; NaN if unknown."""
    decayed: NDArray[np.bool_]
    """The learning rate had decayed when the loss was measured."""
    stopped: NDArray[np.bool_]
    """Early-stopped result of a run whose data repeat: feeds L(N, D)."""
    curve: NDArray[np.bool_]
    """Point of a single-epoch curve at constant learning rate, after twice the warm-up: feeds L(N, S_min)."""
    source: str = ""
    """File or study that the rows came from."""
    data_hash: str = ""
    """sha256 of the columns, 16 digits; filled in when empty."""
    simulated: bool = False
    dropped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Reason → names of the rows left out, each row once: ``run``, or ``run@step`` for a point of a curve. A run that
    gave no row at all counts as one. Nothing is left out silently."""
    notes: tuple[str, ...] = ()
    """Derivations and warnings to be shown in reports ("tokens = C/(6N)", …)."""
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Other columns of the source, kept for reports (seed, lr, purpose, …)."""
    available: tuple[str, ...] = ()
    """Names of the source's own columns, for messages."""

    def __post_init__(self) -> None:
        for name in ("run", *NUMBERS, *FLAGS):
            kind = np.float64 if name in NUMBERS else np.bool_ if name in FLAGS else np.str_
            values: NDArray[Any] = np.array(getattr(self, name), dtype=kind)
            if values.shape != (len(self.loss),):
                raise DataError(
                    f"all columns need one value per row ({len(self.loss)}); {name} has shape {values.shape}"
                )
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        if not self.data_hash:
            object.__setattr__(self, "data_hash", self._hash())

    def _hash(self) -> str:
        digest = hashlib.sha256("\n".join(self.run.tolist()).encode())
        for name in (*NUMBERS, *FLAGS):
            digest.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        return digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.loss)

    def __repr__(self) -> str:
        counts = ", ".join(f"{value} {key}" for key, value in self.counts().items() if value)
        return f"RunTable({self.source or 'no source'}: {counts}{', simulated' if self.simulated else ''})"

    def _repr_html_(self) -> str:
        head: str = self.to_dataframe().head(10).to_html(escape=True)
        from html import escape

        return f"<p>{escape(repr(self))}</p>{head}"

    @property
    def num_runs(self) -> int:
        """Distinct run ids."""
        return len(np.unique(self.run))

    @property
    def num_dropped(self) -> int:
        """Rows left out, for all reasons."""
        return sum(len(names) for names in self.dropped.values())

    def counts(self) -> dict[str, int]:
        """Rows, runs, rows of each role, rows with N = 0 and rows dropped."""
        roles = {name: int(getattr(self, name).sum()) for name in ("curve", "stopped", "decayed")}
        return {
            "rows": len(self),
            "runs": self.num_runs,
            **roles,
            "N = 0": int((self.N == 0).sum()),
            "dropped": self.num_dropped,
        }

    def require(self, names: Iterable[str], purpose: str = "this law") -> None:
        """Raise a DataError if one of the columns is unknown; it lists what the source has and the nearest names."""
        for name in names:
            values = getattr(self, name)
            if len(values) and values.dtype == np.float64 and np.isnan(values).all():
                error = missing_column(name, name, self.available, self.source or "the table")
                raise DataError(f"{purpose} needs {name}: {error}")

    def select(self, mask: ArrayLike, reason: str) -> RunTable:
        """The rows where ``mask`` holds; the others are counted under ``reason`` in `dropped`.

        Parameters
        ----------
        mask : (n,) bool array
        reason : str
            Why the others are left out, for reports: "not decayed", "C above the hold-out".
        """
        keep = np.asarray(mask)
        if keep.dtype != np.bool_ or keep.shape != (len(self),):
            raise DataError(
                f"the mask must be boolean with one value per row ({len(self)}), got {keep.dtype} {keep.shape}"
            )
        if keep.all():
            return self
        out = {name: getattr(self, name)[keep] for name in ("run", *NUMBERS, *FLAGS)}
        extra = {name: values[keep] for name, values in self.extra.items()}
        dropped = {**self.dropped, reason: (*self.dropped.get(reason, ()), *self.row_names(~keep))}
        return dataclasses.replace(self, **out, extra=extra, dropped=dropped, data_hash="")

    def row_names(self, mask: ArrayLike | None = None) -> tuple[str, ...]:
        """Names of the rows where ``mask`` holds (default: all): the run id, with ``@step`` for points of curves."""
        places = np.arange(len(self)) if mask is None else np.flatnonzero(np.asarray(mask))
        step = np.where(np.isnan(self.S), self.tokens, self.S)
        ids, sizes = np.unique(self.run, return_counts=True)
        several = set(ids[sizes > 1].tolist())
        return tuple(f"{self.run[i]}@{step[i]:g}" if self.run[i] in several else str(self.run[i]) for i in places)

    def to_dataframe(self) -> pd.DataFrame:
        """All columns, ours first, then the source's others."""
        import pandas as pd

        return pd.DataFrame(self.to_columns())

    def to_columns(self) -> dict[str, NDArray[Any]]:
        """All columns by name, ours first, then the source's others."""
        ours = {name: getattr(self, name) for name in ("run", *NUMBERS, *FLAGS)}
        return {**ours, **{name: values for name, values in self.extra.items() if name not in ours}}

    def to_csv(self, path: str | Path | TextIO) -> None:
        """Write the table to a file or stream so that `read_runs` reads it back identically, rows left out included.

        Cells that a spreadsheet would run as formulas get an apostrophe before them.
        """
        from scaling_sim.runs.write import write_csv

        write_csv(self, Path(path) if isinstance(path, (str, Path)) else path)

    def to_parquet(self, path: str | Path) -> None:
        """As `to_csv`, in Parquet."""
        from scaling_sim.runs.write import write_parquet

        write_parquet(self, Path(path))


def read_runs(
    source: Any,
    columns: Mapping[str, Any] | str | None = None,
    *,
    where: str | Sequence[str] = (),
    decayed: bool | None = None,
    name: str | None = None,
    split: str = "test",
    vocab_size: int | None = None,
    duplicates: Literal["refuse", "first", "last"] = "refuse",
) -> RunTable:
    """Anyone's runs as a validated table.

    Parameters
    ----------
    source : path, DataFrame, mapping, RunStore, records or RunTable
        A .csv, .tsv, .jsonl or .parquet file; a study's folder; columns in memory; a shipped experiment's name or a
        .jsonl.xz file of one, of which those runs are taken that a law can be fitted to together (the others are
        counted in `RunTable.dropped`; ``datasets.load(…).table(…)`` gives any of them).
    columns : mapping or str
        Our names to theirs: ``{"N": "params", "D": "tokens", "loss": "final_loss"}`` or ``"N=params,loss=final_loss"``.
        Theirs may be arithmetic on columns and numbers (``"params * 1e6"``, ``"bs * ti * 2048"``), a number that holds
        for all rows, or, for ``run``, several names joined by ``+``. Columns with exactly our names are recognised
        without a mapping; None switches that off.
    where : str or sequence of str
        Conditions that a row must meet: ``"train_data = c4"``, ``["loss < 3.44", "current_steps = total_steps"]``, in
        the source's columns or ours. The other rows are not even checked; they are counted and named in
        `RunTable.dropped`.
    decayed : bool
        For all rows, where no column says it: whether the learning rate had decayed. With False, rows that share a run
        id are curves at constant learning rate and feed L(N, S_min).
    name : str
        What reports call the source; its path by default.
    split : str
        Which evaluation of our own runs is read.
    vocab_size : int
        Sharpens the warning about losses that cannot be nats.
    duplicates : {"refuse", "first", "last"}
        What to do with rows of equal run id and step.

    Raises
    ------
    DataError
        Missing columns, cells that are not numbers, impossible values, repeated run ids, no rows; with the rows' names.
    ConfigError
        A column mapping or condition that cannot be understood.

    Warns
    -----
    DataWarning
        Rows whose units look wrong; they are kept.
    """
    from scaling_sim.runs.read import Reading, own_records

    conditions = parse_conditions(where)
    if isinstance(source, RunTable):
        return _selected(source, conditions)
    own = own_records(source)
    if own is not None:
        table = table_from_records(own.records, split=split, source=name or own.origin)
        table = dataclasses.replace(table, dropped={**table.dropped, **own.dropped})
        return _selected(table, conditions)
    mapping = parse_columns(columns) if isinstance(columns, str) else dict(columns or {})
    reading = Reading.of(
        source, mapping, where=conditions, decayed=decayed, vocab_size=vocab_size, duplicates=duplicates
    )
    return RunTable(**{**reading.fields, "source": name or reading.origin})


def _selected(table: RunTable, conditions: Sequence[Condition]) -> RunTable:
    for condition in conditions:
        cells = {name: values.tolist() for name, values in table.to_columns().items()}
        table = table.select(condition.mask(cells, table.row_names(), table.source), condition.reason)
    return table


def table_from_records(records: Iterable[RunRecord], split: str = "test", *, source: str = "records") -> RunTable:
    """Our own runs as a table; see `scaling_sim.runs.own` for which rows play which role.

    Parameters
    ----------
    records : iterable of RunRecord
    split : str
        Evaluation that gives ``loss`` and ``loss_error``; the other splits are extra columns ``loss_<split>``.
    """
    from scaling_sim.runs.own import fields_of_records

    return RunTable(**fields_of_records(list(records), split), source=source)


def concat(tables: Sequence[RunTable], source: str = "") -> RunTable:
    """Rows of several tables one after another; a run id may stand in one of them only.

    Extra columns that not all tables have are left out, and a note says so.
    """
    if not tables:
        raise DataError("there is no table to join; give at least one")
    seen: set[str] = set()
    for table in tables:
        ids = set(table.run.tolist())
        if ids & seen:
            raise DataError(f"a run id may stand in one table only; {sorted(ids & seen)[:5]} stand in two")
        seen |= ids
    shared = [key for key in tables[0].extra if all(key in table.extra for table in tables)]
    lost = sorted({key for table in tables for key in table.extra} - set(shared))
    dropped: dict[str, tuple[str, ...]] = {}
    for table in tables:
        for reason, names in table.dropped.items():
            dropped[reason] = (*dropped.get(reason, ()), *names)
    notes = list(dict.fromkeys(note for table in tables for note in table.notes))
    if lost:
        notes.append(f"columns that not all sources have were left out: {', '.join(lost)}")
    joined: dict[str, Any] = {
        key: np.concatenate([getattr(table, key) for table in tables]) for key in ("run", *NUMBERS, *FLAGS)
    }
    return RunTable(
        **joined,
        source=source or " + ".join(dict.fromkeys(table.source for table in tables)),
        simulated=any(table.simulated for table in tables),
        dropped=dropped,
        notes=tuple(notes),
        extra={key: np.concatenate([table.extra[key] for table in tables]) for key in shared},
        available=tuple(dict.fromkeys(name for table in tables for name in table.available)),
    )
