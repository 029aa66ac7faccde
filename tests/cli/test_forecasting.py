"""Forecasts of every kind from the command line: their JSON equals what Python says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scaling_sim as ss
from scaling_sim.predict.layout import Sweep

Facts = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def curves_fit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fit of learning curves."""
    plan = Sweep(N=(1e5, 1e6, 1e7, 1e8), batch_N=(), data_N=(), points=8)
    runs = ss.simulate(ss.constants("kaplan-table3"), plan, seed=0)
    path = tmp_path_factory.mktemp("curves") / "fit.nc"
    ss.fit(runs, "kaplan-ns", seed=0, min_ess=400).save(path)
    return path


@pytest.fixture
def log(table: Callable[..., str]) -> Callable[[float], str]:
    """The log of a run of 3e7 parameters, its losses multiplied by a factor."""

    def write(factor: float) -> str:
        plan = Sweep(N=(3e7,), batch_N=(), data_N=(), seed_N=())
        run = ss.simulate(ss.constants("kaplan-table3"), plan, seed=7)
        early = run.S < 3e4
        return table("step,loss", zip(run.S[early], factor * run.loss[early], strict=True), f"run{factor}.csv")

    return write


def test_a_running_run(facts: Facts, curves_fit: Path, log: Callable[[float], str], tmp_path: Path) -> None:
    plan = ("forecast", str(curves_fit), "-N", "3e7", "-S", "2.5e5")
    good = facts(*plan, "--observe", log(1.0), "--target", "3.0")
    assert good["verdict"] == "on track"
    assert 0 <= good["probability_of_target"] <= 1
    low, high = good["loss_nats"]["interval90"]
    assert low < good["loss_nats"]["median"] < high
    drawn = facts(*plan, "--observe", log(1.0), "--target", "3.0", "--figure", str(tmp_path / "run.svg"))
    assert drawn == good
    assert "<svg" in (tmp_path / "run.svg").read_text(encoding="utf-8")
    found = ss.observe(ss.load_fit(curves_fit), log(1.0), 3e7, S=2.5e5, target=3.0)
    assert found.median == pytest.approx(good["loss_nats"]["median"], rel=1e-12)
    bad = facts(*plan, "--observe", log(1.1))
    assert bad["verdict"] == "off track"


def test_options_that_do_not_go_together(
    cli: Callable[..., Any], curves_fit: Path, log: Callable[[float], str]
) -> None:
    plan = ("forecast", str(curves_fit), "-N", "3e7", "-S", "2.5e5")
    assert "go with --observe" in cli(*plan, "--target", "3", expect=2).stderr
    assert "goes with --observe" in cli(*plan, "--figure", "run.svg", expect=2).stderr
    assert "leave out -D" in cli(*plan, "--observe", log(1.0), "-D", "1e9", expect=2).stderr
    assert "with --observe give --target" in cli(*plan, "--observe", log(1.0), "--reaches", "3", expect=2).stderr
    assert "there is no file" in cli("forecast", "none.nc", "-N", "1", "--observe", log(1.0), expect=4).stderr


def test_when_a_loss_is_reached(facts: Facts) -> None:
    asked = ("forecast", "--constants", "kaplan-table5", "-N", "1e9", "-B", "5e5")
    alone = facts(*asked, "--reaches", "2.6")
    found = ss.efficiency(ss.constants("kaplan-table5"), 2.6, 1e9, B=5e5)
    for name, key in (("S", "S_steps"), ("tokens", "tokens"), ("C", "C_flop")):
        assert alone[key]["median"] == pytest.approx(found.quantity(name).median, rel=1e-12)
    both = facts(*asked, "-S", "1e5", "--reaches", "2.6")
    assert both["reaches"]["S_steps"] == alone["S_steps"]
    assert both["loss_nats"]["median"] == ss.forecast(ss.constants("kaplan-table5"), N=1e9, B=5e5, S=1e5).median
    assert facts(*asked, "--reaches", "0.5")["S_steps"]["median"] == "inf"


def test_overfitting_that_is_allowed(facts: Facts) -> None:
    asked = ("forecast", "--constants", "kaplan-table2", "-N", "1e8", "-D", "1e9")
    two, one = facts(*asked)["data_needed_tokens"], facts(*asked, "--overfit", "0.01")["data_needed_tokens"]
    assert one["median"] > two["median"]


def test_known_sizes(facts: Facts, cli: Callable[..., Any], tmp_path: Path) -> None:
    drawn = tmp_path / "known.png"
    every = facts("forecast", "--known", "--figure", str(drawn))
    assert drawn.read_bytes().startswith(b"\x89PNG")
    assert {row["N_parameters"] for row in every["rows"]} == {3.4e8, 1.1e9, 1.1e10, 1.75e11, 7e10}
    some = facts("forecast", "--known", "--constants", "besiroglu")
    assert {row["source"] for row in some["rows"]} == {"besiroglu"}
    assert "not comparable" in cli("forecast", "--known").stdout
    without = cli("forecast", "--known", "--constants", "kaplan-power-n", expect=4)
    assert "no allocation from 'power-n'" in without.stderr
    refused = cli("forecast", "--known", "-N", "3e9", "--overfit", "0.1", expect=2).stderr
    assert "--known has sizes of its own; leave out -N, --overfit" in refused


