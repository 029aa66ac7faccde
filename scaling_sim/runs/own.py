"""Our own runs as rows: which point of which run plays which role in a fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scaling_sim.errors import DataError
from scaling_sim.runs.read import DIVERGED, WARMUP
from scaling_sim.runs.record import CurvePoint, RunRecord

UNFINISHED = "not finished"
TRIAL = "learning-rate trial"
REPEATS = "constant rate, but its data repeat and nothing stopped it"
NOT_STOPPED = "early stopping never came: the run ended first"
MID_DECAY = "measured while the learning rate decayed"
NO_SPLIT = "not evaluated on this split"


@dataclass
class _Rows:
    """Rows under construction."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    dropped: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, *names: str) -> None:
        """Leave rows out: points ``run@step`` of a curve, or a run that gives no row at all, which counts as one."""
        if names:
            self.dropped.setdefault(reason, []).extend(names)


def fields_of_records(records: Sequence[RunRecord], split: str) -> dict[str, Any]:
    """Arguments of `RunTable` for our own runs.

    Roles: an early-stopped run gives one row, its minimum (``stopped``); a run whose rate decayed to zero gives one,
    its last point (``decayed``); a run at constant rate gives all its points within the first epoch and after twice the
    warm-up (``curve``). Trials of learning rates feed no law. All else is left out under its reason.

    Raises
    ------
    DataError
        No record at all, or no run was evaluated on ``split``.
    """
    if not records:
        raise DataError("there are no runs yet; train some, or give another folder")
    _check_split(records, split)
    result = _Rows()
    for record in records:
        for point, role in _points_with_role(record, result):
            _append(result, record, point, role, split)
    return _as_fields(result, records)


def _check_split(records: Sequence[RunRecord], split: str) -> None:
    known = sorted({name for record in records for point in record.curve for name in point.losses})
    if known and split not in known:
        raise DataError(f"no run was evaluated on {split!r}; the runs have {', '.join(known)}")


def _points_with_role(record: RunRecord, result: _Rows) -> Iterator[tuple[CurvePoint, str]]:
    """Points that feed a law; all others are dropped by name."""
    recipe = record.config.recipe
    if record.status == "diverged":
        result.drop(DIVERGED, record.run_id)
    elif record.status == "failed":
        result.drop(f"failed: {record.message}" if record.message else "failed", record.run_id)
    elif record.status in ("planned", "running") or record.result is None:
        result.drop(UNFINISHED, record.run_id)
    elif record.purposes and set(record.purposes) == {"lr"}:
        result.drop(TRIAL, record.run_id)
    elif record.config.early_stop:
        yield from _early_stopped(record, result)
    elif recipe.schedule == "constant":
        yield from _constant_rate(record, result)
    else:
        yield from _decayed(record, result)


def _early_stopped(record: RunRecord, result: _Rows) -> Iterator[tuple[CurvePoint, str]]:
    if record.status != "stopped":
        result.drop(NOT_STOPPED, record.run_id)
    else:
        yield record.curve[record.best], "stopped"


def _constant_rate(record: RunRecord, result: _Rows) -> Iterator[tuple[CurvePoint, str]]:
    config = record.config
    early = [point for point in record.curve if point.step < max(2 * config.recipe.warmup_steps, 1)]
    repeats = [point for point in record.curve if point.tokens > config.unique_tokens and point not in early]
    result.drop(WARMUP, *(_point_name(record, point) for point in early))
    result.drop(REPEATS, *(_point_name(record, point) for point in repeats))
    left_out = {point.step for point in (*early, *repeats)}
    yield from ((point, "curve") for point in record.curve if point.step not in left_out)


def _decayed(record: RunRecord, result: _Rows) -> Iterator[tuple[CurvePoint, str]]:
    recipe = record.config.recipe
    last = record.curve[-1]
    complete = recipe.schedule == "decay" or recipe.horizon_steps in (0, recipe.steps)
    if not complete or last.step < recipe.steps:
        result.drop(MID_DECAY, record.run_id)
        return
    yield last, "decayed"


