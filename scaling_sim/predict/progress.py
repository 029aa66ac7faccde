"""The learning curve of a run that is still training: read, checked, and cut down to what a law of curves describes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import DataError
from scaling_sim.inference.curves import thinned
from scaling_sim.predict.source import Array
from scaling_sim.runs.sources import RawTable, name_rows, read_raw

STEP_NAMES = ("step", "steps", "S")
ERROR_NAMES = ("loss_error", "error")


@dataclass(frozen=True)
class Progress:
    """Measured losses of one run, in the order of steps.

    Attributes
    ----------
    steps : (n,) updates made
    loss : (n,) nats per token; NaN or infinite where the run had diverged
    error : (n,) standard error of each loss in nats, NaN if unknown
    used : (n,) points that a forecast is updated on
    notes : why the others are left out
    """

    steps: Array
    loss: Array
    error: Array
    used: NDArray[np.bool_]
    notes: tuple[str, ...] = ()

    @property
    def diverged_at(self) -> float | None:
        """First step whose loss is no number; None if all are."""
        lost = np.flatnonzero(~np.isfinite(self.loss))
        return float(self.steps[lost[0]]) if len(lost) else None

    def since(self, first: float, why: str) -> Progress:
        """The same curve, of which no point before step ``first`` is used, thinned as the curves of a fit are."""
        late = np.isfinite(self.loss) & (self.steps >= first)
        rows = np.flatnonzero(late)
        kept = rows[thinned(np.full(len(rows), "run"), np.log(self.steps[rows]))]
        used = np.zeros(len(self.steps), dtype=bool)
        used[kept] = True
        early = int((np.isfinite(self.loss) & ~late).sum())
        notes = [f"{early} points before step {first:g} are not used: {why}"] if early else []
        if len(kept) < len(rows):
            notes.append(f"{len(kept)} of {len(rows)} points are used, evenly spaced in log steps, as in the fit")
        return Progress(self.steps, self.loss, self.error, used, (*self.notes, *notes))


def read_progress(source: Any, B: float | None = None) -> Progress:
    """Read the curve of a running run.

    Parameters
    ----------
    source : path, DataFrame, mapping or Progress
        Columns ``loss`` (nats per token), ``step`` (also ``steps`` or ``S``) or ``tokens``, and optionally
        ``loss_error`` (nats).
    B : float
        Tokens per step, which turns tokens into steps.

    Raises
    ------
    DataError
        A column is missing, a cell is not a number, a step is not positive or stands twice.
    """
    if isinstance(source, Progress):
        return source
    raw = read_raw(source)
    steps = _first(raw, STEP_NAMES)
    if steps is None:
        tokens = _first(raw, ("tokens",))
        if tokens is None or B is None:
            raise DataError(
                f"{raw.origin} needs a column step, or tokens and the batch B; it has {', '.join(raw.columns)}"
            )
        steps = tokens / B
    loss = _first(raw, ("loss",))
    if loss is None:
        raise DataError(f"{raw.origin} needs a column loss (nats per token); it has {', '.join(raw.columns)}")
    error = _first(raw, ERROR_NAMES)
    return _checked(raw, steps, loss, np.full(len(loss), np.nan) if error is None else error)


def _first(raw: RawTable, names: tuple[str, ...]) -> Array | None:
    """The first of these columns that there is, as numbers."""
    name = next((name for name in names if name in raw.columns), None)
    if name is None:
        return None
    values, wrong = [], []
    for row, cell in zip(raw.rows, raw.columns[name], strict=True):
        try:
            values.append(float(cell) if cell not in ("", None) else np.nan)
        except (TypeError, ValueError):
            wrong.append(row)
    if wrong:
        raise DataError(f"{raw.origin}: column {name} must hold numbers; not so in {name_rows(wrong)}")
    return np.array(values, dtype=np.float64)


def _checked(raw: RawTable, steps: Array, loss: Array, error: Array) -> Progress:
    """The rows after the first update (many trainers evaluate once before it), in the order of steps."""
    number = np.isfinite(steps)
    _refuse(raw, (number & (steps < 0)) | (~number & np.isfinite(loss)), "steps must be positive numbers")
    _refuse(raw, np.isfinite(loss) & (loss <= 0), "losses must be positive (nats per token)")
    rows = np.flatnonzero(number & (steps > 0))
    order = rows[np.argsort(steps[rows], kind="stable")]
    if not len(order):
        raise DataError(f"{raw.origin} holds no measured loss after the first update")
    repeated = np.zeros(len(steps), dtype=bool)
    repeated[order[1:]] = np.diff(steps[order]) == 0
    _refuse(raw, repeated, "a step may stand once only")
    return Progress(steps[order], loss[order], error[order], np.isfinite(loss[order]))


def _refuse(raw: RawTable, wrong: NDArray[np.bool_], rule: str) -> None:
    if wrong.any():
        rows = name_rows(row for row, bad in zip(raw.rows, wrong.tolist(), strict=True) if bad)
        raise DataError(f"{raw.origin}: {rule}; not so in {rows}")
