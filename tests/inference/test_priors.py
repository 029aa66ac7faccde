"""The log prior against SciPy, law by law, and that nothing else (no Jacobian) is in the posterior.

Calibration does not see a wrong prior where the data are strong; these tests do, to 1e-12.
"""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from scipy.stats import lognorm, norm

from scaling_sim.inference.priors import draw_prior, log_prior
from scaling_sim.inference.target import LogPosterior
from scaling_sim.laws import get_law, law_names
from scaling_sim.testing.tables import representative_table

LEVEL, RATIO, FLOOR = (0.0, 0.5), (-1.0, 2.0), (-1.0, 2.0)
SMALL, STEPS, LARGE = (log(0.1), 1.0), (log(0.6), 0.75), (log(0.3), 0.75)
"""Mean and sd of log α_N, α_D, α_C; of log α_S; of log α_B and of Chinchilla's exponents."""
JOINT = [LEVEL, RATIO, (0.0, 2.0), (log(0.1), 1.5), SMALL, SMALL, STEPS, LARGE]
PRIORS = {
    "power-n": [LEVEL, SMALL],
    "power-d": [LEVEL, SMALL],
    "power-c": [LEVEL, SMALL],
    "kaplan-nd": [LEVEL, (log(0.1), 1.5), SMALL, SMALL],
    "kaplan-ns": [LEVEL, RATIO, SMALL, STEPS],
    "kaplan": JOINT,
    "critical-batch": [(0.0, 1.0), LARGE],
    "chinchilla": [LEVEL, RATIO, RATIO, LARGE, LARGE],
    "data-constrained": [LEVEL, RATIO, RATIO, LARGE, LARGE, (log(10.0), 1.5), (log(10.0), 1.5)],
    "learning-rate": [(0.0, 1.0), (0.0, 0.5), (0.0, 0.5)],
    "batch-size": [(0.0, 1.0), (0.0, 0.5), (0.0, 0.5)],
}
INDEPENDENT = [(log(0.01), 2.0)]
CORRELATED = [(log(0.01), 2.0), (-1.0, 1.5), (0.0, 0.75)]


def stated(name: str) -> list[tuple[float, float]]:
    """Means and sds as the documentation states them."""
    return PRIORS[name] if name in PRIORS else [*PRIORS[name.removesuffix("-floor")], FLOOR]


@pytest.mark.parametrize("name", law_names())
def test_the_log_prior_is_scipys_and_the_posterior_adds_the_likelihood_alone(name: str) -> None:
    law = get_law(name)
    target = LogPosterior(law, law.observe(representative_table()))
    noise = [CORRELATED if part.role == "curve" else INDEPENDENT for part in target.likelihood.parts]
    priors = [*stated(name), *[prior for part in noise for prior in part]]
    rng = np.random.default_rng(0)
    u = np.array([[rng.normal(mean, 0.5 * sd) for mean, sd in priors] for _ in range(8)])
    expected = np.array([sum(norm.logpdf(x, *prior) for x, prior in zip(row, priors, strict=True)) for row in u])
    np.testing.assert_allclose(log_prior(u, target.coordinates), expected, rtol=1e-12)
    likelihood = target.likelihood.log_likelihood(target.log_prediction(u[:, : target.num_law]), u[:, target.num_law :])
    np.testing.assert_allclose(target(u), expected + likelihood, rtol=1e-12)


@pytest.mark.statistical
@pytest.mark.parametrize("name", [name for name in law_names() if get_law(name).exponents[0].startswith("alpha")])
def test_prior_draws_of_exponents_have_the_stated_density(name: str) -> None:
    """Natural exponents are log-normal (the Jacobian 1/α): Kolmogorov-Smirnov, false alarms 1e-4 per law."""
    from scipy.stats import kstest

    law = get_law(name)
    centre = law.centre(law.observe(representative_table()))
    coordinates = law.coordinates(centre)
    natural = law.to_parameters(draw_prior(coordinates, 4000, np.random.default_rng(1)), centre)
    for exponent in law.exponents:
        place = [c.name for c in coordinates].index(f"log_{exponent}")
        mean, sd = stated(name)[place]
        assert kstest(natural[exponent], lognorm(sd, scale=np.exp(mean)).cdf).pvalue > 1e-4 / len(law.exponents)
