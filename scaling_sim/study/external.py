"""Planned runs made by a user's own command, one after another or several at once; their logs read into one table.

Each run has a folder of its own with its log and, once it has ended, ``result.json``. A run with a result is not made
again, a failed one is tried again by the next call, and one that was interrupted has no result and starts afresh.
"""

from __future__ import annotations

import contextlib
import csv
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from scaling_sim.config import Config, writable_folder
from scaling_sim.errors import ConfigError, DataError
from scaling_sim.runs.lock import WriteLock
from scaling_sim.runs.sources import escape
from scaling_sim.study.commands import Command
from scaling_sim.study.logs import LogFormat, Point

TABLE = "runs.csv"
COLUMNS = ("run", "kind", "N", "D", "tokens", "B", "S", "seed", "loss", "curve", "stopped", "seconds", "dropped")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.1

Values = Mapping[str, Any]
Say = Callable[[str], None]


class Result(Config, frozen=True):
    """How a run ended."""

    status: str
    """``done`` or ``failed``."""
    points: tuple[tuple[float, float | None, float | None], ...] = ()
    """Loss, step and tokens of each measurement."""
    reason: str = ""
    seconds: float = 0.0
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Executed:
    """What became of a plan: names of runs by how they ended, and the table that `read_runs` reads."""

    table: Path
    done: tuple[str, ...]
    found: tuple[str, ...]
    failed: Mapping[str, str]
    num_planned: int

    @property
    def num_done(self) -> int:
        """Runs with a loss, now or before."""
        return len(self.done) + len(self.found)

    def summary(self) -> str:
        """How many runs ended how, in words."""
        waiting = self.num_planned - self.num_done - len(self.failed)
        return f"{self.num_done} of {self.num_planned} runs done, {len(self.failed)} failed, {waiting} without a log"

    def to_json(self) -> dict[str, Any]:
        """Names, and reasons of failures."""
        return {
            "num_planned": self.num_planned,
            "num_done": self.num_done,
            "table": str(self.table),
            "done": list(self.done),
            "already_done": list(self.found),
            "failed": dict(self.failed),
        }


def execute(
    plan: Sequence[Values],
    command: str | None,
    log_format: LogFormat,
    out: str | Path,
    *,
    workers: int = 1,
    timeout_seconds: float | None = None,
    say: Say = lambda line: None,
) -> Executed:
    """Make every run of a plan that has no result yet, and write their table.

    Parameters
    ----------
    plan : rows as `read_plan` or ``PlannedRun.values()`` gives them
    command : str or None
        Template of `Command`. It runs without a shell in the current folder, its output (stdout and stderr) goes to
        ``{log}``. None: only read the logs that are there, of runs that a queue made (``out/RUN/log.txt``).
    log_format : LogFormat
    out : folder of logs, results and the table
    workers : runs at once
    timeout_seconds : of one run; None: none

    Notes
    -----
    A run fails if its command cannot be started, ends with another code than 0, exceeds the time, or its log holds no
    finite loss. That is recorded and never stops the others.
    """
    _check(plan, workers, timeout_seconds)
    runner = None if command is None else Command(command)
    folder = writable_folder(out)
    if runner is not None:
        for values in plan:
            runner.words(_with_paths(values, folder))  # every run's command, before the first is started
    lock = WriteLock(folder / "lock")
    lock.acquire()
    try:
        job = _Job(folder, runner, log_format, timeout_seconds)
        todo = [values for values in plan if not job.is_done(values)]
        _make(job, todo, workers, say)
        return _collect(job, plan, {str(values["run"]) for values in todo})
    finally:
        lock.release()


