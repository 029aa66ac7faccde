from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pytest

from scaling_sim.report import figures
from scaling_sim.report.data import ReportData
from scaling_sim.report.figures import NothingToShow, ReportFigure, to_svg
from scaling_sim.report.figures.posterior import prior_draws
from scaling_sim.report.figures.ticks import tick_label, tick_places
from scaling_sim.report.table import number

FIGURES = [getattr(figures, name) for name in dir(figures) if name.startswith("figure_")]
BUILDERS = [build for build in FIGURES if list(inspect.signature(build).parameters) == ["data"]]
"""Figures of a report; those of one result (a running run, two recipes) take that result: test_forecast_figures.py."""
NOT_IN_A_STUDY = {"figure_final_fit", "figure_allocation"}
IN_A_FIT = {
    "figure_final_fit",
    "figure_allocation",
    "figure_residuals",
    "figure_predictive_check",
    "figure_corner",
    "figure_traces",
    "figure_efficiency",
    "figure_known",
    "figure_valley",
}

Builder = Callable[[ReportData], ReportFigure]


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_every_figure_builds_from_a_full_study_or_says_what_is_missing(build: Builder, study: ReportData) -> None:
    if build.__name__ in NOT_IN_A_STUDY:
        with pytest.raises(NothingToShow, match="final losses"):
            build(study)
        return
    figure = build(study)
    assert figure.reading.endswith(".")
    assert len(figure.rows) > 10
    numbers = figure.to_dataframe()
    assert np.isfinite(numbers["x"]).all()
    assert set(numbers["panel"]) <= {ax.get_label() for ax in figure.axes}


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_every_figure_builds_from_one_fit_or_says_what_is_missing(build: Builder, fit_only: ReportData) -> None:
    if build.__name__ in IN_A_FIT:
        assert build(fit_only).rows
    else:
        with pytest.raises(NothingToShow) as caught:
            build(fit_only)
        assert len(str(caught.value)) > 15


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_nothing_gives_nothing(build: Builder) -> None:
    with pytest.raises(NothingToShow):
        build(ReportData(title="empty"))


def test_svg_is_the_same_every_time_and_refers_to_nothing_outside(study: ReportData) -> None:
    first, second = (to_svg(figures.figure_overfitting(study)) for _ in range(2))
    assert first == second
    assert not re.search(r'href="(?!#)', first)
    assert "<text" not in first, "letters are paths: no font is needed"
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', first))
    assert used == set(re.findall(r'\sid="([^"]+)"', first))


def test_ids_of_two_figures_never_meet(study: ReportData) -> None:
    ids = [
        set(re.findall(r'\sid="([^"]+)"', to_svg(build(study))))
        for build in (figures.figure_slices, figures.figure_crossover)
    ]
    assert not ids[0] & ids[1]


def test_settings_of_the_caller_are_untouched(study: ReportData) -> None:
    before = dict(matplotlib.rcParams)
    to_svg(figures.figure_crossover(study))
    assert dict(matplotlib.rcParams) == before


def test_figures_build_in_threads(study: ReportData) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(to_svg(figures.figure_overfitting(study)))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1


def test_collapse_lies_on_the_curve(study: ReportData) -> None:
    rows = figures.figure_overfitting(study).to_dataframe()
    right = rows[rows.panel == "Overfitting falls on one curve"]
    curve, points = right[right.kind != "point"].sort_values("x"), right[right.kind == "point"]
    expected = np.interp(np.log(points.x), np.log(curve.x), curve.y)
    assert np.abs(points.y - expected).max() < 3.5, "percent of the loss, for runs with .5 % noise and draws as wide"


def test_density_integrates_to_the_share_that_crosses_on_the_axis(study: ReportData) -> None:
    rows = figures.figure_crossover(study).to_dataframe()
    density = rows[rows.kind == "density"]
    step = np.diff(np.log10(density.x)).mean()
    assert study.crossover is not None
    cross = study.crossover.C.draws
    edge = 10 ** (np.log10(density.x.iloc[-1]) + step / 2)
    assert density.y.sum() * step == pytest.approx(np.mean(cross <= edge), abs=1e-9)


def test_no_crossing_is_said(study: ReportData, changed: Any) -> None:
    assert study.crossover is not None
    nowhere = changed(study.crossover.C, draws=np.full_like(study.crossover.C.draws, np.inf))
    figure = figures.figure_crossover(changed(study, crossover=changed(study.crossover, C=nowhere)))
    assert "100% of the draws have no crossing" in figure.reading


def test_caption_and_json_name_the_same_decades(study: ReportData) -> None:
    assert study.crossover is not None
    decades = study.crossover.to_json()["decades_beyond_runs"]["median"]
    assert f"{decades:.1f} decades beyond the largest run" in figures.figure_crossover(study).reading


def test_distance_of_the_noise_scale_is_a_number(study: ReportData) -> None:
    figure = figures.figure_critical_batch(study)
    rows = figure.to_dataframe()
    points = rows[rows.kind == "point"]
    p = {name: np.median(values) for name, values in study.fits["kaplan"].draws.items()}
    ratio = np.median(points.y * points.x ** (1 / p["alpha_B"]) / p["B_star"])
    assert f"over {len(points)} of them its median is {ratio:.2g} times the line" in figure.reading


