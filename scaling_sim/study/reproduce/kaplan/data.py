"""The runs of an experiment, and what several systems share of them, each made once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from scaling_sim.errors import ConfigError, DataError, ScalingSimError, ScalingSimWarning

if TYPE_CHECKING:
    from scaling_sim.datasets import Experiment
    from scaling_sim.inference import Posterior
    from scaling_sim.runs.record import RunRecord
    from scaling_sim.runs.table import RunTable

T = TypeVar("T")


@dataclass
class Data:
    """An experiment with its fits, which are made when they are first asked for and kept.

    It can be sent to another process with all that was made so far.

    Parameters
    ----------
    experiment : Experiment
    seed : int
        Of every fit.
    """

    experiment: Experiment
    seed: int = 0
    _shared: dict[str, Any] = field(default_factory=dict, repr=False)
    _kept: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def simulated(self) -> bool:
        """Whether the losses were computed from a formula rather than measured."""
        return any(record.simulated for record in self.experiment.records)

    def records(self, *purposes: str, **conditions: Any) -> tuple[RunRecord, ...]:
        """Finished runs made for any of these purposes that meet all conditions, as `Experiment.select`.

        Raises
        ------
        DataError
            There are none; the message says which were looked for.
        """
        found = tuple(
            record
            for record in self.experiment.select(*purposes, **conditions)
            if record.status in ("done", "stopped") and record.result is not None
        )
        if not found:
            raise DataError(f"there are no finished runs {_words(purposes, conditions)}")
        return found

    def table(self, *purposes: str, split: str = "test", **conditions: Any) -> RunTable:
        """The same runs as rows, their losses on ``split``."""
        from scaling_sim.runs.table import table_from_records

        return table_from_records(self.records(*purposes, **conditions), split=split, source=self.source)

    @property
    def source(self) -> str:
        """What tables call the runs."""
        return "rehearsal" if self.simulated else "kaplan-h200"

    def fit(self, name: str) -> Posterior:
        """The posterior of this name in `scaling_sim.study.reproduce.kaplan.fits.FITS`.

        Raises
        ------
        DesignError, DataError
            The runs do not allow it; the same error every time.
        """
        from scaling_sim.study.reproduce.kaplan.fits import FITS

        if name not in FITS:
            raise ConfigError(f"no shared fit is called {name!r}; there are: {', '.join(FITS)}")
        found: Posterior = self.shared(name)
        return found

    def shared(self, name: str) -> Any:
        """What `scaling_sim.study.reproduce.kaplan.fits.SHARED` makes under this name, made once; raises as `fit`."""
        found = outcome(self, name)
        if isinstance(found, ScalingSimError):
            raise found
        return found

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What ``make`` returns, made once under this name: predictions that several systems of a process share."""
        if name not in self._kept:
            self._kept[name] = make()
        kept: T = self._kept[name]
        return kept

    def give(self, name: str, found: Any) -> None:
        """Keep what another process made under a shared name, or the error that says why there is nothing."""
        self._shared[name] = found

    @property
    def verdicts(self) -> dict[str, str]:
        """Shared name → what diagnostics say of it, of those made so far."""
        return {name: _verdict(found) for name, found in self._shared.items()}


def outcome(data: Data, name: str) -> Any:
    """What is shared under a name, or the error that says why there is nothing: both can be sent to a process."""
    from scaling_sim.study.reproduce.kaplan.fits import SHARED

    if name not in data._shared:
        with warnings.catch_warnings():  # what they say stands in the fit, and its verdict is shown
            warnings.simplefilter("ignore", ScalingSimWarning)
            try:
                data.give(name, SHARED[name](data))
            except ScalingSimError as error:
                data.give(name, error)
    return data._shared[name]


def _verdict(found: Any) -> str:
    if isinstance(found, ScalingSimError):
        return f"not made: {found}"
    if hasattr(found, "diagnostics"):
        return str(found.diagnostics.verdict)
    return f"importance sampling, ESS {found.ess:.0f}" if hasattr(found, "ess") else found.caveat()


def _words(purposes: tuple[str, ...], conditions: dict[str, Any]) -> str:
    what = f"made for {' or '.join(purposes)}" if purposes else "at all"
    where = ", ".join(f"{key} = {value}" for key, value in conditions.items())
    return f"{what}{f' with {where}' if where else ''}"
