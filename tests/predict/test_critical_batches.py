"""Batch sweeps whose truth is known: B_crit(L), S_min and E_min within their intervals, at their stated rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import scaling_sim as ss
from scaling_sim.errors import DesignError
from scaling_sim.laws import get_law, kaplan
from scaling_sim.laws.batch_sweeps import batch_sweeps
from scaling_sim.predict.critical_batches import CriticalBatches, critical_batches
from scaling_sim.runs.table import RunTable

TRUTH = {"alpha_N": 0.09, "N_c": 2e9, "alpha_S": 0.45, "S_c": 60.0, "alpha_B": 0.25, "B_star": 8e4}
SIZES = (24_576.0, 786_432.0)
BATCHES = (1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0)
RATES = (0.5, 1.0, 2.0)
WRONG_RATE = 0.02
"""Relative loss per squared e-fold of a wrong learning rate."""


def sweep(
    seed: int = 0,
    *,
    noise: float = 0.003,
    rates: tuple[float, ...] = RATES,
    batches: tuple[float, ...] = BATCHES,
    warmup: float = 0.0,
    growth: float = 1.0,
) -> RunTable:
    """Curves of two sizes; ``growth`` multiplies B_crit of the larger one, ``warmup`` steps are half lost."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[Any, ...]] = []
    for N in SIZES:
        truth = TRUTH | {"B_star": TRUTH["B_star"] * (growth if SIZES[1] == N else 1.0)}
        for B in batches:
            for lr in rates:
                S = np.geomspace(max(40.0, 4 * warmup), max(1e8 / B, 4000.0), 24)
                loss = kaplan.solve_loss(N, B, S - 0.5 * warmup, truth)
                loss = loss * np.exp(_errors(np.log(S), noise, rng) + WRONG_RATE * np.log(lr) ** 2)
                rows += [(f"{N:g}-{B:g}-{lr}", N, B, s, x, lr) for s, x in zip(S, loss, strict=True)]
    run, *numbers = zip(*rows, strict=True)
    N_, B_, S_, loss_, lr_ = (np.array(column, dtype=float) for column in numbers)
    none, nan = np.zeros(len(run), dtype=bool), np.full(len(run), np.nan)
    return RunTable(
        run=np.array(run), N=N_, D=B_ * S_, tokens=B_ * S_, C=6 * N_ * B_ * S_, B=B_, S=S_, loss=loss_, loss_error=nan,
        warmup=np.full(len(run), warmup), decayed=none, stopped=none, curve=~none, extra={"lr": lr_},
    )  # fmt: skip


def _errors(log_S: Any, noise: float, rng: np.random.Generator) -> Any:
    """Errors of one curve that go together along it, and a little of each point's own."""
    K = np.exp(-np.abs(log_S[:, None] - log_S) / 1.5) + 1e-9 * np.eye(len(log_S))
    return noise * (np.linalg.cholesky(K) @ rng.standard_normal(len(log_S)) + 0.3 * rng.standard_normal(len(log_S)))


def inside(draws: Any, truth: float) -> bool:
    low, high = np.quantile(draws, (0.05, 0.95))
    return bool(low < truth < high)


@pytest.mark.statistical
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """24 sweeps: at least 17 of 24 intervals of a true 90 % hold it except once in 10⁴ (binomial); of 50 %, hardly."""
    found = [critical_batches(sweep(seed)) for seed in range(24)]
    held = [inside(one.draws["alpha_B"], TRUTH["alpha_B"]) for one in found]
    assert sum(held) >= 17
    ratios = [one.ratio() for one in found]
    assert sum(inside(ratio.draws, 1.0) for ratio in ratios if ratio is not None) >= 17
    steps = [_true_steps(one) for one in found]
    assert sum(inside(one.contours[0].S_min[:, 3], truth) for one, truth in zip(found, steps, strict=True)) >= 17


def _true_steps(found: CriticalBatches) -> float:
    """S_min of the smaller size at the fourth loss read, by (1.6)."""
    loss = found.contours[0].sweep.loss[3]
    return float(TRUTH["S_c"] * (loss - (TRUTH["N_c"] / SIZES[0]) ** TRUTH["alpha_N"]) ** (-1 / TRUTH["alpha_S"]))


def test_without_noise_it_is_the_truth() -> None:
    found = critical_batches(sweep(noise=1e-6, rates=(1.0,)))
    assert np.median(found.draws["alpha_B"]) == pytest.approx(TRUTH["alpha_B"], rel=0.02)
    assert np.median(found.contours[0].S_min[:, 3]) == pytest.approx(_true_steps(found), rel=0.02)
    one = found.contours[1]
    assert np.allclose(one.E_min / one.S_min, found.B_crit(one.sweep.loss))


def test_a_batch_that_depends_on_the_size_is_noticed() -> None:
    """B_crit of the larger size made three times as large: the ratio finds it, and 1 is outside."""
    ratio = critical_batches(sweep(growth=3.0, noise=0.001)).ratio()
    assert ratio is not None
    low, high = ratio.interval(0.9)
    assert 2.0 < low < high < 4.5


def test_the_best_learning_rate_counts() -> None:
    """Wrong rates beside the best one change nothing, for the law `critical-batch` either; on average they would."""
    best, all_ = sweep(noise=1e-6, rates=(1.0,)), sweep(noise=1e-6, rates=(0.25, 1.0, 4.0))
    assert np.allclose(batch_sweeps(best, 4)[0].steps, batch_sweeps(all_, 4)[0].steps, rtol=1e-3, equal_nan=True)
    assert set(np.unique(batch_sweeps(all_, 4)[0].lr[np.isfinite(batch_sweeps(all_, 4)[0].lr)])) == {1.0}
    assert critical_batches(all_).at_edge == critical_batches(best).at_edge == 0
    assert critical_batches(sweep(rates=(1.0, 2.0, 4.0))).at_edge > 0.9
    law = get_law("critical-batch")
    assert np.allclose(law.observe(best).response, law.observe(all_).response, rtol=0.01)


def test_half_of_a_warm_up_is_found_lost() -> None:
    """40 steps of warm-up, half of them lost: ignored, they would move α_B by more than its interval is wide."""
    found = critical_batches(sweep(warmup=40.0, noise=3e-4))
    share = found.contours[0].warmup_share
    assert 0.2 < np.median(share) < 0.8
    assert np.median(found.draws["alpha_B"]) == pytest.approx(TRUTH["alpha_B"], rel=0.04)


def test_two_batches_are_no_sweep() -> None:
    with pytest.raises(DesignError, match="three batches or more"):
        critical_batches(sweep(batches=BATCHES[:2]))


def test_it_is_public_and_can_be_written() -> None:
    found = ss.critical_batches(sweep(), seed=3)
    again = ss.critical_batches(sweep(), seed=3)
    assert np.array_equal(found.draws["alpha_B"], again.draws["alpha_B"])
    table = found.to_dataframe()
    assert len(table) == sum(len(one.sweep.loss) for one in found.contours)
    assert (table["S_min_steps_lo90"] < table["S_min_steps"]).all()
    assert found.to_json()["ratio_of_sizes"]["loss_nats"] == found.shared_loss
    assert "<table" in found._repr_html_()
    assert len(repr(found)) < 120


def test_predictions_take_it_as_a_fit() -> None:
    found = critical_batches(sweep())
    converted = ss.convert(found, found.runs)
    assert np.allclose(converted.S_min / found.runs.S + converted.C_min / found.runs.C, 1, atol=1e-6)
