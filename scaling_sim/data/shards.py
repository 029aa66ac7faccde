"""Arrays in a folder with a manifest: written once, whole or not at all, then memory-mapped."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from scaling_sim.config import writable_folder
from scaling_sim.data.tokenizer import Tokens
from scaling_sim.errors import ConfigError, DataError

MANIFEST = "manifest.json"
ORPHAN_SECONDS = 24 * 3600.0
"""A building folder older than this belongs to a process that died."""


class Shard(msgspec.Struct, frozen=True):
    """One file of a manifest."""

    file: str
    sha256: str
    num_tokens: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished folder holds; it is the last file written."""

    name: str
    hash: str
    vocab_size: int
    tokenizer: str
    shards: dict[str, Shard]
    held_out: tuple[str, ...] = ()
    documents: dict[str, int] = {}
    notes: tuple[str, ...] = ()


def build_once(folder: Path, build: Callable[[Path], None]) -> None:
    """Make ``folder`` by ``build(temporary folder)`` unless it is there and sound.

    The temporary folder lies beside ``folder`` and is renamed at the end, so that readers see all of it or nothing.
    Two processes may build at once: the first rename wins and the other's work is discarded. A damaged folder is set
    aside and built again.

    Raises
    ------
    ConfigError
        The folder above cannot be written.
    """
    if is_sound(folder):
        return
    parent = writable_folder(folder.parent)
    _sweep_orphans(parent)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=".building-", dir=parent))
    except OSError as error:
        raise ConfigError(f"cannot write in the cache folder {parent}: {error.strerror or error}") from error
    try:
        build(temporary)
        sync_folder(temporary)
        _move_in(temporary, folder)
    except OSError as error:
        raise ConfigError(f"cannot write in the cache folder {parent}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(parent)


def _move_in(temporary: Path, folder: Path) -> None:
    for _ in range(3):
        try:
            os.rename(temporary, folder)
        except OSError:
            if is_sound(folder):
                return
            with contextlib.suppress(OSError):
                os.rename(folder, folder.with_name(f".damaged-{folder.name}-{os.getpid()}-{time.time_ns()}"))
        else:
            return
    raise ConfigError(f"cannot put the corpus at {folder}: remove that folder and start again")


def _sweep_orphans(parent: Path) -> None:
    for orphan in [*parent.glob(".building-*"), *parent.glob(".damaged-*")]:
        with contextlib.suppress(OSError):
            if time.time() - orphan.stat().st_mtime > ORPHAN_SECONDS:
                shutil.rmtree(orphan, ignore_errors=True)


def write_array(folder: Path, name: str, parts: Iterable[Tokens], dtype: np.dtype[Any]) -> Shard:
    """Write the concatenation of ``parts`` as ``name``.bin, synced to disk, and describe it."""
    target = folder / f"{name}.bin"
    digest = hashlib.sha256()
    count = 0
    with target.open("wb") as file:
        for part in parts:
            data = np.ascontiguousarray(part, dtype).tobytes()
            file.write(data)
            digest.update(data)
            count += len(part)
    sync_file(target)
    return Shard(file=target.name, sha256=digest.hexdigest(), num_tokens=count)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, last of all."""
    path = folder / MANIFEST
    path.write_bytes(msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1))
    sync_file(path)


def read_manifest(folder: Path) -> Manifest:
    """Manifest of a finished folder.

    Raises
    ------
    DataError
        It is missing or cannot be understood.
    """
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(f"{folder} holds no corpus: {error}; remove it and load the corpus again") from error


def is_sound(folder: Path) -> bool:
    """True if the manifest is readable and every file has the bytes that it promises."""
    try:
        manifest = read_manifest(folder)
        return all(_sha256(folder / shard.file) == shard.sha256 for shard in manifest.shards.values())
    except (DataError, OSError):
        return False


def map_arrays(folder: Path, manifest: Manifest, dtype: np.dtype[Any]) -> Mapping[str, Tokens]:
    """Memory-map every shard read-only."""
    arrays: dict[str, Tokens] = {}
    for name, shard in manifest.shards.items():
        arrays[name] = np.memmap(folder / shard.file, dtype=dtype, mode="r", shape=(shard.num_tokens,))
    return arrays


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_file(path: Path) -> None:
    """Force a file's content to disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Force a folder's entries to disk, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
