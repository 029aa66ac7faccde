"""What must not matter to any law's posterior: units, the order of rows, and who counts twice."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_sim.inference.likelihood import Likelihood
from scaling_sim.inference.optimum import gradient, hessian, maximise
from scaling_sim.inference.point import point_fit, posterior_mode
from scaling_sim.inference.target import LogPosterior
from scaling_sim.laws import get_law, law_names
from scaling_sim.laws.observations import Observations
from scaling_sim.predict.noise import Noise
from scaling_sim.predict.simulate import simulate
from scaling_sim.runs.table import RunTable
from scaling_sim.testing import permuted, representative_table, rescaled
from tests.inference.support import chinchilla

TABLE = representative_table()
LOSSES = [name for name in law_names() if get_law(name).response == "loss"]


def near_prior_mean(target: LogPosterior, size: int = 12) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([rng.normal(c.prior.mean, 0.3 * c.prior.sd, size) for c in target.coordinates], axis=1)


def log_posterior(runs: RunTable, name: str) -> np.ndarray:
    """At fixed points of the centred coordinates."""
    law = get_law(name)
    target = LogPosterior(law, law.observe(runs))
    return target(near_prior_mean(target))


@pytest.mark.parametrize("name", LOSSES)
@given(n=st.floats(-9, 9), tokens=st.floats(-9, 9), loss=st.floats(-0.5, 0.5))
@settings(max_examples=5, deadline=None)
def test_units_leave_the_log_posterior_of_every_law(name: str, n: float, tokens: float, loss: float) -> None:
    other = rescaled(TABLE, N=10**n, tokens=10**tokens, loss=10**loss)
    np.testing.assert_allclose(log_posterior(other, name), log_posterior(TABLE, name), rtol=1e-9)


@pytest.mark.parametrize("name", law_names())
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=5, deadline=None)
def test_order_leaves_the_log_posterior_of_every_law(name: str, seed: int) -> None:
    np.testing.assert_allclose(log_posterior(permuted(TABLE, seed), name), log_posterior(TABLE, name), rtol=1e-9)


def copied(data: Observations, times: int) -> Observations:
    """Every run ``times`` over, under new ids."""
    index = np.tile(np.arange(len(data)), times)
    copy = np.repeat(np.arange(times), len(data)).astype(str)
    again = data.take(index)
    return dataclasses.replace(again, run=np.char.add(np.char.add(again.run, "/"), copy))


@pytest.mark.parametrize("name", law_names())
def test_independent_copies_double_the_log_likelihood_of_each_nu(name: str) -> None:
    law = get_law(name)
    target = LogPosterior(law, law.observe(TABLE))
    u = near_prior_mean(target)
    prediction, noise = target.log_prediction(u[:, : target.num_law]), u[:, target.num_law :]
    twice = Likelihood(copied(target.data, 2))
    for once, double in zip(target.likelihood.parts, twice.parts, strict=True):
        residuals = target.likelihood.log_response - prediction
        both = twice.log_response - np.tile(prediction, 2)
        first = once.errors.log_likelihood(residuals[:, once.rows], noise[:, once.noise])
        np.testing.assert_allclose(
            double.errors.log_likelihood(both[:, double.rows], noise[:, once.noise]), 2 * first, rtol=1e-9
        )


@pytest.mark.parametrize("name", ["power-n", "kaplan-nd", "kaplan-ns", "chinchilla"])
def test_four_copies_halve_the_sd_under_a_flat_prior(name: str) -> None:
    """Laplace sds of the likelihood of ν = 30, each at its own maximum; over ν it sums, which copies weigh anew."""
    law = get_law(name)
    target = LogPosterior(law, law.observe(simulate({"law": name}, noise=Noise(0.005, np.inf), seed=1)))
    four = Likelihood(copied(target.data, 4))
    u = posterior_mode(target)[0].u
    sd = np.array([c.prior.sd for c in target.coordinates])

    def laplace(likelihood: Likelihood, times: int) -> np.ndarray:
        def density(v: np.ndarray) -> np.ndarray:
            prediction = np.tile(target.log_prediction(v[:, : target.num_law]), times)
            (part,) = likelihood.parts
            residuals = (likelihood.log_response - prediction)[:, part.rows]
            return part.errors.log_likelihood(residuals, v[:, target.num_law :])[:, -1]

        covariance = np.linalg.inv(-hessian(density, maximise(density, u).u, 1e-3 * sd))
        return np.sqrt(np.diag(covariance))[: target.num_law]

    np.testing.assert_allclose(laplace(four, 4) / laplace(target.likelihood, 1), 0.5, rtol=0.02)


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("power-c", "power-c-floor")])
def test_noise_free_losses_of_every_law_are_recovered(name: str) -> None:
    """Losses to 1e-4; exponents too, except where E → 0 or a constant of repetition is free (a floor, R_N)."""
    law = get_law(name)
    truth = {} if not name.endswith("-floor") else {"E": 1.0}
    runs = simulate({"law": name, **truth}, noise=0.0)
    assert np.max(np.abs(point_fit(runs, name).residuals)) < 1e-4
    assert law.response == "loss"


@pytest.mark.parametrize("name", law_names())
def test_the_gradient_of_the_log_posterior_is_smooth(name: str) -> None:
    """Central differences at two steps a factor of 10 apart agree: no kink or noise where an optimiser walks."""
    law = get_law(name)
    target = LogPosterior(law, law.observe(TABLE))
    u = near_prior_mean(target, 1)[0]
    fine = gradient(target, u)
    steps = 1e-4 * np.eye(len(u))
    coarse = (target(u + steps) - target(u - steps)) / 2e-4
    np.testing.assert_allclose(fine, coarse, rtol=1e-3, atol=1e-4 * np.max(np.abs(fine)))


def test_scaling_the_loss_scales_the_point_fit() -> None:
    runs = chinchilla(0.34, 0.28)
    once, more = (point_fit(table).parameters for table in (runs, rescaled(runs, loss=1.1)))
    for name in ("E", "A", "B"):
        assert more[name] == pytest.approx(1.1 * once[name], rel=1e-4)