def _point_name(record: RunRecord, point: CurvePoint) -> str:
    return f"{record.run_id}@{point.step}"


def _append(result: _Rows, record: RunRecord, point: CurvePoint, role: str, split: str) -> None:
    loss = point.losses.get(split)
    name = _point_name(record, point)
    if loss is None:
        result.drop(NO_SPLIT, name)
    elif not math.isfinite(loss):
        result.drop(DIVERGED, name)
    else:
        result.rows.append(_row(record, point, role, split))


def _row(record: RunRecord, point: CurvePoint, role: str, split: str) -> dict[str, Any]:
    from scaling_sim.model.count import num_parameters

    config, shape, recipe = record.config, record.config.shape, record.config.recipe
    N = float(num_parameters(shape))
    D = config.unique_tokens if role == "stopped" else min(config.unique_tokens, point.tokens)
    roles = {name: role == name for name in ("curve", "stopped", "decayed")}
    others = {f"loss_{key}": value for key, value in point.losses.items()}
    return {
        "run": record.run_id,
        "N": N,
        "D": float(D),
        "tokens": float(point.tokens),
        "C": 6 * N * point.tokens,
        "B": float(recipe.batch_tokens),
        "S": float(point.step),
        "loss": point.losses[split],
        "loss_error": math.nan,
        "warmup": float(recipe.warmup_steps),
        **roles,
        "purpose": "+".join(record.purposes),
        "seed": float(recipe.seed),
        "lr": recipe.peak_lr,
        "dropout": recipe.dropout,
        "schedule": recipe.schedule,
        "n_layer": float(shape.n_layer),
        "d_model": float(shape.d_model),
        "n_head": float(shape.n_head),
        "n_ctx": float(shape.n_ctx),
        "vocab_size": float(shape.vocab_size),
        "C_exact": _until(record.flops, record, point),
        "seconds": _until(record.seconds, record, point),
        "noise_scale": math.nan if point.noise_scale is None else point.noise_scale,
        "loss_train": point.train,
        "evaluation_error": point.errors.get(split, math.nan),
        **others,
    }


def _until(whole: float, record: RunRecord, point: CurvePoint) -> float:
    """Exact FLOPs or seconds up to ``point``, from the whole run's."""
    return whole * point.tokens / record.curve[-1].tokens if whole else math.nan


def _as_fields(result: _Rows, records: Sequence[RunRecord]) -> dict[str, Any]:
    ours = ("N", "D", "tokens", "C", "B", "S", "loss", "loss_error", "warmup", "curve", "stopped", "decayed")
    texts = ("run", "purpose", "schedule")
    names = list(dict.fromkeys(key for row in result.rows for key in row)) or ["run", *ours]
    columns = {
        name: np.array([row.get(name, math.nan) for row in result.rows], dtype=np.str_ if name in texts else np.float64)
        for name in names
    }
    for name in ("curve", "stopped", "decayed"):
        columns[name] = columns[name].astype(np.bool_)
    notes = [
        "tokens = B·S, C = 6·N·tokens with N without embeddings",
        "evaluation_error is common to all runs, which share their windows; it is not noise between rows",
    ]
    if columns["decayed"].any() or columns["stopped"].any():
        notes.append("a run whose rate decayed gives one row, its end; an early-stopped run one, its minimum")
    if (columns["N"] == 0).any():
        notes.append(f"{int((columns['N'] == 0).sum())} rows have N = 0 (no layers): kept, left out of laws in N")
    return {
        **{name: columns[name] for name in ("run", *ours)},
        "extra": {name: values for name, values in columns.items() if name not in ("run", *ours)},
        "dropped": {reason: tuple(runs) for reason, runs in result.dropped.items()},
        "simulated": any(record.simulated for record in records),
        "notes": tuple(notes),
        "available": tuple(names),
    }
