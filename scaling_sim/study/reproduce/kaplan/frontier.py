"""The compute frontier of the runs: its trends as paid and adjusted for the batch, the best size, the crossing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import ScalingSimError
from scaling_sim.predict.backtest import Backtest
from scaling_sim.predict.crossover import Crossover
from scaling_sim.predict.crossover import crossover as find_crossover
from scaling_sim.predict.envelope import envelope_draws, envelope_points
from scaling_sim.predict.methods import Methods, compare_methods
from scaling_sim.study.reproduce.kaplan.data import outcome
from scaling_sim.study.reproduce.kaplan.rows import family_rows

if TYPE_CHECKING:
    from scaling_sim.inference import Posterior
    from scaling_sim.inference.approximate import ApproximateFit
    from scaling_sim.study.reproduce.kaplan.data import Data

Array = NDArray[np.float64]


def main_fit(data: Data) -> ApproximateFit | Posterior:
    """The parameters behind frontiers: the paper's stepwise ones; where no batch sweep allows them, the joint fit."""
    found = outcome(data, "stepwise")
    return data.fit("kaplan") if isinstance(found, ScalingSimError) else found


def family_fit(data: Data, *, joint: bool = False) -> ApproximateFit | Posterior:
    """`main_fit`, or the joint fit, with the family's runs alone, all of one batch: what frontiers are read from.

    Curves of the batch sweep inform B_crit, but they were made at few sizes, which would look best for that; and points
    that are too early for (1.6) are losses like any others.
    """

    def make() -> ApproximateFit | Posterior:
        return replace(data.fit("kaplan") if joint else main_fit(data), runs=family_rows(data))

    return data.once(f"family fit {joint}", make)


def trend(data: Data, *, adjusted: bool, joint: bool = False) -> dict[str, Array]:
    """Draws of L and N against compute on the frontier: alpha_C_min, C_c_min (PF-days), p_N, N_e, bootstrapped."""

    def make() -> dict[str, Array]:
        rng = np.random.default_rng([data.seed, int(adjusted)])
        return envelope_draws(family_fit(data, joint=joint), rng, 600, adjusted=adjusted)

    return data.once(f"trend {adjusted} {joint}", make)


def frontier_points(data: Data, *, adjusted: bool) -> tuple[Array, Array, Array]:
    """Compute in FLOP, loss and N where a smaller and a larger size were measured beside the best."""
    return envelope_points(family_fit(data), adjusted=adjusted)


def methods(data: Data, *, joint: bool = False) -> Methods:
    """N*(C) by the law, isoFLOP minima and the envelope."""

    def make() -> Methods:
        fit = family_fit(data, joint=joint)
        return compare_methods(fit, np.geomspace(np.quantile(fit.runs.C, 0.3), fit.runs.C.max(), 4), seed=data.seed)

    return data.once(f"methods {joint}", make)


def crossing(data: Data, name: str = "") -> Crossover:
    """The contradiction of a shared fit (default: `main_fit`), with the held-out check as its back-test if any."""

    def make() -> Crossover:
        tested = outcome(data, "held-out")
        fit = data.shared(name) if name else main_fit(data)
        return find_crossover(fit, backtest=tested if isinstance(tested, Backtest) else None, seed=data.seed)

    return data.once(f"crossing of {name}", make)
