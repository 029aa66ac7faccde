"""Errors of medians, against repeated chains and where a mean has none."""

from __future__ import annotations

import numpy as np
import pytest

from scaling_sim.inference.monte_carlo import median_errors


def _chain(rng: np.random.Generator, correlation: float) -> np.ndarray:
    """(2, 400, 8, 1) stationary AR(1) walkers of variance 1."""
    shocks = rng.normal(size=(2, 400, 8, 1)) * np.sqrt(1 - correlation**2)
    shocks[:, 0] /= np.sqrt(1 - correlation**2)
    for step in range(1, 400):
        shocks[:, step] += correlation * shocks[:, step - 1]
    return np.asarray(shocks)


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_errors_are_the_spread_of_medians_over_chains(correlation: float) -> None:
    rng = np.random.default_rng(0)
    chains = [_chain(rng, correlation) for _ in range(100)]
    spread = np.std([np.median(np.exp(3 * chain)) for chain in chains])
    said = [median_errors(np.exp(3 * chain)) for chain in chains[:20]]
    assert np.mean(said) == pytest.approx(spread, rel=0.25)


def test_a_heavy_tail_does_not_reach_the_median() -> None:
    """exp(20 u): the mean's error is some 1e20 and more beside a median of 1."""
    chain = _chain(np.random.default_rng(1), 0.5)
    far, near, constant = median_errors(np.concatenate([np.exp(20 * chain), chain, np.ones_like(chain)], axis=-1))
    assert far == pytest.approx(20 * near, rel=0.3)  # the derivative of exp(20 u) at its median
    assert np.std(np.exp(20 * chain)) > 1e15
    assert constant == 0


def test_a_median_beyond_the_range_of_floats_has_no_error() -> None:
    chain = _chain(np.random.default_rng(2), 0.0)
    with np.errstate(over="ignore"):
        beyond = np.exp(2000 * (chain + 1))
    assert np.isnan(median_errors(beyond))
