"""Ctrl-C is heard even where a library swallows the exception, and does not disturb what tidies up."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
import typer

from scaling_sim.cli.output import interruptible, stubborn_interrupt

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")


def wait(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


def swallow() -> None:
    """What Python does with an exception of a finaliser, and C code with one of an optional import."""
    with suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def verb(work: Callable[[], None]) -> None:
    with stubborn_interrupt(), interruptible("stopped"):
        work()


@pytest.mark.parametrize("times", [1, 3])
def test_a_key_that_was_swallowed_is_raised_again(times: int, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        swallow()
        for _ in range(times - 1):
            with suppress(KeyboardInterrupt):
                wait(5.0)
        wait(5.0)

    began = time.monotonic()
    with pytest.raises(typer.Exit) as left:
        verb(work)
    assert left.value.exit_code == 130
    assert time.monotonic() - began < 2.5
    assert capsys.readouterr().err == "stopped\n"


def test_what_tidies_up_is_not_interrupted() -> None:
    tidied = []

    def work() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            with suppress(ValueError):
                raise ValueError("in a step of the tidying")
            wait(1.0)
            tidied.append(True)

    with pytest.raises(typer.Exit):
        verb(work)
    assert tidied


def test_nothing_is_left_behind() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)
    verb(swallow)  # the work ends before it is raised again
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)) == before


def test_an_ignored_signal_stays_ignored() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        verb(lambda: signal.raise_signal(signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