def test_slices_have_the_best_size_inside(study: ReportData) -> None:
    rows = figures.figure_slices(study).to_dataframe()
    lines = rows[(rows.panel == "Fixed compute") & (rows.kind != "point")]
    best = [group.x.iloc[int(np.argmin(group.y))] for _, group in lines.groupby("series", sort=False)]
    assert best == sorted(best), "the best size grows with compute"
    assert best[-1] > 20 * best[0]


def test_learning_curves_mark_the_early_stop(study: ReportData) -> None:
    rows = figures.figure_learning_curves(study).to_dataframe()
    marks = rows[rows.kind == "point"]
    limited = [r for r in study.records if "data" in r.purposes and r.config.shape.d_model == 32]
    results = {(r.result.tokens, r.result.losses["test"]) for r in limited if r.result}
    assert len(marks) == 5
    assert set(zip(marks.x.astype(int), marks.y, strict=True)) == results


def test_predictive_check_sees_noise_that_is_too_small(fit_only: ReportData, changed: Any) -> None:
    from scaling_sim.report.figures.checks import predicted, predictive_places

    fit = fit_only.fits["chinchilla"]
    seen = predicted(fit)
    honest = predictive_places(fit, seen)
    narrow = changed(fit, noise={**fit.noise, "sigma": fit.noise["sigma"] / 20})
    too_sure = predictive_places(narrow, seen)
    assert 0.8 < np.mean(np.abs(honest - 0.5) < 0.45) <= 1
    assert np.mean(np.abs(too_sure - 0.5) < 0.45) < 0.65


def test_priors_are_those_of_the_law(study: ReportData) -> None:
    fit = study.fits["kaplan"]
    draws = prior_draws(fit)
    prior = next(c.prior for c in fit.coordinates if c.name == "log_alpha_N")
    assert np.log(draws["alpha_N"]).std() == pytest.approx(prior.sd, rel=0.05)
    assert np.log(draws["alpha_N"]).mean() == pytest.approx(prior.mean, abs=0.06 * prior.sd)


@pytest.mark.parametrize(("low", "high"), [(1.9, 2.2), (1.5, 4.1), (1e-3, 1e12), (800, 1.2e5), (3, 3.05), (4.0, 2.0)])
def test_log_axes_have_a_few_round_ticks(low: float, high: float) -> None:
    places = tick_places(low, high)
    assert 2 <= len(places) <= 9
    assert all(min(low, high) <= place <= max(low, high) for place in places)
    assert all(tick_label(place) for place in places)


def test_residuals_far_outside_are_marked_at_the_edge(fit_only: ReportData, changed: Any) -> None:
    fit = fit_only.fits["chinchilla"]
    loss = fit.data.response.copy()
    loss[:2] *= 1.4, 1.3
    figure = figures.figure_residuals(
        changed(fit_only, fits={"chinchilla": changed(fit, data=changed(fit.data, response=loss))})
    )
    assert "2 rows that it misses by more, up to 4" in figure.reading
    assert figure.axes[0].get_ylim()[1] < 10
    assert figure.to_dataframe().y.max() > 25, "the data of the figure keep the true values"


def test_bowls_are_b16_and_b17(study: ReportData) -> None:
    figure = figures.figure_bowls(study)
    rows = figure.to_dataframe()
    paper = rows[rows.series.str.startswith("Kaplan") & (rows.panel == "Compute, $C/C_{eff}$")]
    assert np.interp(np.log(2.184), np.log(paper.x), paper.y) == pytest.approx(1.2, abs=5e-3)
    ours = rows[(rows.series == "ours") & (rows.panel == "Steps, $S/S_{eff}$")]
    assert np.all(np.diff(ours.y) <= 0)
    assert np.all(ours.lo90 <= ours.hi90)
    assert "lie sizes from 0." in figure.reading


def test_valleys_touch_nothing_at_the_best_size(study: ReportData) -> None:
    rows = figures.figure_valley(study).to_dataframe()
    for plan in study.allocations[0]:
        own = rows[rows.series == f"{number(float(plan.compute[0]), 2)} FLOP"]
        assert own.y.min() < 0.05
        low, high = (end.median for end in plan.valley(0.01))
        assert np.interp(np.log([low, high]), np.log(own.x), own.y) == pytest.approx(1.0, abs=0.1)


def test_adjusted_points_cost_less_and_are_marked_outside_the_batch_sweep(study: ReportData) -> None:
    figure = figures.figure_adjusted(study)
    rows = figure.to_dataframe()
    compute = rows[(rows.panel == "Compute") & (rows.kind == "point")]
    paid, least = compute[compute.series == "C paid"], compute[compute.series != "C paid"]
    assert len(paid) == len(least)
    assert np.all(np.sort(least.x) < np.sort(paid.x))
    marked = least.series.str.contains("not measured")
    share = marked.mean()
    assert 0 < share < 1
    assert f"{share:.0%} of the points lie outside" in figure.reading