def read_plan(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a plan that ``scaling-sim design --export plan.csv`` wrote; empty cells are None.

    Raises
    ------
    DataError
        It cannot be read, lacks ``run`` or ``N``, or holds something else than numbers.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as handle:
            rows = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the plan {path}: {error}") from error
    if not rows or not {"run", "N"} <= set(rows[0]):
        raise DataError(f"{path} is no plan: it needs the columns run and N, as `design --export plan.csv` writes them")
    if "loss" in rows[0]:
        raise DataError(f"{path} is no plan but a table of runs that were made: it has a column loss")
    return [_plan_row(path, number, row) for number, row in enumerate(rows, start=2)]


def _plan_row(path: str | Path, line: int, row: Mapping[str, str | None]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, cell in row.items():
        if name in ("run", "kind"):
            values[name] = cell
        elif name is not None and cell not in ("", None):
            try:
                values[name] = float(cell)
            except ValueError:
                raise DataError(f"{path}, line {line}: {name} must be a number, got {cell!r}") from None
    return values


def _check(plan: Sequence[Values], workers: int, timeout_seconds: float | None) -> None:
    names = [str(values["run"]) for values in plan]
    wrong = [name for name in names if not _ID.fullmatch(name)]
    if wrong:
        raise ConfigError(f"names of runs consist of letters, digits, '_', '.' and '-', got {wrong[0]!r}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"every run of a plan needs a name of its own, got {twice[0]!r} twice")
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}")
    if timeout_seconds is not None and not timeout_seconds > 0:
        raise ConfigError(f"timeout_seconds must be positive, got {timeout_seconds}")


def _with_paths(values: Values, folder: Path) -> dict[str, Any]:
    own = (folder / str(values["run"])).resolve()
    return {**values, "folder": str(own), "log": str(own / "log.txt")}


class _Job:
    """What all runs share; each call of `make` has a process of its own."""

    def __init__(
        self, folder: Path, command: Command | None, log_format: LogFormat, timeout_seconds: float | None
    ) -> None:
        self.folder, self.command, self.log_format = folder, command, log_format
        self.timeout_seconds = timeout_seconds
        self.stop = threading.Event()

    def result(self, values: Values) -> Result | None:
        """What was written when the run ended; None before that."""
        path = self.folder / str(values["run"]) / "result.json"
        if not path.is_file():
            return None
        try:
            return msgspec.json.decode(path.read_bytes(), type=Result)
        except msgspec.DecodeError as error:
            raise DataError(f"{path} is damaged ({error}); remove it to make the run again") from error

    def is_done(self, values: Values) -> bool:
        """Whether the run need not be made again."""
        found = self.result(values)
        return found is not None and found.status == "done"

    def make(self, values: Values) -> Result | None:
        """Make one run, or read its log; None if it was interrupted, or its log is not there yet."""
        own = self.folder / str(values["run"])
        own.mkdir(exist_ok=True)
        began, words = time.monotonic(), list[str]()
        if self.command is None:
            if not (own / "log.txt").is_file():
                return None
            why = _exit_of(own)
        else:
            words = self.command.words(_with_paths(values, self.folder))
            why = self._run(words, own / "log.txt")
        if why is None:
            return None
        found = self._read(own / "log.txt", why, time.monotonic() - began, words)
        _write(own / "result.json", found)
        return found

    def _run(self, words: list[str], log: Path) -> str | None:
        """Why the command failed, "" if it did not, None if it was interrupted."""
        began = time.monotonic()
        with log.open("wb") as output:
            try:
                process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
                )
            except OSError as error:
                return f"cannot start {words[0]!r}: {error.strerror or error}"
            while True:
                try:
                    code = process.wait(_POLL_SECONDS)
                    return "" if code == 0 else _ended(code)
                except subprocess.TimeoutExpired:
                    late = self.timeout_seconds is not None and time.monotonic() - began > self.timeout_seconds
                    if late or self.stop.is_set():
                        _end(process)
                        return f"took longer than {self.timeout_seconds:g} s" if late else None

    def _read(self, log: Path, why: str, seconds: float, words: list[str]) -> Result:
        if not why:
            try:
                with log.open(encoding="utf-8", errors="replace") as handle:
                    points = self.log_format.points(handle)
                return Result(status="done", points=_rows(points), seconds=seconds, command=tuple(words))
            except (DataError, OSError) as error:
                why = str(error)
        return Result(status="failed", reason=why, seconds=seconds, command=tuple(words))


def _rows(points: Sequence[Point]) -> tuple[tuple[float, float | None, float | None], ...]:
    return tuple((p.loss, p.step, p.tokens) for p in points)


def _exit_of(own: Path) -> str | None:
    """What a queue's script left in ``exit``: "" for 0 or where there is none, None while the run goes on."""
    if (own / "started").exists() and not (own / "exit").exists():
        return None
    text = (own / "exit").read_text().strip() if (own / "exit").exists() else "0"
    return "" if text == "0" else f"ended with code {text}"


def _ended(code: int) -> str:
    return f"ended with code {code}" if code > 0 else f"ended by signal {signal.Signals(-code).name}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and all that it started: politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
            return


def _make(job: _Job, todo: Sequence[Values], workers: int, say: Say) -> None:
    with ThreadPoolExecutor(workers) as pool:
        waiting = {pool.submit(_unless_stopped, job, values): str(values["run"]) for values in todo}
        try:
            for number, future in enumerate(as_completed(waiting), start=1):
                found = future.result()
                text = "no log yet" if found is None else f"{found.status} {found.reason}".strip()
                say(f"{number}/{len(waiting)} {waiting[future]}: {text}")
        except BaseException:
            job.stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _unless_stopped(job: _Job, values: Values) -> Result | None:
    return None if job.stop.is_set() else job.make(values)


def _write(path: Path, result: Result) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2))
    part.replace(path)


