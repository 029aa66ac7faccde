"""Which rows of a table feed a law, and in which role; the others are left out, counted and named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scaling_sim.runs.table import RunTable

Column = NDArray[np.float64]
Labels = NDArray[np.object_]


@dataclass(frozen=True)
class Rows:
    """A decision about every row of a table.

    Attributes
    ----------
    role : (n,) str, the role in which a row is used ("final", "stopped", "curve"); "" if it is left out
    reason : (n,) str, why it is left out; "" if it is used
    notes : what a reader of the fit should know
    """

    role: Labels
    reason: Labels
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Observations:
    """What a fit reads: n used rows.

    Attributes
    ----------
    columns : name → (n,) arrays that the law's formula reads
    response : (n,) the quantity predicted (loss in nats per token, unless the law says otherwise)
    error : (n,) its standard error; NaN if unknown
    role : (n,) "final", "stopped" or "curve"; each role has a noise scale of its own
    run : (n,) rows with role "curve" and one run are one learning curve, whose residuals are correlated
    row : (n,) index into the table; −1 for a derived point
    dropped : reason → names of the rows left out here
    """

    columns: Mapping[str, NDArray[np.float64]]
    response: Column
    error: Column
    role: NDArray[np.str_]
    run: NDArray[np.str_]
    row: NDArray[np.int64]
    dropped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.response)

    def take(self, index: NDArray[np.int64], notes: tuple[str, ...] = ()) -> Observations:
        """The observations with these indices, in that order."""
        return Observations(
            columns={name: column[index] for name, column in self.columns.items()},
            response=self.response[index],
            error=self.error[index],
            role=self.role[index],
            run=self.run[index],
            row=self.row[index],
            dropped=self.dropped,
            notes=self.notes + notes,
        )


def unusable(runs: RunTable, columns: tuple[str, ...]) -> Labels:
    """(n,) reason why a row cannot feed a formula that reads these columns; "" if it can."""
    reason = np.full(len(runs), "", dtype=object)
    for name in columns:
        column = np.asarray(getattr(runs, name), dtype=np.float64)
        _leave_out(reason, ~np.isfinite(column), f"{name} is unknown")
        _leave_out(reason, ~(column > 0), f"{name} is 0: outside a power law of {name}")
    _leave_out(reason, ~np.isfinite(runs.loss) | ~(runs.loss > 0), "loss is not a positive number (diverged)")
    return reason


def final_rows(runs: RunTable, reason: Labels, *, single_epoch: bool = False) -> Rows:
    """Rows for a final-loss law: one per run, its last; decayed ones only, if any row is known to be decayed.

    Early-stopped results of repeated data are left out of ``single_epoch`` laws unless there is nothing else.
    """
    notes: tuple[str, ...] = ()
    free = reason == ""
    if single_epoch and np.any(free & ~runs.stopped):
        _leave_out(reason, runs.stopped, "early-stopped on repeated data")
    if np.any((reason == "") & runs.decayed):
        _leave_out(reason, ~runs.decayed, "learning rate not decayed: not the loss of a finished run")
    elif np.any((reason == "") & runs.curve):
        notes = ("learning rate not decayed: final points of constant-rate runs are used",)
    _leave_out(reason, ~_last_of_run(runs, reason == ""), "earlier point of its learning curve")
    return _rows(reason, "final", notes)


def stopped_rows(runs: RunTable, reason: Labels) -> Rows:
    """Rows for L(N, D): those flagged early-stopped; if none is flagged, the final rows, and a note says so."""
    if np.any((reason == "") & runs.stopped):
        _leave_out(reason, ~runs.stopped, "not an early-stopped result")
        return _rows(reason, "stopped")
    rows = final_rows(runs, reason)
    role = np.where(rows.role == "", "", "stopped").astype(object)
    return Rows(
        role, rows.reason, (*rows.notes, "no row is flagged as early-stopped: every final loss is taken as one")
    )


def curve_rows(runs: RunTable, reason: Labels) -> Rows:
    """Rows for L(N, S_min): points of single-epoch curves at constant learning rate after twice the warm-up."""
    _leave_out(reason, ~runs.curve, "not a point of a single-epoch curve at constant learning rate")
    return _rows(reason, "curve")


def observations(runs: RunTable, rows: Rows, columns: tuple[str, ...]) -> Observations:
    """The used rows as arrays, with the names of the others."""
    used = np.flatnonzero(rows.role != "")
    dropped = {
        str(reason): runs.row_names(np.asarray(rows.reason == reason, dtype=np.bool_))
        for reason in dict.fromkeys(rows.reason[rows.reason != ""])
    }
    return Observations(
        columns={name: np.asarray(getattr(runs, name), dtype=np.float64)[used] for name in columns},
        response=runs.loss[used],
        error=runs.loss_error[used],
        role=rows.role[used].astype(np.str_),
        run=runs.run[used].astype(np.str_),
        row=used.astype(np.int64),
        dropped=dropped,
        notes=rows.notes,
    )


def merge_rows(first: Rows, second: Rows) -> Rows:
    """Rows used by either, in the first one's role where both would; left out only if both leave them out."""
    role = np.where(first.role != "", first.role, second.role)
    reason = np.where(role != "", "", np.where(first.reason != "", first.reason, second.reason))
    return Rows(role.astype(object), reason.astype(object), first.notes + second.notes)


def _rows(reason: Labels, role: str, notes: tuple[str, ...] = ()) -> Rows:
    return Rows(np.where(reason == "", role, "").astype(object), reason, notes)


def _leave_out(reason: Labels, rows: NDArray[np.bool_], why: str) -> None:
    """Give a reason to rows that have none yet."""
    reason[rows & (reason == "")] = why


def _last_of_run(runs: RunTable, candidates: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the candidate with the most tokens in each run."""
    index = np.flatnonzero(candidates)
    order = index[np.lexsort((runs.tokens[index], runs.run[index]))]
    last = np.ones(len(order), dtype=bool)
    last[:-1] = runs.run[order][1:] != runs.run[order][:-1]
    mask = np.zeros(len(runs), dtype=bool)
    mask[order[last]] = True
    return mask
