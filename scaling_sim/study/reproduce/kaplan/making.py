"""Makes the findings: shared fits first, then every system, in two processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from scaling_sim.errors import ConfigError, ScalingSimError
from scaling_sim.study.reproduce.kaplan.data import Data, outcome
from scaling_sim.study.reproduce.kaplan.finding import Finding

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from scaling_sim.datasets import Experiment


class System(NamedTuple):
    """A system of the paper: its name (also of its files), the figure it reproduces, and the function that does."""

    name: str
    figure: str
    function: str
    """``module:function`` in this package."""

    def compute(self, data: Data) -> Finding:
        """The finding, or one that says why there is none."""
        from scaling_sim.report.figures import NothingToShow

        module, function = self.function.split(":")
        compute: Callable[[Data], Finding] = getattr(import_module(f"{__package__}.{module}"), function)
        try:
            return compute(data)
        except (NothingToShow, ScalingSimError) as error:
            return Finding(self.figure, (compute.__doc__ or self.name).splitlines()[0].rstrip("."), missing=str(error))


SYSTEMS: tuple[System, ...] = (
    System("one-variable", "F1", "one_variable:one_variable"),
    System("training-efficiency", "F2", "efficiency:training_efficiency"),
    System("multipliers", "F3", "multipliers:multipliers"),
    System("two-variables", "F4", "two_variables:two_variables"),
    System("shape", "F5", "shape:shape"),
    System("embeddings", "F6", "embeddings:embeddings"),
    System("lstm", "F7", "recurrent:lstm"),
    System("transfer", "F8", "transfer:transfer"),
    System("overfitting", "F9", "overfitting:overfitting_collapse"),
    System("dropout", "F9 dropout", "dropout:dropout"),
    System("critical-batch", "F10", "critical_batch:critical_batch"),
    System("slices", "F11", "slices:slices"),
    System("wrong-size", "F12", "wrong_size:wrong_size"),
    System("compute-trend", "F13", "compute_trend:compute_trend"),
    System("best-size", "F14", "best_size:best_size"),
    System("contradiction", "F15", "contradiction:contradiction"),
    System("stopping", "F16", "stopping:stopping"),
    System("reuse", "F17", "recurrent:reuse"),
    System("contours", "F18", "critical_batch:contours"),
    System("minimal-cost", "F19", "efficiency:minimal_cost"),
    System("along-context", "F20", "positions:along_context"),
    System("short-context", "F21", "positions:short_context"),
    System("schedules", "F22", "schedules:schedules"),
    System("logarithm", "F23", "logarithm:logarithm"),
    System("depth", "F24", "depth:depth"),
    System("held-fixed", "T4", "tables:held_fixed"),
    System("constants", "T5", "tables:constants"),
    System("allocation", "T6", "tables:allocation"),
    System("holdout", "Held out", "holdout:holdout"),
    System("conjecture", "§6.3", "conjecture:conjecture"),
    System("approaches", "Chinchilla 1-3", "approaches:approaches"),
    System("exponents", "Porian, Pearce-Song", "exponents:exponents"),
    System("tokenizer", "BPE", "tokenizer:tokenizer"),
)
"""In the order of the paper's figures, then the tables, then what came later."""


TABLES = {"T1": "T4", "T2": "F4", "T3": "F4"}
"""Tables of the paper without a system of their own, and the figure whose rows hold them. Table 1 counts parameters
and compute, which no run measures: `scaling-sim reproduce kaplan-arithmetic`; T4 says so."""


def find(names: Iterable[str] = ()) -> tuple[System, ...]:
    """The systems of these names or figures; all if none is given.

    Raises
    ------
    ConfigError
        There is no such system; the message lists them.
    """
    wanted = [TABLES.get(name, name) for name in names]
    known = {key for system in SYSTEMS for key in (system.name, system.figure)}
    if unknown := [name for name in wanted if name not in known]:
        listed = ", ".join(system.name for system in SYSTEMS)
        raise ConfigError(f"no system is called {', '.join(unknown)}; there are: {listed}")
    return tuple(s for s in SYSTEMS if not wanted or s.name in wanted or s.figure in wanted)


