"""What rows of runs must hold: impossible values are refused, suspicious ones named in a warning."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import DataError, DataWarning
from scaling_sim.runs.columns import Column, Mask
from scaling_sim.runs.sources import name_rows

MAX_LOSS = 16.0
"""Nats per token above which a loss is suspicious when the vocabulary is not known: 1.5 ln V for V = 43,000."""

BITS_OF_UNTRAINED = (1.38, 1.5)
"""In units of ln V: an untrained model has log2 V = 1.443 ln V bits, which the rule of 1.5 ln V lets pass."""

TINY_N, SMALL_N, SMALL_C, MANY_TOKENS = 100.0, 1000.0, 1e9, 1e6
"""Parameters beside so few FLOP, or so many tokens per parameter, that most runs of a table cannot have them."""

_UNITS_IN_NAME = re.compile(r"(?<![a-z])(?:(bits?|bpb|bpc|bpt)|(ppl|perplexity))(?![a-z])")

_ID_IN_NAME = re.compile(r"(?:^|[^a-z])(?:runs?|names?|ids?|exp|experiment|trial|job|uuid)(?![a-z])")
_STEP = re.compile(r"(?:current|global|train(?:ing)?)?[_ ]?(?:steps?|iter(?:ation)?s?)")
"""Columns of the step that a row was measured at; those of runs' lengths are rather called total or max steps."""
CURVE_POINTS = 3
"""Rows of one id from which growing tokens look like a learning curve."""

Names = Sequence[str]
Label = Callable[[str], str]


def refuse_impossible(columns: Mapping[str, Column], rows: Names, label: Label, origin: str) -> None:
    """Raise if a value that is present cannot be: negative N, D, loss; zero D, tokens, C or loss; infinite N.

    Parameters
    ----------
    columns : mapping
        Columns as the source gives them, each (n,); NaN marks a cell that was empty and is judged elsewhere.
    rows : sequence of str
        How messages call the rows.
    label : callable
        How messages call a column.
    """
    for name, values in columns.items():
        if name in ("N", "warmup", "loss_error"):
            bad, rule = values < 0, "must not be negative"
        else:
            bad, rule = values <= 0, "must be positive"
        if name != "loss":
            bad = bad | np.isinf(values)
            rule += " or infinite" if name in ("N", "warmup", "loss_error") else " and finite"
        if bad.any():
            first = values[bad][0]
            raise DataError(
                f"{origin}: {label(name)} {rule}, but it is {first:g} in {name_rows(_take(rows, bad))}"
                f"{_cure(name, float(first))}"
            )


def refuse_out_of_range(columns: Mapping[str, Column], given: Names, rows: Names, origin: str) -> None:
    """Raise if a derived column left the range of floats: C = 6·N·tokens of a size given in the wrong unit, say."""
    for name in ("tokens", *columns):  # others follow from tokens
        values = columns[name]
        if name in given:
            continue
        bad = np.isinf(values) | ((values == 0) & (columns["N"] > 0))
        if bad.any():
            end = "above 1.8e308" if np.isinf(values[bad][0]) else "below 1e-323"
            raise DataError(
                f"{origin}: {name}, as it follows from the other columns, lies {end} in {name_rows(_take(rows, bad))}; "
                "correct the units of these rows, or remove them"
            )


def _cure(name: str, value: float) -> str:
    if name == "loss":
        return "; losses are nats per token of held-out text, always above 0: correct or remove these rows"
    if name == "N":
        return "; correct or remove these rows (N = 0, a model without layers, is allowed)"
    if value == 0:
        return "; a run that saw nothing has no place on a law: remove these rows"
    return "; correct or remove these rows"


def refuse_missing(
    columns: Mapping[str, Column], empty: Mapping[str, Mask], rows: Names, label: Label, origin: str
) -> None:
    """Raise if a cell of N, D, tokens or C is empty or NaN in a column that has others: nothing is guessed."""
    for name in ("N", "D", "tokens", "C"):
        if name not in columns:
            continue
        holes = np.isnan(columns[name])
        if holes.any():
            what = "is empty" if empty[name][holes].all() else "is not a number"
            raise DataError(
                f"{origin}: {label(name)} {what} in {name_rows(_take(rows, holes))}; fill these cells, remove the "
                f"rows, or leave the column out (columns={{'{name}': None}}) if it can be derived"
            )


