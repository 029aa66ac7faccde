from __future__ import annotations

import numpy as np
import pytest

from scaling_sim.datasets import Experiment
from scaling_sim.model.count import num_parameters
from scaling_sim.runs.record import position_edges
from scaling_sim.study.kaplan import H200, TINY, rehearse
from scaling_sim.study.kaplan.world import World


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return rehearse(0)


def test_every_planned_run_has_a_record(experiment: Experiment) -> None:
    assert len(experiment) > 300
    assert all(record.simulated for record in experiment.records)
    assert {record.status for record in experiment.records} == {"done", "stopped", "diverged"}
    assert {facts.key for facts in experiment.corpora.values()} == {"english", "english-bpe", "synthetic"}
    for record in experiment.records:
        assert record.result is not None
        assert record.seconds > 0
        assert len(record.result.positions) == len(position_edges(record.config.shape.n_ctx)) - 1


def test_equal_seeds_give_equal_records(experiment: Experiment) -> None:
    small, again, other = rehearse(1, TINY), rehearse(1, TINY), rehearse(2, TINY)
    assert small.records == again.records
    assert small.records != other.records


def test_larger_models_end_lower(experiment: Experiment) -> None:
    runs = [r for r in experiment.select("curve", batch_tokens=8192, n_ctx=128, seed=0) if "batch" not in r.purposes]
    by_size = {num_parameters(r.config.shape): r.curve[-1].losses["test"] for r in runs}
    losses = [by_size[num_parameters(shape)] for shape in H200.shapes]
    assert losses == sorted(losses, reverse=True)


def test_a_rehearsal_feeds_the_laws(experiment: Experiment) -> None:
    curves = experiment.table("curve", n_ctx=128, dropout=0.0)
    assert curves.curve.sum() > 300
    stopped = experiment.table("data", dropout=0.1)
    assert stopped.stopped.sum() > 20
    assert stopped.simulated


def test_losses_follow_the_law() -> None:
    world, shape = World(), H200.shapes[6]
    steps = np.array([100.0, 1000.0, 1e5, 1e7])
    losses = world.curve(shape, steps, 8192)
    assert np.all(np.diff(losses) < 0)
    assert losses[-1] == pytest.approx(world.floor + world.converged(shape), rel=1e-3)
    least = steps / (1 + world.critical_batch(losses) / 8192)
    expected = world.floor + world.converged(shape) + (world.S_c / least) ** world.alpha_S
    np.testing.assert_allclose(losses[1:], expected[1:], rtol=1e-6)


def test_positions_average_to_the_loss() -> None:
    positions = World().by_position(2.0, 128)
    assert positions.mean() == pytest.approx(2.0)
    assert np.all(np.diff(positions) < 0)