def _collect(job: _Job, plan: Sequence[Values], tried: set[str]) -> Executed:
    results = {str(values["run"]): job.result(values) for values in plan}
    rows = [row for values in plan for row in _table_rows(values, results[str(values["run"])])]
    table = job.folder / TABLE
    part = table.with_name(TABLE + ".part")
    with part.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([_cell(row.get(name)) for name in COLUMNS] for row in rows)
    part.replace(table)
    ended = {name: result for name, result in results.items() if result is not None}
    done = [name for name, result in ended.items() if result.status == "done"]
    failed = {name: result.reason for name, result in ended.items() if result.status != "done"}
    new, old = (tuple(n for n in done if (n in tried) is now) for now in (True, False))
    return Executed(table, new, old, failed, len(plan))


def _table_rows(values: Values, result: Result | None) -> list[dict[str, Any]]:
    """One row for each measurement that a law may read: the last, the least of early-stopped runs, or the curve."""
    base = {name: values.get(name) for name in ("run", "kind", "N", "D", "tokens", "B", "S", "seed")}
    if result is None or result.status != "done":
        return [{**base, "dropped": "not made yet" if result is None else f"failed: {result.reason}"}]
    base["seconds"] = result.seconds
    kind, B = values.get("kind"), values.get("B")
    if kind == "curve":
        steps = [(loss, *_reached(step, tokens, B)) for loss, step, tokens in result.points]
        known = [{**base, "loss": loss, "S": S, "tokens": T, "D": T, "curve": True} for loss, S, T in steps if S and T]
        return known or [{**base, "loss": result.points[-1][0], "D": values.get("tokens")}]
    if kind == "stopped":
        loss, step, tokens = min(result.points)
        S, T = _reached(step, tokens, B)
        return [{**base, "loss": loss, "stopped": True, "S": S, "tokens": T or values.get("tokens")}]
    return [{**base, "loss": result.points[-1][0]}]


def _reached(step: float | None, tokens: float | None, B: float | None) -> tuple[float | None, float | None]:
    """Steps and tokens of a measurement, each from the other where the batch is known."""
    if B is None:
        return step, tokens
    S = step if step is not None else None if tokens is None else tokens / B
    return S, tokens if tokens is not None else None if S is None else B * S


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(float(value)) if isinstance(value, int | float) else escape(str(value))
