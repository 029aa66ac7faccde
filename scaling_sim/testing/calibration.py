"""Simulation-based calibration of a fitter: does a posterior hold the truth as often as it says?"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.inference.curves import CurveErrors
from scaling_sim.inference.design import prepare
from scaling_sim.inference.target import LogPosterior
from scaling_sim.laws import get_law
from scaling_sim.laws.base import Law
from scaling_sim.predict.layout import Grid, Sweep
from scaling_sim.runs.table import RunTable
from scaling_sim.testing.failure import CheckFailed
from scaling_sim.testing.truths import Truth, Truths

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

LEVELS = (0.8, 0.9, 0.95)
FALSE_ALARM = 0.002
"""Share of calls, at most, in which a right fitter is found wrong: ten calls in one suite raise one in fifty."""
MAX_EXCLUDED = 0.1
"""Share of data sets on which a fitter may say that it did not converge."""
MAX_DRAWS = 1000


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranks of true values among posterior draws, uniform on (0, 1) if the fitter is right.

    Each quantity gives five scores, standard normal for a right fitter: coverage of the central 80, 90 and 95 %
    intervals (by their binomial tails), ``dispersion`` (the mean square of the ranks' normal scores, χ² by Wilson &
    Hilferty 1931: positive where intervals are too narrow) and ``location`` (their mean: positive where draws lie too
    low). The ``limit`` of their size grows with the number of scores, so that a right fitter is found wrong in .2 % of
    calls at most (Bonferroni): 3.9 with five quantities, 4.1 with nine.

    Attributes
    ----------
    law : name
    quantities : names: the coordinates of the law and, where the fitter gives its noise, of the errors, then
        ``log_likelihood`` and ``log_posterior`` (Modrák et al. 2023, arXiv 2211.02383, say why these see more)
    ranks : (n_data_sets, n_quantities), in (0, 1)
    num_excluded : data sets on which the fitter said itself that it did not converge; their ranks are not counted
    """

    law: str
    quantities: tuple[str, ...]
    ranks: Array
    num_excluded: int = 0

    @cached_property
    def scores(self) -> Array:
        """Normal scores of the ranks, (n_data_sets, n_quantities)."""
        from scipy.special import ndtri

        return np.asarray(ndtri(self.ranks))

    def coverage(self, level: float) -> Array:
        """(n_quantities,) share of truths within the central interval of this level."""
        return np.asarray(np.mean(np.abs(self.ranks - 0.5) < level / 2, axis=0))

    def coverage_z(self, level: float) -> Array:
        """(n_quantities,) normal score of the binomial probability of a `coverage` as far off; 0 where none is."""
        from scipy.special import bdtr, bdtrc, ndtri

        size, covered = len(self.ranks), np.round(self.coverage(level) * len(self.ranks))
        as_few = bdtr(covered, size, level)
        as_many = np.where(covered > 0, bdtrc(np.maximum(covered - 1, 0), size, level), 1.0)
        return np.where(as_few < as_many, np.minimum(ndtri(as_few), 0.0), np.maximum(-ndtri(as_many), 0.0))

    @property
    def dispersion_z(self) -> Array:
        """(n_quantities,) standard score of the mean square of the normal scores."""
        variance = 2.0 / (9.0 * len(self.ranks))
        return np.asarray((np.mean(self.scores**2, axis=0) ** (1 / 3) - (1 - variance)) / np.sqrt(variance))

    @property
    def location_z(self) -> Array:
        """(n_quantities,) standard score of the mean of the normal scores."""
        return np.asarray(self.scores.mean(axis=0) * np.sqrt(len(self.ranks)))

    @property
    def z(self) -> dict[str, Array]:
        """All scores by name of the statistic."""
        covered = {f"coverage{100 * level:g}": self.coverage_z(level) for level in LEVELS}
        return covered | {"dispersion": self.dispersion_z, "location": self.location_z}

    @property
    def max_z(self) -> float:
        """Size of the largest score of all statistics and quantities."""
        return float(max(np.max(np.abs(values)) for values in self.z.values()))

    @property
    def limit(self) -> float:
        """Of the size of a score, by the number of scores."""
        from scipy.special import ndtri

        num_scores = (len(LEVELS) + 2) * len(self.quantities)
        return float(-ndtri(FALSE_ALARM / (2 * num_scores)))

    @property
    def passed(self) -> bool:
        """Whether every score is below ``limit`` in size and at most a tenth of the data sets was excluded."""
        return self.max_z < self.limit and not self._too_many_excluded

    @property
    def _too_many_excluded(self) -> bool:
        return self.num_excluded > MAX_EXCLUDED * (len(self.ranks) + self.num_excluded)

    @property
    def verdict(self) -> str:
        """Passed or failed, and the largest score, in words."""
        name, place = max(
            ((name, int(np.argmax(np.abs(values)))) for name, values in self.z.items()),
            key=lambda found: abs(self.z[found[0]][found[1]]),
        )
        worst = f"{name} of {self.quantities[place]} has z = {self.z[name][place]:+.1f}"
        counts = f"{len(self.ranks)} sweeps of {self.law}, {self.num_excluded} more excluded as not converged"
        counts += ", a tenth of all at most may be" if self._too_many_excluded else ""
        return f"{'calibrated' if self.passed else 'not calibrated'}: {worst} (limit {self.limit:.1f}) on {counts}"

    def to_dataframe(self) -> pd.DataFrame:
        """One row per quantity: coverage of the 80, 90 and 95 % intervals, and every z."""
        import pandas as pd

        columns = {f"covered{100 * level:g}": self.coverage(level) for level in LEVELS}
        columns |= {f"z_{name}": values for name, values in self.z.items()}
        return pd.DataFrame(columns, index=pd.Index(self.quantities, name="quantity"))

    def _repr_html_(self) -> str:
        return f"<p>{self.verdict}</p>{self.to_dataframe().to_html(float_format='{:.2f}'.format)}"


