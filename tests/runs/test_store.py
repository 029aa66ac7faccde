from __future__ import annotations

import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from scaling_sim.errors import StoreError
from scaling_sim.runs.record import RunRecord
from scaling_sim.runs.store import STORE_NAME, RunStore
from scaling_sim.runs.table import read_runs, table_from_records

Make = Callable[..., RunRecord]


def test_what_was_added_comes_back_equal_and_in_order(tmp_path: Path, make_record: Make) -> None:
    records = [make_record(seed) for seed in (3, 1, 2)]
    with RunStore(tmp_path) as store:
        for record in records:
            store.add(record)
        assert store.records() == records
        assert store.get(records[1].run_id) == records[1]
        assert store.get("nothing") is None
        assert len(store) == 3
        assert records[0].run_id in store
        assert "nothing" not in store
    with RunStore(tmp_path / STORE_NAME, create=False) as again:
        assert again.records() == records


def test_update_replaces_and_status_selects(tmp_path: Path, make_record: Make) -> None:
    first, second = make_record(1, status="planned", curve=()), make_record(2, status="planned", curve=())
    with RunStore(tmp_path) as store:
        store.add_all([first, second])
        store.update(msgspec.structs.replace(first, status="running"))
        assert [record.status for record in store.records()] == ["running", "planned"]
        assert [record.run_id for record in store.records("planned")] == [second.run_id]
        assert len(store.records(("planned", "running"))) == 2
        assert store.records(()) == []
        assert store.counts() == {"planned": 1, "running": 1}


def test_several_runs_are_replaced_together_or_not_at_all(tmp_path: Path, make_record: Make) -> None:
    first, second, unknown = (make_record(seed, status="planned", curve=()) for seed in (1, 2, 3))
    with RunStore(tmp_path) as store:
        store.add_all([first, second])
        running = [msgspec.structs.replace(record, status="running") for record in (first, second)]
        with pytest.raises(StoreError, match=f"run {unknown.run_id} is not in"):
            store.update_all([*running, unknown])
        assert store.counts() == {"planned": 2}
        store.update_all(running)
        assert store.records() == running


def test_losses_that_are_not_finite_survive(tmp_path: Path, make_record: Make) -> None:
    record = make_record(losses=(5.5, 4.0, math.nan, math.inf, -math.inf), status="diverged")
    with RunStore(tmp_path) as store:
        store.add(record)
        back = store.get(record.run_id)
    assert back is not None
    losses = [point.losses["test"] for point in back.curve]
    assert losses[:2] == [5.5, 4.0]
    assert math.isnan(losses[2])
    assert losses[3:] == [math.inf, -math.inf]


def test_a_store_from_before_a_measurement_existed_stays_readable(tmp_path: Path, make_record: Make) -> None:
    old = make_record(1)
    points = tuple(msgspec.structs.replace(point, positions=(2.0, 1.5)) for point in old.curve)
    with RunStore(tmp_path) as store:
        store.add(msgspec.structs.replace(old, curve=points))
        assert store.records()[0].curve == points
    with sqlite3.connect(tmp_path / STORE_NAME) as raw:
        raw.execute("""UPDATE runs SET result = replace(result, '"positions":[2.0,1.5]', '"noise_scale":null')""")
    raw.close()
    with RunStore(tmp_path) as store:
        assert store.records() == [old]


def test_a_run_id_is_stored_once_and_a_failed_batch_leaves_nothing(tmp_path: Path, make_record: Make) -> None:
    with RunStore(tmp_path) as store:
        store.add(make_record(1))
        with pytest.raises(StoreError, match=r"is in .* already; change it with update"):
            store.add_all([make_record(2), make_record(1)])
        assert len(store) == 1
        with pytest.raises(StoreError, match="store it first with add"):
            store.update(make_record(2))


def test_readers_see_committed_runs_while_the_writer_is_open(tmp_path: Path, make_record: Make) -> None:
    with RunStore(tmp_path) as writer, RunStore(tmp_path, create=False) as reader:
        for seed in range(3):
            writer.add(make_record(seed))
            assert len(reader) == seed + 1


def test_a_second_writing_process_is_refused_with_the_first_ones_pid(tmp_path: Path, make_record: Make) -> None:
    script = (
        "import sys; from scaling_sim.runs.store import RunStore; from scaling_sim.errors import StoreError\n"
        "import msgspec; from scaling_sim.runs.codec import decode_record\n"
        "store = RunStore(sys.argv[1]); print(len(store))\n"
        "try: store.add(decode_record(msgspec.json.decode(sys.argv[2])))\n"
        "except StoreError as error: print(error)\n"
    )
    with RunStore(tmp_path) as store:
        store.add(make_record(1))
        other = msgspec.json.encode(make_record(2)).decode()
        seen = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path), other], capture_output=True, text=True, check=True
        )
        assert len(store) == 1
    assert seen.stdout.startswith("1\n")
    assert f"another process (pid {os.getpid()}) writes" in seen.stdout


@pytest.mark.parametrize("content", [b"", b"this is no database, " * 300], ids=["empty", "text"])
def test_a_damaged_file_is_named_and_an_empty_one_is_new(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / STORE_NAME
    path.write_bytes(content)
    if not content:
        assert len(RunStore(path)) == 0
        return
    with pytest.raises(StoreError, match=r"not a readable run store .*move it aside"):
        RunStore(path)
    assert path.read_bytes() == content


def test_damaged_pages_are_an_error_not_a_crash(tmp_path: Path, make_record: Make) -> None:
    with RunStore(tmp_path) as store:
        store.add_all([make_record(seed) for seed in range(20)])
    path = tmp_path / STORE_NAME
    content = bytearray(path.read_bytes())
    content[4096 : len(content)] = os.urandom(len(content) - 4096)
    path.write_bytes(bytes(content))
    with pytest.raises(StoreError, match="restore a copy"), RunStore(path) as store:
        store.records()


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="of another program"):
        RunStore(path)
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    RunStore(tmp_path).close()
    connection = sqlite3.connect(tmp_path / STORE_NAME)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match=r"schema 99.*upgrade"):
        RunStore(tmp_path)


