"""Answers side by side: definitions of N and C, and known sizes by several sources."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scaling_sim.predict.known import known_sizes
from scaling_sim.predict.quantity import Quantity
from scaling_sim.report import figures as plot
from scaling_sim.report.data import ReportData
from scaling_sim.report.figures.canvas import sheet
from scaling_sim.report.figures.dots import DECADES, dot, within_reason
from tests.predict.support import around


def test_definitions_show_exponents_sizes_and_the_mapping(study: ReportData) -> None:
    found = study.allocations[0].definitions
    assert not isinstance(found, str)
    assert found.mapped is not None
    figure = plot.figure_definitions(study)
    frame = figure.to_dataframe()
    left = frame[frame.panel == "Exponent of N* against cost"].set_index("series")
    assert left.index.tolist() == [*found.rows, "Pearce-Song mapping"]
    for series, exponent in {**{k: r.exponent for k, r in found.rows.items()}, left.index[-1]: found.mapped}.items():
        one = left.loc[series]
        assert (one.x, one.x_lo90, one.x_hi90) == (exponent.median, *exponent.interval(0.9))
    right = frame[frame.panel == "Best size at the largest budget"].set_index("series")
    for name, row in found.rows.items():
        assert right.loc[name].x == np.median(row.N[:, -1])
        counted = f"{name}, smallest count" in right.index
        assert counted == (not np.allclose(row.N[:, -1], row.small[:, -1], rtol=1e-6))
    assert right.loc["total, smallest count"].x == np.median(found.rows["total"].small[:, -1])
    assert len(figure.axes[0].get_yticklabels()) == len(found.rows) + 1
    assert found.verdict in figure.reading
    assert plot.figure_definitions(found).to_dataframe().equals(frame)


def test_a_table_of_one_definition_has_no_such_figure(fit_only: ReportData) -> None:
    with pytest.raises(plot.NothingToShow, match="need the models' shapes"):
        plot.figure_definitions(fit_only)


def test_known_sizes_by_a_fit_and_by_published_constants(fit_only: ReportData) -> None:
    figure = plot.figure_known(fit_only)
    frame = figure.to_dataframe()
    left = frame[frame.panel == "Size over the best one for its compute"]
    table = known_sizes().to_dataframe()
    ours = left[left.series.str.startswith("chinchilla, runs.csv")]
    assert len(left) == len(table) + 5
    assert len(ours) == 5
    assert np.all(ours.x_lo90 < ours.x_hi90), "a fit has an interval"
    published = left.drop(ours.index)
    assert np.all(published.x_lo90 == published.x_hi90), "constants have none"
    np.testing.assert_allclose(np.sort(published.x), np.sort(table.N_over_optimal))
    right = frame[frame.panel == "Loss above that of the best size"]
    excess = table.loss_excess_percent.dropna()
    assert len(right) == len(excess) + 5
    assert set(excess.round(9)) <= set(right.x.round(9))
    assert "depending on whom one asks" in figure.reading
    assert "0.14 to 2.2 times" in figure.reading, "Chinchilla by Table 6 and by Hoffmann's rounded constants"


def test_known_sizes_need_a_law_with_a_best_size(study: ReportData, changed: Any) -> None:
    fit = around("kaplan-power-n", num=20)
    with pytest.raises(plot.NothingToShow, match="which size is best"):
        plot.figure_known(changed(study, fits={"power-n": fit}))


def test_an_endless_interval_ends_with_the_axis() -> None:
    figure, (ax,) = sheet("sizes", "Sizes", ["Sizes"], log="x")
    dot(ax, 0, Quantity("N", np.array([1e9, 2e9, np.inf])), series="wide", colour="black")
    assert within_reason(ax)
    assert ax.get_xlim()[1] == pytest.approx(2e9 * 10**DECADES)
    assert figure.rows[0]["x_hi90"] == np.inf
    figure, (ax,) = sheet("sizes", "Sizes", ["Sizes"], log="x")
    dot(ax, 0, Quantity("N", np.array([1e9, 2e9, 3e9])), series="narrow", colour="black")
    assert not within_reason(ax)
