from itertools import pairwise

import numpy as np
import pytest

from scaling_sim.data.corpus import Corpus
from scaling_sim.runs.record import position_edges
from scaling_sim.training.evaluation import (
    EVALUATION_SHARE,
    affordable_sequences,
    evaluation_share,
    evaluation_steps,
    evaluation_windows,
    num_test_windows,
    position_means,
)
from tests.training.runs import make_job


@pytest.mark.parametrize("steps", [1, 2, 7, 60, 1000, 4001])
@pytest.mark.parametrize("points", [2, 6, 24])
def test_steps_rise_to_the_last_and_are_few_enough(steps: int, points: int) -> None:
    grid = evaluation_steps(make_job(steps=steps, eval_points=points, warmup_steps=0).config)
    assert grid[-1] == steps
    assert (np.diff(grid) > 0).all()
    assert 1 <= len(grid) <= points


def test_runs_of_different_length_share_their_steps() -> None:
    short, long = (evaluation_steps(make_job(steps=s, eval_points=24, warmup_steps=40).config) for s in (2500, 4000))
    used = short[(short >= 80) & (short < 2500)]  # from twice the warm-up on, without the short run's own end
    assert len(used) >= 20
    assert set(used.tolist()) <= set(long.tolist())


def test_a_branch_is_evaluated_after_its_branch_step_only() -> None:
    job = make_job(parent="p", branch_step=40, steps=50, schedule="decay", decay_steps=10, eval_points=3)
    grid = evaluation_steps(job.config)
    assert grid.min() > 40
    assert grid[-1] == 50


def test_automatic_number_of_windows_keeps_the_share() -> None:
    long = make_job(steps=20_000, eval_sequences=0).config
    assert num_test_windows(long, 3) == 1024
    middle = make_job(steps=1000, eval_sequences=0).config
    assert 32 < num_test_windows(middle, 3) < 1024
    assert evaluation_share(middle, 3) <= EVALUATION_SHARE


def test_affordable_windows_look_at_the_whole_sweep() -> None:
    short, long = (make_job(steps=s, eval_sequences=0).config for s in (1500, 50_000))
    common = affordable_sequences([short, long], 3)
    assert num_test_windows(short, 3) < common <= num_test_windows(long, 3)


def test_windows_are_fixed_and_inside_their_split(corpus: Corpus) -> None:
    config = make_job(eval_sequences=64).config
    windows = evaluation_windows(corpus.splits, config)
    assert set(windows) == {"validation", "test", "prose"}
    assert windows["test"].size == 64
    assert windows["validation"].size == 32
    for name, starts in windows.items():
        assert starts.min() >= 0
        assert starts.max() + config.shape.n_ctx < len(corpus.splits[name])
    np.testing.assert_array_equal(windows["test"], evaluation_windows(corpus.splits, config)["test"])


@pytest.mark.parametrize("n_ctx", [1, 2, 3, 8, 100, 128])
def test_position_bins_double_and_cover_the_context_once(n_ctx: int) -> None:
    edges = np.array(position_edges(n_ctx))
    assert edges[0] == 0
    assert edges[-1] == n_ctx
    assert edges[1:-1].tolist() == [2**i for i in range(len(edges) - 2)]
    mean = np.random.default_rng(n_ctx).random(n_ctx)
    bins = [mean[low:high].mean() for low, high in pairwise(edges)]
    np.testing.assert_allclose(position_means(mean), bins, rtol=1e-12)
    assert np.dot(position_means(mean), np.diff(edges)) == pytest.approx(mean.sum())


def test_a_context_of_128_has_eight_bins() -> None:
    assert position_edges(128) == (0, 1, 2, 4, 8, 16, 32, 64, 128)