def refuse_duplicates(run: Sequence[str], N: Column, step: Column, rows: Names, origin: str) -> None:
    """Raise if one run id stands for two models, or twice for one point of a learning curve."""
    repeats = duplicated(run, step)
    if repeats.any():
        raise DataError(
            f"{origin}: {repeats.sum()} rows repeat a run id (and step): {name_rows(_take(rows, repeats))}, for "
            f"example {_take(run, repeats)[0]!r}; give other seeds other ids, map S or tokens if these are learning "
            "curves, or choose duplicates='first' or 'last'"
        )
    sizes: dict[str, float] = {}
    other = [row for name, size, row in zip(run, N, rows) if not (sizes.setdefault(name, size) == size or size != size)]
    if other:
        raise DataError(
            f"{origin}: one run id must be one model, but {name_rows(other)} give another N than the rows before; "
            "map run to a column, or to several joined by +, that tells models apart"
        )


def duplicated(run: Sequence[str], step: Column, *, keep: str = "first") -> Mask:
    """Mask of rows whose (run id, step) stands in an earlier row, or in a later one with ``keep="last"``."""
    seen: set[tuple[str, float]] = set()
    mask = np.zeros(len(run), dtype=np.bool_)
    order = range(len(run)) if keep == "first" else range(len(run) - 1, -1, -1)
    for i in order:
        key = (run[i], float(step[i]) if math.isfinite(step[i]) else -1.0)
        mask[i] = key in seen
        seen.add(key)
    return mask


def unit_warnings(columns: Mapping[str, Column], rows: Names, given: frozenset[str], origin: str) -> list[str]:
    """Warn of rows whose units look wrong (`DataWarning`); returns the sentences.

    Parameters
    ----------
    columns : mapping
        N, D, tokens, C, loss and vocab_size (n,), complete.
    given : frozenset
        Names of the columns that the source itself gave; what was derived cannot contradict.
    """
    found = [_data_units(columns), _loss_units(columns), _loss_in_bits(columns)]
    contradicted = _compute_units(columns) if {"N", "C"} <= given and given & {"tokens", "D", "B"} else None
    found.append(contradicted if contradicted is not None and contradicted[0].any() else _size_units(columns))
    messages = []
    for mask, text in found:
        if mask.any():
            messages.append(f"{origin}: {text} in {name_rows(_take(rows, mask))}")
            warnings.warn(messages[-1], DataWarning, stacklevel=5)
    return messages


def curve_warning(
    columns: Mapping[str, Column], extra: Mapping[str, NDArray[Any]], rows: Names, origin: str
) -> str | None:
    """The sentence, after a `DataWarning`, if rows without run ids look like points of learning curves.

    They do if a column that is named like an id repeats over most rows, each time with one N, and with tokens that grow
    from row to row while the loss falls; or if there is a column of the step reached and successive rows do so.

    Parameters
    ----------
    columns : mapping
        N, tokens and loss (n,).
    extra : mapping
        Columns of the source that no name of ours refers to.
    """
    N, tokens, loss = (columns[name] for name in ("N", "tokens", "loss"))
    for name, values in extra.items():
        if _could_be_ids(name, values):
            groups = [np.flatnonzero(values == value) for value in np.unique(values[values != ""])]
            what, cure = f"{{}} values of the column {name!r}, each with one N,", f"map run={name}, or"
        elif _STEP.fullmatch(name.lower()):
            breaks = (np.diff(N) != 0) | ~(np.diff(tokens) > 0)
            groups = np.split(np.arange(len(N)), np.flatnonzero(breaks) + 1)
            what, cure = f"one N {{}} times, by the column {name!r} at several steps, with", "give each run an id, or"
        else:
            continue
        curves = [group for group in groups if _is_curve(N[group], tokens[group], loss[group])]
        points = sum(map(len, curves))
        if 2 * points > len(values):
            first = name_rows([str(rows[i]) for i in curves[0].tolist()], most=3)
            text = (
                f"{origin}: {points} rows repeat {what.format(len(curves))} growing tokens and a falling loss "
                f"(the first in {first}): this looks like learning curves, but without a run id every point counts as "
                f"a run of its own, so that intervals come out too narrow: {cure} select the last points (--where)"
            )
            warnings.warn(text, DataWarning, stacklevel=5)
            return text
    return None


def _could_be_ids(name: str, values: NDArray[Any]) -> bool:
    """Text or whole numbers, named like an id."""
    whole = values.dtype.kind in "iu" or (values.dtype.kind == "f" and bool(np.all(values == np.rint(values))))
    return (values.dtype.kind == "U" or whole) and bool(_ID_IN_NAME.search(name.lower()))


def _is_curve(N: Column, tokens: Column, loss: Column) -> bool:
    if len(N) < CURVE_POINTS or not (np.ptp(N) == 0 or np.isnan(N).all()):
        return False
    return bool(np.all(np.diff(tokens) > 0) and loss[-1] < loss[0])


