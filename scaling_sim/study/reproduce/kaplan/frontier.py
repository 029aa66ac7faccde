"""The compute frontier of the runs: its fitted trends, as paid and adjusted for the batch, and the held-out check."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import DesignError, ScalingSimWarning
from scaling_sim.predict.backtest import Backtest
from scaling_sim.predict.backtest import backtest as back_test
from scaling_sim.predict.crossover import Crossover
from scaling_sim.predict.crossover import crossover as find_crossover
from scaling_sim.predict.envelope import envelope_draws, envelope_points
from scaling_sim.predict.methods import Methods, compare_methods

if TYPE_CHECKING:
    from scaling_sim.study.reproduce.kaplan.data import Data

Array = NDArray[np.float64]


def trend(data: Data, *, adjusted: bool) -> dict[str, Array]:
    """Draws of L and N against compute on the frontier: alpha_C_min, C_c_min (PF-days), p_N, N_e, bootstrapped."""

    def make() -> dict[str, Array]:
        rng = np.random.default_rng([data.seed, int(adjusted)])
        return envelope_draws(data.fit("kaplan"), rng, 600, adjusted=adjusted)

    return data.once(f"trend {adjusted}", make)


def frontier_points(data: Data, *, adjusted: bool) -> tuple[Array, Array, Array]:
    """Compute in FLOP, loss and N where a smaller and a larger size were measured beside the best."""
    return envelope_points(data.fit("kaplan"), adjusted=adjusted)


def methods(data: Data) -> Methods:
    """N*(C) by the law, isoFLOP minima and the envelope."""

    def make() -> Methods:
        C = data.fit("kaplan").runs.C
        return compare_methods(data.fit("kaplan"), np.geomspace(np.quantile(C, 0.3), C.max(), 4), seed=data.seed)

    return data.once("methods", make)


def held_out(data: Data, share: float = 0.1) -> Backtest:
    """Forecasts of the runs' top decade of compute from those below it, with the discrepancy that these show.

    Raises
    ------
    DesignError
        Too few rows lie on one side.
    """

    def make() -> Backtest:
        fit = data.fit("kaplan")
        with warnings.catch_warnings():  # it stands in the finding
            warnings.simplefilter("ignore", ScalingSimWarning)
            return back_test(fit, cuts=[share * float(fit.runs.C[~fit.runs.stopped].max())])

    return data.once(f"held out {share}", make)


def crossing(data: Data, name: str = "kaplan") -> Crossover:
    """The contradiction of a joint fit, with the held-out check as its back-test where there is one."""

    def make() -> Crossover:
        try:
            tested: Backtest | None = held_out(data)
        except DesignError:
            tested = None
        return find_crossover(data.fit(name), backtest=tested, seed=data.seed)

    return data.once(f"crossing of {name}", make)