def test_a_reader_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no run store at"):
        RunStore(tmp_path / "absent", create=False)
    assert not (tmp_path / "absent").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot create the folder .*choose another --out"):
        RunStore(tmp_path / "file" / "study")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_refused_and_can_still_be_read(tmp_path: Path, make_record: Make) -> None:
    with RunStore(tmp_path / "study") as store:
        store.add(make_record(1))
    (tmp_path / "study").chmod(0o500)
    try:
        with RunStore(tmp_path / "study", create=False) as store:
            assert len(store) == 1
            with pytest.raises(StoreError, match="writable"):
                store.add(make_record(2))
        with pytest.raises(StoreError, match="not writable; choose another --out"):
            RunStore(tmp_path / "study" / "deeper.sqlite")
    finally:
        (tmp_path / "study").chmod(0o700)


def test_a_read_only_store_shows_what_is_still_in_the_log(
    tmp_path: Path, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunStore(tmp_path) as writer:
        writer.add(make_record(1))
        assert (tmp_path / f"{STORE_NAME}-wal").stat().st_size > 0
        monkeypatch.setattr(RunStore, "writable", False)
        with RunStore(tmp_path, create=False) as reader:
            assert len(reader) == 1
            with pytest.raises(StoreError, match="make the file and its folder writable"):
                reader.add(make_record(2))


def test_a_full_disk_loses_nothing_and_names_the_cure(tmp_path: Path, make_record: Make) -> None:
    with RunStore(tmp_path) as store:
        store.add(make_record(0))
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count = {pages + 3}")
        with pytest.raises(StoreError, match="full; make room on the disk"):
            store.add_all([make_record(seed) for seed in range(1, 40)])
        assert len(store) == 1
        store._connection.execute("PRAGMA max_page_count = 100000")
        store.add(make_record(1))
    with RunStore(tmp_path, create=False) as store:
        assert len(store) == 2


def test_a_forked_child_is_told_to_open_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunStore(tmp_path) as store:
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(StoreError, match="opened before this process was forked"):
            store.records()
        monkeypatch.undo()


def test_threads_share_an_instance(tmp_path: Path, make_record: Make) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with RunStore(tmp_path) as store, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: store.add(make_record(seed)), range(20)))
        assert len(store) == 20


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_an_export_is_read_back_as_the_same_table(tmp_path: Path, make_record: Make, suffix: str) -> None:
    records = [make_record(1), make_record(2, status="diverged"), make_record(3, schedule="decay", decay_steps=50)]
    with RunStore(tmp_path / "study") as store:
        store.add_all(records)
        store.export(tmp_path / f"runs.{suffix}")
        with pytest.raises(StoreError, match=r"must end in \.csv"):
            store.export(tmp_path / "runs.xlsx")
    table, back = table_from_records(records), read_runs(tmp_path / f"runs.{suffix}")
    assert back.data_hash == table.data_hash
    assert dict(back.dropped) == dict(table.dropped)
    assert read_runs(tmp_path / "study").data_hash == table.data_hash


WRITER = """
import sys, msgspec
from scaling_sim.runs.codec import decode_record
from scaling_sim.runs.store import RunStore
record = decode_record(msgspec.json.decode(sys.stdin.readline()))
store = RunStore(sys.argv[1])
first = len(store)
print("ready", flush=True)
for i in range(first, first + 100_000):
    run = msgspec.structs.replace(record, run_id=f"run-{i:06d}", status="running", curve=())
    store.add(run)
    print("added", run.run_id, flush=True)
    store.update(msgspec.structs.replace(run, status="done", curve=record.curve))
    print("done", run.run_id, flush=True)
"""


def _write_and_kill(folder: Path, line: bytes, after_seconds: float) -> list[list[str]]:
    """What a writer acknowledged before it was killed with SIGKILL."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    with writer.stdin, writer.stdout:
        writer.stdin.write(line)
        writer.stdin.flush()
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(after_seconds)
        writer.send_signal(signal.SIGKILL)
        heard = writer.stdout.read().decode()
        writer.wait()
    return [line.split() for line in heard.splitlines() if line.count(" ") == 1 and len(line.split()[1]) == 10]


@pytest.mark.parametrize("kills", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_no_acknowledged_run_is_lost_when_the_writer_is_killed(tmp_path: Path, make_record: Make, kills: int) -> None:
    delays = random.Random(kills)
    record = make_record()
    added: set[str] = set()
    done: set[str] = set()
    for _ in range(kills):
        for verb, run_id in _write_and_kill(tmp_path, msgspec.json.encode(record) + b"\n", delays.uniform(0.0, 0.15)):
            (added if verb == "added" else done).add(run_id)
        with RunStore(tmp_path, create=False) as store:
            stored = {run.run_id: run for run in store.records()}
        assert added <= set(stored)
        assert all(stored[run_id].status == "done" and stored[run_id].curve == record.curve for run_id in done)
        assert len(stored) <= len(added) + kills  # at most one run per kill was stored and not acknowledged
    assert len(done) > kills
    check = sqlite3.connect(tmp_path / STORE_NAME)
    assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    check.close()
