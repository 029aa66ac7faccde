"""The compute frontier of the runs: its trends as paid and adjusted for the batch, the best size, the crossing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scaling_sim.predict.backtest import Backtest
from scaling_sim.predict.crossover import Crossover
from scaling_sim.predict.crossover import crossover as find_crossover
from scaling_sim.predict.envelope import envelope_draws, envelope_points
from scaling_sim.predict.methods import Methods, compare_methods
from scaling_sim.study.reproduce.kaplan.data import outcome
from scaling_sim.study.reproduce.kaplan.rows import family_rows

if TYPE_CHECKING:
    from scaling_sim.inference import Posterior
    from scaling_sim.study.reproduce.kaplan.data import Data

Array = NDArray[np.float64]


def family_fit(data: Data) -> Posterior:
    """The joint fit with the family's runs alone, all of one batch: what frontiers are read from.

    Curves of the batch sweep inform B_crit, but they were made at few sizes, which would look best for that; and points
    that are too early for (1.6) are losses like any others.
    """
    return data.once("family fit", lambda: replace(data.fit("kaplan"), runs=family_rows(data)))


def trend(data: Data, *, adjusted: bool) -> dict[str, Array]:
    """Draws of L and N against compute on the frontier: alpha_C_min, C_c_min (PF-days), p_N, N_e, bootstrapped."""

    def make() -> dict[str, Array]:
        rng = np.random.default_rng([data.seed, int(adjusted)])
        return envelope_draws(family_fit(data), rng, 600, adjusted=adjusted)

    return data.once(f"trend {adjusted}", make)


def frontier_points(data: Data, *, adjusted: bool) -> tuple[Array, Array, Array]:
    """Compute in FLOP, loss and N where a smaller and a larger size were measured beside the best."""
    return envelope_points(family_fit(data), adjusted=adjusted)


def methods(data: Data) -> Methods:
    """N*(C) by the law, isoFLOP minima and the envelope."""

    def make() -> Methods:
        C = family_fit(data).runs.C
        return compare_methods(family_fit(data), np.geomspace(np.quantile(C, 0.3), C.max(), 4), seed=data.seed)

    return data.once("methods", make)


def crossing(data: Data, name: str = "kaplan") -> Crossover:
    """The contradiction of a joint fit, with the held-out check as its back-test where there is one."""

    def make() -> Crossover:
        tested = outcome(data, "held-out")
        return find_crossover(
            data.shared(name), backtest=tested if isinstance(tested, Backtest) else None, seed=data.seed
        )

    return data.once(f"crossing of {name}", make)
