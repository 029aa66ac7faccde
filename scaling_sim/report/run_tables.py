"""Tables about the runs: what was trained, what was left out and why."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scaling_sim.report.data import ReportData
from scaling_sim.report.table import Cell, Table
from scaling_sim.runs.record import RunRecord
from scaling_sim.runs.table import RunTable

MOST_NAMES = 8


def run_table(data: ReportData) -> Table | None:
    """One row per run: ours from their records, anyone's from the table that was fitted."""
    if data.records:
        return _of_records(data.records)
    return None if data.table is None else _of_rows(data.table)


def _of_records(records: tuple[RunRecord, ...]) -> Table:
    from scaling_sim.report.figures.training import SPLIT, size

    columns = (
        "run", "purpose", "status", "N, parameters", "layers", "width", "D, unique tokens", "batch, tokens", "steps",
        "learning rate", "seed", "tokens at the result", "test loss, nats", "standard error", "seconds", "backend",
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for record in sorted(
        records, key=lambda r: (r.purposes, size(r), r.config.unique_tokens, r.config.recipe.batch_tokens)
    ):
        shape, recipe, result = record.config.shape, record.config.recipe, record.result
        measured = (
            (None, None, None)
            if result is None
            else (result.tokens, result.losses.get(SPLIT), result.errors.get(SPLIT))
        )
        rows.append(
            (
                record.run_id,
                ", ".join(record.purposes),
                record.status,
                size(record),
                shape.n_layer,
                shape.d_model,
                record.config.unique_tokens,
                recipe.batch_tokens,
                recipe.steps,
                recipe.peak_lr,
                recipe.seed,
                *measured,
                record.seconds,
                record.backend,
            )
        )
    return Table("runs", "Runs", columns, tuple(rows))


def _of_rows(table: RunTable) -> Table:
    names = [name for name in ("N", "D", "tokens", "C", "B", "S", "loss") if np.isfinite(getattr(table, name)).any()]
    words = {"C": "C, FLOP", "B": "batch, tokens", "S": "steps", "loss": "loss, nats", "D": "D, unique tokens"}
    last = {run: k for k, run in enumerate(table.run.tolist())}
    rows = tuple((run, *(float(getattr(table, name)[k]) for name in names), _role(table, k)) for run, k in last.items())
    return Table("runs", "Runs", ("run", *(words.get(name, name) for name in names), "role"), rows)


def _role(table: RunTable, row: int) -> str:
    found = [name for name in ("curve", "stopped", "decayed") if getattr(table, name)[row]]
    return ", ".join(found)


def excluded_table(data: ReportData) -> Table | None:
    """Everything that was left out, by the reading of the runs or by a law, with the reason and the names."""
    rows: list[tuple[Cell, ...]] = []
    if data.table is not None:
        rows += _reasons("all laws", data.table.dropped)
    for law, fit in data.fits.items():
        rows += _reasons(law, fit.dropped)
    if not rows:
        return None
    note = "A row that feeds one law may be of no use to another: a point of a learning curve says nothing about L(D)."
    columns = ("left out of", "reason", "how many", "which", "message")
    messages = {record.run_id: record.message for record in data.records if record.message}
    full = tuple((*row, _messages(row, messages)) for row in dict.fromkeys(rows))
    return Table("excluded", "Left out, and why", columns, full, note)


def _reasons(law: str, dropped: Mapping[str, tuple[str, ...]]) -> list[tuple[Cell, ...]]:
    found: list[tuple[Cell, ...]] = []
    for reason, names in dropped.items():
        distinct = list(dict.fromkeys(names))
        text = ", ".join(distinct[:MOST_NAMES]) + (
            f" and {len(distinct) - MOST_NAMES} more" if len(distinct) > MOST_NAMES else ""
        )
        found.append((law, reason, len(names), text))
    return found


def _messages(row: tuple[Cell, ...], messages: Mapping[str, str]) -> str:
    names = str(row[3]).split(", ")
    return "; ".join(dict.fromkeys(messages[name] for name in names if name in messages))


def role_table(data: ReportData) -> Table | None:
    """What each fit was fed with."""
    rows: list[tuple[Cell, ...]] = []
    for law, fit in data.fits.items():
        words = ", ".join(f"{count} {role}" for role, count in fit.roles.items())
        diagnostics = fit.diagnostics
        rows.append(
            (
                law,
                fit.used,
                fit.n_dropped,
                words,
                "yes" if fit.converged else "NO",
                diagnostics.verdict,
                f"{diagnostics.num_ensembles} × {diagnostics.num_walkers} × {diagnostics.num_steps}",
            )
        )
    columns = ("law", "used", "rows left out", "roles", "converged", "verdict", "ensembles × walkers × steps")
    return Table("fits", "Fits", columns, tuple(rows)) if rows else None
