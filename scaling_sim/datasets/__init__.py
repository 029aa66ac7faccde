"""Training runs of our own that are part of the package: ``datasets.load("kaplan-h200")``.

Runs of other people's repositories are never copied in here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from scaling_sim.datasets.experiment import Experiment as Experiment
from scaling_sim.errors import ConfigError
from scaling_sim.runs import archive
from scaling_sim.runs.record import RunRecord

DEFAULT = "kaplan-h200"


def names() -> tuple[str, ...]:
    """Experiments that this installation holds."""
    return tuple(sorted(path.name.removesuffix(archive.SUFFIX) for path in archive.SHIPPED.glob(f"*{archive.SUFFIX}")))


@cache
def load(name: str = DEFAULT) -> Experiment:
    """A shipped experiment, whose file is read when it is first used.

    Raises
    ------
    ConfigError
        There is none of this name; the message lists them.
    """
    if name not in names():
        listed = f"there are: {', '.join(names())}" if names() else "this installation holds none"
        raise ConfigError(f"no shipped experiment is called {name!r}; {listed}; read files with datasets.read(path)")
    return Experiment.from_file(archive.shipped_archive(name), name)


def read(path: str | Path) -> Experiment:
    """The experiment of a file written by `write`, complete and checked.

    Raises
    ------
    DataError
        There is no such file, it is damaged, or its runs do not match their configurations.
    """
    facts, records = archive.read_archive(path)
    return Experiment(records, facts, Path(path).name.removesuffix(archive.SUFFIX))


def write(path: str | Path, records: Iterable[RunRecord], facts: Mapping[str, Any]) -> None:
    """Write an experiment for `read`; see `scaling_sim.runs.archive.write_archive`."""
    archive.write_archive(path, records, facts)
