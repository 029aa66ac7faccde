"""What a decade of tokens changes elsewhere at equal in-distribution loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scaling_sim.errors import DataError
from scaling_sim.predict.phase import phase_effect
from scaling_sim.runs.table import RunTable, read_runs


def table(gamma: float, sizes: int = 8, seed: int = 0, **columns: Any) -> RunTable:
    """Curves whose loss elsewhere is 1.3·L^0.9·tokens^γ', γ per decade."""
    rng = np.random.default_rng(seed)
    N = np.repeat(1e4 * 3.0 ** np.arange(sizes), 8)
    tokens = np.tile(np.geomspace(1e7, 1e10, 8), sizes)
    loss = (1e11 / N) ** 0.07 + (1e8 / tokens) ** 0.4
    shift = 0.003 * rng.standard_normal(sizes).repeat(8)
    other = np.exp(np.log(1.3) + 0.9 * np.log(loss) + gamma * np.log10(tokens) + shift)
    frame = {"run": np.repeat(np.arange(sizes), 8).astype(str), "N": N, "D": tokens, "tokens": tokens, "loss": loss}
    return read_runs({**frame, "S": tokens, "loss_books": other, **columns}, decayed=False)


@pytest.mark.parametrize("gamma", [0.0, 0.03])
def test_the_interval_holds_the_truth(gamma: float) -> None:
    found = phase_effect(table(gamma), "books")
    low, high = found.effect.interval()
    assert low <= gamma <= high
    assert high - low < 0.02
    assert found.num_runs == 8
    assert found.scatter < 0.01


def test_an_unknown_text_and_too_few_runs_are_refused() -> None:
    with pytest.raises(DataError, match="loss_poems"):
        phase_effect(table(0.0), "poems")
    with pytest.raises(DataError, match="4 runs"):
        phase_effect(table(0.0, sizes=3), "books")
