"""Laws, methods and outliers in the report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scaling_sim.predict import compare, compare_methods
from scaling_sim.report import ReportData, render_report
from scaling_sim.report.comparison_tables import comparison_table, methods_table, outlier_table
from scaling_sim.report.figures import figure_isoflop, figure_residuals
from scaling_sim.report.table import Range
from scaling_sim.runs.table import RunTable
from tests.report.conftest import CHINCHILLA, chinchilla_table, drawn_posterior


@pytest.fixture(scope="module")
def spoilt() -> Any:
    """A fit in whose runs one loss is 10 % too high."""
    runs = chinchilla_table()
    loss = runs.loss.copy()
    loss[17] *= 1.1
    changed: RunTable = replace(runs, loss=loss, data_hash="")
    return drawn_posterior("chinchilla", CHINCHILLA, changed, sd=0.0008)


def test_the_spoilt_run_heads_the_outliers_and_is_marked(spoilt: Any) -> None:
    data = ReportData(title="one bad run", fits={"chinchilla": spoilt})
    table = outlier_table(data)
    assert table is not None
    law, name, probability, off, rows = table.rows[0]
    assert (law, name, rows) == ("chinchilla", "run 17", 1)
    assert float(str(probability)) > 0.99
    assert str(off).startswith("+10") or str(off).startswith("+9")
    figure = figure_residuals(data)
    assert "Circles" in figure.reading
    rings = [line for line in figure.axes[0].lines if line.get_markersize() == 7.5]
    assert sum(len(np.atleast_1d(ring.get_xdata())) for ring in rings) == 1


def test_clean_runs_have_no_table_of_outliers(fit_only: ReportData) -> None:
    assert outlier_table(fit_only) is None
    assert outlier_table(ReportData(title="empty")) is None


def test_methods_stand_side_by_side(study: ReportData) -> None:
    table = methods_table(study)
    assert table is not None
    assert [row[0] for row in table.rows][:2] == ["law", "isoFLOP minima"]
    exponent = table.rows[0][2]
    assert isinstance(exponent, Range)
    assert exponent.low < exponent.middle < exponent.high
    assert study.methods is not None
    assert study.methods.verdict in table.note
    figure = figure_isoflop(study)
    assert study.methods.verdict in figure.reading
    assert study.methods.minima is not None
    minima = [row for row in figure.rows if row["series"] == "isoFLOP minima"]
    assert len(minima) == len(study.methods.minima.log_C)


def test_a_method_that_cannot_be_made_keeps_its_row_and_reason(fit_only: ReportData) -> None:
    few = fit_only.fits["chinchilla"]
    runs = few.runs.select(np.arange(len(few.runs)) < 12, "too few")
    found = compare_methods(drawn_posterior("chinchilla", CHINCHILLA, runs, sd=0.0008), 1e21)
    table = methods_table(replace(fit_only, methods=found))
    assert table is not None
    assert "cannot be made" in str(table.rows[-1][1])
    assert table.rows[-1][2] is None


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # a poor law forecasts infinite losses
def test_laws_stand_side_by_side_with_the_verdict(fit_only: ReportData) -> None:
    good = fit_only.fits["chinchilla"]
    poor = drawn_posterior("power-n", {"alpha_N": 0.05, "N_c": 1e15}, good.runs, sd=0.0008)
    found = compare([good, poor])
    page = render_report(replace(fit_only, comparison=found))
    table = comparison_table(replace(fit_only, comparison=found))
    assert table is not None
    assert [row[0] for row in table.rows] == ["chinchilla", "power-n"]
    assert table.note == found.verdict
    assert "Which law?" in page
    assert "Which law?" not in render_report(fit_only)