def _size_units(columns: Mapping[str, Column]) -> tuple[Mask, str]:
    """N of most rows far too small: with tokens in the same unit (hardly any compute), or in tokens (far too many).

    Nothing else tells: the ratio of tokens to parameters is right if both are in billions.
    """
    N, tokens, C = columns["N"], columns["tokens"], columns["C"]
    same = (N > 0) & (N < TINY_N) & (C < SMALL_C)
    other = (N > 0) & (N < SMALL_N) & (tokens > MANY_TOKENS * N)
    mask = same | other
    if 2 * mask.sum() <= (N > 0).sum():
        return np.zeros_like(mask), ""
    unit, factor = ("billions", "1e9") if np.median(N[mask]) < 10 else ("millions or billions", "1e6 or 1e9")
    both = same.sum() > other.sum()
    what, them, limit = ("are N and tokens", "them", TINY_N) if both else ("is N", "it", SMALL_N)
    return mask, (
        f"N is below {limit:,.0f} parameters (median {np.median(N[mask]):.3g}): {what} in {unit}? "
        f"(a column mapping can scale {them}: N=their_name * {factor})"
    )


def _data_units(columns: Mapping[str, Column]) -> tuple[Mask, str]:
    N, D = columns["N"], columns["D"]
    mask = D < N / 100
    return mask, (
        f"fewer than one unique token per 100 parameters{_power(N[mask] / D[mask])}: is D in millions or billions of "
        "tokens? (a column mapping can scale it: D=their_name * 1e9)"
    )


def _loss_units(columns: Mapping[str, Column]) -> tuple[Mask, str]:
    vocab = columns["vocab_size"]
    with np.errstate(invalid="ignore", divide="ignore"):
        most = np.where(np.isnan(vocab), MAX_LOSS, 1.5 * np.log(vocab))
    mask = columns["loss"] > most
    return mask, (
        "the loss is above 1.5 ln(vocabulary), worse than guessing: is it in bits (loss=their_name * 0.6931), or a "
        "perplexity, or summed over tokens? Otherwise these runs diverged"
    )


def _loss_in_bits(columns: Mapping[str, Column]) -> tuple[Mask, str]:
    """Losses near log2(vocabulary), which is where a curve in bits starts."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = columns["loss"] / np.log(columns["vocab_size"])
    low, high = BITS_OF_UNTRAINED
    return (share > low) & (share <= high), (
        "the loss is near log2(vocabulary), that of an untrained model in bits: if it is in bits, write "
        "loss=their_name * 0.6931; otherwise these runs are worse than guessing"
    )


def loss_name_warning(theirs: str, rows: Names, origin: str) -> str | None:
    """The sentence, after a `DataWarning`, if the loss comes straight from a column named like bits or perplexity.

    Without the vocabulary nothing in the numbers tells bits from nats: 3.2 is a fair loss in either.
    """
    found = _UNITS_IN_NAME.search(theirs.lower())
    if found is None:
        return None
    unit, cure = ("bits", f"loss={theirs} * 0.6931") if found[1] else ("a perplexity", "its logarithm")
    text = (
        f"{origin}: losses must be nats per token, but the column {theirs!r} is named like {unit}; it is read as it "
        f"stands in {name_rows(rows, most=3)}: give {cure}"
    )
    warnings.warn(text, DataWarning, stacklevel=5)
    return text


def _compute_units(columns: Mapping[str, Column]) -> tuple[Mask, str]:
    """C apart by more than 2× from 6·N·tokens and, where the source has it, from its exact count."""
    with np.errstate(all="ignore"):
        expected = 6 * columns["N"] * columns["tokens"]
        ratio = columns["C"] / expected
        mask = (np.abs(np.log2(ratio)) > 1) & (columns["N"] > 0)
        if "C_exact" in columns:
            mask &= np.abs(np.log2(columns["C"] / columns["C_exact"])) > 1
    return mask, (
        f"C is more than 2× away from 6·N·tokens{_power(ratio[mask])}: is one of N, tokens or C in thousands, "
        "millions, billions or PF-days, or does D leave out repeated epochs (then give tokens)?"
    )


def _power(ratios: Column) -> str:
    """`` (a factor of about 1e+06)`` if the typical ratio comes near a power of a thousand."""
    if len(ratios) == 0:
        return ""
    exponent = float(np.median(np.abs(np.log10(ratios))))
    nearest = 3 * round(exponent / 3)
    return f" (a factor of about 1e{nearest})" if nearest and abs(exponent - nearest) < 0.4 else ""


def _take(names: Sequence[str], mask: Mask) -> list[str]:
    return [str(names[i]) for i in np.flatnonzero(mask).tolist()]