def calibrate(
    fit_function: Callable[..., Any],
    law: str | Law = "chinchilla",
    design: Grid | Sweep | None = None,
    *,
    num_data_sets: int = 200,
    keep: Callable[[RunTable], bool] | None = None,
    reference: Mapping[str, float] | None = None,
    seed: int = 0,
    processes: int | None = None,
) -> Calibration:
    """Simulation-based calibration (Talts et al. 2018, arXiv 1804.06788) of a fitter of one law.

    Truths come from the law's own prior (`scaling_sim.testing.Truths` says how exactly, although that prior is centred
    on the data), errors from the noise model of `scaling_sim.fit`: independent Student-t errors, or one multivariate t
    per learning curve, ν one of 3, 5 and 30.

    Parameters
    ----------
    fit_function : function of a RunTable and, if it has a parameter of this name, an integer ``seed``
        Returns draws of the natural parameters, as a mapping or an object with ``draws`` (and ``noise``, by the names
        of `scaling_sim.Posterior`); where it has an attribute ``converged`` that is false, the data set is excluded.
        At least 200 effective draws: fewer look over-dispersed. A sampler must take the seed: with the same random
        numbers for every sweep its errors would not average out.
    law : str or Law
    design : Grid or Sweep
        Small by default, at most 40 points.
    num_data_sets : int
    keep : function of a RunTable
        Restricts the sweeps by what can be seen in them, which leaves the calibration exact.
    reference : mapping
        Natural parameters of a law of your own, around which the design's centre is found.
    processes : int
        Spread the sweeps over as many spawned processes; the function must then be one that can be pickled.
        The result does not depend on it.

    Returns
    -------
    Calibration
    """
    form = get_law(law)
    truths = Truths(form, design, keep, reference)
    task = _Task(fit_function, form, truths)
    found = list(_map(task, np.random.SeedSequence(seed).spawn(num_data_sets), processes))
    kept = [ranks for ranks in found if ranks is not None]
    if not kept:
        raise CheckFailed("calibration", f"{form.name}: the fitter converged on none of {num_data_sets} sweeps")
    ranks = np.array([list(each.values()) for each in kept])
    return Calibration(form.name, tuple(kept[0]), ranks, len(found) - len(kept))


