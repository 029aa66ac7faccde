"""An experiment: many runs, what is known about them, and a way to pick some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import msgspec

from scaling_sim.engine.cohort import Recipe
from scaling_sim.errors import ConfigError, DataError
from scaling_sim.model.shape import Shape
from scaling_sim.runs.archive import Archive, CorpusFacts, read_archive
from scaling_sim.runs.record import Purpose, RunConfig, RunRecord
from scaling_sim.runs.table import RunTable, table_from_records

PURPOSES: tuple[str, ...] = get_args(Purpose)
SEVERAL = (tuple, list, set, frozenset, range)
"""Types of a condition that lists values."""

_HOLDERS: dict[type[msgspec.Struct], Callable[[RunRecord], Any]] = {
    RunRecord: lambda record: record,
    RunConfig: lambda record: record.config,
    Recipe: lambda record: record.config.recipe,
    Shape: lambda record: record.config.shape,
}
_HOLDER_OF = {name: holder for kind, holder in _HOLDERS.items() for name in kind.__struct_fields__}


class Experiment:
    """Runs that belong together, and what is known about all of them.

    Parameters
    ----------
    records : iterable of RunRecord
    facts : mapping
        ``corpora``: hash → {key, name, tokens, vocab_size, entropy, splits}; date, device, commit and more.
    name : str
        What tables call it.

    Raises
    ------
    DataError
        A run id stands there twice or is not that of its configuration, or ``facts`` do not name its corpus.
    """

    _path: str | Path

    def __init__(self, records: Iterable[RunRecord], facts: Mapping[str, Any], name: str = "experiment") -> None:
        self.name = name
        self._archive = Archive(dict(facts), tuple(records)).check(name)

    @classmethod
    def from_file(cls, path: str | Path, name: str = "") -> Experiment:
        """The experiment of a file, which is read when it is first used."""
        found = cls.__new__(cls)
        found.name, found._path = name or str(path), path
        return found

    @cached_property
    def _archive(self) -> Archive:
        return read_archive(self._path)

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """All runs, those that diverged or failed included."""
        return self._archive.records

    @property
    def facts(self) -> dict[str, Any]:
        """What is known about all runs: corpora, date, device, commit, sittings."""
        return self._archive.facts

    @cached_property
    def corpora(self) -> dict[str, CorpusFacts]:
        """Texts that runs were trained on, by the hash in their configurations."""
        return self._archive.corpora

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        counts: Counter[str] = Counter(purpose for record in self.records for purpose in record.purposes)
        listed = ", ".join(f"{counts[purpose]} {purpose}" for purpose in PURPOSES if counts[purpose])
        return f"Experiment({self.name}: {len(self)} runs; {listed})"

    def select(self, *purposes: str, corpus: str | None = "english", **conditions: Any) -> tuple[RunRecord, ...]:
        """Runs made for any of ``purposes`` (all if none is given) that meet every condition, by run id.

        Parameters
        ----------
        purposes : str
            ``curve``, ``final``, ``data``, ``batch``, ``seed``, ``lr``, ``shape``, ``context``, ``schedule``,
            ``fresh``.
        corpus : str or None
            Key of the text; None takes runs on all of them, whose losses cannot be compared.
        conditions
            A field of the record, its configuration, recipe or shape, and the value that it must have, or a tuple,
            list, set or range of values: ``dropout=0.0``, ``status=("done", "stopped")``, ``d_model=range(65)``.

        Raises
        ------
        ConfigError
            There is no such purpose, corpus or field; the message lists them.
        """
        _check("purpose", purposes, PURPOSES)
        _check("field", conditions, _HOLDER_OF)
        texts = self._texts(corpus)
        return tuple(
            record
            for record in self.records
            if record.config.corpus in texts
            and (not purposes or not set(purposes).isdisjoint(record.purposes))
            and all(_meets(record, name, wanted) for name, wanted in conditions.items())
        )

    def table(self, *purposes: str, corpus: str | None = "english", split: str = "test", **conditions: Any) -> RunTable:
        """The runs of `select` as rows for a fit, their losses on ``split``.

        Raises
        ------
        DataError
            No run was selected, or none of them was evaluated on ``split``.
        """
        records = self.select(*purposes, corpus=corpus, **conditions)
        if not records:
            asked = [*purposes, f"corpus={corpus!r}", *(f"{name}={value!r}" for name, value in conditions.items())]
            raise DataError(f"{self.name} has no run with {', '.join(asked)}")
        return table_from_records(records, split, source=self.name)

    def _texts(self, corpus: str | None) -> set[str]:
        if corpus is None:
            return set(self.corpora)
        _check("corpus", (corpus,), [facts.key for facts in self.corpora.values()])
        return {text for text, facts in self.corpora.items() if facts.key == corpus}


def _check(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a name that is not known; nearest ones are left to the reader, who sees them all."""
    names = sorted(set(known))
    for name in given:
        if name not in names:
            raise ConfigError(f"no {what} is called {name!r}; there are: {', '.join(names)}")


def _meets(record: RunRecord, name: str, wanted: Any) -> bool:
    value = getattr(_HOLDER_OF[name](record), name)
    return bool(value in wanted if isinstance(wanted, SEVERAL) else value == wanted)
