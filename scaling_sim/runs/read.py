"""From somebody's cells to the checked columns of a `RunTable`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from scaling_sim.errors import ConfigError, DataError, DataWarning
from scaling_sim.runs.checks import (
    curve_warning,
    duplicated,
    loss_name_warning,
    refuse_duplicates,
    refuse_impossible,
    refuse_missing,
    refuse_out_of_range,
    unit_warnings,
)
from scaling_sim.runs.columns import FLAGS, NUMBERS, Cells, Column, Mask, is_empty
from scaling_sim.runs.derive import DERIVED, derive, loss_error
from scaling_sim.runs.record import RunRecord
from scaling_sim.runs.sources import name_rows, read_raw
from scaling_sim.runs.where import Condition

DIVERGED = "diverged"
NO_LOSS = "no loss yet"
REPEATED = "repeated run id and step"
WARMUP = "before twice the warm-up"
START = "before the first step"


@dataclass
class Reading:
    """The state of reading one source; `of` runs all steps in their order."""

    cells: Cells
    rows: list[str]
    run: list[str]
    given: dict[str, Column]
    flags: dict[str, Mask]
    columns: dict[str, Column] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    dropped: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    has_ids: bool = False

    @property
    def origin(self) -> str:
        """What messages call the source."""
        return self.cells.raw.origin

    @property
    def fields(self) -> dict[str, Any]:
        """Arguments of `RunTable`."""
        ours = {
            name: self.columns[name] for name in ("N", "D", "tokens", "C", "B", "S", "loss", "loss_error", "warmup")
        }
        return {
            **ours,
            "run": np.array(self.run, dtype=np.str_),
            **{name: self.flags[name] for name in ("decayed", "stopped", "curve")},
            "simulated": bool(self.flags["simulated"].any()),
            "dropped": self.dropped,
            "notes": tuple(self.notes),
            "extra": self.extra,
            "available": tuple(self.cells.raw.columns),
        }

    @classmethod
    def of(
        cls,
        source: Any,
        mapping: Mapping[str, Any],
        *,
        where: Sequence[Condition] = (),
        decayed: bool | None,
        vocab_size: int | None,
        duplicates: str,
    ) -> Reading:
        """Read, check and complete ``source``; see `scaling_sim.runs.table.read_runs`."""
        if duplicates not in ("refuse", "first", "last"):
            raise ConfigError(f"duplicates must be 'refuse', 'first' or 'last', got {duplicates!r}")
        raw = read_raw(source)
        if not raw.rows:
            raise DataError(f"{raw.origin} has no rows; a table of runs needs at least one")
        cells = Cells(raw, mapping)
        cells.verify()
        if "loss" not in cells:
            raise cells.missing("loss")
        if not any(name in cells for name in DERIVED):
            raise cells.missing("N")
        set_aside = _split_off_dropped(cells) | _split_off_unselected(cells, where)
        reading = cls._of_cells(cells, set_aside, decayed, vocab_size)
        reading._drop_unusable(duplicates)
        reading._complete()
        reading._mark_curves(decayed)
        reading._warn()
        return reading

    @classmethod
    def _of_cells(
        cls, cells: Cells, dropped: dict[str, tuple[str, ...]], decayed: bool | None, vocab_size: int | None
    ) -> Reading:
        """Numbers and flags as the source gives them, impossible values refused."""
        raw = cells.raw
        read = {name: cells.numbers(name) for name in NUMBERS if name in cells}
        given = {name: values for name, (values, empty) in read.items() if not np.isnan(values).all() or name == "loss"}
        missing_loss = read["loss"][1]
        refuse_impossible(given, raw.rows, cells.label, raw.origin)
        refuse_missing(given, {name: empty for name, (_, empty) in read.items()}, raw.rows, cells.label, raw.origin)
        none = np.zeros(len(raw.rows), dtype=np.bool_)
        flags = {name: cells.flags(name) if name in cells else none.copy() for name in FLAGS}
        if decayed is not None and "decayed" not in cells:
            flags["decayed"] = np.full(len(raw.rows), decayed)
        if vocab_size is not None:
            given["vocab_size"] = np.full(len(raw.rows), float(vocab_size))
        run = cells.texts("run") if "run" in cells else list(raw.rows)
        reading = cls(cells, list(raw.rows), run, given, flags, dropped=dict(dropped), has_ids="run" in cells)
        reading.extra = {name: _tidy(raw.columns[name]) for name in cells.rest}
        if cells.automatic and len(cells.automatic) < len(cells.theirs):
            reading.notes.append(f"columns read by their own name: {', '.join(cells.automatic)}")
        reading._drop(missing_loss, NO_LOSS)
        return reading

    def _drop(self, mask: Mask, reason: str) -> None:
        """Leave rows out, and say so."""
        if not mask.any():
            return
        names = [self._row_name(i) for i in np.flatnonzero(mask).tolist()]
        self.dropped[reason] = (*self.dropped.get(reason, ()), *names)
        keep = ~mask
        self.rows = [row for row, kept in zip(self.rows, keep) if kept]
        self.run = [run for run, kept in zip(self.run, keep) if kept]
        groups: tuple[dict[str, Any], ...] = (self.given, self.flags, self.columns, self.extra)
        for columns in groups:
            columns.update({name: values[keep] for name, values in columns.items()})

    def _row_name(self, i: int) -> str:
        return f"{self.run[i]} ({self.rows[i]})" if self.has_ids else self.rows[i]

    def _drop_unusable(self, duplicates: str) -> None:
        """Diverged runs, points before the first step, repeated rows."""
        self._drop(~np.isfinite(self.given["loss"]), DIVERGED)
        step = self._step()
        if duplicates != "refuse":
            self._drop(duplicated(self.run, step, keep=duplicates), REPEATED)
        N = self.given.get("N", np.full(len(self.run), np.nan))
        refuse_duplicates(self.run, N, self._step(), self.rows, self.origin)

    def _step(self) -> Column:
        """What tells the points of one curve apart: S, tokens, C or D, whichever the source gives first."""
        for name in ("S", "tokens", "C", "D"):
            if name in self.given:
                return self.given[name]
        return np.full(len(self.run), np.nan)

    def _complete(self) -> None:
        """Derive what is not given."""
        length = len(self.run)
        self.columns, notes = derive(self.given, length)
        self.notes += notes
        refuse_out_of_range(self.columns, tuple(self.given), self.rows, self.origin)
        self._refuse_zero_size_without_tokens()
        self.columns["loss"] = self.given["loss"]
        self.columns["loss_error"] = loss_error(self.given, length, self.notes)
        for name in ("warmup", "vocab_size"):
            self.columns[name] = self.given.get(name, np.full(length, np.nan))
        if "N" not in self.given:
            self.notes.append("N is not given")
        num_zero = int((self.columns["N"] == 0).sum())
        if num_zero:
            self.notes.append(f"{num_zero} rows have N = 0 (no layers): kept, left out of laws in N")

    def _refuse_zero_size_without_tokens(self) -> None:
        lost = np.isnan(self.columns["tokens"]) & (self.columns["N"] == 0)
        if lost.any():
            names = [row for row, out in zip(self.rows, lost) if out]
            raise DataError(
                f"{self.origin}: tokens = C/(6·N) is undefined for N = 0 in {name_rows(names)}; "
                "give tokens, or remove the rows"
            )

    def _mark_curves(self, decayed: bool | None) -> None:
        """Mask the warm-up of learning curves; decide which rows are points of constant-rate curves."""
        ids, counts = np.unique(np.array(self.run), return_counts=True)
        several = set(ids[counts > 1].tolist())
        point = np.array([run in several for run in self.run], dtype=np.bool_) & ~self.flags["decayed"]
        with np.errstate(invalid="ignore"):
            early = self.columns["S"] < 2 * self.columns["warmup"]
            single_epoch = self.columns["tokens"] <= self.columns["D"] * (1 + 1e-9)
        self._warn_short(early & ~point)
        constant = "decayed" in self.cells or decayed is False
        if "curve" not in self.cells and constant:
            self.flags["curve"] = point & single_epoch & ~self.flags["stopped"] & np.isfinite(self.columns["S"])
        elif "curve" not in self.cells and point.any():
            self.notes.append(
                f"{point.sum()} rows share run ids: points of learning curves whose schedule is unknown "
                "(decayed=False says that the rate was constant; then they feed L(N, S_min))"
            )
        self._drop(early & point, WARMUP)

    def _warn_short(self, short: Mask) -> None:
        if short.any():
            names = [row for row, bad in zip(self.rows, short) if bad]
            text = f"{self.origin}: {name_rows(names)} ended before twice the warm-up: another regime than longer runs"
            self.notes.append(text)
            warnings.warn(text, DataWarning, stacklevel=5)

    def _warn(self) -> None:
        if not self.run:
            left_out = "; ".join(f"{len(names)} {reason}" for reason, names in self.dropped.items())
            raise DataError(f"{self.origin} has no usable rows: {left_out}")
        exact = {name: self.extra[name] for name in ("C_exact",) if name in self.extra}
        self.notes += unit_warnings({**self.columns, **exact}, self.rows, frozenset(self.given), self.origin)
        theirs = str(self.cells.theirs["loss"])
        if theirs in self.cells.raw.columns:
            self.notes += filter(None, [loss_name_warning(theirs, self.rows, self.origin)])
        if not self.has_ids:
            self.notes += filter(None, [curve_warning(self.columns, self.extra, self.rows, self.origin)])
            self._warn_equal_rows()

    def _warn_equal_rows(self) -> None:
        """Equal rows without run ids are kept: they may be seeds, but more likely were pasted twice."""
        everything = zip(*[values.tolist() for values in (*self.given.values(), *self.extra.values())])
        first: dict[tuple[Any, ...], int] = {}
        twins = [self.rows[i] for i, row in enumerate(everything) if first.setdefault(row, i) != i]
        if twins:
            text = (
                f"{self.origin}: {name_rows(twins)} equal earlier rows in every column and count twice; "
                "remove them, or map run to tell repeated runs apart"
            )
            self.notes.append(text)
            warnings.warn(text, DataWarning, stacklevel=5)


def _split_off_dropped(cells: Cells) -> dict[str, tuple[str, ...]]:
    """Rows that our own export marked as left out, by reason; ``cells`` keeps the others."""
    if "dropped" not in cells:
        return {}
    reasons = cells.texts("dropped")
    ids = cells.texts("run") if "run" in cells else list(cells.raw.rows)
    dropped: dict[str, tuple[str, ...]] = {}
    for reason, name in zip(reasons, ids):
        if reason:
            dropped[reason] = (*dropped.get(reason, ()), name)
    cells.keep(np.array([not reason for reason in reasons], dtype=np.bool_))
    return dropped


def _split_off_unselected(cells: Cells, where: Sequence[Condition]) -> dict[str, tuple[str, ...]]:
    """Rows that do not meet a condition, by condition, before any cell of theirs is judged."""
    dropped: dict[str, tuple[str, ...]] = {}
    for condition in where:
        selected = condition.mask(cells.known(), cells.raw.rows, cells.raw.origin)
        if selected.all():
            continue
        ids = cells.texts("run") if "run" in cells else None
        rows = [(cells.raw.rows[i], ids[i] if ids else "") for i in np.flatnonzero(~selected).tolist()]
        dropped[condition.reason] = tuple(f"{name} ({row})" if name else row for row, name in rows)
        cells.keep(selected)
    return dropped


def _tidy(cells: Sequence[Any]) -> Any:
    """An array of floats if every filled cell is a number, else of strings."""
    try:
        return np.array([np.nan if cell is None or cell == "" else float(cell) for cell in cells], dtype=np.float64)
    except (TypeError, ValueError):
        return np.array(["" if is_empty(cell) else str(cell) for cell in cells], dtype=np.str_)


class OwnRuns(NamedTuple):
    """Records, where they came from, and ids of runs left out already, by reason."""

    records: list[RunRecord]
    origin: str
    dropped: Mapping[str, tuple[str, ...]] = {}


def own_records(source: Any) -> OwnRuns | None:
    """Our own runs: a store, a study's folder, an export of records, a shipped experiment or a list; else None."""
    from scaling_sim.runs.archive import find_archive, fitted_runs, read_archive
    from scaling_sim.runs.store import STORE_NAME, RunStore

    if isinstance(source, RunStore):
        return OwnRuns(source.records(), str(source.path))
    if isinstance(source, (list, tuple)) and source and all(isinstance(record, RunRecord) for record in source):
        return OwnRuns(list(source), "records")
    if not isinstance(source, (str, Path)):
        return None
    archive = find_archive(source)
    if archive is not None:
        records, dropped = fitted_runs(read_archive(archive))
        return OwnRuns(records, str(source), dropped)
    path = Path(source)
    if path.is_dir() or path.suffix in (".sqlite", ".sqlite3", ".db"):
        if path.is_dir() and not (path / STORE_NAME).exists():
            raise DataError(f"the folder {path} holds no {STORE_NAME}; give a study's folder or a file of runs")
        with RunStore(path, create=False) as store:
            return OwnRuns(store.records(), str(path))
    return OwnRuns(_records_of_jsonl(path), str(path)) if path.suffix == ".jsonl" and _is_record_export(path) else None


def _is_record_export(path: Path) -> bool:
    try:
        with path.open("rb") as handle:
            first = msgspec.json.decode(handle.readline())
    except (OSError, msgspec.DecodeError):
        return False  # the reader of ordinary files says what is wrong
    return isinstance(first, dict) and {"run_id", "config", "curve"} <= set(first)


def _records_of_jsonl(path: Path) -> list[RunRecord]:
    from scaling_sim.runs.codec import decode_record

    records = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            records.append(decode_record(msgspec.json.decode(line)))
        except msgspec.MsgspecError as error:
            raise DataError(f"{path}, line {number} is not a run record: {error}") from error
    return records
