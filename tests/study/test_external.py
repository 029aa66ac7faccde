"""Runs made by a user's own command: what is made, what is recorded, what a second call leaves alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from scaling_sim.errors import ConfigError, DataError
from scaling_sim.runs.table import read_runs
from scaling_sim.study.commands import Command
from scaling_sim.study.external import execute, read_plan
from scaling_sim.study.logs import LogFormat, Point

LOSS = LogFormat.of(pattern=r"step (?P<step>\d+) loss (?P<loss>\S+)")
TRAINER = """
import pathlib, sys
name, N, tokens, folder = sys.argv[1:5]
N, tokens = float(N), float(tokens)
pathlib.Path("made.txt").open("a").write(name + "\\n")
for step in (10, 20, 40):
    print(f"step {step} loss {1.7 + 400 / N**.34 + 410 / (tokens * step / 40)**.28:.5f}", flush=True)
if name == "bad":
    sys.exit(3)
"""


def plan(*names: str, **values: Any) -> list[dict[str, Any]]:
    return [{"run": name, "kind": "final", "N": 1e6 * (k + 1), "tokens": 2e7, **values} for k, name in enumerate(names)]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("trainer.py").write_text(TRAINER)
    return f"'{sys.executable}' trainer.py {{run}} {{N}} {{tokens}} {{folder}}"


def made() -> list[str]:
    return Path("made.txt").read_text().split() if Path("made.txt").exists() else []


def test_a_plan_becomes_a_table_of_runs(command: str) -> None:
    found = execute(plan("a", "b"), command, LOSS, "out", workers=2)
    assert sorted(found.done) == ["a", "b"]
    assert not found.failed
    table = read_runs(found.table)
    assert table.N.tolist() == [1e6, 2e6]
    assert table.loss[0] == pytest.approx(1.7 + 400 / 1e6**0.34 + 410 / 2e7**0.28, abs=1e-5)


def test_a_failed_run_is_recorded_stops_nothing_and_is_tried_again(command: str) -> None:
    said: list[str] = []
    found = execute(plan("a", "bad", "c"), command, LOSS, "out", say=said.append)
    assert found.failed == {"bad": "ended with code 3"}
    assert found.done == ("a", "c")
    assert any("bad: failed ended with code 3" in line for line in said)
    table = read_runs(found.table)
    assert table.run.tolist() == ["a", "c"]
    assert table.dropped == {"failed: ended with code 3": ("bad",)}
    again = execute(plan("a", "bad", "c"), command, LOSS, "out")
    assert again.done == ()
    assert again.found == ("a", "c")
    assert again.summary() == "2 of 3 runs done, 1 failed, 0 without a log"
    assert made() == ["a", "bad", "c", "bad"]


def test_an_interrupted_call_goes_on_where_it_was(command: str) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(plan("a", "b", "c"), command, LOSS, "out", say=interrupt)
    before = made()
    assert len(before) < 3
    execute(plan("a", "b", "c"), command, LOSS, "out")
    assert sorted(set(made())) == ["a", "b", "c"]
    assert made().count("a") == 1


def test_a_run_that_is_too_long_is_ended_with_all_that_it_started(command: str) -> None:
    endless = f"'{sys.executable}' -c 'import subprocess as s; s.run([\"sleep\", \"60\"])'"
    began = time.monotonic()
    found = execute(plan("a"), endless, LOSS, "out", timeout_seconds=0.5)
    assert time.monotonic() - began < 20
    assert found.failed == {"a": "took longer than 0.5 s"}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("print('nothing')", "no loss in the log"),
        ("print('step 1 loss 3.0'); print('step 2 loss nan')", "diverged: the last loss in the log is nan"),
        ("print('step 1 loss abc')", "loss in the log must be a number, got 'abc'"),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal SIGKILL"),
    ],
)
def test_reasons_of_failures(command: str, script: str, reason: str) -> None:
    found = execute(plan("a"), f"'{sys.executable}' -c \"{script}\"", LOSS, "out")
    assert reason in found.failed["a"]


def test_a_command_that_does_not_exist_fails_its_runs_only(command: str) -> None:
    assert "cannot start 'no-such-program'" in execute(plan("a"), "no-such-program {N}", LOSS, "out").failed["a"]


def test_values_never_become_words_or_shell_commands(tmp_path: Path) -> None:
    values = {"run": "a", "N": 1e6, "folder": "/tmp/a b; touch x", "log": "$(touch y)"}
    words = Command("train --out {folder} --log={log} '{N} {N}' {{x}}").words(values)
    assert words == ["train", "--out", "/tmp/a b; touch x", "--log=$(touch y)", "1000000 1000000", "{x}"]
    shown = Command("echo {folder} --log={log}").quoted(values)
    printed = subprocess.run(["sh", "-c", shown], capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    assert printed == "/tmp/a b; touch x --log=$(touch y)\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("", "empty"),
        ("train {M}", r"names \{M\}; known are \{run\}"),
        ("train {N!r}", "bare names"),
        ("train {N.__class__}", r"names \{N.__class__\}"),
        ("train {N", "no template"),
        ("train 'x", "cannot be split"),
    ],
)
def test_a_bad_command_is_refused_before_any_run(template: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        execute(plan("a"), template, LOSS, tmp_path / "out")


def test_a_field_that_a_run_does_not_have_is_refused_before_any_run(command: str) -> None:
    with pytest.raises(ConfigError, match=r"names \{S\}, which the run a does not have"):
        execute(plan("a"), command + " {S}", LOSS, "out")
    assert made() == []


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".hidden", "a b"])
def test_names_of_runs_stay_inside_the_folder(name: str, command: str) -> None:
    with pytest.raises(ConfigError, match="names of runs"):
        execute(plan(name), command, LOSS, "out")


def test_a_learning_curve_has_all_its_points_and_a_stopped_run_its_least(command: str) -> None:
    curve = plan("a", kind="curve", B=5e5, S=40.0)
    table = read_runs(execute(curve, command, LOSS, "curves").table)
    assert table.curve.all()
    assert table.S.tolist() == [10, 20, 40]
    assert table.tokens.tolist() == [5e6, 1e7, 2e7]
    rising = f"'{sys.executable}' -c \"print('step 5 loss 3.0'); print('step 6 loss 3.5')\""
    table = read_runs(execute(plan("a", kind="stopped", D=1e5, B=1e6), rising, LOSS, "stopped").table)
    assert table.stopped.all()
    assert (table.loss[0], table.S[0], table.D[0]) == (3.0, 5.0, 1e5)


def test_logs_of_a_queue_are_read_without_a_command(command: str) -> None:
    for name in ("a", "b", "c"):
        Path("out", name).mkdir(parents=True)
        Path("out", name, "started").touch()
        Path("out", name, "log.txt").write_text("step 1 loss 3.25\n")
    Path("out/a/exit").write_text("0\n")
    Path("out/b/exit").write_text("9\n")
    found = execute(plan("a", "b", "c", "d"), None, LOSS, "out")
    assert found.done == ("a",)
    assert found.failed == {"b": "ended with code 9"}
    assert read_runs(found.table).dropped == {"failed: ended with code 9": ("b",), "not made yet": ("c", "d")}
    Path("out/c/exit").write_text("0\n")
    assert execute(plan("a", "b", "c", "d"), None, LOSS, "out").done == ("c",)


def test_two_calls_do_not_make_the_same_runs(command: str) -> None:
    Path("slow.py").write_text("import time; time.sleep(3)")
    slow = threading.Thread(target=execute, args=(plan("a"), f"'{sys.executable}' slow.py", LOSS, "out"))
    slow.start()
    try:
        while not Path("out/a/log.txt").exists():
            time.sleep(0.02)
        script = (
            "from scaling_sim.study.external import execute\nfrom scaling_sim.study.logs import LogFormat\n"
            "execute([{'run': 'a', 'N': 1}], 'true', LogFormat.of(pattern='(x)'), 'out')"
        )
        paths = os.pathsep.join(p for p in sys.path if p)
        other = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}
        )
        assert "another process" in other.stderr
    finally:
        slow.join()


def test_json_lines_are_read_by_key() -> None:
    lines = ['{"eval": {"loss": 3.5}, "step": 1}', "noise", "[1]", '{"other": 1}', '{"eval": {"loss": 3.0}, "step": 2}']
    assert LogFormat.of(keys="loss=eval.loss,step=step").points(lines) == [Point(3.5, 1.0), Point(3.0, 2.0)]
    assert LogFormat.of(keys="loss=a.b").points([json.dumps({"a.b": 2.5})]) == [Point(2.5)]


def test_the_last_loss_without_steps_counts_and_numbers_may_have_commas() -> None:
    form = LogFormat.of(pattern=r"loss=(\S+)")
    assert form.points(["loss=4", "loss=3.5"]) == [Point(3.5)]
    form = LogFormat.of(pattern=r"(?P<tokens>[\d,]+) tokens: (?P<loss>\S+)")
    assert form.points(["1,000 tokens: 4", "2,000 tokens: 3"]) == [Point(4.0, None, 1000.0), Point(3.0, None, 2000.0)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "one of them"),
        ({"pattern": "(a)", "keys": "loss=a"}, "one of them"),
        ({"pattern": "("}, "no regular expression"),
        ({"pattern": "loss"}, r"needs a group \(\?P<loss>"),
        ({"pattern": "(?P<lr>.)(?P<loss>.)"}, "got lr"),
        ({"keys": "step=a"}, "JSON keys read"),
        ({"keys": "loss="}, "JSON keys read"),
    ],
)
def test_a_bad_log_format_is_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LogFormat.of(**given)


def test_a_broken_plan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.csv"
    for text, message in (
        ("a,b\n1,2\n", "is no plan"),
        ("run,N,loss,decayed\na,1e6,3,True\n", "is no plan but a table of runs"),
        ("run,N\na,big\n", "line 2: N must be a number, got 'big'"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_plan(path)
    with pytest.raises(DataError, match="cannot read the plan"):
        read_plan(tmp_path / "none.csv")
