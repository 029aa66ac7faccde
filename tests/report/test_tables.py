from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scaling_sim.report import ReportData, environment
from scaling_sim.report.crossover_tables import crossover_methods_table, crossover_table, sensitivity_table
from scaling_sim.report.run_tables import excluded_table, role_table, run_table
from scaling_sim.report.summary import findings, misfit
from scaling_sim.report.table import Range
from scaling_sim.report.tables import (
    allocation_table,
    exponent_table,
    fact_table,
    parameter_table,
    prior_table,
)


def test_parameters_are_those_of_the_summary(study: ReportData) -> None:
    table = parameter_table(study, "kaplan")
    fit = study.fits["kaplan"]
    row = next(row for row in table.rows if row[0] == "alpha_N")
    assert row[1] == pytest.approx(np.median(fit.draws["alpha_N"]))
    assert isinstance(row[3], Range)
    assert [row[3].low, row[3].high] == pytest.approx(np.quantile(fit.draws["alpha_N"], [0.05, 0.95]))
    assert {row[0] for row in table.rows} == {*fit.draws, *fit.noise}


def test_prior_of_every_coordinate(study: ReportData) -> None:
    fit = study.fits["kaplan"]
    assert len(prior_table(fit).rows) == len(fit.coordinates)


def test_exponents_stand_beside_the_papers(study: ReportData) -> None:
    table = exponent_table(study)
    assert table is not None
    rows = {str(row[0]): row for row in table.rows}
    assert rows["α_N"][4] == 0.076
    p = study.fits["kaplan"].draws
    expected = np.median(1 / (1 / p["alpha_N"] + 1 / p["alpha_S"] + 1 / p["alpha_B"]))
    cell = rows["α_C^min"][3]
    assert isinstance(cell, Range)
    assert cell.middle == pytest.approx(expected)
    shares = [row[3].middle for key, row in rows.items() if key in ("p_N", "p_B", "p_S") and isinstance(row[3], Range)]
    assert sum(x for x in shares if x) == pytest.approx(1, abs=0.02), "N·B·S grows as C"
    assert "bytes" in table.note


def test_big_models_get_no_excuse(fit_only: ReportData) -> None:
    table = exponent_table(fit_only)
    assert table is not None
    assert table.note == ""
    assert {row[2] for row in table.rows} == {"chinchilla"}


def test_one_row_per_budget(study: ReportData) -> None:
    table = allocation_table(study)
    assert table is not None
    assert [row[1] for row in table.rows] == [1e15, 1e18, 1e21]
    assert "kaplan: N* " in table.note
    one = study.allocations[0][1]
    assert table.rows[1][2] == Range.of(one.N)


def test_crossing_and_what_moves_it(study: ReportData) -> None:
    table, sensitivity = crossover_table(study), sensitivity_table(study)
    assert table is not None
    assert sensitivity is not None
    assert study.crossover is not None
    assert table.rows[1][1] == Range.of(study.crossover.C)
    assert {row[0] for row in sensitivity.rows} == set(study.fits["kaplan"].draws)
    shares = [row[sensitivity.columns.index("share of variance")] for row in sensitivity.rows]
    assert sum(float(str(share)) for share in shares) == pytest.approx(1)
    assert "L(D) " in sensitivity.note


def test_the_crossing_stands_beside_the_papers_own(study: ReportData, changed: Any) -> None:
    table = crossover_methods_table(study)
    assert table is not None
    assert study.crossover is not None
    rows = {str(row[0]): row for row in table.rows}
    assert rows["this fit: Appendix B"][1] == Range.of(study.crossover.quantities["C_pf_days"])
    papers = [rows[f"Kaplan et al.: {name}"][1] for name in ("Table 6", "equation 6.7", "Appendix B")]
    assert papers == pytest.approx([1.12e4, 1.06e5, 2.5e6], rel=0.02)
    assert rows["Kaplan et al.: Table 6"][5] is None, "Table 6 prints no N_c of equation 1.5"
    bare = crossover_methods_table(changed(study, fits={}))
    assert bare is not None
    assert "No envelope: no joint fit" in bare.note


