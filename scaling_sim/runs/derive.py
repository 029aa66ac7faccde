"""Columns that follow from others: D, tokens and C by the project's definitions."""

from __future__ import annotations

import numpy as np

from scaling_sim.errors import DataError
from scaling_sim.runs.columns import Column

DERIVED = ("N", "D", "tokens", "C", "B", "S")


def derive(given: dict[str, Column], length: int) -> tuple[dict[str, Column], list[str]]:
    """All of N, D, tokens, C, B, S, with NaN where nothing says them, and a sentence for every one derived.

    tokens = B·S, or C/(6N) where only C is given, or D if D stands alone (one epoch). D = tokens where no D is given.
    C = 6·N·tokens, never 6·N·D.

    Parameters
    ----------
    given : dict
        Columns (n,) that the source has.
    length : int
        Number of rows.
    """
    columns = {name: given[name] for name in DERIVED if name in given}
    notes: list[str] = []
    with np.errstate(over="ignore", under="ignore"):  # what leaves the range of floats is refused by name
        _derive_tokens(columns, notes)
        _derive_data_and_compute(columns, notes)
        _derive_batch_and_steps(columns, notes)
    return {name: columns.get(name, np.full(length, np.nan)) for name in DERIVED}, notes


def _derive_tokens(columns: dict[str, Column], notes: list[str]) -> None:
    if "tokens" in columns:
        return
    if all(name in columns and np.isfinite(columns[name]).all() for name in ("B", "S")):
        columns["tokens"] = columns["B"] * columns["S"]
        notes.append("tokens = B·S")
    elif "D" in columns:
        columns["tokens"] = columns["D"].copy()
        notes.append("D is given and tokens processed are not: taken as one epoch, tokens = D")
    elif "C" in columns and "N" in columns:
        with np.errstate(divide="ignore", invalid="ignore"):
            columns["tokens"] = np.where(columns["N"] > 0, columns["C"] / (6 * columns["N"]), np.nan)
        notes.append("tokens = C/(6·N)")


def _derive_data_and_compute(columns: dict[str, Column], notes: list[str]) -> None:
    if "tokens" not in columns:
        return
    if "D" not in columns:
        columns["D"] = columns["tokens"].copy()
        notes.append("unique tokens D are not given: taken as one epoch, D = tokens")
    if "C" not in columns and "N" in columns:
        columns["C"] = 6 * columns["N"] * columns["tokens"]
        notes.append("C = 6·N·tokens")


def _derive_batch_and_steps(columns: dict[str, Column], notes: list[str]) -> None:
    if "tokens" not in columns:
        return
    for wanted, other in (("S", "B"), ("B", "S")):
        if wanted not in columns and other in columns:
            columns[wanted] = columns["tokens"] / columns[other]
            notes.append(f"{wanted} = tokens/{other}")


def loss_error(given: dict[str, Column], length: int, notes: list[str]) -> Column:
    """Standard error of the loss (n,): given, or half the width of its 95 % interval over 1.96, or NaN."""
    if "loss_error" in given:
        return given["loss_error"]
    bounds = [name for name in ("loss_low", "loss_high") if name in given]
    if len(bounds) == 1:
        raise DataError(f"{bounds[0]} is given alone; a 95 % interval of the loss needs loss_low and loss_high")
    if not bounds:
        return np.full(length, np.nan)
    notes.append("loss_error = (loss_high − loss_low)/(2·1.96), read as a 95 % interval")
    return (given["loss_high"] - given["loss_low"]) / (2 * 1.959963984540054)
