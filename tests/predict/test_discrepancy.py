from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import t

from scaling_sim.errors import DesignError, LawError
from scaling_sim.laws.constants import constants
from scaling_sim.laws.power_n import PowerN
from scaling_sim.predict.discrepancy import Discrepancy, discrepancy_of, learn, pose
from scaling_sim.predict.linearised import NU, linearised
from scaling_sim.predict.smooth import Scheme, Smooth, matern
from scaling_sim.runs.table import RunTable
from tests.predict.support import around, table

P = constants("besiroglu").values


def runs(noise: float = 2e-3, bend: float = 0.0, seed: int = 0, scale: float = 1.0, num: int = 8) -> RunTable:
    """Runs of Chinchilla's form on a grid; ``scale`` changes the units of N and tokens."""
    rng = np.random.default_rng(seed)
    N, ratio = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e9, num), np.geomspace(5, 100, 6)))
    x = np.log(6 * N * N * ratio / 1e18)
    loss = P["E"] + P["A"] * N ** -P["alpha"] + P["B"] * (N * ratio) ** -P["beta"]
    loss = loss * np.exp(bend * x**2 + noise * rng.standard_t(5, len(N)))
    return table(N=N * scale, tokens=N * ratio * scale, loss=loss)


def test_the_process_has_the_covariance_of_its_kernel() -> None:
    """Basis and rest together: unit variance everywhere, and the kernel between any two points."""
    first, second = (x.ravel() for x in np.meshgrid(np.linspace(-2.0, 0.0, 12), np.linspace(0.0, 1.0, 8)))
    at = np.array([[-1.1, 0.4], [0.0, 0.0], [0.5, 0.5], [2.5, 0.5]])
    smooth = Smooth.over(np.stack([first, second], axis=1))
    rest = smooth.rest(at, 200_000, np.random.default_rng(0))
    phi = smooth.basis(at)
    np.testing.assert_allclose(phi @ phi.T + np.cov(rest.T), matern(at, at), atol=0.01)
    assert rest[:, 0].std() < 0.05  # among the knots hardly anything is left open
    assert rest[:, 3].std() > 0.9  # two correlation lengths beyond, all is


def test_places_are_compute_and_tokens_per_parameter() -> None:
    """A run of 1e9 parameters on 2e10 tokens: C = 6·N·tokens, tokens/N = 20."""
    scheme = Scheme(lengths=(2.0, 3.0))
    place = scheme.where(np.array([1.2e20]), np.array([1e9]))
    np.testing.assert_allclose(place, [[np.log(1.2e20) / 2, np.log(20) / 3]])
    assert scheme.where(np.array([1.2e20]), np.array([np.nan]))[0, 1] == 0


def test_without_discrepancy_the_mode_is_that_of_the_student_posterior() -> None:
    """q → 0, γ = 0: the same maximum as a direct search over the coordinates with ν = 5 and this scale."""
    from scipy.optimize import minimize

    problem, u = pose(runs(), "chinchilla")
    target = problem.target
    found = linearised(problem, problem.basis(), 1e-9, 0.0, u, iterations=200)
    mean, sd = problem.prior()

    def negative(v: np.ndarray) -> float:
        r = target.likelihood.log_response - target.log_prediction(v[None])[0]
        return float(-t.logpdf(r / found.scale[0], NU).sum() + 0.5 * np.sum(((v - mean) / sd) ** 2))

    best = minimize(negative, u, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10, "maxiter": 20_000})
    np.testing.assert_allclose(found.mean[: len(u)], best.x, atol=0.02)
    assert negative(found.mean[: len(u)]) - best.fun < 0.05


def test_units_change_nothing() -> None:
    """N and tokens in thousands: the same forecast of the same run."""
    first, second = learn(runs(), "chinchilla"), learn(runs(scale=1e-3), "chinchilla")
    one = first.log_loss({"N": np.array([1e10]), "tokens": np.array([1e12])}, 6e22)
    two = second.log_loss({"N": np.array([1e7]), "tokens": np.array([1e9])}, 6e16)
    np.testing.assert_allclose(np.quantile(one, (0.05, 0.5, 0.95)), np.quantile(two, (0.05, 0.5, 0.95)), atol=2e-3)


