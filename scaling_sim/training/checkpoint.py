"""Checkpoints that survive a crash: whole or not there at all, and checked before they are trusted.

One checkpoint is one directory::

    FOLDER/step-0000000500/
        state.safetensors     weights, moments, ids (see `scaling_sim.engine.protocol.Trainer.state`)
        loop.json             what the loop remembers of each run
        manifest.json         sha256 of both, the step and the run ids; written last

It is written under a temporary name, every file and the directory are synchronised to the disk, and then it is renamed.
A directory without a sound manifest is never used: it is set aside with a `CheckpointWarning` and the one before it is
taken. One process writes into one folder at a time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import CheckpointWarning, StoreError

Arrays = dict[str, NDArray[Any]]

STATE, LOOP, MANIFEST = "state.safetensors", "loop.json", "manifest.json"
KEEP = 2
"""Checkpoints kept per folder: the newest, and the one before in case it is corrupt."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint contains."""

    step: int
    run_ids: tuple[str, ...]
    """In the order of the state's ``ids``."""
    sha256: dict[str, str]
    origin: str = ""
    """Backend and precision that computed it."""
    format: int = 1


def safetensors_numpy() -> ModuleType:
    """The module ``safetensors.numpy``.

    Raises
    ------
    StoreError
        It is not installed.
    """
    try:
        import safetensors.numpy as module
    except ImportError as error:
        raise StoreError(
            "checkpoints need the library safetensors: pip install safetensors, "
            "or give checkpoints=None to train without"
        ) from error
    return module  # type: ignore[no-any-return,unused-ignore]


def write_checkpoint(
    folder: Path,
    step: int,
    run_ids: tuple[str, ...],
    state: Mapping[str, NDArray[Any]],
    loop: bytes,
    *,
    origin: str = "",
    keep: int = KEEP,
) -> Path:
    """Write one checkpoint durably and remove all but the ``keep`` newest of its folder.

    Raises
    ------
    StoreError
        The disk is full, the folder is not writable, or safetensors is missing; earlier checkpoints are intact.
    """
    save = safetensors_numpy().save
    contents = {STATE: save({k: np.ascontiguousarray(v) for k, v in state.items()}), LOOP: loop}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    contents[MANIFEST] = msgspec.json.encode(Manifest(step=step, run_ids=run_ids, sha256=digests, origin=origin))
    final = folder / step_name(step)
    temporary = folder / f".tmp-{uuid.uuid4().hex}"
    try:
        temporary.mkdir(parents=True)
        for name, data in contents.items():
            _write_synced(temporary / name, data)
        _sync_folder(temporary)
        _replace(temporary, final)
        _sync_folder(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StoreError(
            f"cannot write a checkpoint in {folder}: {error.strerror or error}; make room or the folder writable, "
            "then run the same command again: it continues from the checkpoint before"
        ) from error
    for old in checkpoints(folder)[keep:]:
        discard(old)
    return final


def step_name(step: int) -> str:
    """Directory name of the checkpoint after ``step`` updates; sorts by step."""
    return f"step-{step:010d}"


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoint directories of a folder, newest first; nothing is checked."""
    return sorted((path for path in folder.glob("step-*") if path.is_dir()), reverse=True)


def read_manifest(path: Path) -> Manifest:
    """Manifest of a checkpoint whose files were compared with it.

    Raises
    ------
    StoreError
        A file is missing or differs from its sha256.
    """
    try:
        manifest = msgspec.json.decode((path / MANIFEST).read_bytes(), type=Manifest)
        for name in (STATE, LOOP):
            digest = hashlib.sha256((path / name).read_bytes()).hexdigest()
            if digest != manifest.sha256.get(name):
                raise StoreError(f"checkpoint {path}: {name} differs from its sha256")
    except (OSError, msgspec.MsgspecError) as error:
        raise StoreError(f"checkpoint {path} cannot be read: {error}") from error
    return manifest


def read_checkpoint(path: Path) -> tuple[Manifest, Arrays, bytes]:
    """Manifest, state and loop memory of a checkpoint; raises `StoreError` as `read_manifest` does."""
    manifest = read_manifest(path)
    try:
        state = safetensors_numpy().load((path / STATE).read_bytes())
        return manifest, state, (path / LOOP).read_bytes()
    except OSError as error:
        raise StoreError(f"checkpoint {path} cannot be read: {error}") from error


def sound_checkpoints(folder: Path, step: int | None = None) -> Iterator[tuple[Path, Manifest]]:
    """Checkpoints of a folder (of one step) that pass the check, newest first.

    Others are set aside with a `CheckpointWarning`.
    """
    for path in checkpoints(folder):
        if step is not None and path.name != step_name(step):
            continue
        try:
            yield path, read_manifest(path)
        except StoreError as error:
            if not path.exists():  # removed meanwhile by the process that writes here
                continue
            aside = path.with_name(f"corrupt-{path.name}-{uuid.uuid4().hex[:8]}")
            os.replace(path, aside)
            warnings.warn(
                f"{error}; set aside as {aside.name}, going back to the one before", CheckpointWarning, stacklevel=2
            )


def discard(path: Path) -> None:
    """Remove a directory such that an interruption leaves it whole or as an orphan, never as a torn checkpoint."""
    old = path.with_name(f".old-{uuid.uuid4().hex}")
    try:
        os.replace(path, old)
    except FileNotFoundError:
        return
    shutil.rmtree(old, ignore_errors=True)


def sweep_orphans(folder: Path) -> int:
    """Remove what interrupted writes left behind; the number of directories removed."""
    orphans = [*folder.glob(".tmp-*"), *folder.glob(".old-*")]
    for path in orphans:
        shutil.rmtree(path, ignore_errors=True)
    return len(orphans)


def _write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # directories cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(temporary: Path, final: Path) -> None:
    """Rename over an earlier directory of the same step (a resumed run writes it again)."""
    discard(final)
    os.replace(temporary, final)
