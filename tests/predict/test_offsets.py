from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scaling_sim.errors import DataError
from scaling_sim.predict.forecast import forecast
from scaling_sim.predict.offsets import offsets
from scaling_sim.runs.table import RunTable, read_runs
from tests.predict.support import around, table


def runs(seed: int, num: int = 12, points: int = 6, slope: float = 0.9, between: float = 0.01) -> RunTable:
    """Curves whose losses on books are L^slope·1.3, with one error for each run."""
    rng = np.random.default_rng(seed)
    run = np.repeat(np.arange(num), points)
    N = np.repeat(np.geomspace(1e7, 1e9, num), points)
    tokens = N * np.tile(np.geomspace(2, 40, points), num)
    loss = 1.7 + 400 / N**0.34 + 410 / tokens**0.28
    own = between * rng.standard_normal(num)[run] + 0.003 * rng.standard_normal(len(run))
    extra = {"loss_books": 1.3 * loss**slope * np.exp(own), "loss_error": np.full(len(run), 0.01)}
    return replace(table(N=N, tokens=tokens, loss=loss, run=run.astype(str)), extra=extra, data_hash="")


def test_slope_and_offset_are_found() -> None:
    found = offsets(runs(0)).splits["books"]
    low, high = found.slope.interval()
    assert low < 0.9 < high
    assert high - low < 0.1
    truth = np.log(1.3) - 0.1 * found.centre
    assert found.level.interval()[0] < truth < found.level.interval()[1]
    assert found.between == pytest.approx(0.01, rel=0.5)
    assert found.within == pytest.approx(0.003, rel=0.25)
    assert list(offsets(runs(0)).splits) == ["books"]  # loss_error is no text


@pytest.mark.statistical
def test_intervals_cover_although_points_of_one_run_go_together() -> None:
    """200 tables: 90 % intervals of slope and of a new run's loss cover to within three standard errors (6.4 %)."""
    slope, loss, naive = [], [], []
    for seed in range(200):
        found = offsets(runs(seed, num=8)).splits["books"]
        low, high = found.slope.interval()
        slope.append(low <= 0.9 <= high)
        rng = np.random.default_rng(10_000 + seed)
        new = 1.3 * 2.6**0.9 * np.exp(0.01 * rng.standard_normal() + 0.003 * rng.standard_normal())
        low, high = np.quantile(found.loss(np.full(2000, 2.6), seed), [0.05, 0.95])
        loss.append(low <= new <= high)
        alone = replace(runs(seed, num=8), run=np.arange(48).astype(str), data_hash="")
        low, high = offsets(alone).splits["books"].slope.interval()
        naive.append(low <= 0.9 <= high)
    assert abs(np.mean(slope) - 0.9) < 0.064
    assert abs(np.mean(loss) - 0.9) < 0.064
    assert np.mean(naive) < 0.8  # rows taken for independent: the wrong answer fails


def test_a_forecast_says_the_losses_on_other_texts() -> None:
    fit = replace(around("hoffmann", sd=1e-4, num=100), runs=runs(1))
    found = forecast(fit, N=5e8, tokens=1e10, backtest=None)
    expected = 1.3 * found.median**0.9
    low, high = found.other_losses["books"].interval()
    assert low < expected < high
    assert high / low < 1.08
    assert found.to_json()["loss_books_nats"]["median"] == found.other_losses["books"].median
    beyond = forecast(fit, N=1e11, tokens=1e12, backtest=None)
    assert any("losses on books extrapolate" in note for note in beyond.notes)


def test_a_csv_with_a_second_loss_is_enough() -> None:
    columns: dict[str, Any] = {
        "N": [1e7, 2e7, 4e7, 8e7, 1.6e8],
        "tokens": [1e9, 2e9, 4e9, 8e9, 1.6e10],
        "loss": [3.5, 3.2, 3.0, 2.8, 2.65],
        "loss_wikipedia": [3.6, 3.3, 3.1, 2.9, 2.75],
        "loss_comment": ["a", "b", "c", "d", "e"],
    }
    found = offsets(read_runs(columns))
    assert list(found.splits) == ["wikipedia"]
    assert found.splits["wikipedia"].num_runs == 5


def test_what_tells_nothing_is_named() -> None:
    few = runs(0, num=3)
    assert offsets(few).skipped == {"books": "fewer than 4 runs carry it"}
    flat = replace(runs(0), loss=np.full(72, 3.0), data_hash="")
    assert "no slope" in offsets(flat).skipped["books"]
    with pytest.raises(DataError, match="no run carries a second loss"):
        offsets(table(N=[1e7], tokens=[1e9], loss=[3.0]))


def test_results_read_well() -> None:
    found = offsets(runs(0))
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["splits"]["books"]["num_runs"] == 12
    assert found.to_dataframe()["split"].tolist() == ["books"]
    assert "<table" in found._repr_html_()
