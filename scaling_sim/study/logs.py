"""The losses in a log that somebody else's trainer wrote: lines that match an expression, or JSON objects."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scaling_sim.errors import ConfigError, DataError

NAMES = ("loss", "step", "tokens")


@dataclass(frozen=True)
class Point:
    """One loss of a log in nats per token; the step or the tokens at which it was measured, where the log says."""

    loss: float
    step: float | None = None
    tokens: float | None = None


@dataclass(frozen=True)
class LogFormat:
    """How to read losses from a log; build one with `LogFormat.of`.

    Attributes
    ----------
    pattern : regular expression with a group ``loss`` and perhaps ``step`` and ``tokens``; or
    keys : ours to theirs of JSON objects, one per line; other lines are skipped. Nested keys are joined by dots.
    """

    pattern: re.Pattern[str] | None = None
    keys: Mapping[str, str] | None = None

    @classmethod
    def of(cls, pattern: str | None = None, keys: str | None = None) -> LogFormat:
        r"""Format from ``r"step (?P<step>\d+).*val loss (?P<loss>\S+)"`` or ``"loss=val_loss,step=iter"``.

        A pattern without named groups has the loss in its first group.
        """
        if (pattern is None) == (keys is None):
            raise ConfigError("say how to read the log: a regular expression or JSON keys, one of them")
        return cls(pattern=_pattern(pattern)) if pattern is not None else cls(keys=_keys(keys or ""))

    def points(self, lines: Iterable[str]) -> list[Point]:
        """Every loss in the order of the log; a later one at the same step replaces the earlier.

        Raises
        ------
        DataError
            No line holds a loss, or one is not a number; diverged runs (NaN, infinite) included.
        """
        found = list(self._found(lines))
        if not found:
            raise DataError("no loss in the log: no line fits the format")
        last = found[-1].loss
        if not (math.isfinite(last) and last > 0):
            raise DataError(f"diverged: the last loss in the log is {last:g}")
        good = [p for p in found if math.isfinite(p.loss) and p.loss > 0]
        at = {(p.step, p.tokens): p for p in good}
        return [good[-1]] if list(at) == [(None, None)] else list(at.values())

    def _found(self, lines: Iterable[str]) -> Iterator[Point]:
        for line in lines:
            values = self._by_pattern(line) if self.pattern is not None else self._by_keys(line)
            if values is not None and values.get("loss") is not None:
                numbers = {name: _number(name, value) for name, value in values.items() if value is not None}
                yield Point(**numbers)

    def _by_pattern(self, line: str) -> dict[str, Any] | None:
        assert self.pattern is not None
        match = self.pattern.search(line)
        if match is None:
            return None
        return match.groupdict() if "loss" in self.pattern.groupindex else {"loss": match.group(1)}

    def _by_keys(self, line: str) -> dict[str, Any] | None:
        assert self.keys is not None
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            return None
        return {ours: _dig(row, theirs) for ours, theirs in self.keys.items()} if isinstance(row, dict) else None


def _pattern(text: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(text)
    except re.error as error:
        raise ConfigError(f"{text!r} is no regular expression: {error}") from error
    unknown = sorted(set(compiled.groupindex) - set(NAMES))
    if unknown:
        raise ConfigError(f"groups of the expression are named {', '.join(NAMES)}, got {', '.join(unknown)}")
    if "loss" not in compiled.groupindex and (compiled.groupindex or compiled.groups != 1):
        raise ConfigError(f"the expression needs a group (?P<loss>…), or one group in all; got {text!r}")
    return compiled


def _keys(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    keys = {ours.strip(): theirs.strip() for ours, _, theirs in pairs}
    if "loss" not in keys or not all(keys.values()) or set(keys) - set(NAMES):
        raise ConfigError(f"JSON keys read loss=THEIRS,step=THEIRS with names out of {', '.join(NAMES)}; got {text!r}")
    return keys


def _dig(row: Any, path: str) -> Any:
    """``row["a.b"]``, else ``row["a"]["b"]``; None where it is not there."""
    if isinstance(row, dict) and path in row:
        return row[path]
    first, dot, rest = path.partition(".")
    return _dig(row[first], rest) if dot and isinstance(row, dict) and first in row else None


def _number(name: str, value: Any) -> float:
    try:
        return float(str(value).replace(",", ""))
    except ValueError:
        raise DataError(f"{name} in the log must be a number, got {value!r}") from None
