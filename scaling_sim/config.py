"""Configuration records: frozen, strict, hashable, and readable from TOML with helpful errors."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import os
import re
import tomllib
from operator import index
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
    """What was meant: the nearest field of the record at the error's path, or the values that a choice has."""
    path = re.search(r"at `\$\.?([^`]*)`", message)
    keys = [key for key in re.split(r"[.\[\]]+", path.group(1)) if key and key != "..."] if path else []
    field = re.search(r"unknown field `([^`]+)`", message)
    if field is not None:
        return _nearest(field.group(1), _fields(_at(record, keys)))
    value = re.search(r"[Ii]nvalid enum value '?([^' ]*)'?", message)
    return _nearest(value.group(1), _choices(_at(record, keys))) if value is not None else ""


def _nearest(given: str, known: list[str]) -> str:
    close = difflib.get_close_matches(given, known, n=1)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f"; known: {', '.join(known)}" if known else ""


def _at(annotation: Any, keys: list[str]) -> Any:
    """Type annotation found by following ``keys`` (field names; items of a list have none) from ``annotation``."""
    for key in keys:
        found = {field.name: field.type for field in _struct_fields(annotation)}
        annotation = found.get(key, annotation)
    return annotation


def _struct_fields(annotation: Any) -> tuple[Any, ...]:
    """Fields of the record in an annotation: itself, an alternative of a union, or the items of a sequence."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return msgspec.structs.fields(annotation)
    return next((fields for part in getattr(annotation, "__args__", ()) if (fields := _struct_fields(part))), ())


def _fields(annotation: Any) -> list[str]:
    return [field.name for field in _struct_fields(annotation)]


def _choices(annotation: Any) -> list[str]:
    return [str(part) for part in getattr(annotation, "__args__", ()) if isinstance(part, str)]


def checked_seed(seed: Any) -> int:
    """The seed as an int.

    Raises
    ------
    ConfigError
        If it is negative or no integer.
    """
    try:
        found = index(seed)
    except TypeError:
        found = -1
    if found < 0:
        raise ConfigError(f"seed must be an integer of at least 0, got {seed!r}")
    return found


def json_text(tree: Any, indent: int | None = None) -> str:
    """``tree`` as strict JSON: NaN becomes null, infinities the strings "inf" and "-inf", anything unknown its text."""
    return json.dumps(_plain(tree), indent=indent, allow_nan=False, default=str)


def _plain(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {str(key): _plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(value) for value in tree]
    if isinstance(tree, float) and not math.isfinite(tree):
        return None if math.isnan(tree) else str(tree)
    return tree


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
