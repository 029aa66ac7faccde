"""The run store: one SQLite file that survives a crash, with one writer and many readers.

Every write is one transaction in WAL mode with ``synchronous=FULL``: when `RunStore.add` or `RunStore.update` has
returned, the run is on the disk, whatever happens to the process afterwards.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from scaling_sim.errors import StoreError
from scaling_sim.runs.codec import decode_record, encode_parts, encode_record
from scaling_sim.runs.lock import WriteLock
from scaling_sim.runs.record import RunRecord, Status

STORE_NAME = "runs.sqlite"
"""File name of the store inside a study's folder."""

APPLICATION_ID = 0x5353494D
"""Marks the SQLite file as ours ("SSIM")."""

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id   TEXT NOT NULL UNIQUE,
    status   TEXT NOT NULL,
    config   TEXT NOT NULL,
    result   TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS runs_by_status ON runs (status);
"""


_OPTIONS: dict[str, Any] = {"timeout": 30.0, "isolation_level": None, "check_same_thread": False}


class RunStore:
    """Runs on disk, by run id.

    Contract: the driver of a sweep is the only writer (a second writing process is refused); any number of processes
    may read at the same time and see whole runs only. An instance may be used by several threads, never by a forked
    child.

    Parameters
    ----------
    path : str or Path
        The SQLite file, or a study's folder (then ``runs.sqlite`` in it).
    create : bool
        Make the file and its folder if they are not there; False for readers.

    Raises
    ------
    StoreError
        The file is missing (``create=False``), damaged, written by something else or by a newer version, or its folder
        cannot be written.
    """

    def __init__(self, path: str | Path, *, create: bool = True) -> None:
        given = Path(path)
        self.path = given if given.is_file() or given.suffix in (".sqlite", ".sqlite3", ".db") else given / STORE_NAME
        self._guard = threading.RLock()
        self._lock = WriteLock(self.path.with_name(self.path.name + ".lock"))
        if not self.path.exists():
            self._make_folder(create)
        self._open()

    def _make_folder(self, create: bool) -> None:
        if not create:
            raise StoreError(
                f"there is no run store at {self.path}; give the folder of a study or sweep, or its {STORE_NAME}"
            )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot create the folder {self.path.parent}: {error.strerror}; choose another --out"
            ) from error
        if not os.access(self.path.parent, os.W_OK):
            raise StoreError(f"the folder {self.path.parent} is not writable; choose another --out")

    def _open(self) -> None:
        self._pid = os.getpid()
        try:
            self._connection = self._connect()
            self._check_identity()
        except sqlite3.Error as error:
            raise StoreError(
                f"{self.path} is not a readable run store ({error}); move it aside and run again, or restore a copy"
            ) from error

    @property
    def writable(self) -> bool:
        """Whether this process may write the file and its folder (WAL needs both)."""
        return os.access(self.path.parent, os.W_OK) and (not self.path.exists() or os.access(self.path, os.W_OK))

    def _connect(self) -> sqlite3.Connection:
        if not self.writable:
            return self._connect_to_read()
        connection: sqlite3.Connection = sqlite3.connect(self.path, **_OPTIONS)
        if self._is_ours(connection):
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _connect_to_read(self) -> sqlite3.Connection:
        """A connection that writes nothing, not even the files that WAL keeps beside the store."""
        address = f"{self.path.absolute().as_uri()}?mode=ro"
        connection: sqlite3.Connection = sqlite3.connect(address, uri=True, **_OPTIONS)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            log = self.path.with_name(self.path.name + "-wal")
            if log.exists() and log.stat().st_size:  # runs that immutable=1 would not see
                raise
            connection.close()
            connection = sqlite3.connect(f"{address}&immutable=1", uri=True, **_OPTIONS)
        return connection

    @staticmethod
    def _is_ours(connection: sqlite3.Connection) -> bool:
        """Whether the file is new or carries our mark: nothing else is ever written to."""
        (mark,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return bool(mark == APPLICATION_ID or (mark == 0 and tables == 0))

    def _check_identity(self) -> None:
        if not self._is_ours(self._connection):
            raise StoreError(f"{self.path} is an SQLite file of another program, not a run store; choose another path")
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self.path} was written by a newer version (schema {version}, this one knows {SCHEMA_VERSION}); "
                "upgrade scaling_sim"
            )
        if version < SCHEMA_VERSION:
            self._create_schema()

    def _create_schema(self) -> None:
        self._connection.executescript(
            f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id={APPLICATION_ID}; "
            f"PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
        )

    @contextmanager
    def _session(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """The connection, if this process opened it; with ``write`` inside one transaction."""
        with self._guard:
            if os.getpid() != self._pid:
                raise StoreError(
                    f"{self.path} was opened before this process was forked; open a RunStore of its own here"
                )
            if write:
                self._lock.acquire()
            try:
                if not write:
                    yield self._connection
                    return
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:  # a full disk has rolled back already
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise StoreError(f"{self.path}: {error}; {_cure(error)}") from error

    def add(self, record: RunRecord) -> None:
        """Store a new run; on return it is on the disk.

        Raises
        ------
        StoreError
            The run id is there already, or the file cannot be written.
        """
        self.add_all([record])

    def add_all(self, records: Iterable[RunRecord]) -> None:
        """Store several new runs in one transaction: all of them or none."""
        with self._session(write=True) as connection:
            for record in records:
                try:
                    connection.execute(
                        "INSERT INTO runs (run_id, status, config, result) VALUES (?, ?, ?, ?)",
                        (record.run_id, record.status, *encode_parts(record)),
                    )
                except sqlite3.IntegrityError as error:
                    raise StoreError(
                        f"run {record.run_id} is in {self.path} already; change it with update()"
                    ) from error

    def update(self, record: RunRecord) -> None:
        """Replace a stored run; on return it is on the disk."""
        self.update_all([record])

    def update_all(self, records: Iterable[RunRecord]) -> None:
        """Replace several stored runs in one transaction, which costs no more time than one run: all or none."""
        with self._session(write=True) as connection:
            for record in records:
                cursor = connection.execute(
                    "UPDATE runs SET status = ?, config = ?, result = ? WHERE run_id = ?",
                    (record.status, *encode_parts(record), record.run_id),
                )
                if cursor.rowcount == 0:
                    raise StoreError(f"run {record.run_id} is not in {self.path}; store it first with add()")

    def get(self, run_id: str) -> RunRecord | None:
        """The run with this id, None if there is none."""
        with self._session() as connection:
            row = connection.execute("SELECT config, result FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        return None if row is None else self._decode(row)

    def records(self, status: Status | Sequence[Status] | None = None) -> list[RunRecord]:
        """Runs in the order in which they were added; all, or those with one of the given statuses."""
        wanted = [status] if isinstance(status, str) else list(status or ())
        where = f"WHERE status IN ({', '.join('?' * len(wanted))})" if status is not None else ""
        with self._session() as connection:
            rows = connection.execute(f"SELECT config, result FROM runs {where} ORDER BY position", wanted).fetchall()
        return [self._decode(row) for row in rows]

    def counts(self) -> dict[str, int]:
        """Number of runs by status."""
        with self._session() as connection:
            return dict(
                connection.execute("SELECT status, count(*) FROM runs GROUP BY status ORDER BY status").fetchall()
            )

    def __len__(self) -> int:
        return sum(self.counts().values())

    def __contains__(self, run_id: object) -> bool:
        with self._session() as connection:
            return connection.execute("SELECT 1 FROM runs WHERE run_id = ?", (run_id,)).fetchone() is not None

    def __repr__(self) -> str:
        return f"RunStore({str(self.path)!r}: {', '.join(f'{n} {s}' for s, n in self.counts().items()) or 'empty'})"

    def _decode(self, row: tuple[str, str]) -> RunRecord:
        try:
            config, result = (msgspec.json.decode(part) for part in row)
            return decode_record({**result, "config": config})
        except (msgspec.MsgspecError, TypeError) as error:
            raise StoreError(
                f"{self.path} holds a run that this version cannot read ({error}); restore a copy"
            ) from error

    def export(self, path: str | Path, *, split: str = "test") -> None:
        """Write all runs to ``path``: ``.jsonl`` complete records, ``.csv`` or ``.parquet`` the table that a fit reads.

        Each of them can be given to `scaling_sim.read_runs`.
        """
        target = Path(path)
        if target.suffix == ".jsonl":
            lines = (encode_record(record) + b"\n" for record in self.records())
            target.write_bytes(b"".join(lines))
            return
        if target.suffix not in (".csv", ".parquet"):
            raise StoreError(f"cannot export to {target.name}: the name must end in .csv, .parquet or .jsonl")
        from scaling_sim.runs.table import table_from_records

        table = table_from_records(self.records(), split=split)
        if target.suffix == ".csv":
            table.to_csv(target)
        else:
            table.to_parquet(target)

    def close(self) -> None:
        """Close the file and give up the right to write; the store must not be used afterwards."""
        with self._guard:
            self._connection.close()
            self._lock.release()

    def __enter__(self) -> RunStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _cure(error: sqlite3.Error) -> str:
    text = str(error)
    if "full" in text:
        return "make room on the disk and run the same command again"
    if "readonly" in text or "read-only" in text:
        return "make the file and its folder writable, or choose another --out"
    if "malformed" in text or "not a database" in text:
        return "the file is damaged; move it aside and run again, or restore a copy"
    return "check that the disk works and that no other program holds the file"
