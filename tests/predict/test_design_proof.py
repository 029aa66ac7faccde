"""Do designed runs lead to better answers than an isoFLOP grid, or random runs, of equal cost?"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.stats import binomtest

from scaling_sim.predict.targets import best_size, loss_of
from tests.predict.design_crossings import squared_errors
from tests.predict.design_truths import BUDGET, COMPUTE, KINDS, N_ASKED, TOKENS_ASKED, Problem, Truth

SIZE, LOSS = best_size(COMPUTE), loss_of(N_ASKED, TOKENS_ASKED)


def test_truths_of_the_law_are_chinchilla_s_and_the_others_are_not() -> None:
    N, tokens = np.meshgrid(np.geomspace(1e6, 1e9, 7), np.geomspace(1e8, 1e11, 7))
    for seed, kind in enumerate(KINDS):
        truth = Truth.draw(seed)
        a, b = truth.a * (N / 1e8) ** -truth.alpha, truth.b * (tokens / 2e9) ** -truth.beta
        away = np.abs(truth.log_loss(N, tokens) - np.log(truth.E + a + b)).max()
        assert (away < 1e-12) == (kind == "law")


def test_the_ways_cost_as_much() -> None:
    for seed in range(3):
        for way, (N, tokens) in Problem.of(seed).ways(SIZE).items():
            assert 0.99 < float((6 * N * tokens).sum()) / BUDGET < 1 + 1e-9, way


def test_three_truths_are_answered_about_rightly() -> None:
    """The reduced form: N* within a factor of 2 and the loss within 5 % after the designed runs, for each kind."""
    for seed in range(3):
        assert Problem.of(seed).errors(SIZE, 2)["design"] < np.log(2) ** 2
        assert Problem.of(seed).errors(LOSS, 1)["design"] < 0.05**2


@cache
def answered(kind: str) -> list[dict[str, float]]:
    """Mean squared errors by way, for truths none of which was seen when the schemes were chosen (0 to 195 were)."""
    target, repetitions = (SIZE, 6) if kind == "size" else (LOSS, 4)
    return [Problem.of(seed).errors(target, repetitions) for seed in range(2000, 2150)]


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("way", ["grid", "random"])
@pytest.mark.parametrize("kind", ["size", "loss"])
def test_designed_runs_answer_more_truths_better(kind: str, way: str) -> None:
    """The sign test over 150 truths, two thirds of which do not follow the law.

    Designs are better for 107 and 125 (N*: grid, random) and for 95 and 95 (loss), with .53, .35, .66 and .70 of the
    mean squared error.
    """
    found = answered(kind)
    better = sum(one["design"] < one[way] for one in found)
    assert binomtest(better, len(found), alternative="greater").pvalue < 0.01
    assert np.mean([one["design"] for one in found]) < 0.85 * np.mean([one[way] for one in found])


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.timeout(1800)
def test_designed_runs_find_more_crossovers() -> None:
    """The sign test against random runs of equal cost, over 100 truths none of which was seen when candidates changed.

    Designs are nearer in 1/ln C* for 46 of the 62 truths on which the two differ (no crossing expected and none there
    is a tie), with .45 of the mean squared error; of curves at the usual batch alone for 45 of 60, with a mean squared
    error 1.26 times that of these designs. The fit must know its noise: with one taken for three times too large,
    designs were nearer for 19 of 43.
    """
    found = [errors for errors in map(squared_errors, range(500, 600)) if errors is not None]
    differ = [one for one in found if one["design"] != one["random"]]
    better = sum(one["design"] < one["random"] for one in differ)
    assert len(differ) >= 50
    assert binomtest(better, len(differ), alternative="greater").pvalue < 0.01
    assert np.mean([one["design"] for one in differ]) < 0.85 * np.mean([one["random"] for one in differ])
