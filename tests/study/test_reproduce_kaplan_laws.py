"""The reproduction finds the law that runs were fabricated from: a proof of the analysis, not of any result."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import numpy as np
import pytest

from scaling_sim.datasets import Experiment
from scaling_sim.errors import DataError
from scaling_sim.laws.constants import PF_DAY
from scaling_sim.predict.appendix_b import compute_exponent
from scaling_sim.predict.powerlaws import PowerLaws
from scaling_sim.study.reproduce.kaplan import Data, Row, find
from scaling_sim.study.reproduce.kaplan.frontier import crossing, main_fit
from scaling_sim.study.reproduce.kaplan.rows import (
    MIN_UPDATES,
    TRANSIENT_TOKENS,
    family_records,
    family_rows,
    fitted,
    joint_rows,
    settled,
    updates_per_epoch,
)
from tests.study.kaplan_records import BATCH, DROPOUT_COST, FACTS, RUN_NOISE, TRUTH, small_experiment

Rows = Mapping[str, Row]


@pytest.fixture(scope="module")
def data() -> Data:
    return Data(small_experiment())


def rows_of(data: Data, name: str) -> Rows:
    finding = find([name])[0].compute(data)
    assert not finding.missing, finding.missing
    return {row.quantity: row for row in finding.rows}


def holds(row: Row, truth: float, widths: float = 1.0) -> bool:
    """Whether the truth lies within twice the 90 % interval's distance: 3.3 sd, 1 in 1000 of true ones fail."""
    assert row.interval90 is not None
    low, high = (np.log(x) for x in row.interval90)
    middle = np.log(row.ours)
    away = np.log(truth) - middle
    return bool(2 * widths * (low - middle) <= away <= 2 * widths * (high - middle))


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("system", "quantity", "truth"),
    [
        ("two-variables", "α_N of L(N, D), Table 2", TRUTH["alpha_N"]),
        ("two-variables", "α_D of L(N, D), Table 2", TRUTH["alpha_D"]),
        ("two-variables", "α_N of L(N, D) without dropout", TRUTH["alpha_N"]),
        ("two-variables", "α_D of L(N, D) without dropout", TRUTH["alpha_D"]),
        ("two-variables", "α_N of L(N, S), Table 3", TRUTH["alpha_N"]),
        ("two-variables", "α_S of L(N, S), Table 3", TRUTH["alpha_S"]),
        ("two-variables", "S_c of L(N, S), Table 3", TRUTH["S_c"]),
        ("two-variables", "N_c of L(N, S), Table 3", TRUTH["N_c"]),
        ("constants", "α_B", TRUTH["alpha_B"]),
        ("constants", "B*", TRUTH["B_star"]),
        ("overfitting", "exponent α_N/α_D of D against N", TRUTH["alpha_N"] / TRUTH["alpha_D"]),
        ("compute-trend", "α_C^min by (1.8) from α_N, α_S, α_B", compute_exponent(0.12, 0.7, 0.25)),
        ("allocation", "p_N", compute_exponent(0.12, 0.7, 0.25) / 0.12),
        ("allocation", "p_B", compute_exponent(0.12, 0.7, 0.25) / 0.25),
    ],
)
def test_intervals_hold_the_law(data: Data, system: str, quantity: str, truth: float) -> None:
    row = rows_of(data, system)[quantity]
    assert holds(row, truth), f"{quantity}: {row.ours} {row.interval90}, but the truth is {truth}"
    assert not holds(row, 3 * truth), f"{quantity} is not known to a factor of 3: the test above says nothing"


@pytest.mark.statistical
def test_the_crossing_is_that_of_the_law(data: Data) -> None:
    lines = PowerLaws.of({name: np.array([value]) for name, value in TRUTH.items()})
    truth = float(np.exp(lines.log_crossing())[0]) / PF_DAY
    row = Row.of("C*", None, crossing(data).C.draws / PF_DAY, 1)
    assert holds(row, truth), f"{row.ours} {row.interval90}, but the laws cross at {truth}"
    assert rows_of(data, "contradiction")["C*"].ours == math.inf  # too far beyond the runs to be called a crossing


def test_the_adjusted_frontier_is_flatter_than_the_naive_one(data: Data) -> None:
    rows = rows_of(data, "compute-trend")
    assert rows["α_C^min of the adjusted frontier"].ours < rows["α_C of the naive frontier"].ours


def test_dropout_shifts_are_found_within_the_scatter_of_runs(data: Data) -> None:
    rows = rows_of(data, "dropout")
    fresh = [row.ours for name, row in rows.items() if name.startswith("shift on fresh")]
    limited = [row.ours for name, row in rows.items() if name.startswith("shift on D")]
    assert len(fresh) == 3
    assert len(limited) == 15
    sd = RUN_NOISE * 2**0.5
    assert np.mean(fresh) == pytest.approx(DROPOUT_COST, abs=4 * sd / len(fresh) ** 0.5)
    assert np.mean(limited) == pytest.approx(DROPOUT_COST, abs=4 * sd / len(limited) ** 0.5)


def test_overfitting_of_the_collapse_scatters_as_runs_do(data: Data) -> None:
    scatter = rows_of(data, "overfitting")["scatter of δL about one curve"].ours
    assert scatter < 3 * RUN_NOISE


def test_forecasts_of_the_top_decade_hold_their_runs(data: Data) -> None:
    rows = rows_of(data, "holdout")
    assert rows["coverage of 90 %, the paper's law"].ours >= 0.7  # rows of one run go together: far from binomial
    assert rows["median error of the forecast, the paper's law"].ours < 4 * RUN_NOISE


def test_one_layer_and_few_updates_are_not_fitted(data: Data) -> None:
    assert all(record.config.shape.n_layer >= 2 for record in fitted(data.records("curve", "data")))
    assert updates_per_epoch(data.records("data")[0]) > MIN_UPDATES
    assert {record.config.recipe.batch_tokens for record in family_records(data)} == {BATCH}
    batches = joint_rows(data).B
    assert len(np.unique(batches)) == 4


def test_a_run_whose_loss_still_falls_is_not_fitted(data: Data) -> None:
    record = data.records("data")[0]
    slope = [msgspec.structs.replace(p, losses={"test": 2.0 - 0.1 * k}) for k, p in enumerate(record.curve)]
    falling = msgspec.structs.replace(record, curve=tuple(slope))
    assert settled(record)
    assert not settled(falling)
    assert fitted([falling]) == ()


def test_the_transient_of_curves_is_left_out_of_the_joint_fit_but_not_of_frontiers(data: Data) -> None:
    table, family = joint_rows(data), family_rows(data)
    assert table.tokens[table.curve].min() >= TRANSIENT_TOKENS * 5 * BATCH
    assert family.tokens.min() < table.tokens[table.curve].min()


def test_without_a_batch_sweep_the_joint_fit_takes_the_place_of_the_papers_steps(data: Data) -> None:
    swept = {record.run_id for record in data.records("batch")}
    others = [record for record in data.experiment.records if record.run_id not in swept]
    one_batch = Data(Experiment(others, FACTS))
    one_batch.give("kaplan", "the joint fit")
    assert main_fit(one_batch) == "the joint fit"
    with pytest.raises(DataError, match="neither a batch sweep"):
        one_batch.shared("stepwise")


def test_systems_without_their_runs_say_which_are_missing(data: Data) -> None:
    curves = Data(Experiment(data.records("curve", early_stop=False), FACTS))
    finding = find(["overfitting"])[0].compute(curves)
    assert "data" in finding.missing
    assert not finding.rows
    with_curves_only = find(["F1"])[0].compute(curves)
    assert with_curves_only.missing
