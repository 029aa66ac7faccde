"""Gradient noise scales along runs: their power law, with runs as what is resampled."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import scaling_sim as ss
from scaling_sim.errors import DesignError
from scaling_sim.predict.noise_scales import noise_scales
from scaling_sim.runs.table import RunTable, concat
from tests.predict.support import table

ALPHA, B_STAR = 0.25, 1e5


def runs(seed: int = 0, *, num: int = 12, run_error: float = 0.2, gamma: float = 0.0) -> RunTable:
    """``num`` curves of rising size; every run's noise scale is off by a factor of its own."""
    rng = np.random.default_rng(seed)
    N = np.repeat(np.geomspace(1e3, 1e7, num), 10)
    loss = np.concatenate([np.geomspace(5.0, 2.5 - 0.05 * k, 10) for k in range(num)])
    error = np.repeat(run_error * rng.standard_normal(num), 10) + 0.1 * rng.standard_normal(len(N))
    scale = B_STAR * loss ** (-1 / ALPHA) * (N / N.mean()) ** gamma * np.exp(error)
    found = table(N=N, tokens=np.full(len(N), 1e6), loss=loss, curve=np.ones(len(N), dtype=bool))
    names = np.repeat([f"r{k}" for k in range(num)], 10)
    return dataclasses.replace(found, run=names, extra={"noise_scale": scale}, data_hash="")


@pytest.mark.statistical
def test_intervals_hold_the_truth() -> None:
    """40 tables of 12 runs; a Bayesian bootstrap of 12 is a little narrow. 28 of 40 at 85 %: once in 300."""
    found = [noise_scales(runs(seed)) for seed in range(40)]
    low, high = np.quantile([one.draws["alpha_B"] for one in found], (0.05, 0.95), axis=1)
    assert np.sum((low < ALPHA) & (high > ALPHA)) >= 28
    low, high = np.quantile([one.size_exponent for one in found], (0.05, 0.95), axis=1)
    assert np.sum((low < 0) & (high > 0)) >= 28


def test_points_of_one_run_do_not_count_as_runs() -> None:
    """A table with every point twice has the same runs, and the same interval."""
    once = runs()
    both = concat([once, dataclasses.replace(once, run=np.char.add(once.run, "+"), data_hash="")])
    twice = dataclasses.replace(both, run=np.tile(once.run, 2), data_hash="")
    first, second = (np.ptp(np.quantile(noise_scales(t).draws["alpha_B"], (0.05, 0.95))) for t in (once, twice))
    assert first == pytest.approx(second)


def test_a_dependence_on_size_is_found() -> None:
    found = ss.noise_scales(runs(gamma=0.2, run_error=0.05))
    low, high = np.quantile(found.size_exponent, (0.05, 0.95))
    assert 0.1 < low < 0.2 < high < 0.3
    assert found.num_runs == 12
    assert set(found.to_json()) == {"num_runs", "alpha_B", "B_star", "size_exponent"}


def test_three_runs_are_too_few() -> None:
    with pytest.raises(DesignError, match="along 4 curves or more; it is on 3"):
        noise_scales(runs(num=3))