def test_a_true_law_keeps_its_discrepancy_small_and_a_bent_one_does_not() -> None:
    true, bent = learn(runs(num=12), "chinchilla"), learn(runs(num=12, bend=4e-3), "chinchilla")
    assert np.median(true.amplitude) < 0.5 * np.median(bent.amplitude)
    assert np.median(true.scale) == pytest.approx(2e-3, rel=0.25)


def test_draws_of_discrepancy_and_parameters_belong_together() -> None:
    """Where the runs are, law and discrepancy are each uncertain and their sum is not."""
    model = learn(runs(bend=4e-3), "chinchilla")
    columns, C = {"N": np.array([1e8]), "tokens": np.array([2e9])}, 1.2e18
    total = model.log_loss(columns, C, scatter=False)
    parameters = {name: values[:, None] for name, values in model.draws.items()}
    law = model.law.log_response(parameters, columns)
    assert total.std() < 0.5 * law.std()
    assert model.log_loss(columns, C).std() > total.std()  # the scatter of single runs


def test_small_runs_that_scatter_more_weigh_less() -> None:
    rng = np.random.default_rng(2)
    clean = runs(noise=0.0, num=16)
    size = 2e-3 * (clean.C / clean.C.max()) ** -0.1
    noisy = replace(clean, loss=clean.loss * np.exp(size * rng.standard_normal(len(clean))), data_hash="")
    model = learn(noisy, "chinchilla")
    assert np.mean(model.growth) > 0.1
    assert np.mean(learn(runs(num=16), "chinchilla").growth) < 0.06
    small, large = np.exp(model.scatter([clean.C.min(), clean.C.max()])).std(axis=0)
    assert small > 1.5 * large


def test_rows_of_one_curve_count_less_than_runs_of_their_own() -> None:
    from scaling_sim.predict.discrepancy import _effective

    log_S = np.log(np.geomspace(100, 10_000, 16))
    assert _effective(log_S, 0.01, 0.0, 1.0) == pytest.approx(16)
    assert _effective(log_S, 1e-6, 0.01, 1e6) == pytest.approx(1, abs=0.05)
    assert 1 < _effective(log_S, 0.002, 0.01, 1.0) < 8


def test_refusals_and_reasons() -> None:
    with pytest.raises(DesignError, match="compute of some rows is unknown"):
        learn(replace(runs(), C=np.full(48, np.nan), data_hash=""), "power-n")
    with pytest.raises(LawError, match="does not predict a loss"):
        learn(runs(), "critical-batch")
    assert "no runs behind these constants" in str(discrepancy_of(constants("besiroglu")))
    fit = replace(around("besiroglu", num=10), runs=runs())
    assert discrepancy_of(fit) is discrepancy_of(fit)


def test_results_read_well() -> None:
    answer = json.loads(json.dumps(learn(runs(), "chinchilla").to_json(), allow_nan=False))
    assert set(answer) == {"amplitude_log_loss", "error_growth", "error_scale_log_loss"}


def test_a_law_registered_again_under_its_name_is_learned_again() -> None:
    """As a notebook's user does who corrects a formula: the answer for the old class must not come back."""
    data = runs()

    def discrepancy(power: float) -> Discrepancy:
        bent = type(
            "Bent", (PowerN,), {"name": "bent", "log_loss": lambda self, p, c: power * PowerN.log_loss(self, p, c)}
        )
        found = discrepancy_of(SimpleNamespace(runs=data, law=bent(), law_name="bent"))
        assert isinstance(found, Discrepancy)
        return found

    first, second = discrepancy(1.0), discrepancy(2.0)
    assert np.median(second.draws["alpha_N"]) == pytest.approx(0.5 * np.median(first.draws["alpha_N"]), rel=0.05)
