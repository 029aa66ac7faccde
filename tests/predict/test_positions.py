"""a + b·T^-c from the mean losses of bins of positions."""

from __future__ import annotations

import numpy as np
import pytest

import scaling_sim as ss
from scaling_sim.errors import DataError
from scaling_sim.predict.positions import bin_means, position_law
from scaling_sim.runs.record import position_edges

TRUTH = {"a": 1.5, "b": 2.0, "c": 0.55}


def binned(n_ctx: int = 128, noise: float = 1e-6, seed: int = 0) -> np.ndarray:
    mean = TRUTH["a"] + TRUTH["b"] * bin_means(position_edges(n_ctx), TRUTH["c"])[0]
    return np.asarray(mean + noise * np.random.default_rng(seed).standard_normal(len(mean)))


def test_bins_are_averaged_not_read_at_their_middle() -> None:
    edges = position_edges(16)
    every = np.arange(1, 17.0) ** -0.5
    for mean, a, b in zip(bin_means(edges, 0.5)[0], edges[:-1], edges[1:], strict=True):
        assert mean == pytest.approx(every[a:b].mean(), rel=1e-12)


def test_exact_losses_give_the_law() -> None:
    law = ss.position_law(binned(), 128)
    for name, value in TRUTH.items():
        assert np.median(law.draws[name]) == pytest.approx(value, rel=2e-3)
    assert np.median(law.at([1, 50]), axis=0) == pytest.approx([3.5, 1.5 + 2 * 50**-0.55], rel=2e-3)
    assert np.median(law.of_bins(), axis=0) == pytest.approx(binned(), rel=1e-3)


@pytest.mark.statistical
def test_intervals_hold_the_truth() -> None:
    """100 noisy sets: 80 of 100 intervals of 90 % fail once in 600; the middle of bins in place of means fails all."""
    found = [position_law(binned(noise=0.01, seed=seed), 128, seed=seed) for seed in range(100)]
    for name, value in TRUTH.items():
        low, high = np.quantile([law.draws[name] for law in found], (0.05, 0.95), axis=1)
        assert np.sum((low < value) & (high > value)) >= 80, name


def test_any_bins_can_be_given() -> None:
    edges = [0, 1, 2, 3, 4, 5, 6, 7, 8]
    loss = TRUTH["a"] + TRUTH["b"] * np.arange(1, 9.0) ** -TRUTH["c"]
    assert np.median(position_law(loss, edges=edges).draws["c"]) == pytest.approx(TRUTH["c"], rel=0.01)


def test_bad_bins_are_refused() -> None:
    with pytest.raises(DataError, match="8 bins need as many finite losses"):
        position_law([1.0, 2.0], 128)
    with pytest.raises(DataError, match="5 bins of positions or more, got 4"):
        position_law(binned(8), 8)
    with pytest.raises(DataError, match="one of them"):
        position_law(binned())
