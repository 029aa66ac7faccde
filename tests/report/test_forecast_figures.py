from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scaling_sim.laws.constants import constants
from scaling_sim.predict.layout import Sweep
from scaling_sim.predict.observe import observe
from scaling_sim.predict.recipes import compare_recipes
from scaling_sim.predict.simulate import simulate
from scaling_sim.report import figures as plot
from scaling_sim.report.data import ReportData
from tests.predict.support import around


def test_forecast_curves_end_at_their_losses(study: ReportData) -> None:
    frame = plot.figure_forecast(study).to_dataframe()
    shown = frame[frame["kind"] == "median and band"]
    one = study.forecasts[0]
    assert one.curve is not None
    assert shown["x"].max() == pytest.approx(one.run.tokens)
    assert shown["y"].iloc[-1] == pytest.approx(one.curve.quantiles((0.5,))[0, -1])
    assert frame["series"].str.startswith("run ").any()


def test_efficiency_falls_with_size(study: ReportData) -> None:
    frame = plot.figure_efficiency(study).to_dataframe()
    for _, part in frame.groupby(["panel", "series"]):
        y = part["y"].dropna().to_numpy()
        assert np.all(np.diff(y) < 0)


def test_offsets_of_held_out_texts(study: ReportData) -> None:
    figure = plot.figure_offsets(study)
    series = set(figure.to_dataframe()["series"])
    assert "licences" in series
    assert "test" not in series  # the split that was fitted


def test_a_run_and_two_recipes() -> None:
    plan = Sweep(N=(1e5, 1e6, 1e7, 1e8), batch_N=(), data_N=(), seed_N=())
    fit = around("kaplan-table3", num=50, runs=simulate(constants("kaplan-table3"), plan, noise=0.003, seed=0))
    noise = {name: np.full(50, value) for name, value in {"sigma": 3e-3, "tau": 3e-3, "ell": 1.0, "nu": 5.0}.items()}
    fit = replace(fit, noise=noise)
    run = simulate(constants("kaplan-table3"), replace(plan, N=(3e7,)), noise=0.003, seed=1)
    half = run.S < 3e4
    watched = observe(fit, {"step": run.S[half], "loss": run.loss[half]}, 3e7, S=2.5e5, target=2.9, backtest=None)
    figure = plot.figure_observed(watched)
    assert watched.verdict in figure.heading
    later = replace(watched.progress, used=watched.progress.used & (watched.progress.steps > 2000))
    for one, named in ((figure, False), (plot.figure_observed(replace(watched, progress=later)), True)):
        legend = one.axes[0].get_legend()
        assert legend is not None
        assert ("not used" in [text.get_text() for text in legend.get_texts()]) is named
    shown = figure.to_dataframe()
    np.testing.assert_allclose(
        shown[(shown["series"] == "observed") & (shown["panel"] == "Learning curve")]["y"],
        run.loss[half][watched.progress.used[: half.sum()]],
    )
    made = compare_recipes(around("besiroglu", num=50), around("hoffmann", num=50), compute=[1e20, 1e21])
    marks = plot.figure_recipes(made).to_dataframe()
    marks = marks[marks["kind"] == "point"]
    np.testing.assert_allclose(marks["y"], [made.quantity(i).median for i in range(2)])
    alone = compare_recipes(around("besiroglu", num=50), around("hoffmann", num=50), compute=1e20)
    assert plot.figure_recipes(alone).reading == f"{alone.verdict}."  # one place: its axis has the width of the curves


def test_what_is_not_there_is_said() -> None:
    empty = ReportData(title="nothing")
    for build in (plot.figure_forecast, plot.figure_efficiency, plot.figure_offsets):
        with pytest.raises(plot.NothingToShow):
            build(empty)
