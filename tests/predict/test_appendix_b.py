"""Kaplan et al. 2020, Appendix B: what the printed constants give, and the closed forms against direct minimisation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar

from scaling_sim.laws.constants import PF_DAY, constants
from scaling_sim.predict import appendix_b as b

TABLE_5 = dict(constants("kaplan-table5").values)
TABLE_3 = {**TABLE_5, "alpha_N": 0.077, "N_c": 6.5e13}

EFFICIENT = st.fixed_dictionaries(
    {
        "alpha_N": st.floats(0.03, 0.5),
        "alpha_S": st.floats(0.2, 1.5),
        "alpha_B": st.floats(0.1, 0.9),
        "N_c": st.floats(1e4, 1e15),
        "S_c": st.floats(10, 1e5),
        "B_star": st.floats(1e4, 1e9),
    }
)


def loss_at(log_N: float, C: float, p: dict[str, float]) -> float:
    """Solve (B.3), implicit in the loss, by bracketing."""
    size = (p["N_c"] / np.exp(log_N)) ** p["alpha_N"]

    def excess(log_L: float) -> float:
        batch = p["B_star"] * np.exp(-log_L / p["alpha_B"])
        return float(log_L - np.log(size + (6 * batch * p["S_c"] * np.exp(log_N) / C) ** p["alpha_S"]))

    return float(np.exp(brentq(excess, np.log(size) - 1, np.log(size) + 700, xtol=1e-15, rtol=1e-15, maxiter=500)))


@given(p=EFFICIENT, log10_C=st.floats(14, 26))
@settings(max_examples=60, deadline=None)
def test_closed_forms_are_the_minimum_of_B3(p: dict[str, float], log10_C: float) -> None:
    C = 10.0**log10_C
    N = float(b.optimal_size(C, p))
    best = float(b.optimal_loss(C, p))
    found = minimize_scalar(
        lambda u: np.log(loss_at(u, C, p)), bracket=(np.log(N) - 1, np.log(N) + 0.7), options={"xtol": 1e-9}
    )
    assert np.exp(found.fun) == pytest.approx(best, rel=1e-6)
    assert loss_at(np.log(N), C, p) == pytest.approx(best, rel=1e-6)
    h = 1e-3  # first-order condition: the loss is flat in ln N to second order
    slope = (np.log(loss_at(np.log(N) + h, C, p)) - np.log(loss_at(np.log(N) - h, C, p))) / (2 * h)
    assert abs(slope) < 1e-5
    steps = float(b.optimal_steps(C, p))
    assert 6 * N * p["B_star"] * best ** (-1 / p["alpha_B"]) * steps == pytest.approx(C, rel=1e-9)
    assert best == pytest.approx((1 + p["alpha_N"] / p["alpha_S"]) * (p["N_c"] / N) ** p["alpha_N"], rel=1e-9)


@pytest.mark.parametrize(
    ("value", "expected", "tolerance"),
    [
        # αC^min: 0.052 as in (B.7); the 0.054 of (6.4) does not follow from any printed set
        (b.compute_exponent(0.076, 0.76, 0.21), 0.05199, {"abs": 1e-5}),
        (b.compute_exponent(0.077, 0.76, 0.21), 0.05245, {"abs": 1e-5}),
        (b.compute_exponent(0.076, 0.76, 0.21), 0.052, {"abs": 5e-4}),
        # exponents of N, S, B, D in C_min: the theory's, not the fitted 0.73, 0.03, 0.24, 0.27
        (b.compute_exponent(0.076, 0.76, 0.21) / 0.076, 0.68, {"abs": 5e-3}),
        (b.compute_exponent(0.077, 0.76, 0.21) / 0.077, 0.681, {"abs": 5e-4}),
        (b.compute_exponent(0.076, 0.76, 0.21) / 0.76, 0.068, {"abs": 5e-4}),
        (b.compute_exponent(0.076, 0.76, 0.21) / 0.21, 0.248, {"abs": 5e-4}),
        (1 - b.compute_exponent(0.076, 0.76, 0.21) / 0.076, 0.316, {"abs": 5e-4}),
        # C_c by (B.8), PF-days: printed 3.1e8 (Table 5) and 2.3e8 (figures)
        (b.compute_scale(TABLE_5) / PF_DAY, 2.21e8, {"rel": 5e-3}),
        (b.compute_scale({**TABLE_5, "B_star": 2e8}) / PF_DAY, 2.11e8, {"rel": 5e-3}),
        (b.compute_scale(TABLE_3) / PF_DAY, 1.61e8, {"rel": 5e-3}),
        (b.compute_scale(TABLE_5) / PF_DAY, 2.3e8, {"rel": 0.05}),
        # at 1 PF-day: printed N 1.3e9, S 5.4e3
        (b.optimal_size(PF_DAY, TABLE_5), 6.03e8, {"rel": 2e-3}),
        (b.optimal_size(PF_DAY, TABLE_3), 5.84e8, {"rel": 2e-3}),
        (1.3e9 / b.optimal_size(PF_DAY, TABLE_5), 2.15, {"rel": 5e-3}),
        (b.optimal_steps(PF_DAY, TABLE_5), 1.32e4, {"rel": 5e-3}),
        (b.optimal_loss(PF_DAY, TABLE_5), 2.716, {"abs": 1e-3}),
        (b.optimal_loss(PF_DAY, TABLE_3), 2.694, {"abs": 1e-3}),
        # (B.5), (B.12)-(B.14) for f = αN/αS against 2 %
        (1 + 0.076 / 0.76, 1.1, {"rel": 1e-9}),
        (b.size_ratio(0.10, 0.02, 0.076), 2.70, {"abs": 5e-3}),
        (b.step_ratio(0.10, 0.02, 0.76), 0.133, {"abs": 5e-4}),
        (b.compute_ratio(0.10, 0.02, 0.076, 0.76), 0.359, {"abs": 1e-3}),
        (b.size_ratio(0.1013, 0.02, 0.077), 2.71, {"abs": 5e-3}),
        (b.step_ratio(0.1013, 0.02, 0.76), 0.131, {"abs": 6e-4}),
        (b.compute_ratio(0.1013, 0.02, 0.077, 0.76), 0.354, {"abs": 2e-3}),
        # (B.16), (B.17): the bowl of Fig. 12
        (b.compute_penalty(1.0, 0.077, 0.76), 1.0, {"rel": 1e-12}),
        (b.compute_penalty(0.6, 0.077, 0.76), 1.164, {"abs": 2e-3}),
        (b.compute_penalty(2.2, 0.077, 0.76), 1.203, {"abs": 2e-3}),
        (b.step_penalty(2.2, 0.077, 0.76), 0.547, {"abs": 1e-3}),
        (b.compute_penalty(0.577, 0.077, 0.76), 1.2, {"abs": 3e-3}),
        (b.compute_penalty(2.184, 0.077, 0.76), 1.2, {"abs": 3e-3}),
        (b.smallest_size(0.076, 0.76), 0.285, {"abs": 5e-4}),
    ],
)
def test_arithmetic_of_the_printed_constants(value: Any, expected: float, tolerance: dict[str, Any]) -> None:
    assert float(value) == pytest.approx(expected, **tolerance)


THEORY = [
    (1e-8, 7.081, 2.08e3, 3691, 1.88e4, 1.39e8),
    (1e-7, 6.275, 9.96e3, 4327, 3.34e4, 2.89e8),
    (1e-6, 5.561, 4.78e4, 5072, 5.94e4, 6.03e8),
    (1e-5, 4.929, 2.29e5, 5946, 1.06e5, 1.26e9),
    (1e-4, 4.368, 1.10e6, 6970, 1.88e5, 2.62e9),
    (1e-3, 3.871, 5.29e6, 8170, 3.33e5, 5.45e9),
    (1e-2, 3.431, 2.54e7, 9577, 5.93e5, 1.14e10),
    (1e-1, 3.040, 1.22e8, 1.12e4, 1.05e6, 2.36e10),
    (1e0, 2.694, 5.84e8, 1.32e4, 1.87e6, 4.93e10),
    (1e1, 2.388, 2.80e9, 1.54e4, 3.33e6, 1.03e11),
    (1e2, 2.116, 1.35e10, 1.81e4, 5.91e6, 2.14e11),
    (1e3, 1.875, 6.46e10, 2.12e4, 1.05e7, 4.46e11),
    (1e4, 1.662, 3.10e11, 2.49e4, 1.87e7, 9.28e11),
]


@pytest.mark.parametrize(("pf_days", "loss", "N", "S", "B", "D"), THEORY)
def test_theory_table(pf_days: float, loss: float, N: float, S: float, B: float, D: float) -> None:
    """L(N, S_min) of Table 3 with the B_crit(L) of Table 5."""
    C = pf_days * PF_DAY
    found_loss = float(b.optimal_loss(C, TABLE_3))
    batch = TABLE_3["B_star"] * found_loss ** (-1 / TABLE_3["alpha_B"])
    steps = float(b.optimal_steps(C, TABLE_3))
    assert found_loss == pytest.approx(loss, abs=6e-4)
    assert [float(b.optimal_size(C, TABLE_3)), steps, batch, 2 * batch * steps] == pytest.approx([N, S, B, D], rel=5e-3)


@given(p=EFFICIENT, relative=st.floats(0.3, 30))
@settings(max_examples=100, deadline=None)
def test_penalties_agree_with_B15(p: dict[str, float], relative: float) -> None:
    """(B.16) and (B.17) are ratios of (B.15) at the loss of the efficient model."""
    N = 1e-3 * p["N_c"]
    loss = (1 + p["alpha_N"] / p["alpha_S"]) * (p["N_c"] / N) ** p["alpha_N"]
    needed = b.compute_needed(relative * N, loss, p) / b.compute_needed(N, loss, p)
    assert needed == pytest.approx(float(b.compute_penalty(relative, p["alpha_N"], p["alpha_S"])), rel=1e-6)


def test_no_compute_suffices_at_the_pole() -> None:
    pole = b.smallest_size(0.076, 0.76)
    assert np.isinf(b.compute_penalty(pole * 0.999, 0.076, 0.76))
    assert np.isfinite(b.compute_penalty(pole * 1.001, 0.076, 0.76))


T6 = constants("kaplan-table6").values


@pytest.mark.parametrize(
    ("value", "expected", "tolerance"),
    [
        # facts about Table 6: 6·N_e·B_e·S_e is 1 PF-day to 3 %, D_e holds the factor 2 of B = B_crit
        (6 * T6["N_e"] * T6["B_e"] * T6["S_e"] / PF_DAY, 0.975, {"abs": 1e-3}),
        (T6["p_N"] + T6["p_B"] + T6["p_S"], 1.0, {"rel": 1e-12}),
        (T6["p_B"] + T6["p_S"], T6["p_D"], {"rel": 1e-12}),
        (2.1e8 * (3.1e8**0.050) ** (-1 / 0.21), 1.997e6, {"rel": 1e-3}),
        (2 * T6["B_e"] * T6["S_e"], 2.16e10, {"rel": 1e-9}),
        (2 * PF_DAY / (6 * T6["N_e"]), 2.215e10, {"rel": 1e-3}),
        (4e10 / (2 * PF_DAY / (6 * T6["N_e"])), 1.8, {"abs": 0.01}),  # (6.7) prints 1.8 times as much
        # (6.6), and the exponent of L(D(C)): printed .54 and .03
        (0.73 * 0.74, 0.5402, {"abs": 1e-9}),
        (0.095 * 0.26, 0.0247, {"abs": 1e-9}),
        # tenfold compute: 5 times the parameters, twice the data; 1 % of the loss is worth 22 % of the compute
        (10 ** T6["p_N"], 5.37, {"abs": 0.005}),
        (10 ** T6["p_D"], 1.86, {"abs": 0.005}),
        (1.01 ** (1 / 0.05), 1.2202, {"abs": 1e-4}),
        # L(C_min) at 1 PF-day by Table 5 and by the figures' legends
        (3.1e8**0.050, 2.658, {"abs": 1e-3}),
        (2.3e8**0.050, 2.619, {"abs": 1e-3}),
    ],
)
def test_arithmetic_of_table_6(value: float, expected: float, tolerance: dict[str, Any]) -> None:
    assert value == pytest.approx(expected, **tolerance)


def test_table_6_stops_further_above_its_converged_loss_than_the_theory() -> None:
    """At 1 PF-day the fitted frontier lies 21 % above L(N, ∞), not the 10 % of (B.5): two models, not to be mixed."""
    t = constants("kaplan-table6").values
    for C, excess in [(1e-6, 0.13), (1.0, 0.21), (1e4, 0.29)]:
        converged = (TABLE_3["N_c"] / (t["N_e"] * C ** t["p_N"])) ** TABLE_3["alpha_N"]
        loss = converged + (TABLE_3["S_c"] / (t["S_e"] * C ** t["p_S"])) ** TABLE_3["alpha_S"]
        assert loss / converged - 1 == pytest.approx(excess, abs=0.005)
        if C == 1:
            assert loss == pytest.approx(2.788, abs=1e-3)
