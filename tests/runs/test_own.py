from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from scaling_sim.errors import DataError
from scaling_sim.model.shape import Shape
from scaling_sim.runs.record import RunRecord
from scaling_sim.runs.table import read_runs, table_from_records

Make = Callable[..., RunRecord]


def test_a_constant_rate_run_gives_its_curve_after_the_warm_up(make_record: Make) -> None:
    record = make_record(seed=7)
    table = table_from_records([record])
    assert table.S.tolist() == [10, 20, 50, 100]
    assert table.curve.all()
    assert not (table.stopped | table.decayed).any()
    assert table.N.tolist() == [12 * 2 * 16**2] * 4
    assert table.tokens.tolist() == table.D.tolist() == [10240, 20480, 51200, 102400]
    assert table.C.tolist() == (6 * table.N * table.tokens).tolist()
    assert table.loss.tolist() == [4.0, 3.0, 2.5, 2.0]
    assert np.isnan(table.loss_error).all()  # the windows' error is common to all runs: no noise between rows
    assert table.extra["evaluation_error"].tolist() == [0.01] * 4
    assert table.dropped == {"before twice the warm-up": (f"{record.run_id}@1",)}
    assert table.extra["purpose"].tolist() == ["curve"] * 4
    assert table.extra["seed"].tolist() == [7] * 4


def test_every_split_can_be_chosen_and_is_kept_beside(make_record: Make) -> None:
    table = table_from_records([make_record()], split="validation")
    assert table.loss == pytest.approx([4.1, 3.1, 2.6, 2.1])
    assert table.extra["evaluation_error"].tolist() == [0.02] * 4
    assert table.extra["loss_test"].tolist() == [4.0, 3.0, 2.5, 2.0]
    with pytest.raises(DataError, match="'books'; the runs have test, validation"):
        table_from_records([make_record()], split="books")


def test_an_early_stopped_run_gives_its_minimum(make_record: Make) -> None:
    losses = (5.5, 4.0, 3.0, 3.2, 3.9)
    record = make_record(
        losses=losses, early_stop=True, unique_tokens=4096, best=2, status="stopped", purposes=("data",)
    )
    table = table_from_records([record])
    assert table.loss.tolist() == [3.0]
    assert table.D.tolist() == [4096]
    assert table.tokens.tolist() == [20480]
    assert table.stopped.tolist() == [True]
    assert not table.curve.any()


def test_a_run_that_early_stopping_never_ended_is_left_out(make_record: Make) -> None:
    record = make_record(early_stop=True, unique_tokens=4096, best=4, purposes=("data",))
    table = table_from_records([record, make_record(seed=1)])
    assert table.dropped["early stopping never came: the run ended first"] == (record.run_id,)


def test_a_decayed_run_gives_its_last_point_only(make_record: Make) -> None:
    record = make_record(schedule="decay", decay_steps=50, purposes=("final",))
    table = table_from_records([record])
    assert table.decayed.tolist() == [True]
    assert table.loss.tolist() == [2.0]
    assert table.dropped == {}
    assert any("gives one row, its end" in note for note in table.notes)


def test_a_cosine_that_ends_before_its_horizon_gives_nothing(make_record: Make) -> None:
    whole, cut = make_record(schedule="cosine"), make_record(schedule="cosine", horizon_steps=200)
    table = table_from_records([whole, cut])
    assert table.run.tolist() == [whole.run_id]
    assert cut.run_id in table.dropped["measured while the learning rate decayed"]


def test_points_beyond_one_epoch_are_no_curve(make_record: Make) -> None:
    table = table_from_records([make_record(unique_tokens=30000)])
    assert table.S.tolist() == [10, 20]
    names = table.dropped["constant rate, but its data repeat and nothing stopped it"]
    assert [name.split("@")[1] for name in names] == ["50", "100"]


def test_every_point_of_a_curve_is_kept_or_left_out_once(make_record: Make) -> None:
    """Five points; the first lies in the warm-up and beyond the first epoch."""
    table = table_from_records([make_record(unique_tokens=512)])
    names = [name for found in table.dropped.values() for name in found]
    assert len(table) + len(names) == 5
    assert len(set(names)) == len(names)


def test_runs_without_a_result_are_counted_under_their_reason(make_record: Make) -> None:
    good, diverged = make_record(1), make_record(2, status="diverged", losses=(5.5, 9.0, math.nan, math.nan, math.nan))
    planned, running = make_record(3, status="planned", curve=()), make_record(4, status="running")
    failed, trial = make_record(5, status="failed", message="disk full"), make_record(6, purposes=("lr",))
    table = table_from_records([good, diverged, planned, running, failed, trial])
    assert set(table.run.tolist()) == {good.run_id}
    assert table.dropped["diverged"] == (diverged.run_id,)
    assert table.dropped["not finished"] == (planned.run_id, running.run_id)
    assert table.dropped["failed: disk full"] == (failed.run_id,)
    assert table.dropped["learning-rate trial"] == (trial.run_id,)


def test_a_trial_that_is_also_a_curve_counts(make_record: Make) -> None:
    assert len(table_from_records([make_record(purposes=("lr", "curve"))])) == 4


def test_a_model_without_layers_is_stored_and_counted(make_record: Make) -> None:
    empty = Shape(n_layer=0, d_model=16, n_head=2, n_ctx=32)
    table = table_from_records([make_record(shape=empty), make_record(1)])
    assert table.counts()["N = 0"] == 4
    assert np.isfinite(table.loss).all()


def test_simulated_records_say_so_and_lists_are_read(make_record: Make) -> None:
    assert read_runs([make_record(simulated=True)]).simulated
    assert not read_runs([make_record()]).simulated
    with pytest.raises(DataError, match="there are no runs yet"):
        table_from_records([])


def test_only_unfinished_runs_give_an_empty_table_that_says_why(make_record: Make) -> None:
    table = table_from_records([make_record(status="planned", curve=())])
    assert len(table) == 0
    assert table.num_dropped == 1
