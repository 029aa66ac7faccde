from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from scaling_sim.errors import ConfigError, LawError
from scaling_sim.laws.constants import constants
from scaling_sim.laws.kaplan import solve_loss
from scaling_sim.predict.discrepancy import discrepancy_of
from scaling_sim.predict.efficiency import efficiency
from scaling_sim.predict.forecast import forecast
from scaling_sim.predict.layout import Sweep
from scaling_sim.predict.simulate import simulate
from tests.predict.support import around, table


@pytest.mark.parametrize("loss", [3.0, 2.6])
def test_kaplan_reaches_the_loss_after_these_steps(loss: float) -> None:
    fit = constants("kaplan-table5")
    found = efficiency(fit, loss, 1e9, B=5e5)
    S = found.quantity("S").median
    assert float(solve_loss(1e9, 5e5, S, fit.values)) == pytest.approx(loss, rel=1e-9)
    assert forecast(fit, N=1e9, B=5e5, S=S).median == pytest.approx(loss, rel=1e-9)
    assert found.quantity("tokens").median == pytest.approx(5e5 * S)
    assert found.quantity("C").median == pytest.approx(6e9 * 5e5 * S)
    hyperbola = (S / found.quantity("S_min").median - 1) * (5e5 * S / found.quantity("E_min").median - 1)
    assert hyperbola == pytest.approx(1.0)  # (5.1)


def test_at_the_critical_batch_both_costs_double() -> None:
    found = efficiency(constants("kaplan-table5"), 2.8, 1e9)
    assert found.batch == "critical"
    assert found.quantity("S").median == pytest.approx(2 * found.quantity("S_min").median)
    assert found.quantity("tokens").median == pytest.approx(2 * found.quantity("E_min").median)


def test_larger_models_are_more_sample_efficient() -> None:
    """Fig. 19: both costs fall with N; between 1e6 and 1e9 parameters at 4.5 nats, seven times fewer steps."""
    N = np.geomspace(1e6, 1e9, 7)
    found = efficiency(constants("kaplan-table3"), 4.5, N).draws["S"][0, 0]
    assert np.all(np.diff(found) < 0)
    assert found[0] / found[-1] == pytest.approx(6.75, abs=0.01)


def test_never_is_infinite() -> None:
    """L(N, ∞) of 1e6 parameters is 4.01 nats: half of the draws around it never reach that loss."""
    p = constants("kaplan-table5").values
    limit = (p["N_c"] / 1e6) ** p["alpha_N"]
    found = efficiency(around("kaplan-table5", num=400), [limit, 0.5 * limit, 2 * limit], 1e6)
    answer = found.to_json()["cells"]
    assert 0.3 < answer[0]["probability_never"] < 0.7
    assert answer[1]["probability_never"] == 1
    assert answer[1]["tokens"] == {"median": "inf", "interval90": ["inf", "inf"]}
    assert answer[2]["probability_never"] == 0


@pytest.mark.parametrize(("name", "key"), [("hoffmann", "tokens"), ("muennighoff", "tokens"), ("kaplan-table2", "D")])
def test_other_laws_are_solved_to_the_loss(name: str, key: str) -> None:
    found = efficiency(constants(name), 2.7, [1e9, 1e10])
    for k, N in enumerate((1e9, 1e10)):
        at = found.quantity(key, 0, k).median
        asked = {"D": at} if key == "D" else {"tokens": at}
        assert forecast(constants(name), N=N, **asked).median == pytest.approx(2.7, rel=1e-9)
    assert "tokens" in found.meaning
    assert np.isinf(efficiency(constants(name), 1.0, 1e9).draws[key]).all()


def test_the_discrepancy_moves_when_a_loss_is_reached() -> None:
    """Simulated curves 1 % above their law beyond the middle of training: the target comes later than by the law."""
    plan = Sweep(N=tuple(np.geomspace(1e6, 1e9, 5)), batch_N=(), data_N=(), seed_N=())
    truth = constants("kaplan-table3")
    runs = simulate(truth, plan, noise=0.001, seed=0)
    bend = 0.02 * np.clip(np.log(runs.C / 1e19), 0, None) / 3
    bent = replace(runs, loss=runs.loss * np.exp(bend), data_hash="")
    fit = replace(around("kaplan-table3", sd=1e-4, num=50), runs=bent)
    N, S = 1e9, 1e5
    target = float(truth.values["N_c"] / N) ** 0.077 + (truth.values["S_c"] / S) ** 0.76
    target *= np.exp(0.02 * np.log(6 * N * plan.batch * S / 1e19) / 3)
    low, high = efficiency(fit, target, N).quantity("S").interval(0.9)
    assert low < S < high
    alone = efficiency(fit, target, N, discrepancy=False)
    assert not alone.quantity("S").interval(0.9)[0] < S < alone.quantity("S").interval(0.9)[1]
    assert alone.notes == ("the law alone: no discrepancy",)


@pytest.mark.parametrize("target", [2.7, 2.5])
def test_reaching_a_loss_agrees_with_the_expected_loss_at_that_length(target: float) -> None:
    """P(reached by t) is P(expected loss ≤ target at t): both within the errors of 2000 draws, nowhere thrown away."""
    p = constants("besiroglu").values
    rng = np.random.default_rng(0)
    N, ratio = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e9, 8), np.geomspace(5, 100, 6)))
    loss = p["E"] + p["A"] * N ** -p["alpha"] + p["B"] * (N * ratio) ** -p["beta"]
    bend = 0.02 * np.sin(np.log(N * N * ratio) / 4) + 3e-3 * rng.standard_normal(len(N))
    fit = replace(around("besiroglu", num=50), runs=table(N=N, tokens=N * ratio, loss=loss * np.exp(bend)))
    found = efficiency(fit, target, 1e9)
    tokens, model = found.draws["tokens"][:, 0, 0], discrepancy_of(fit)
    assert not isinstance(model, str)
    assert np.isinf(tokens).sum() == 0
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        t = np.quantile(tokens, share, keepdims=True)
        expected = model.log_loss({"N": np.full(1, 1e9), "tokens": t, "D": t}, 6e9 * t, scatter=False, seed=1)
        assert np.mean(expected <= np.log(target)) == pytest.approx(share, abs=0.05)
    sure = np.quantile(tokens, 0.999, keepdims=True)
    low = model.log_loss({"N": np.full(1, 1e9), "tokens": sure, "D": sure}, 6e9 * sure, scatter=False, seed=1)
    assert np.mean(low <= np.log(target)) > 0.98


def test_results_read_well_and_bad_input_is_refused() -> None:
    found = efficiency(around("kaplan-table5", num=50), [3.0, 2.5], [1e8, 1e9])
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["cells"][3]["N_parameters"] == 1e9
    assert len(found.to_dataframe()) == 4 * 5
    assert found.quantiles("S").shape == (3, 2, 2)
    assert "<table" in found._repr_html_()
    with pytest.raises(LawError, match="does not say what a given size needs"):
        efficiency(constants("kaplan-power-c"), 3.0, 1e9)
    with pytest.raises(ConfigError, match="loss must be a positive number"):
        efficiency(constants("hoffmann"), -1.0, 1e9)
    with pytest.raises(LawError, match="gives tokens, C at a loss"):
        efficiency(constants("hoffmann"), 3.0, 1e9).quantity("S")
