"""A posterior as a Gaussian about its mode: in tenths of a second, for tables of many refits and for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.inference.design import prepare
from scaling_sim.inference.laplace import laplace
from scaling_sim.inference.point import posterior_mode
from scaling_sim.inference.target import LogPosterior
from scaling_sim.laws.base import Law
from scaling_sim.laws.registry import get_law
from scaling_sim.runs.table import RunTable, read_runs

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ApproximateFit:
    """Draws from the Gaussian; predictions take it in place of a posterior.

    ``agreed`` says whether two starts found the same mode. Nothing was sampled, so nothing could fail to converge:
    ``converged`` is None.
    """

    law: Law
    draws: Mapping[str, Array]
    point: Mapping[str, float]
    runs: RunTable
    agreed: bool
    converged: None = None
    noise: Mapping[str, Array] = field(default_factory=dict)

    @property
    def law_name(self) -> str:
        """Name of the law."""
        return self.law.name


def approximate_fit(
    runs: Any, law: str | Law = "chinchilla", *, num_draws: int = 2000, seed: int = 0
) -> ApproximateFit:
    """Draws of a law's parameters from the Gaussian with the curvature of the log posterior at its mode.

    Parameters
    ----------
    runs : RunTable, or anything that `read_runs` takes
    law : str or Law
    num_draws, seed : int

    Raises
    ------
    DesignError
        The runs cannot identify the law.
    """
    table, form = read_runs(runs), get_law(law)
    target = LogPosterior(form, prepare(table, form))
    mode, agreed = posterior_mode(target)
    drawn = laplace(target, mode).draw(num_draws, np.random.default_rng(seed))
    u = np.concatenate([mode.u[None], drawn])[:, : target.num_law]
    natural = form.to_parameters(u, target.centre)
    point = {name: float(values[0]) for name, values in natural.items()}
    return ApproximateFit(form, {name: values[1:] for name, values in natural.items()}, point, table, agreed)
