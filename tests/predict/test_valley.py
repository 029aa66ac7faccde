from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_sim.predict.valley import two_roots


@given(
    log_a=st.floats(-5, 60),
    alpha=st.floats(0.02, 2),
    log_b=st.floats(-60, 5),
    beta=st.floats(0.02, 2),
    share=st.floats(1e-4, 3),
)
@settings(max_examples=200, deadline=None)
def test_both_roots_are_found(log_a: float, alpha: float, log_b: float, beta: float, share: float) -> None:
    u = (log_a - log_b + np.log(alpha / beta)) / (alpha + beta)  # the minimum
    target = (np.exp(log_a - alpha * u) + np.exp(log_b + beta * u)) * (1 + share)
    arrays = [np.array([x]) for x in (log_a, alpha, log_b, beta, target)]
    low, high = two_roots(*arrays)
    assert low[0] < u < high[0]
    for root in (low[0], high[0]):
        np.testing.assert_allclose(np.exp(log_a - alpha * root) + np.exp(log_b + beta * root), target, rtol=1e-8)


def test_below_the_minimum_there_are_none() -> None:
    low, high = two_roots(*(np.array([x]) for x in (0.0, 1.0, 0.0, 1.0, 1.9)))  # the minimum is 2
    assert np.isnan(low[0])
    assert np.isnan(high[0])
