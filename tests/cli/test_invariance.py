"""One data set in other units and another order of rows gives the same exponents, from the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

HEADER = "N,C,loss"
EXPONENTS = ("alpha", "beta")


def sweep(seed: int = 0, size: int = 60) -> np.ndarray:
    """N, C and loss (size, 3) of the Chinchilla law with Student-t errors of half a percent."""
    rng = np.random.default_rng(seed)
    N, tokens = (
        np.exp(rng.uniform(np.log(1e7), np.log(1e10), size)),
        np.exp(rng.uniform(np.log(1e9), np.log(1e12), size)),
    )
    loss = (1.8 + 480 / N**0.35 + 2100 / tokens**0.37) * np.exp(0.005 * rng.standard_t(5, size))
    return np.stack([N, 6 * N * tokens, loss], axis=1)


COPIES = {
    "shuffled": lambda rows: np.random.default_rng(1).permutation(rows),
    "in other units": lambda rows: rows * [1e3, 1e3, 1.1],
    "both": lambda rows: np.random.default_rng(1).permutation(rows * [1e3, 1e3, 1.1]),
}


@pytest.mark.parametrize("copy", COPIES)
def test_the_point_estimate(copy: str, facts: Any, table: Callable[..., str]) -> None:
    rows = sweep()
    first = facts("fit", table(HEADER, rows.tolist()), "--point")
    second = facts("fit", table(HEADER, COPIES[copy](rows).tolist(), "copy.csv"), "--point")
    for name in EXPONENTS:
        assert second["parameters"][name] == pytest.approx(first["parameters"][name], rel=1e-6)
    assert second["objective"] == pytest.approx(first["objective"], rel=1e-9)


@pytest.mark.statistical
@pytest.mark.parametrize("copy", COPIES)
def test_the_posterior_within_its_monte_carlo_error(copy: str, facts: Any, table: Callable[..., str]) -> None:
    """Rounding makes the chains part after some hundred steps; 5 MCSE of a difference miss once in a million."""
    rows = sweep()
    first = facts("fit", table(HEADER, rows.tolist()))
    second = facts("fit", table(HEADER, COPIES[copy](rows).tolist(), "copy.csv"))
    for name in EXPONENTS:
        one, other = first[name], second[name]
        error = np.hypot(one["mcse"], other["mcse"])
        assert abs(one["median"] - other["median"]) < 5 * error
        width = one["interval90"][1] - one["interval90"][0]
        assert np.allclose(one["interval90"], other["interval90"], atol=0.08 * width)
    assert first["converged"]
    assert second["converged"]
