from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_t, norm, t

from scaling_sim.inference.curves import CurveErrors, thinned
from scaling_sim.inference.likelihood import Likelihood
from scaling_sim.inference.priors import log_prior
from scaling_sim.inference.student import MEDIAN_ABS, NU, StudentErrors
from scaling_sim.inference.target import LogPosterior
from scaling_sim.laws import get_law
from scaling_sim.laws.observations import Observations
from tests.inference.support import KAPLAN, chinchilla, joint

RNG = np.random.default_rng(0)


def test_prior_is_scipys() -> None:
    coordinates = get_law("chinchilla").coordinates({})
    u = RNG.normal(size=(5, len(coordinates)))
    expected = sum(norm.logpdf(u[:, k], c.prior.mean, c.prior.sd) for k, c in enumerate(coordinates))
    np.testing.assert_allclose(log_prior(u, coordinates), expected, rtol=1e-12)


def test_median_of_t() -> None:
    np.testing.assert_allclose(MEDIAN_ABS, t.ppf(0.75, NU), rtol=1e-7)


@pytest.mark.parametrize("error", [np.full(7, np.nan), np.array([0, 0.01, 0.02, np.nan, 0, 0.005, 0.03])])
def test_student_density_is_scipys(error: np.ndarray) -> None:
    errors, u, r = StudentErrors(error), np.array([[-4.0], [-5.0]]), RNG.normal(size=(2, 7)) * 0.02
    density = errors.log_density(r, u)
    for k, nu in enumerate(NU):
        scale = np.sqrt((np.exp(u) / MEDIAN_ABS[k]) ** 2 + np.nan_to_num(error) ** 2)
        np.testing.assert_allclose(density[:, :, k], t.logpdf(r, nu, scale=scale), rtol=1e-10)
    np.testing.assert_allclose(errors.log_likelihood(r, u), density.sum(axis=1), rtol=1e-10)


def test_curve_density_is_scipys_multivariate_t() -> None:
    # curves of different lengths and grids, points out of order, measured errors
    run = np.array(["a", "b", "a", "c", "a", "b", "a", "b", "a"])
    x = np.array([7.0, 2, 1, 4, 2, 3, 4.5, 5, 3])
    e = np.array([np.nan, 0.01, 0, 0.03, 0, 0.02, 0, 0, 0])
    errors, u = CurveErrors(run, x, e), np.array([[-4, -0.5, 0.3], [-3, 1, -1], [-5, -6, 2.0]])
    r = RNG.normal(size=(3, 9)) * 0.02
    density = errors.log_density(r, u)
    natural = errors.natural(u, NU)
    for c, name in enumerate(errors.names):
        mine = run == name
        for i in range(3):
            kernel = natural["tau"][i] ** 2 * np.exp(-np.abs(x[mine][:, None] - x[mine]) / natural["ell"][i])
            scale = kernel + np.diag(natural["sigma"][i] ** 2 + np.nan_to_num(e[mine]) ** 2)
            for k, nu in enumerate(NU):
                expected = multivariate_t.logpdf(r[i, mine], np.zeros(mine.sum()), scale, df=nu)
                assert density[i, c, k] == pytest.approx(expected, rel=1e-9)


def test_thinning_keeps_ends_and_spacing() -> None:
    run, x = np.repeat(["a", "b"], [100, 5]), np.concatenate([np.log(np.arange(1, 101)), np.arange(5.0)])
    kept = thinned(run, x)
    first = x[kept[run[kept] == "a"]]
    assert np.count_nonzero(run[kept] == "b") == 5
    assert len(first) <= 16
    assert (first[0], first[-1]) == (0.0, np.log(100))


def test_roles_have_scales_of_their_own_and_units_sum_up() -> None:
    law = get_law("kaplan")
    runs = joint()
    likelihood = Likelihood(law.observe(runs))
    names = [c.name for c in likelihood.coordinates()]
    assert names == ["log_scale_curve", "logit_independent_curve", "log_ell_curve", "log_scale_stopped"]
    target = LogPosterior(law, law.observe(runs))
    u = law.from_parameters(KAPLAN, target.centre)
    noise = np.array([[-5.0, -1.0, 0.0, -5.0]])
    density, units = likelihood.pointwise(target.log_prediction(u), noise), likelihood.units()
    assert sorted(np.concatenate(units).tolist()) == list(range(len(runs)))
    assert density.shape == (1, len(units)) == (1, 14 + 15)
    # one unit's density is a mixture over ν, so that the sum is near, not equal to, the likelihood
    assert density.sum() == pytest.approx(likelihood.log_likelihood(target.log_prediction(u), noise)[0], abs=5.0)


def test_the_units_of_curves_are_their_rows_in_the_order_of_the_densities() -> None:
    run, x = np.array(["b", "a", "b", "a", "a"]), np.array([2.0, 1.0, 1.0, 3.0, 2.0])
    errors = CurveErrors(run, x, np.full(5, np.nan))
    assert [index.tolist() for index in errors.units()] == [[1, 4, 3], [2, 0]]
    u, r = np.array([[-4.5, -1.0, 0.0]]), RNG.normal(size=(1, 5)) * 0.01
    worse = r.copy()
    worse[0, 0] += 1.0
    changed = (errors.squares(worse, u) - errors.squares(r, u))[0, :, 0]
    assert changed[0] == 0
    assert changed[1] > 1


@pytest.mark.parametrize("times", [2.0, 3.0])
def test_outlier_probability_is_that_of_the_units_own_scale(times: float) -> None:
    """Simulated from the scale mixture: among units whose probability is about p, a share p has such a scale."""
    rng, n, nu, sigma = np.random.default_rng(5), 200_000, 3.0, 0.01
    precision = rng.gamma(nu / 2, 2 / nu, n)
    errors = sigma * rng.standard_normal(n) / np.sqrt(precision)
    data = observations_of(np.exp(errors))
    scale = np.array([[np.log(sigma * MEDIAN_ABS[0])]])
    probability = Likelihood(data).outlier_probability(np.zeros((1, n)), scale, times)
    outlier = precision < 1 / times**2
    assert np.corrcoef(probability, outlier)[0, 1] > 0.3
    for inside in np.array_split(np.argsort(probability), 20):
        inside = np.isin(np.arange(n), inside)
        error = 3 * np.sqrt(0.25 / inside.sum())  # three binomial standard errors at most
        assert probability[inside].mean() == pytest.approx(outlier[inside].mean(), abs=error)


def observations_of(response: np.ndarray) -> Observations:
    n = len(response)
    return Observations(
        columns={},
        response=response,
        error=np.full(n, np.nan),
        role=np.full(n, "final"),
        run=np.arange(n).astype(str),
        row=np.arange(n),
    )


def test_duplicating_runs_under_new_ids_doubles_the_log_likelihood_of_each_nu() -> None:
    r, u = RNG.normal(size=(3, 20)) * 0.01, np.array([[-4.5], [-5.0], [-6.0]])
    once = StudentErrors(np.full(20, np.nan)).log_likelihood(r, u)
    twice = StudentErrors(np.full(40, np.nan)).log_likelihood(np.tile(r, 2), u)
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-12)


def test_log_posterior_is_minus_infinity_where_a_formula_overflows() -> None:
    law = get_law("chinchilla")
    target = LogPosterior(law, law.observe(chinchilla(0.34, 0.28)))
    u = np.zeros((2, len(target.coordinates)))
    u[1] = 1e6
    value = target(u)
    assert np.isfinite(value[0])
    assert value[1] == -np.inf
