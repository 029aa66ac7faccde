"""Kernels that are compiled ahead of a sweep: which, in what order, and that leaving early leaves nothing behind."""

import time

import msgspec
import pytest

from scaling_sim.training import choose_backend, plan_cohorts
from scaling_sim.training.ahead import CompileAhead, kernel_tasks
from scaling_sim.training.placement import Placement
from tests.training.runs import SHAPE, make_branch, make_corpus, make_job

WIDE = msgspec.structs.replace(SHAPE, d_model=16)


def jobs():
    parent = make_job(steps=200, shape=WIDE)
    others = [make_job(seed=seed) for seed in range(3)] + [make_job(dropout=0.1, seed=9)]
    return [parent, make_branch(parent, 50, 10), *others]


@pytest.fixture
def on_gpu(monkeypatch):
    """A CPU that passes for a GPU; cohorts have several members there."""
    monkeypatch.setattr(Placement, "on_gpu", True)
    monkeypatch.setattr(Placement, "max_members", lambda self, job: 8)


def test_each_kind_of_cohort_is_compiled_once_in_the_order_of_the_jobs(on_gpu):
    placement = choose_backend(plan_cohorts(jobs(), max_members=1), "numpy")
    tasks = kernel_tasks(jobs(), placement)
    assert [(task.jobs[0].config.shape.d_model, len(task.jobs), task.first_step) for task in tasks] == [
        (16, 1, 0),
        (8, 4, 0),
    ]
    assert tasks[1].id == "1×8 B=64 of 4 with dropout"
    assert not any(task.branches or task.starts for task in tasks)


def test_workers_use_every_kernel_once(on_gpu):
    with CompileAhead(jobs(), make_corpus().splits, backend="numpy", workers=2) as ahead:
        patience = time.monotonic() + 60
        while len(ahead.compiled) < 2 and time.monotonic() < patience:
            time.sleep(0.05)
    assert sorted(ahead.compiled) == ["1×16 B=64 of 1", "1×8 B=64 of 4 with dropout"]
    assert not ahead.failed


def test_leaving_early_ends_the_workers(on_gpu):
    began = time.monotonic()
    with CompileAhead(jobs(), make_corpus().splits, backend="numpy", workers=1):
        pass
    assert time.monotonic() - began < 30


def test_a_cpu_compiles_nothing_ahead():
    with CompileAhead(jobs(), make_corpus().splits, backend="numpy") as ahead:
        assert ahead._thread is None