def reproduce_kaplan(
    out: str | Path,
    data: str | Path | Experiment | None = None,
    *,
    only: Iterable[str] = (),
    seed: int = 0,
    processes: int = 2,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Finding]:
    """Write every figure and table of the paper from our runs into a folder, and return the findings by name.

    Parameters
    ----------
    out : path
        Folder; receives ``NAME.svg`` and ``NAME.png`` of every system, table.json, table.csv and index.html.
    data : path or Experiment, optional
        Runs written by `scaling_sim.datasets.write`; by default those that are shipped.
    only : names of systems or figures
        Make these only: ``["F10", "crossover"]``.
    seed : int
        Of every fit and bootstrap.
    processes : int
        1 works in this process; numbers do not depend on it.
    say : function of a line
        Told what is being done.
    """
    from scaling_sim.config import writable_folder
    from scaling_sim.study.reproduce.kaplan.writing import write_index

    systems = find(only)
    folder, held, began = writable_folder(out), Data(_experiment(data), seed), time.perf_counter()
    with _workers(processes if _early(systems) else 1, held) as pool:
        for name in _early(systems):
            say(f"fitting {name}")
        _make_fits(held, _early(systems), pool)
    say(f"{len(held.verdicts)} fits after {time.perf_counter() - began:.0f} s; drawing {len(systems)} systems")
    with _workers(min(processes, len(systems)), held) as pool:
        made = _make_findings(held, systems, folder, pool)
    findings = {system.name: finding for system, (finding, _) in zip(systems, made, strict=True)}
    verdicts = held.verdicts | {key: verdict for _, more in made for key, verdict in more.items()}
    write_index(folder, findings, verdicts, held)
    say(f"{len(findings)} systems in {folder} after {time.perf_counter() - began:.0f} s")
    return findings


def _experiment(data: str | Path | Experiment | None) -> Experiment:
    from scaling_sim import datasets

    if data is None:
        return datasets.load()
    return datasets.read(data) if isinstance(data, str | Path) else data


def _early(systems: Sequence[System]) -> tuple[str, ...]:
    """Fits worth making beforehand: none for a few systems, which make what they need."""
    from scaling_sim.study.reproduce.kaplan.fits import EARLY

    return EARLY if len(systems) == len(SYSTEMS) else ()


def _make_fits(data: Data, names: Sequence[str], pool: Executor | None) -> None:
    if pool is None:
        return
    waiting = [(name, pool.submit(_fit_in_worker, name)) for name in names]
    for name, future in waiting:
        data.give(name, future.result())


def _make_findings(
    data: Data, systems: Sequence[System], folder: Path, pool: Executor | None
) -> list[tuple[Finding, dict[str, str]]]:
    if pool is None:
        return [_one(data, system, folder) for system in systems]
    waiting = [pool.submit(_find_in_worker, system, folder) for system in systems]
    return [future.result() for future in waiting]


def _one(data: Data, system: System, folder: Path) -> tuple[Finding, dict[str, str]]:
    """Compute and draw one system; the finding comes back without its function, which no process could send."""
    from scaling_sim.report.figures import NothingToShow
    from scaling_sim.study.reproduce.kaplan.writing import write_figure

    finding = system.compute(data)
    if finding.draw is not None:
        try:
            write_figure(finding, system.name, folder)
        except NothingToShow as error:
            finding = replace(finding, missing=str(error))
    return replace(finding, draw=None), data.verdicts


_DATA: Data
"""Of a worker process."""


def _set_data(data: Data) -> None:
    global _DATA
    _DATA = data


def _fit_in_worker(name: str) -> Any:
    return outcome(_DATA, name)


def _find_in_worker(system: System, folder: Path) -> tuple[Finding, dict[str, str]]:
    return _one(_DATA, system, folder)


@contextmanager
def _workers(processes: int, data: Data) -> Iterator[Executor | None]:
    """A pool of spawned processes that hold the data, or None where this process is to do the work."""
    if processes < 2:
        yield None
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=_set_data, initargs=(data,)) as pool:
        yield pool
