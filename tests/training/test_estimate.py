import itertools

import numpy as np
import pytest

from scaling_sim.data.corpus import Corpus
from scaling_sim.model.count import flops_per_token
from scaling_sim.model.shape import Shape
from scaling_sim.training.calibrate import measure_machine
from scaling_sim.training.estimate import Speed, calibration_plans, estimate_seconds, makespan
from scaling_sim.training.loop import CohortProgress
from scaling_sim.training.planner import expected_steps, plan_cohorts
from scaling_sim.training.progress import Tracker
from tests.training.runs import SHAPE, make_job


def shape(width: int) -> Shape:
    return Shape(n_layer=1, d_model=width, n_head=1, n_ctx=16, vocab_size=16)


def test_makespan_is_that_of_longest_first() -> None:
    assert makespan([3, 3, 2, 2, 2], 2) == 7  # 3+2+2 beside 3+2
    assert makespan([4.0], 3) == 4
    assert makespan([], 2) == 0
    assert makespan([5.0], 2, busy=[10.0, 1.0]) == 10
    assert makespan([5.0], 2, busy=[2.0, 1.0]) == 6


def test_makespan_is_between_its_bounds() -> None:
    rng = np.random.default_rng(0)
    for num, workers in itertools.product((1, 5, 20), (1, 2, 4)):
        seconds = rng.uniform(0.1, 10, num)
        bound = max(seconds.max(), seconds.sum() / workers)
        assert bound * (1 - 1e-12) <= makespan(seconds, workers) <= 4 / 3 * bound + seconds.max()


def test_speed_goes_through_what_was_measured() -> None:
    speed = Speed.measured([(shape(8), 1e5), (shape(32), 2e4)])
    for width, rate in ((8, 1e5), (32, 2e4)):
        assert speed.flops_per_second(shape(width)) == pytest.approx(rate * flops_per_token(shape(width), "exact"))
    between = speed.flops_per_second(shape(16))
    assert speed.flops_per_second(shape(8)) < between < speed.flops_per_second(shape(32))
    assert speed.flops_per_second(shape(64)) == pytest.approx(speed.flops_per_second(shape(32)))


def test_two_workers_of_equal_speed_halve_the_time_of_many_runs() -> None:
    plans = plan_cohorts([make_job(seed=s, steps=5000) for s in range(8)], max_members=1)
    speed = Speed.measured([(SHAPE, 1e5)])
    one, two = (estimate_seconds(plans, speed, workers) for workers in (1, 2))
    assert one.seconds == pytest.approx(2 * two.seconds)
    assert one.seconds > 8 * 5000 * 64 / 1e5
    assert one.flops == 8 * 5000 * 64 * flops_per_token(SHAPE, "exact")


def test_calibration_takes_the_ends_and_the_middle() -> None:
    plans = plan_cohorts([make_job(shape=shape(width)) for width in (8, 16, 24, 32, 64)])
    widths = [plan.jobs[0].config.shape.d_model for plan in calibration_plans(plans)]
    assert widths == [8, 24, 64]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_measured_machine_knows_its_speed(corpus: Corpus, workers: int) -> None:
    machine = measure_machine([make_job()], corpus, backend="numpy", workers=workers, seconds=0.05)
    ((cost, rate),) = machine.speed.points
    assert cost == flops_per_token(SHAPE, "exact")
    assert 1e3 < rate / cost < 1e7
    longer = machine.estimate([make_job(steps=6000)]).seconds
    assert longer > 5 * machine.estimate([make_job(steps=600)]).seconds


def test_time_left_counts_the_running_and_the_waiting() -> None:
    plans = plan_cohorts([make_job(seed=s, steps=1000) for s in range(3)], max_members=1)
    tracker = Tracker({plan.id: plan for plan in plans}, num_workers=1)
    assert tracker.snapshot().seconds_left is None
    tracker.started(plans[0].id)
    tracker.heard(
        CohortProgress(cohort=plans[0].id, members=1, step=500, steps=1000, loss=2.0, tokens_per_second=6400.0)
    )
    snapshot = tracker.snapshot()
    assert snapshot.share == pytest.approx(0.5 / 3)
    assert snapshot.seconds_left == pytest.approx(5 + 2 * 10, rel=0.02)
    assert snapshot.cohorts[0].seconds_left == pytest.approx(5)


def test_early_stopped_runs_are_expected_to_stop() -> None:
    free, stopping = make_job(steps=5000), make_job("data", steps=5000, early_stop=True, unique_tokens=640)
    assert (expected_steps(free), expected_steps(stopping)) == (5000, 600)  # 60 passes of 10 batches
    plans = plan_cohorts([free, stopping], max_members=1)
    assert plans[0].jobs == (free,)
    assert plans[0].expected_flops == plans[0].flops
    assert plans[1].expected_flops == pytest.approx(0.12 * plans[1].flops)
    seconds = estimate_seconds(plans, Speed.measured([(SHAPE, 1e5)]), 1).cohort_seconds
    assert seconds[plans[1].id] < 0.2 * seconds[plans[0].id]
