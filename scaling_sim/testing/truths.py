"""Truths drawn from a law's prior, each with a sweep simulated from it: what calibration needs to be exact."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import ConfigError, DesignError
from scaling_sim.inference.design import prepare
from scaling_sim.inference.priors import moments
from scaling_sim.inference.student import NU
from scaling_sim.inference.target import LogPosterior
from scaling_sim.laws.base import Law
from scaling_sim.predict.layout import Grid, Sweep, log_spaced
from scaling_sim.predict.noise import Noise
from scaling_sim.predict.simulate import simulate
from scaling_sim.runs.table import RunTable

Array = NDArray[np.float64]

MAX_TRIES = 10_000
"""Draws from the prior until one is accepted; more mean that ``keep`` refuses everything."""


@dataclass(frozen=True)
class Truth:
    """A draw from the joint distribution of parameters and data.

    Attributes
    ----------
    u : (n_coordinates,) sampling coordinates, those of the law first, centred on ``table``
    parameters : natural parameters by name
    table : the sweep
    """

    u: Array
    parameters: Mapping[str, float]
    table: RunTable


class Truths:
    """Draws of (parameters, sweep) from the joint distribution whose conditional is the posterior of `fit`, exactly.

    The prior of a law's level (``log_loss``) is centred on the mean log loss of the *data*, which no forward simulation
    can know. The joint density is p(u) p(y | u) Normal(level(u, y)) with a level that is uniform a priori, and every
    law is unchanged by a change of the unit of loss. So the level is fixed, the sweep is simulated, and the pair is
    accepted with probability exp(−z²/2), z the level's prior score given the sweep. What ``keep`` refuses is refused by
    the data alone, which leaves every posterior as it is.

    Parameters
    ----------
    law : Law
    design : Grid or Sweep
    keep : function of a RunTable
        True for sweeps to be calibrated on.
    reference : mapping
        Natural parameters for laws without published ones (see `scaling_sim.predict.simulate`).
    """

    def __init__(
        self,
        law: Law,
        design: Grid | Sweep | None = None,
        keep: Callable[[RunTable], bool] | None = None,
        reference: Mapping[str, float] | None = None,
    ) -> None:
        self.law, self.design, self.keep = law, design or small_design(law), keep
        table = simulate(dict(reference or {}), self.design, law=law, noise=0.0)
        self._target = LogPosterior(law, prepare(table, law))
        self._level = _level(law, self._target.centre)

    def draw(self, rng: np.random.Generator) -> Truth:
        """One truth with its sweep.

        Raises
        ------
        ConfigError
            Nothing was accepted in `MAX_TRIES` draws.
        """
        for _ in range(MAX_TRIES):
            truth = self._try(rng)
            if truth is not None and (self.keep is None or self.keep(truth.table)):
                return truth
        raise ConfigError(f"keep must accept some sweeps of {self.law.name}; it refused {MAX_TRIES}")

    def _try(self, rng: np.random.Generator) -> Truth | None:
        mean, sd = moments(self._target.coordinates)
        u = mean + sd * rng.standard_normal(len(mean))
        u[self._level] = mean[self._level]
        parameters = self._natural(u)
        noise, seed, chance = self._noise(u, rng), int(rng.integers(2**62)), rng.random()
        if not np.isfinite(list(parameters.values())).all():
            return None
        try:
            table = simulate(parameters, self.design, law=self.law, noise=noise, seed=seed)
            data = prepare(table, self.law)
        except DesignError:
            return None
        if len(data) < len(self._target.data) or not np.all((table.loss > 0) & np.isfinite(table.loss)):
            return None
        with np.errstate(divide="ignore"):
            u[: self._target.num_law] = self.law.from_parameters(parameters, self.law.centre(data))[0]
        score = (u[self._level] - mean[self._level]) / sd[self._level]
        return Truth(u, parameters, table) if np.isfinite(u).all() and chance < np.exp(-0.5 * score**2) else None

    def _natural(self, u: Array) -> dict[str, float]:
        with np.errstate(all="ignore"):
            natural = self.law.to_parameters(u[None, : self._target.num_law], self._target.centre)
        return {name: float(value[0]) for name, value in natural.items()}

    def _noise(self, u: Array, rng: np.random.Generator) -> dict[str, Noise]:
        """Errors of each role: ν is 3, 5 or 30 alike, the rest as its coordinates say."""
        noise = {}
        for part in self._target.likelihood.parts:
            nu = rng.choice(NU, size=1)
            own = u[None, self._target.num_law :][:, part.noise]
            values = {name: float(value[0]) for name, value in part.errors.natural(own, nu).items()}
            noise[part.role] = Noise(nu=float(nu[0]), **values)
        return noise


def small_design(law: Law) -> Grid | Sweep:
    """A sweep of at most 40 points that identifies ``law``, small enough to be fitted hundreds of times."""
    if "S" in law.columns:
        return Sweep(N=log_spaced(1e5, 1e8, 4), points=8, batch_N=(), data_N=(), seed_N=())
    if law.name == "kaplan-nd":
        return Grid(N=log_spaced(1e6, 1e9, 5), tokens=log_spaced(2e7, 2e10, 6), stopped=True)
    if law.columns == ("D",):
        return Grid(N=(1e9,), tokens=log_spaced(2e7, 2e10, 12), stopped=True)
    if law.columns in (("N",), ("C",)):
        return Grid(N=log_spaced(1e6, 1e10, 12), tokens=None)
    repeats = (1.0, 8.0) if "D" in law.columns else (1.0,)
    return Grid(N=log_spaced(5e7, 5e9, 5), tokens=log_spaced(1e9, 3e11, 8 // len(repeats)), epochs=repeats)


def _level(law: Law, centre: Mapping[str, float]) -> int:
    """Place of the one coordinate that is measured from the mean log response of the data."""
    response = f"log_{law.response}"
    u = moments(law.coordinates(centre))[0][None]
    moved = law.from_parameters(law.to_parameters(u, centre), {**centre, response: centre[response] + 1.0})
    levels = np.flatnonzero(np.abs(moved - u)[0] > 1e-6)
    if len(levels) != 1:
        raise ConfigError(
            f"calibration needs a law with one coordinate measured from the mean log response of the data; {law.name} "
            f"has {len(levels)}"
        )
    return int(levels[0])
