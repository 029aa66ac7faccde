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
    density, units, sizes = likelihood.pointwise(target.log_prediction(u), noise)
    assert sizes.sum() == len(runs)
    assert len(units) == 14 + 15
    # one unit's density is a mixture over ν, so that the sum is near, not equal to, the likelihood
    assert density.sum() == pytest.approx(likelihood.log_likelihood(target.log_prediction(u), noise)[0], abs=5.0)


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
