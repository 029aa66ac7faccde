"""What every verb prints: results on stdout as text or JSON, everything else on stderr."""

from __future__ import annotations

import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from scaling_sim.config import json_text
from scaling_sim.errors import ConfigError

if TYPE_CHECKING:
    from scaling_sim.inference.posterior import Posterior

LONG = 80
"""Characters of a list's items from which each has a line of its own."""


def say(line: str) -> None:
    """Print a line on stderr."""
    print(line, file=sys.stderr, flush=True)


def warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning on stderr; takes the place of ``warnings.showwarning``."""
    say(f"warning: {message}")


def command_line() -> str:
    """The command as it was typed."""
    return shlex.join(["scaling-sim", *sys.argv[1:]])


def show(facts: Mapping[str, Any], as_json: bool, text: Callable[[], str]) -> None:
    """Print facts on stdout, as one JSON object or as text."""
    print(json_text(facts) if as_json else text())


def show_prediction(prediction: Any, as_json: bool) -> None:
    """Print a prediction and exit with 3 if its fit did not converge."""
    facts = prediction.to_json()
    show(facts, as_json, lambda: as_lines(facts))
    exit_unless(facts.get("converged", True) is not False)


def exit_unless(converged: bool) -> None:
    """Exit with 3 unless the posterior converged."""
    if not converged:
        say("warning: the posterior did not converge; do not rely on these numbers")
        raise typer.Exit(3)


def as_lines(facts: Mapping[str, Any], indent: str = "") -> str:
    """Facts as text, one line each."""
    return "\n".join(as_line(key, value, indent) for key, value in facts.items())


def as_line(key: str, value: Any, indent: str) -> str:
    """One fact as text: quantities with their 90 % interval, mappings indented below their name."""
    if isinstance(value, Mapping) and "median" in value and "interval90" in value:
        low, high = value["interval90"]
        if low == high == value["median"]:  # one draw: published constants
            return f"{indent}{key:28s} {short(low):>11s}"
        return f"{indent}{key:28s} {short(value['median']):>11s}   90 %: {short(low)} to {short(high)}"
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return "\n".join([f"{indent}{key}:", *(as_lines(item, indent + "  ") + "\n" for item in value)])
    if isinstance(value, list):
        items = [short(item) for item in value]
        if sum(map(len, items)) > LONG:
            return "\n".join([f"{indent}{key}:", *(f"{indent}  {item}" for item in items)])
        return f"{indent}{key:28s} {'; '.join(items) or 'none'}"
    if isinstance(value, Mapping):
        return f"{indent}{key}:\n{as_lines(value, indent + '  ')}" if value else f"{indent}{key:28s} none"
    return f"{indent}{key:28s} {short(value)}"


def short(value: Any) -> str:
    """Four digits of a float."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def checked_figure(path: Path | None) -> None:
    """Refuse a figure that cannot be written, before the work is done."""
    if path is not None and path.suffix not in (".svg", ".png"):
        raise ConfigError(f"--figure writes .svg or .png, got {path.name!r}")


def write_figure(figure: Any, path: Path) -> None:
    """Write a figure of the report as .svg or .png, and say so."""
    from scaling_sim.report.figures import to_png, to_svg

    path.write_bytes(to_png(figure, 150.0) if path.suffix == ".png" else to_svg(figure).encode())
    say(f"figure in {path}")


def write_piped(fit: Posterior) -> None:
    """Write a fit's file to stdout, for a verb that reads it as ``-``."""
    with tempfile.TemporaryDirectory(prefix="scaling-sim-") as folder:
        sys.stdout.buffer.write(fit.save(Path(folder) / "stdout.nc").read_bytes())
    sys.stdout.buffer.flush()


def count_rows(dropped: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """Reason → number of rows left out."""
    return {reason: len(names) for reason, names in dropped.items()}


@contextmanager
def interruptible(message: str) -> Iterator[None]:
    """Say on Ctrl-C what became of the work, and exit with 130."""
    try:
        yield
    except KeyboardInterrupt:
        say(message)
        raise typer.Exit(130) from None


def resumable() -> AbstractContextManager[None]:
    """On Ctrl-C say that the same command goes on."""
    return interruptible("interrupted; the same command again resumes")


AGAIN_SECONDS = 0.3
"""After which a Ctrl-C that had no effect is raised again."""


@contextmanager
def stubborn_interrupt() -> Iterator[None]:
    """Raise a Ctrl-C again and again until the block is left.

    Python drops an exception that is raised in a finaliser or in the callback of an import lock, a bare ``except``
    drops any, and compiled modules drop those of what they import on trial: about one key in a hundred was lost in
    short fits. While the first one is being handled (a ``finally`` tidies up) none is raised again.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or not hasattr(signal, "setitimer"):
        yield  # ignored (nohup), somebody else's, or not POSIX
        return
    before_alarm = signal.signal(signal.SIGALRM, _remind)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGALRM, before_alarm)


def _interrupt(*_: Any) -> None:
    signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS, AGAIN_SECONDS)
    raise KeyboardInterrupt


def _remind(*_: Any) -> None:
    handled = sys.exc_info()[1]
    while handled is not None:
        if isinstance(handled, KeyboardInterrupt):
            return
        handled = handled.__context__
    raise KeyboardInterrupt
