"""Do 90 % intervals of N* hold the truth as often as they say? Over simulated sweeps with known optima.

Truths come from the prior of the law and each sweep from its truth (`scaling_sim.testing.Truths`), so that a right
posterior covers 90 % exactly, on average over truths. Posteriors are made by importance sampling, a tenth of a second
each; sweeps where this fails by its own account are left out, which the data alone decide; they must be under a tenth,
as such sweeps may be the ones that are hard to be right about. 200 truths: a right
fitter's share has a standard error of .021 and lies in [.85, .95] with probability .98.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from scaling_sim.inference.approximate import approximate_fit
from scaling_sim.laws import get_law
from scaling_sim.predict.allocate import plan_of
from scaling_sim.predict.layout import Grid, log_spaced
from scaling_sim.testing import Truths
from tests.predict.support import Draws

DESIGN = Grid(N=log_spaced(3e7, 1e10, 7), tokens=log_spaced(1e9, 5e11, 7))
TIMES = np.array([1.0, 100.0])
"""Budgets: that of the largest run, and a hundred times as much."""
KEPT = 0.9
"""Least share of sweeps that are not left out."""


def inside(num_truths: int, widen: float = 1.0) -> NDArray[np.bool_]:
    """(num_truths, 2): whether N* of the truth lies in the central 90 % of draws; ``widen`` stretches the draws."""
    truths = Truths(get_law("chinchilla"), DESIGN)
    found: list[NDArray[np.bool_]] = []
    for tried, seed in enumerate(np.random.SeedSequence(0).spawn(int(num_truths / KEPT) + 1)):
        truth = truths.draw(np.random.default_rng(seed))
        C = TIMES * float(truth.table.C.max())
        fit = approximate_fit(truth.table, "chinchilla", num_draws=1000, seed=1)
        if not fit.converged:
            continue
        log_N = np.log(plan_of(fit, C).best()["N"])
        middle = np.median(log_N, axis=0)
        low, high = np.quantile(middle + widen * (log_N - middle), [0.05, 0.95], axis=0)
        one = Draws("chinchilla", {name: np.array([value]) for name, value in truth.parameters.items()})
        true = np.log(plan_of(one, C).best()["N"][0])
        found.append((low < true) & (true < high))
        if len(found) == num_truths:
            assert num_truths >= KEPT * (tried + 1)
            return np.array(found)
    raise AssertionError(f"importance sampling gave {len(found)} posteriors, {num_truths} were to be had")


@pytest.mark.slow
@pytest.mark.statistical
def test_intervals_of_the_best_size_cover_200_truths() -> None:
    share = inside(200).mean(axis=0)
    assert np.all((share >= 0.85) & (share <= 0.95)), share


@pytest.mark.statistical
def test_intervals_of_the_best_size_cover_and_half_as_wide_ones_do_not() -> None:
    """30 truths: a right fitter covers 23 or more with probability .99, half as wide intervals cover .59 of them."""
    assert np.all(inside(30).sum(axis=0) >= 23)
    assert np.all(inside(30, widen=0.5).sum(axis=0) < 23)
