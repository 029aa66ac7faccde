"""Do designed runs lead to better answers than an isoFLOP grid, or random runs, of equal cost?"""

from __future__ import annotations

import numpy as np
import pytest

from tests.predict.design_truths import KINDS, Truth, errors


def test_truths_of_the_law_are_chinchilla_s_and_the_others_are_not() -> None:
    N, tokens = np.meshgrid(np.geomspace(1e6, 1e9, 7), np.geomspace(1e8, 1e11, 7))
    for seed, kind in enumerate(KINDS):
        truth = Truth.draw(seed)
        a, b = truth.a * (N / 1e8) ** -truth.alpha, truth.b * (tokens / 2e9) ** -truth.beta
        away = np.abs(truth.log_loss(N, tokens) - np.log(truth.E + a + b)).max()
        assert (away < 1e-12) == (kind == "law")


def test_three_truths_are_answered_about_rightly() -> None:
    """The reduced form: N* within a factor of 3 and the loss within 6 % after the designed runs, for each kind."""
    for seed in range(3):
        found = errors(seed)
        assert found["size", "size"] < np.log(3) ** 2
        assert found["loss", "loss"] < 0.06**2


@pytest.mark.slow
@pytest.mark.statistical
def test_designed_runs_err_less_than_random_runs_and_for_the_loss_less_than_a_grid() -> None:
    """101 truths, two thirds of them not of the law, none of which was seen when the scheme was chosen (0 to 17 were).

    Mean squared errors over the other way's: ln N* .99 (grid), .70 (random); ln loss .75 and .62. Not proven: that
    designs beat the grid for N*, and any sign test at .01; designs win 51 and 58, and 56 and 58 times of 101.
    """
    found = [errors(seed) for seed in range(18, 119)]
    ratio = {
        (target, way): np.mean([one[target, target] for one in found]) / np.mean([one[target, way] for one in found])
        for target in ("size", "loss")
        for way in ("grid", "random")
    }
    assert ratio["loss", "grid"] < 0.9
    assert ratio["loss", "random"] < 0.9
    assert ratio["size", "random"] < 0.9
    assert ratio["size", "grid"] < 1.1
