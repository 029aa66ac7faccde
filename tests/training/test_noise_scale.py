import numpy as np
import pytest

from scaling_sim.training.noise_scale import NoiseAverage, two_batch_estimate


@pytest.mark.statistical
def test_estimates_are_unbiased_for_gaussian_gradients() -> None:
    """|G|² and tr Σ of 40-dimensional gradients with B_simple = 80 tokens, from 4000 two-batch measurements.

    Means are compared within 4 standard errors (false alarm 1e-4); the naive |G_big|² is 25 standard errors away.
    """
    rng = np.random.default_rng(0)
    dim, small, n, num = 40, 4, 8, 4000
    gradient = np.full(dim, np.sqrt(0.5 / dim))  # |G|² = 0.5
    single = rng.normal(gradient, 1.0, (num, n, small, dim))  # per token: tr Σ = 40
    small_gradients = single.mean(axis=2)
    small_sq = (small_gradients**2).sum(axis=-1)
    big_sq = (small_gradients.mean(axis=1) ** 2).sum(axis=-1)
    gradient_sq, trace = two_batch_estimate(small_sq, big_sq, small, small * n)
    for values, true in ((gradient_sq, 0.5), (trace, 40.0)):
        assert abs(values.mean() - true) < 4 * values.std() / np.sqrt(num)
    assert abs(big_sq.mean() - 0.5) > 25 * big_sq.std() / np.sqrt(num)


def test_ratio_is_of_averages_not_average_of_ratios() -> None:
    average = NoiseAverage()
    average.add(gradient_sq=1.0, trace=10.0)
    average.add(gradient_sq=3.0, trace=10.0)
    assert average.noise_scale == pytest.approx(10.0 / (0.75 * 1.0 + 0.25 * 3.0))


def test_a_negative_gradient_estimate_gives_no_noise_scale_but_counts() -> None:
    average = NoiseAverage()
    assert average.noise_scale is None
    average.add(gradient_sq=-1.0, trace=10.0)
    assert average.noise_scale is None
    for _ in range(20):
        average.add(gradient_sq=1.0, trace=10.0)
    assert average.noise_scale == pytest.approx(10.0, rel=0.02)


def test_measurements_that_are_not_finite_are_left_out() -> None:
    average = NoiseAverage()
    average.add(gradient_sq=1.0, trace=5.0)
    average.add(gradient_sq=float("nan"), trace=float("inf"))
    assert average == NoiseAverage(trace=5.0, gradient_sq=1.0, count=1)
