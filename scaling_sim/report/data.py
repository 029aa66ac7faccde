"""Everything that a report shows, in one frozen record; whatever is missing is left out of the report, aloud."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scaling_sim.inference import Posterior
    from scaling_sim.predict import Allocation, Comparison, Crossover, Design, Forecast, Methods
    from scaling_sim.predict.backtest import Backtest
    from scaling_sim.runs.record import RunRecord
    from scaling_sim.runs.table import RunTable


@dataclass(frozen=True)
class ReportData:
    """What a report is made of. Only ``title`` is needed; each further field adds its sections.

    Parameters
    ----------
    title : str
        Heading of the report.
    runs : RunTable, optional
        The runs that were fitted; taken from the first fit where it is not given.
    records : tuple of RunRecord
        Full records of our own sweep: learning curves, noise scales, failures.
    fits : dict, law name → Posterior
        In the order to be shown; the first one that has a parameter is quoted for it.
    allocations : tuple of Allocation
        Compute-optimal models for one or more budgets.
    crossover : Crossover, optional
        Where the laws contradict one another.
    crossover_refusal : str
        Why there is no crossover, in words, where it was asked for and refused.
    forecasts : tuple of Forecast
        Losses expected of runs that were not made.
    backtest : Backtest, optional
        How well the law extrapolated on the runs themselves.
    comparison : Comparison, optional
        Laws on the same runs: leave-one-out and weights by back-test.
    methods : Methods, optional
        The best size by the law, by isoFLOP minima and by the envelope.
    design : Design, optional
        The next runs.
    corpus : dict
        Facts about the text: name, hash, sizes of splits, held-out distributions.
    environment : dict
        Versions and machine; see `environment`.
    seed : int, optional
    command : str
        The command that reproduces all this.
    flags : tuple of str
        What a reader must know before believing it: a best learning rate on its sweep's edge, dropped sizes, …
    planned : int, optional
        Number of runs that the study planned.
    not_identified : dict, law name → parameter names
        Parameters that are not identified for a reason that a fit cannot know: no batch was near the critical one, say.
    simulated : bool
        The losses came from a formula, not from training.
    """

    title: str
    runs: RunTable | None = None
    records: tuple[RunRecord, ...] = ()
    fits: Mapping[str, Posterior] = field(default_factory=dict)
    allocations: tuple[Allocation, ...] = ()
    crossover: Crossover | None = None
    crossover_refusal: str = ""
    forecasts: tuple[Forecast, ...] = ()
    backtest: Backtest | None = None
    comparison: Comparison | None = None
    methods: Methods | None = None
    design: Design | None = None
    corpus: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    command: str = ""
    flags: tuple[str, ...] = ()
    planned: int | None = None
    not_identified: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    simulated: bool = False

    @property
    def table(self) -> RunTable | None:
        """The runs: those given, else those of the first fit."""
        if self.runs is not None:
            return self.runs
        return next((fit.runs for fit in self.fits.values()), None)

    @property
    def is_simulated(self) -> bool:
        """True if any loss in the report was simulated."""
        table = self.table
        return (
            self.simulated
            or (table is not None and table.simulated)
            or any(record.simulated for record in self.records)
            or any(fit.runs.simulated for fit in self.fits.values())
        )

    @property
    def converged(self) -> bool:
        """True if every fit met the convergence rule."""
        return all(fit.converged for fit in self.fits.values())

    def fit_with(self, *parameters: str) -> Posterior | None:
        """The first fit that has all these natural parameters, None if there is none."""
        for fit in self.fits.values():
            if all(name in fit.draws for name in parameters):
                return fit
        return None

    def weak_parameters(self, law: str) -> tuple[str, ...]:
        """Natural parameters of a fit that the data did not determine, for whatever reason."""
        fit = self.fits[law]
        by_data = [name for name in fit.draws if name in fit.not_identified]
        return tuple(dict.fromkeys([*by_data, *self.not_identified.get(law, ())]))

    def warnings(self) -> tuple[str, ...]:
        """The flags and what the fits themselves say: parameters not identified, sweeps cut short."""
        found = list(self.flags)
        for law in self.fits:
            weak = self.weak_parameters(law)
            if weak:
                found.append(f"{law}: {', '.join(weak)} not identified: what is shown for them is mostly the prior.")
        return tuple(dict.fromkeys(found))


def environment() -> dict[str, str]:
    """Versions of what computed this report, and the machine in words that carry no private path."""
    packages = ("scaling-sim", "numpy", "scipy", "emcee", "arviz-stats", "numba", "torch", "matplotlib")
    versions = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def finite_or_none(value: float) -> float | None:
    """``value``, or None where it is NaN: what an empty cell stands for."""
    return None if math.isnan(value) else value
