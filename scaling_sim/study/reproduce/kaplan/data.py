"""The runs of an experiment and the fits that several systems share, each made once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from scaling_sim.errors import ConfigError, DataError, DesignError, ScalingSimError, ScalingSimWarning

if TYPE_CHECKING:
    from scaling_sim.datasets import Experiment
    from scaling_sim.inference import Posterior
    from scaling_sim.runs.record import RunRecord
    from scaling_sim.runs.table import RunTable

T = TypeVar("T")


@dataclass
class Data:
    """An experiment with its fits, which are made when they are first asked for and kept.

    It can be sent to another process with all fits made so far.

    Parameters
    ----------
    experiment : Experiment
    seed : int
        Of every fit.
    """

    experiment: Experiment
    seed: int = 0
    _fits: dict[str, Posterior | ScalingSimError] = field(default_factory=dict, repr=False)
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
        """The fit of this name in `scaling_sim.study.reproduce.kaplan.fits.FITS`.

        Raises
        ------
        DesignError, DataError
            The runs do not allow it; the same error every time.
        """
        from scaling_sim.study.reproduce.kaplan.fits import FITS

        if name not in FITS:
            raise ConfigError(f"no shared fit is called {name!r}; there are: {', '.join(FITS)}")
        if name not in self._fits:
            self._fits[name] = self._made(name)
        found = self._fits[name]
        if isinstance(found, ScalingSimError):
            raise found
        return found

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What ``make`` returns, made once under this name: predictions that several systems of a process share."""
        if name not in self._kept:
            self._kept[name] = make()
        kept: T = self._kept[name]
        return kept

    def give(self, name: str, fit: Posterior | ScalingSimError) -> None:
        """Keep a fit, or the reason why there is none, that another process made."""
        self._fits[name] = fit

    @property
    def verdicts(self) -> dict[str, str]:
        """Fit → what its diagnostics say, of those made so far."""
        return {
            name: f"not made: {fit}" if isinstance(fit, ScalingSimError) else fit.diagnostics.verdict
            for name, fit in self._fits.items()
        }

    def _made(self, name: str) -> Posterior | ScalingSimError:
        from scaling_sim.study.reproduce.kaplan.fits import FITS

        with warnings.catch_warnings():  # what they say stands in the fit, and its verdict is shown
            warnings.simplefilter("ignore", ScalingSimWarning)
            try:
                return FITS[name](self)
            except ScalingSimError as error:
                return error


def outcome(data: Data, name: str) -> Posterior | ScalingSimError:
    """A shared fit or the reason why there is none, for another process."""
    try:
        return data.fit(name)
    except (DataError, DesignError, ScalingSimError) as error:
        return error


def _words(purposes: tuple[str, ...], conditions: dict[str, Any]) -> str:
    what = f"made for {' or '.join(purposes)}" if purposes else "at all"
    where = ", ".join(f"{key} = {value}" for key, value in conditions.items())
    return f"{what}{f' with {where}' if where else ''}"
