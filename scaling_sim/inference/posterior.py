"""A fitted law: draws, diagnostics, the runs it came from; saved as one file that ArviZ opens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import ConfigError
from scaling_sim.inference.diagnostics import Diagnostics, not_identified
from scaling_sim.inference.likelihood import Likelihood
from scaling_sim.inference.target import LogPosterior
from scaling_sim.laws.base import Coordinate, Law
from scaling_sim.laws.observations import Observations
from scaling_sim.runs.table import RunTable

if TYPE_CHECKING:
    import pandas as pd
    from xarray import DataTree

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Posterior:
    """Draws of a law's parameters given runs, with all that is needed to predict and report again.

    Attributes
    ----------
    law : Law
    draws : natural parameter → (n_draws,), ensemble after ensemble, thinned to at most 4000
    noise : parameter of the errors → (n_draws,): ``sigma`` and ``nu`` (curves: also ``tau``, ``ell``), named after
    their role
        where there are several
    u : (n_draws, n_coordinates) the same draws in sampling coordinates, the law's first
    point : natural parameters at the mode of the posterior over its sampling coordinates
    huber_point : natural parameters that minimise Σ Huber(log loss − log prediction), δ = 1e-3: no noise model, so that
    it may lie far outside the intervals where points of a curve go together or outliers weigh
    diagnostics : convergence, by coordinate
    parameter_diagnostics : natural parameter → {"r_hat", "ess", "mcse"}, the last of the median
    identifiability : natural parameter, of law or errors → posterior sd / prior sd, of logarithms where it is positive;
    where the prior alone makes one tail, of that
    runs : the table as given;  data : the rows used, in their roles
    dropped : reason → names of the rows left out, by the reader, by the law or by thinning
    roles : role → number of rows
    chain : (n_ensembles, n_steps, n_coordinates), one walker of each ensemble, for trace plots
    """

    law: Law
    draws: Mapping[str, Array]
    noise: Mapping[str, Array]
    u: Array
    point: Mapping[str, float]
    diagnostics: Diagnostics
    parameter_diagnostics: Mapping[str, Mapping[str, float]]
    identifiability: Mapping[str, float]
    runs: RunTable
    data: Observations
    n_used: int
    dropped: Mapping[str, tuple[str, ...]]
    roles: Mapping[str, int]
    seed: int
    centre: Mapping[str, float]
    coordinates: tuple[Coordinate, ...]
    chain: Array
    notes: tuple[str, ...] = ()
    huber_point: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def law_name(self) -> str:
        """Name of the law."""
        return self.law.name

    @property
    def converged(self) -> bool:
        """Whether the convergence rule holds; if not, do not rely on the numbers."""
        return self.diagnostics.converged

    @property
    def n_dropped(self) -> int:
        """Rows left out of this fit, for all reasons, each once; a run that gave no row at all counts as one."""
        return sum(len(names) for names in self.dropped.values())

    @property
    def n_rows(self) -> int:
        """Rows of the table behind what was fitted: more than ``n_used`` where a point comes from several of them."""
        return rows_behind(self.runs, self.dropped)

    @property
    def used(self) -> str:
        """What was fitted, in words: ``770 rows``, ``17 cells from 947 rows``."""
        return used_in_words(self.n_used, self.n_rows, self.roles)

    @property
    def not_identified(self) -> tuple[str, ...]:
        """Parameters, of the law and of its errors, about which the data say hardly more than the prior."""
        return not_identified(self.identifiability)

    @cached_property
    def likelihood(self) -> Likelihood:
        """The likelihood of the used rows."""
        return Likelihood(self.data)

    def log_prediction(self) -> Array:
        """(n_draws, n_used) log of the law's prediction for each used row."""
        return LogPosterior(self.law, self.data).log_prediction(self.u[:, : self._num_law])

    def units(self) -> dict[tuple[int, ...], int]:
        """Rows of the table in each independent unit (a row, or a whole curve) → its place in pointwise arrays.

        A derived point, which is no row of the table, is known by its negative place.
        """
        rows = [
            tuple(int(self.data.row[i]) if self.data.row[i] >= 0 else -1 - int(i) for i in unit)
            for unit in self.likelihood.units()
        ]
        return {row: place for place, row in enumerate(rows)}

    @cached_property
    def unit_names(self) -> NDArray[np.str_]:
        """(n_units,) run of each unit, with ``@step`` where a run has several units, its role where it has two."""
        every, units = self.runs.row_names(), self.likelihood.units()
        plain = [
            str(self.data.run[unit[0]])
            if len(unit) > 1 or self.data.row[unit[0]] < 0
            else every[self.data.row[unit[0]]]
            for unit in units
        ]
        twice = {name for name in plain if plain.count(name) > 1} if len(set(plain)) < len(plain) else set()
        roles = [str(self.data.role[unit[0]]) for unit in units]
        named = [f"{name} ({role})" if name in twice else name for name, role in zip(plain, roles, strict=True)]
        return np.array(named, dtype=np.str_)

    def pointwise_log_likelihood(self) -> tuple[Array, NDArray[np.str_]]:
        """(n_draws, n_units) log likelihood of each independent row or whole curve, and the units' names."""
        return self.likelihood.pointwise(self.log_prediction(), self.u[:, self._num_law :]), self.unit_names

    def outlier_probability(self, times: float = 3.0) -> tuple[Array, NDArray[np.str_]]:
        """(n_units,) probability that a run's own errors are on a scale above ``times`` that of the rest; their names.

        A unit is an independent row or a whole curve. The Student-t lets each unit have a scale of its own; a run with
        a high probability counts for little in the fit, and deserves a look.

        Raises
        ------
        ConfigError
            ``times`` is not above 1.
        """
        if not times > 1:
            raise ConfigError(f"times, the multiple of the usual error scale, must be above 1, got {times}")
        noise = self.u[:, self._num_law :]
        return self.likelihood.outlier_probability(self.log_prediction(), noise, times), self.unit_names

    def summary(self) -> pd.DataFrame:
        """Of each parameter: median, 50 and 90 % intervals (equal-tailed), ESS, the median's MCSE, R-hat, sd/prior."""
        import pandas as pd

        rows = [self._row(name, values) for name, values in (*self.draws.items(), *self.noise.items())]
        return pd.DataFrame(rows).set_index("parameter")

    def to_json(self) -> dict[str, Any]:
        """One object: each natural parameter under its name, with what a reader needs to judge it; NaN becomes None.

        ``n_used`` points were fitted, ``n_rows`` rows of the table stand behind them, ``n_dropped`` were left out. A
        parameter holds ``median``, ``interval50``, ``interval90``, ``point`` (mode), ``huber_point``, ``ess``,
        ``mcse`` (of the median), ``r_hat`` and ``sd_ratio`` (posterior sd / prior sd). N_c in parameters, D_c and
        B_star in tokens, S_c in steps, C_c in FLOP.
        """
        header = {
            "law": self.law_name,
            "converged": self.converged,
            "verdict": self.diagnostics.verdict,
            "n_used": self.n_used,
            "n_rows": self.n_rows,
            "n_dropped": self.n_dropped,
            "dropped": {reason: list(names) for reason, names in self.dropped.items()},
            "min_ess": self.diagnostics.min_ess,
            "min_tail_ess": self.diagnostics.min_tail_ess,
            "max_r_hat": self.diagnostics.max_r_hat,
            "not_identified": list(self.not_identified),
            "simulated": self.runs.simulated,
            "data_hash": self.runs.data_hash,
            "seed": self.seed,
        }
        parameters = {name: self._entry(name, values) for name, values in self.draws.items()}
        noise = {name: self._entry(name, values) for name, values in self.noise.items()}
        return {**header, **parameters, "noise": noise, "notes": list(self.notes)}

    def to_arviz(self, log_likelihood: bool = True) -> DataTree:
        """ArviZ data tree: ensembles are its chains. ``log_likelihood`` is by row or whole curve, for LOO."""
        from scaling_sim.inference.storage import data_tree

        return data_tree(self, log_likelihood=log_likelihood)

    def save(self, path: str | Path) -> Path:
        """Write one NetCDF file, from which `load_fit` makes the same object and which ArviZ opens."""
        from scaling_sim.inference.storage import save

        return save(self, Path(path))

    def __repr__(self) -> str:
        state = self.diagnostics.verdict
        return f"Posterior({self.law_name}: {self.used} used, {self.n_dropped} left out; {state})"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p>{escape(repr(self))}</p>{self.summary().to_html(float_format=lambda x: f'{x:.4g}')}"

    @property
    def _num_law(self) -> int:
        return len(self.law.coordinates(self.centre))

    def _entry(self, name: str, values: Array) -> dict[str, Any]:
        row = {key: value if _is_finite(value) else None for key, value in self._row(name, values).items()}
        known = ("ess", "mcse", "r_hat", "sd_ratio")
        return {
            "median": row["median"],
            "interval50": [row["lo50"], row["hi50"]],
            "interval90": [row["lo90"], row["hi90"]],
            **_known("point", self.point, name),
            **_known("huber_point", self.huber_point, name),
            **{key: row[key] for key in known if row[key] is not None},
        }

    def _row(self, name: str, values: Array) -> dict[str, float | str]:
        with np.errstate(all="ignore"):  # a scale that the data leave free may reach 0 or ∞
            low90, low50, median, high50, high90 = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]).tolist()
        known = self.parameter_diagnostics.get(name, {})
        return {
            "parameter": name,
            "median": median,
            "lo50": low50,
            "hi50": high50,
            "lo90": low90,
            "hi90": high90,
            "ess": known.get("ess", float("nan")),
            "mcse": known.get("mcse", float("nan")),
            "r_hat": known.get("r_hat", float("nan")),
            "sd_ratio": self.identifiability.get(name, float("nan")),
        }


def _known(key: str, values: Mapping[str, float], name: str) -> dict[str, float | None]:
    """``key`` with the value of ``name`` if there is one, None where it is beyond the range of floats."""
    return {key: values[name] if _is_finite(values[name]) else None} if name in values else {}


def _is_finite(value: float | str) -> bool:
    return isinstance(value, str) or bool(np.isfinite(value))


DERIVED = {"cell": "cells", "batch": "critical batches"}
"""Roles of points that each come from several rows → what they are, in the plural."""


def rows_behind(runs: RunTable, dropped: Mapping[str, tuple[str, ...]]) -> int:
    """Rows of a table that a fit used; ``dropped`` are those that it or the reader of ``runs`` left out."""
    return len(runs) + runs.num_dropped - sum(len(names) for names in dropped.values())


def used_in_words(n_used: int, n_rows: int, roles: Iterable[str]) -> str:
    """``770 rows``, or ``17 cells from 947 rows`` where points come from several rows each."""
    derived = [DERIVED[role] for role in roles if role in DERIVED]
    return f"{n_used} {' and '.join(derived)} from {n_rows} rows" if derived else f"{n_used} rows"


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {}
    for name in ("scaling-sim", "numpy", "scipy", "emcee", "arviz-base", "arviz-stats"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