def test_two_recipes(facts: Facts, tmp_path: Path) -> None:
    p = dict(ss.constants("besiroglu").values)
    shrink = 2 ** (-p["alpha"] * p["beta"] / (p["alpha"] + p["beta"]))
    paths = []
    for name, factor in (("old", 1.0), ("new", shrink)):
        truth = {"law": "chinchilla", **p, "A": factor * p["A"], "B": factor * p["B"]}
        paths.append(str(tmp_path / f"{name}.csv"))
        ss.simulate(truth, noise=0.002, seed=3).to_csv(paths[-1])
    found = facts("recipes", *paths, "--law", "chinchilla", "-C", "1e21")
    low, high = found["multiplier"]["interval90"]
    assert low < 2 < high
    assert found["probability_better"] > 0.99
    assert np.isfinite(found["decades_beyond_runs"])
    assert "is worth" in found["verdict"]


def test_only_what_the_law_reads_is_asked_for(facts: Facts, cli: Callable[..., Any]) -> None:
    found = facts("forecast", "--constants", "kaplan-power-d", "-D", "1e10")
    assert found["loss_nats"]["median"] == ss.forecast(ss.constants("kaplan-power-d"), D=1e10).median
    assert "N is missing" in cli("forecast", "--constants", "hoffmann", "-D", "1e13", expect=2).stderr
    refused = cli("forecast", "--constants", "kaplan-power-d", "-D", "1e10", "--reaches", "3", expect=2)
    assert "need the model's size: -N 1e9" in refused.stderr


def test_numbers_out_of_range_are_usage_errors(cli: Callable[..., Any], table: Callable[..., str]) -> None:
    runs = table("N,tokens,loss", [(1e6, 1e8, 4.0)])
    for wrong in (("--seed", "-1"), ("--min-ess", "0"), ("--max-steps", "0")):
        assert f"'{wrong[0]}'" in cli("fit", runs, *wrong, expect=2).stderr
    assert "'--seed'" in cli("forecast", "--constants", "hoffmann", "-N", "1e9", "--seed", "-1", expect=2).stderr


def test_a_fit_stops_at_max_steps_unconverged(cli: Callable[..., Any], tmp_path: Path) -> None:
    runs = tmp_path / "runs.csv"
    ss.simulate(ss.constants("kaplan-power-n"), seed=0).to_csv(runs)
    outcome = cli("fit", str(runs), "--law", "power-n", "--max-steps", "50", expect=3)
    assert "raise max_steps" in outcome.stderr


def test_what_rests_on_an_unconverged_fit_says_so_and_exits_with_3(cli: Callable[..., Any], tmp_path: Path) -> None:
    plan = Sweep(N=(1e5, 1e6, 1e7, 1e8), points=6, batch_N=(1e6,), seed_N=())
    with pytest.warns(ss.errors.ConvergenceWarning):
        fit = ss.fit(ss.simulate(ss.constants("kaplan-table5"), plan, seed=0), "kaplan", max_steps=50)
    fit.save(tmp_path / "fit.nc")
    for verb in (("convert",), ("forecast", "--known")):
        outcome = cli(*verb, str(tmp_path / "fit.nc"), "--json", expect=3)
        assert "did not converge" in outcome.stderr
        assert json.loads(outcome.stdout)["converged"] is False


def test_losses_on_other_texts(
    cli: Callable[..., Any], facts: Facts, table: Callable[..., str], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    N, tokens = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e9, 5), [1e9, 1e10]))
    loss = 1.7 + 400 / N**0.34 + 410 / tokens**0.28
    books = 1.2 * loss**0.9 * np.exp(0.01 * rng.standard_normal(10))
    source = table("params,tokens,loss_web,loss_books", zip(N, tokens, loss, books, strict=True))
    asked = ("offsets", source, "--columns", "N=params,loss=loss_web")
    found = facts(*asked)
    runs = ss.read_runs(source, columns={"N": "params", "loss": "loss_web"})
    assert found == ss.offsets(runs).to_json()
    assert found["splits"]["books"]["slope"]["median"] == pytest.approx(0.9, abs=0.05)
    text = cli(*asked, "--figure", str(tmp_path / "offsets.svg"))
    assert "books" in text.stdout
    assert "<svg" in (tmp_path / "offsets.svg").read_text(encoding="utf-8")
    assert "writes .svg or .png" in cli(*asked, "--figure", "offsets.pdf", expect=2).stderr
    one = table("N,tokens,loss", zip(N, tokens, loss, strict=True), "one.csv")
    assert "loss_<split>" in cli("offsets", one, expect=4).stderr
