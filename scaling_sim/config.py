"""Configuration records: frozen, strict, hashable, and readable from TOML with helpful errors."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from scaling_sim.errors import ConfigError

T = TypeVar("T")

PFDAY_FLOPS = 8.64e19
"""FLOPs in one PF-day: 1e15 FLOP/s for 86,400 s (Kaplan et al. 2020, section 1.3)."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every configuration record: immutable, unknown keys refused, types checked when read."""


def config_hash(*parts: object, length: int = 16) -> str:
    """Hash of configuration records: equal content gives an equal hash on every machine and version.

    Parameters
    ----------
    parts : records, dicts, strings or numbers
        Encoded as JSON with sorted keys, in the order given.
    length : int
        Hexadecimal digits returned.
    """
    encoded = msgspec.json.encode(parts, order="sorted")
    return hashlib.sha256(encoded).hexdigest()[:length]


def read_toml(path: str | Path, record: type[T]) -> T:
    """Read a TOML file into ``record``.

    Raises
    ------
    ConfigError
        Missing file, broken TOML, unknown key (with the nearest known one), wrong type: with the path in the file.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    return to_record(tree, record, origin=str(path))


def to_record(tree: Any, record: type[T], origin: str = "configuration") -> T:
    """Convert plain dicts and lists into ``record``; see `read_toml` for the errors."""
    try:
        return msgspec.convert(tree, record)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{origin}: {error}{_suggestion(str(error), record)}") from error


def _suggestion(message: str, record: type[Any]) -> str:
    match = re.search(r"unknown field `([^`]+)`", message)
    if match is None:
        return ""
    known = sorted(_field_names(record))
    close = difflib.get_close_matches(match.group(1), known, n=1)
    return f"; did you mean `{close[0]}`?" if close else f"; known fields: {', '.join(known)}"


def _field_names(record: Any, seen: set[Any] | None = None) -> set[str]:
    """Field names of ``record`` and of every record nested in it."""
    seen = set() if seen is None else seen
    if record in seen:
        return set()
    seen.add(record)
    names: set[str] = set()
    for argument in getattr(record, "__args__", ()):
        names |= _field_names(argument, seen)
    if isinstance(record, type) and issubclass(record, msgspec.Struct):
        for field in msgspec.structs.fields(record):
            names.add(field.name)
            names |= _field_names(field.type, seen)
    return names


def writable_folder(path: str | Path) -> Path:
    """Create ``path`` if needed and return it.

    Raises
    ------
    ConfigError
        The folder cannot be created or written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot create the folder {folder}: {error.strerror or error}") from error
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"the folder {folder} is not writable; choose another --out")
    return folder