def test_what_was_left_out_is_named_with_its_message(study: ReportData) -> None:
    table = excluded_table(study)
    assert table is not None
    diverged = next(row for row in table.rows if row[1] == "diverged")
    assert diverged[2] == 1
    assert diverged[4] == "the loss became NaN at step 412"


def test_every_run_has_a_row(study: ReportData, fit_only: ReportData) -> None:
    table, plain = run_table(study), run_table(fit_only)
    assert table is not None
    assert plain is not None
    assert {row[0] for row in table.rows} == {record.run_id for record in study.records}
    assert len(plain.rows) == 120
    assert "batch, tokens" not in plain.columns, "an unknown column is left out"


def test_roles_add_up(study: ReportData) -> None:
    table = role_table(study)
    assert table is not None
    fit = study.fits["kaplan"]
    assert table.rows[0][:3] == ("kaplan", f"{fit.n_used} rows", fit.n_dropped)
    assert sum(fit.roles.values()) == fit.n_used


def test_findings_of_a_study_and_of_a_fit(study: ReportData, fit_only: ReportData, changed: Any) -> None:
    assert [f.value.split(" ")[0] for f in findings(study)] == ["α_N", "α_D", "p", "N", "C*"]
    assert [f.value.split(" ")[0] for f in findings(fit_only)] == ["α", "β", "p", "N"]
    assert study.crossover is not None
    nowhere = changed(study.crossover.C, draws=np.full(10, np.inf))
    none = findings(changed(study, crossover=changed(study.crossover, C=nowhere)))
    assert none[-1].value == "no C*"
    assert "100.0%" in none[-1].between


def test_a_crossing_that_the_runs_do_not_determine_is_no_number(study: ReportData, changed: Any) -> None:
    assert study.crossover is not None
    known = study.crossover.reach.largest
    near = changed(study.crossover.C, draws=known * np.geomspace(2, 20, 100))
    tested = changed(study.crossover.reach, backtested=2.0)
    determined = changed(study.crossover, C=near, reach=tested)
    assert findings(changed(study, crossover=determined))[-1].value.startswith("C* = ")
    wide = changed(near, draws=known * np.geomspace(1, 1e4, 100))
    tile = findings(changed(study, crossover=changed(determined, C=wide)))[-1]
    assert (tile.value, tile.between) == ("C*", "not determined by these runs")
    assert "spans more than 3 decades" in tile.words
    far = changed(determined, reach=changed(tested, backtested=0.4))
    assert "decades beyond the runs, and a back-test reached 0.4" in findings(changed(study, crossover=far))[-1].words


def test_misfit_is_stated_and_doubted_above_two_per_cent(fit_only: ReportData, changed: Any) -> None:
    fit = fit_only.fits["chinchilla"]
    small = changed(fit_only, fits={"chinchilla": changed(fit, noise={"sigma": np.full(10, 0.004)})})
    assert misfit(small).doubtful is False
    assert "0.4%" in misfit(small).sentences[0]
    noise = {"sigma_curve": np.full(10, 0.003), "tau_curve": np.full(10, 0.04), "sigma_stopped": np.full(10, 0.01)}
    large = misfit(changed(fit_only, fits={"chinchilla": changed(fit, noise=noise)}))
    assert large.doubtful
    assert "4.0% (curve rows), 1.0% (stopped rows)" in large.sentences[0]
    assert misfit(ReportData(title="empty")).sentences == ()


def test_missing_parts_give_no_table() -> None:
    empty = ReportData(title="empty")
    for build in (
        exponent_table,
        allocation_table,
        crossover_table,
        crossover_methods_table,
        sensitivity_table,
        excluded_table,
        run_table,
        role_table,
    ):
        assert build(empty) is None
    assert fact_table("corpus", "The text", {}) is None


def test_environment_names_no_path() -> None:
    facts = environment()
    assert {"python", "numpy", "matplotlib"} <= set(facts)
    assert not any("/" in value for value in facts.values())
