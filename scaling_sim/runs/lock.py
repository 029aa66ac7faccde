"""The right to write a store: held by one process at a time and given back by the system when that process dies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from scaling_sim.errors import StoreError


class WriteLock:
    """Advisory lock on a file of its own, owned by the process (not inherited by forked workers).

    Parameters
    ----------
    path : Path
        The lock file; it stays on the disk, empty of meaning when nobody holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: IO[str] | None = None
        self._pid = -1

    def acquire(self) -> None:
        """Take the lock, or do nothing if this process holds it.

        Raises
        ------
        StoreError
            Another process writes this store, or the folder cannot be written.
        """
        if self._handle is not None and self._pid == os.getpid():
            return
        try:
            handle = open(self.path, "a+", encoding="utf-8")  # noqa: SIM115 - held until release
        except OSError as error:
            raise StoreError(
                f"cannot write beside {self.path}: {error.strerror}; make the folder writable or choose another --out"
            ) from error
        if not _lock(handle):
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            handle.close()
            raise StoreError(
                f"another process (pid {holder}) writes the run store beside {self.path}; "
                "wait until it ends or choose another --out"
            )
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        self._handle, self._pid = handle, os.getpid()

    def release(self) -> None:
        """Give the lock back; harmless if this process does not hold it."""
        if self._handle is not None and self._pid == os.getpid():
            self._handle.close()
        self._handle = None


def _lock(handle: IO[str]) -> bool:
    """Take the operating system's record lock; True also where there is none (then SQLite's own locks must do)."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
