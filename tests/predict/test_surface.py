"""The best size from a smooth surface through all runs."""

from __future__ import annotations

import numpy as np
import pytest

from scaling_sim.errors import DesignError
from scaling_sim.predict.slices import Points
from scaling_sim.predict.surface import surface_minima

A, ALPHA, B, BETA = 400.0, 0.34, 410.0, 0.28
TRUTH = BETA / (ALPHA + BETA)


def sweep(seed: int, noise: float = 0.003, sizes: int = 7, per_run: int = 10) -> Points:
    """Curves of sizes a factor of three apart over two decades of tokens; noise of a run is shared by its points."""
    rng = np.random.default_rng(seed)
    N = np.repeat(1e6 * 3.0 ** np.arange(sizes), per_run)
    tokens = np.tile(np.geomspace(3e7, 3e9, per_run), sizes)
    run = np.repeat(np.arange(sizes), per_run)
    error = noise * rng.standard_normal(sizes)[run] + 0.1 * noise * rng.standard_normal(len(N))
    loss = 1.7 + A / N**ALPHA + B / tokens**BETA
    return Points(np.log(6 * N * tokens), np.log(N), np.log(loss) + error, run, curves=True)


def test_a_surface_without_noise_has_the_exponent_of_its_law() -> None:
    found = surface_minima(sweep(0, noise=1e-9))
    assert found.exponent.median == pytest.approx(TRUTH, abs=0.01)
    best = np.log((ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))) + TRUTH * (found.log_C - np.log(6))
    assert np.max(np.abs(np.median(found.log_N, axis=0) - best)) < 0.1
    N, C = np.exp(best), np.exp(found.log_C)
    lowest = 1.7 + A / N**ALPHA + B / (C / (6 * N)) ** BETA
    assert np.median(found.log_loss, axis=0) == pytest.approx(np.log(lowest), abs=0.003)
    assert found.scatter < 0.002
    assert found.num_runs == 7


@pytest.mark.statistical
def test_intervals_hold_the_truth() -> None:
    """90 % intervals of 60 sweeps: fewer than 42 hold the truth with probability below 1e-4 if they are right."""
    bias = surface_minima(sweep(0, noise=1e-9)).exponent.median - TRUTH
    held = 0
    for seed in range(60):
        low, high = surface_minima(sweep(seed, sizes=9), num_draws=300, seed=seed).exponent.interval()
        held += low - abs(bias) <= TRUTH <= high + abs(bias)
    assert held >= 42


def test_the_same_seed_gives_the_same_draws_and_counts_do_not_change_them() -> None:
    points = sweep(1)
    first, second = surface_minima(points, seed=4), surface_minima(points, seed=4)
    assert np.array_equal(first.exponent.draws, second.exponent.draws)
    doubled = Points(points.log_C, points.log_N + np.log(2), points.log_loss, points.run, True)
    assert surface_minima(doubled, seed=4).exponent.median == pytest.approx(first.exponent.median, abs=1e-9)


def test_too_few_sizes_are_refused() -> None:
    with pytest.raises(DesignError, match="needs 4 sizes and 12 points, got 3 and 30"):
        surface_minima(sweep(0, sizes=3))


def test_budgets_without_a_minimum_between_sizes_are_refused() -> None:
    points = sweep(0)
    steep = Points(points.log_C, points.log_N, 5 - 0.1 * points.log_N, points.run, True)
    with pytest.raises(DesignError, match="minimum between the sizes at 0 of 40"):
        surface_minima(steep)
