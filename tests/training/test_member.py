import math
from typing import Any

import numpy as np
import pytest

from scaling_sim.training.member import DIVERGED_STEPS, Memory, Run
from tests.training.runs import VOCAB, make_job, make_point

HIGH = math.log(VOCAB) + 1.6


def make_run(**changes: Any) -> Run:
    return Run(0, make_job(**changes), Memory(), num_splits=3)


def test_a_loss_that_is_not_finite_ends_the_run_at_its_step() -> None:
    run = make_run()
    run.account(10, np.array([2.0, np.nan, np.nan]))
    assert (run.status, run.message) == ("diverged", "loss or gradient not finite at step 12")


def test_a_high_loss_must_persist() -> None:
    run = make_run()
    run.account(0, np.full(DIVERGED_STEPS - 1, HIGH))
    run.account(DIVERGED_STEPS - 1, np.array([2.0]))
    run.account(DIVERGED_STEPS, np.full(DIVERGED_STEPS - 1, HIGH))
    assert not run.finished
    run.account(2 * DIVERGED_STEPS - 1, np.array([HIGH, 2.0]))
    assert run.status == "diverged"
    assert run.message.endswith(f"at step {2 * DIVERGED_STEPS}")


def test_training_loss_does_not_depend_on_how_steps_are_cut() -> None:
    losses = np.random.default_rng(0).normal(2, 0.3, 997)
    means = set()
    for cut in (1, 7, 100, 997):
        run = make_run()
        for first in range(0, len(losses), cut):
            run.account(first, losses[first : first + cut])
        means.add(run.train_loss())
    assert len(means) == 1
    assert means.pop() == pytest.approx(losses.mean(), rel=1e-13)


def test_early_stopping_waits_for_its_patience_and_keeps_the_minimum() -> None:
    run = make_run(early_stop=True, patience=2)
    for step, loss in enumerate([2.0, 1.5, 1.6, 1.4, 1.4, 1.7]):
        assert not run.finished
        run.record_point(make_point(step + 1, loss))
    assert run.status == "stopped"
    assert run.memory.best == 3


def test_early_stopping_on_the_split_that_was_asked_for() -> None:
    run = make_run(early_stop=True, patience=1, stop_split="test")
    run.record_point(make_point(1, 2.0))
    worse_on_test = make_point(2, 1.0)
    worse_on_test.losses["test"] = 3.0
    run.record_point(worse_on_test)
    assert (run.status, run.memory.best) == ("stopped", 0)


def test_without_early_stopping_the_last_point_counts() -> None:
    run = make_run(steps=3)
    for step, loss in enumerate([2.0, 1.0, 5.0]):
        run.record_point(make_point(step + 1, loss))
    assert (run.status, run.memory.best) == ("done", 2)


def test_an_evaluation_that_is_not_finite_is_not_recorded() -> None:
    run = make_run()
    run.record_point(make_point(1, 2.0))
    run.record_point(make_point(2, math.inf))
    assert run.status == "diverged"
    assert len(run.memory.curve) == 1