@dataclass(frozen=True)
class _Task:
    """Ranks of one data set."""

    fit_function: Callable[..., Any]
    law: Law
    truths: Truths

    def __call__(self, seed: np.random.SeedSequence) -> dict[str, float] | None:
        rng = np.random.default_rng(seed)
        truth = self.truths.draw(rng)
        own_seed = int(rng.integers(2**31))
        takes_seed = "seed" in inspect.signature(self.fit_function).parameters
        result = self.fit_function(truth.table, **({"seed": own_seed} if takes_seed else {}))
        if not getattr(result, "converged", True):
            return None
        target = LogPosterior(self.law, prepare(truth.table, self.law))
        drawn, true = _quantities(target, _draws(result, target), truth)
        return {name: _rank(values, true[name], rng) for name, values in drawn.items()}


def _map(task: _Task, seeds: Sequence[np.random.SeedSequence], processes: int | None) -> Iterable[Any]:
    if not processes or processes < 2:
        return map(task, seeds)
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        return list(pool.map(task, seeds, chunksize=2))


def _draws(result: Any, target: LogPosterior) -> Array:
    """(n_draws, n_coordinates) draws in sampling coordinates; without the errors' if the fitter gives none."""
    natural = result if isinstance(result, Mapping) else {**result.draws, **getattr(result, "noise", {})}
    missing = [name for name in target.law.parameters if name not in natural]
    if missing:
        raise CheckFailed("calibration", f"a fitter must give draws of {', '.join(missing)} by name")
    own = {name: np.asarray(natural[name], dtype=np.float64) for name in target.law.parameters}
    with np.errstate(all="ignore"):
        u = target.law.from_parameters(own, target.centre)
        noise = _noise_coordinates(natural, target)
    both = u if noise is None else np.concatenate([u, noise], axis=1)
    return both[:: -(-len(both) // MAX_DRAWS)]


def _noise_coordinates(natural: Mapping[str, Any], target: LogPosterior) -> Array | None:
    """Coordinates of the errors from ``sigma`` and ``nu`` (curves: and ``tau``, ``ell``) of every role."""
    from scipy.stats import t

    found = []
    parts = target.likelihood.parts
    for part in parts:
        suffix = f"_{part.role}" if len(parts) > 1 else ""
        curve = isinstance(part.errors, CurveErrors)
        names = [name + suffix for name in (("sigma", "tau", "ell") if curve else ("sigma", "nu"))]
        if not set(names) <= set(natural):
            return None
        values = [np.asarray(natural[name], dtype=np.float64) for name in names]
        if curve:
            sigma, tau, ell = values
            found += [0.5 * np.log(sigma**2 + tau**2), 2 * np.log(sigma / tau), np.log(ell)]
        else:
            found.append(np.log(values[0] * t.ppf(0.75, values[1])))
    return np.stack(found, axis=1)


def _quantities(target: LogPosterior, u: Array, truth: Truth) -> tuple[dict[str, Array], dict[str, float]]:
    """Test quantities of the draws and of the truth."""
    with_noise = u.shape[1] > target.num_law
    names = [c.name for c in (target.coordinates if with_noise else target.law_coordinates)]
    both = np.concatenate([truth.u[None, : u.shape[1]], u])
    with np.errstate(all="ignore"):
        prediction = target.log_prediction(both[:, : target.num_law])
        if with_noise:
            noise = both[:, target.num_law :]
        else:  # errors as large as the residuals say
            noise = np.array([target.likelihood.initial_noise(row) for row in prediction])
        likelihood = target.likelihood.log_likelihood(prediction, noise)
    values = dict(zip(names, both.T, strict=True)) | {"log_likelihood": likelihood}
    values |= {"log_posterior": target(both)} if with_noise else {}
    return {name: v[1:] for name, v in values.items()}, {name: float(v[0]) for name, v in values.items()}


def _rank(draws: Array, true: float, rng: np.random.Generator) -> float:
    """Rank of the truth among the draws, uniform on (0, 1) if they have one distribution; ties broken by chance."""
    below, ties = np.sum(draws < true), np.sum(draws == true)
    return float((below + rng.random() * (ties + 1)) / (len(draws) + 1))
