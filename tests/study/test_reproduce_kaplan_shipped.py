"""What the shipped runs say of the paper's laws: qualitative findings that a change of the analysis must not turn."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from scaling_sim import datasets
from scaling_sim.study.reproduce.kaplan import Data, Row, find

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("kaplan-h200" not in datasets.names(), reason="the runs are not shipped with this installation"),
]


@pytest.fixture(scope="module")
def data() -> Data:
    return Data(datasets.load())


def rows_of(data: Data, name: str) -> Mapping[str, Row]:
    finding = find([name])[0].compute(data)
    assert not finding.missing, finding.missing
    return {row.quantity: row for row in finding.rows}


def overlap(first: Row, second: Row) -> bool:
    assert first.interval90 is not None
    assert second.interval90 is not None
    return first.interval90[0] <= second.interval90[1] and second.interval90[0] <= first.interval90[1]


def test_losses_are_power_laws_of_compute_data_and_size(data: Data) -> None:
    rows = rows_of(data, "one-variable")
    for name in ("α_C^min of L(C_min)", "α_D of L(D)", "α_N of L(N)"):
        low, high = rows[name].interval90 or (0.0, 1.0)
        assert 0 < low < high < 1.35 * low, name


def test_data_limited_runs_and_curves_agree_about_size(data: Data) -> None:
    rows = rows_of(data, "two-variables")
    assert overlap(rows["α_N of L(N, D) without dropout"], rows["α_N of L(N, S), Table 3"])
    assert rows["scatter about it, ln L"].ours < 0.02
    assert rows["scatter of curves about it, ln L"].ours < 0.025


def test_overfitting_depends_on_a_power_of_size_over_data(data: Data) -> None:
    rows = rows_of(data, "overfitting")
    low, high = rows["exponent α_N/α_D of D against N, no dropout"].interval90 or (0.0, 0.0)
    assert low <= 0.74 <= high
    assert rows["scatter of δL about one curve, no dropout"].ours < 0.03


def test_dropout_costs_small_models_more(data: Data) -> None:
    rows = rows_of(data, "dropout")
    fresh = [row.ours for name, row in rows.items() if name.startswith("shift on fresh")]
    assert fresh == sorted(fresh, reverse=True)  # by rising N
    assert fresh[0] > 0.05


def test_adjusting_for_the_batch_flattens_the_frontier_and_slows_the_best_size(data: Data) -> None:
    trend, size = rows_of(data, "compute-trend"), rows_of(data, "best-size")
    assert trend["α_C^min of the adjusted frontier"].ours < trend["α_C of the naive frontier"].ours
    assert overlap(size["p_N, by the law (Appendix B)"], size["p_N, by isoFLOP minima"])
    assert size["p_N, by the law (Appendix B)"].ours < size["p_N as paid, by the law"].ours
    assert size["p_S, by the law"].ours < 0.25 * size["p_N, by the law (Appendix B)"].ours


def test_the_crossing_is_not_determined_and_lies_far_beyond_the_runs(data: Data) -> None:
    rows = rows_of(data, "contradiction")
    low, high = rows["C*"].interval90 or (0.0, 0.0)
    assert low > 100 * 1.51e16 / 8.64e19  # the largest run, in PF-days
    assert high == float("inf")
    assert 0 < rows["probability of a crossing within 12 decades"].ours < 0.9
    assert "L*" not in rows or rows["L*"].ours > 0.1


def test_forecasts_with_discrepancy_hold_the_top_decade_and_the_law_alone_does_not(data: Data) -> None:
    rows = rows_of(data, "holdout")
    assert rows["coverage of 90 %, the paper's law"].ours >= 0.8
    assert rows["coverage of 90 %, the paper's law alone, no discrepancy"].ours < 0.7
    error = "median error of the forecast, "
    assert rows[f"{error}the law with a floor"].ours < rows[f"{error}the paper's law"].ours


def interval(row: Row) -> tuple[float, float]:
    assert row.interval90 is not None
    return row.interval90


def test_larger_models_need_fewer_tokens(data: Data) -> None:
    """Figures 2 and 19."""
    measured = [row for name, row in rows_of(data, "training-efficiency").items() if name.startswith("tokens to")]
    assert measured[0].ours > 10
    low, high = interval(rows_of(data, "minimal-cost")["E_min, smallest over largest size"])
    assert 10 < low < high < 100


def test_embeddings_left_out_collapse_no_worse_than_counted(data: Data) -> None:
    """Figure 6: about a power law better, about a curve alike, so that the paper's collapse is not shown."""
    rows = rows_of(data, "embeddings")
    assert interval(rows["spread about a power law, counted over left out"])[0] > 1
    low, high = interval(rows["spread about a curve, counted over left out"])
    assert low < 1 < high
    assert rows["0-layer model above that line at its largest"].ours > 20


def test_slices_and_contours_have_the_shape_of_the_laws(data: Data) -> None:
    """Figures 11 and 18."""
    rows = rows_of(data, "slices")
    assert rows["slices at fixed compute with a minimum between sizes"].ours >= 5
    by_batches = rows["exponent of N* by isoFLOP minima, B_crit of the batch sweeps"]
    assert overlap(by_batches, rows_of(data, "allocation")["p_N"])
    assert rows_of(data, "contours")["error of ln L about the hyperbolas"].ours < 0.025


def test_depth_alone_makes_no_difference_on_any_text(data: Data) -> None:
    """Figure 24, from two layers to aspect 4."""
    for name, row in rows_of(data, "depth").items():
        low, high = interval(row)
        assert low < 0 < high, name


def test_a_power_law_predicts_better_than_a_logarithm(data: Data) -> None:
    """Figure 23."""
    assert interval(rows_of(data, "logarithm")["elpd of the power law over the logarithm"])[0] > 0


def test_tables_repeat_what_figures_say(data: Data) -> None:
    """Tables 4 to 6 and their figures are one analysis; the exponents of the allocation add up."""
    size = rows_of(data, "one-variable")["α_N of L(N)"]
    assert rows_of(data, "held-fixed")["L(N): α_N"].ours == size.ours
    assert rows_of(data, "constants")["α_N"].interval90 == size.interval90
    rows = rows_of(data, "allocation")
    assert rows["p_N"].ours + rows["p_B"].ours + rows["p_S"].ours == pytest.approx(1, abs=0.02)  # medians
    assert rows["p_D"].ours == pytest.approx(rows["p_B"].ours + rows["p_S"].ours, abs=0.02)


def test_byte_pairs_save_loss_per_byte(data: Data) -> None:
    rows = rows_of(data, "tokenizer")
    assert rows["loss per byte, byte pairs over bytes, largest shared size"].ours < -5
    assert interval(rows["α_S, byte pairs less bytes"])[1] < 0


def test_tables_without_a_system_lead_to_where_they_are() -> None:
    assert [find([name])[0].figure for name in ("T1", "T2", "T3")] == ["T4", "F4", "F4"]


def test_where_both_sets_of_runs_come_from_is_told(data: Data) -> None:
    from scaling_sim.study.reproduce.kaplan.writing import table_json

    facts = table_json({}, {}, data)["facts"]
    assert (facts["runs"], facts["recurrent_runs"]) == (414, 33)
    assert len(facts["commit"]) == len(facts["recurrent_commit"]) == 40
    assert facts["device"] == facts["recurrent_device"] == "NVIDIA H200"
