"""A fit on a terminal of 60 columns: progress while it runs, nothing of it left, and a clean end on Ctrl-C."""

from __future__ import annotations

import os
import re
import select
import sys
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from scaling_sim.inference.sampler import Progress
from scaling_sim.study.fit_display import headline

pty = pytest.importorskip("pty", reason="needs a POSIX terminal")

COLUMNS = 60


@pytest.fixture
def runs(table: Callable[..., str]) -> str:
    cells = product((1e7, 1e8, 1e9), (1e9, 1e10, 1e11), (0.99, 1.0, 1.01))
    return table("N,tokens,loss", [(N, t, k * (1.8 + 400 / N**0.34 + 1500 / t**0.36)) for N, t, k in cells])


def on_terminal(*arguments: str, interrupt_after: str | None = None, seconds: float = 120.0) -> tuple[int, str]:
    """Exit code and output of a verb whose three streams are a terminal; Ctrl-C is typed once a text has appeared."""
    command = [sys.executable, "-m", "scaling_sim.cli", *arguments]
    pid, terminal = pty.fork()
    if pid == 0:  # the child
        environment = {**os.environ, "COLUMNS": str(COLUMNS), "LINES": "24", "TERM": "xterm"}
        os.execve(sys.executable, command, {k: v for k, v in environment.items() if k != "NO_COLOR"})
    text, end = "", time.monotonic() + seconds
    while time.monotonic() < end:
        if interrupt_after is not None and interrupt_after in text:
            os.write(terminal, b"\x03")
            interrupt_after = None
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            text += os.read(terminal, 65536).decode(errors="replace")
        except OSError:  # the child has closed its side
            break
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def lines(text: str) -> list[str]:
    """What is written between two moves of the cursor, without colours."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return [line for line in re.split(r"[\r\n]+", plain) if line.strip()]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_progress_with_the_autocorrelation_time_and_the_time_left(runs: str) -> None:
    code, text = on_terminal("fit", runs, "--law", "power-c")
    shown = [line for line in lines(text) if "power-c step" in line]
    assert code == 0
    assert shown
    assert all(re.search(r"step \d+/\d+ τ \d+  (.* left|checking)", line) for line in shown)
    assert max(len(line) for line in shown) <= COLUMNS
    assert "converged: R-hat" in text


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_ctrl_c_ends_with_130_and_one_line(runs: str) -> None:
    endless = ("--min-ess", "1000000")  # more than the sampler's most steps give: it ends only by the key
    code, text = on_terminal("fit", runs, *endless, interrupt_after="chinchilla step")
    assert code == 130
    assert lines(text)[-1] == "interrupted; nothing was saved"
    assert "Traceback" not in text


def test_nothing_off_a_terminal(runs: str, cli: Any) -> None:
    assert cli("fit", runs, "--law", "power-c").stderr == ""


def test_the_line_is_short_at_the_end_of_a_long_fit() -> None:
    assert headline(Progress(400, 1230, 21.4, 2.0, 4.2)) == "step 400/1230 τ 21  4 s left"
    assert headline(Progress(1300, 1230, 21.4, 6.0, 0.0)) == "step 1300/1300 τ 21  checking"
    assert headline(Progress(100, 383, 6.2, 2.1, 14.0, at_least=True)) == "step 100/383 τ 6  ≥14 s left"
    assert (
        len(headline(Progress(29_000, 30_000, 1234.0, 9e3, 7499.0, at_least=True)))
        <= COLUMNS - len("data-constrained ") - 2
    )
