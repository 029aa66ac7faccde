"""A run record as JSON and back, infinities and NaN included."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from scaling_sim.runs.record import RunRecord


def encode_record(record: RunRecord) -> bytes:
    """One line of JSON. Losses that are not finite are the strings "nan" and "inf", which JSON has no numbers for."""
    return msgspec.json.encode(_spell_out(msgspec.to_builtins(record)))


def decode_record(tree: Any) -> RunRecord:
    """The record of a decoded line of `encode_record`; raises ``msgspec.ValidationError``."""
    return msgspec.convert(tree, RunRecord, strict=False)  # not strict: "nan" becomes a float


def _spell_out(tree: Any) -> Any:
    """Copy of ``tree`` with floats that are not finite as strings."""
    if isinstance(tree, dict):
        return {key: _spell_out(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_spell_out(value) for value in tree]
    return str(tree) if isinstance(tree, float) and not math.isfinite(tree) else tree


def encode_parts(record: RunRecord) -> tuple[str, str]:
    """JSON of the configuration and of everything else, the two columns of the store."""
    tree = _spell_out(msgspec.to_builtins(record))
    config = tree.pop("config")
    return msgspec.json.encode(config).decode(), msgspec.json.encode(tree).decode()
