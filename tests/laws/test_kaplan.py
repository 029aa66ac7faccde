from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling_sim.laws import get_law, kaplan

TABLE2 = {"alpha_N": 0.076, "N_c": 6.4e13, "alpha_D": 0.103, "D_c": 1.8e13}
TABLE3 = {"alpha_N": 0.077, "N_c": 6.5e13, "alpha_S": 0.76, "S_c": 2.1e3, "alpha_B": 0.21, "B_star": 2.1e8}


@pytest.mark.parametrize(
    ("N", "D", "loss"), [(1e6, 2.15e7, 4.2998), (1e7, 1.72e8, 3.5331), (1e8, 1.38e9, 2.9136), (7.08e8, 2.2e10, 2.4215)]
)
def test_loss_nd_with_table_2(N: float, D: float, loss: float) -> None:
    assert kaplan.loss_nd(N, D, TABLE2) == pytest.approx(loss, abs=1e-4)


@pytest.mark.parametrize(("loss", "batch"), [(3.0, 1.12e6), (3.520, 2**19)])
def test_critical_batch(loss: float, batch: float) -> None:
    assert kaplan.critical_batch(loss, TABLE3) == pytest.approx(batch, rel=5e-3)


def test_conversions_share_one_unit() -> None:
    # S_min/S + C_min/C = 1 for every loss (5.4, 5.5)
    loss = np.linspace(2, 5, 7)
    total = kaplan.min_steps(loss, 2**19, 1.0, TABLE3) + kaplan.min_compute(loss, 2**19, 1.0, TABLE3)
    np.testing.assert_allclose(total, 1.0, rtol=1e-13)


shift = st.floats(-6, 6)


@given(st.floats(5, 25), st.floats(5, 18), st.floats(0, 14), shift, shift, st.floats(0, 3))
def test_the_implicit_loss_is_the_root(x: float, y: float, z: float, b: float, s: float, floor: float) -> None:
    N, B, S = np.exp(x), np.exp(y), np.exp(z)
    p = {**TABLE3, "B_star": TABLE3["B_star"] * np.exp(b), "S_c": TABLE3["S_c"] * np.exp(s), "E": floor}
    loss = kaplan.solve_loss(N, B, S, p)
    again = kaplan.loss_ns(N, kaplan.min_steps(loss, B, S, p), p)
    assert again == pytest.approx(float(loss), rel=1e-9)


def test_limits_of_the_implicit_loss() -> None:
    np.testing.assert_allclose(kaplan.solve_loss(1e8, 1e30, 1e4, TABLE3), kaplan.loss_ns(1e8, 1e4, TABLE3), rtol=1e-9)
    np.testing.assert_allclose(kaplan.solve_loss(1e8, 1e6, 1e30, TABLE3), (6.5e13 / 1e8) ** 0.077, rtol=1e-9)


def test_a_draw_far_out_does_not_spoil_the_others() -> None:
    p = {name: np.array([[value], [value]]) for name, value in TABLE3.items()}
    p["S_c"] = np.array([[2.1e3], [1e250]])
    N, B, S = np.geomspace(1e3, 1e9, 5), np.full(5, 2.0**19), np.geomspace(10, 1e5, 5)
    np.testing.assert_allclose(kaplan.solve_loss(N, B, S, p)[0], kaplan.solve_loss(N, B, S, TABLE3), rtol=1e-9)


def test_far_out_the_iteration_converges_to_the_root() -> None:
    # exponents a factor of 12 and scales 41 e-folds to either side (90 % of them): far beyond every prior
    rng = np.random.default_rng(0)
    medians = {"log_N_c": 25, "log_S_c": 8, "log_B_star": 18, "alpha_N": 0.08, "alpha_S": 0.6, "alpha_B": 0.3}
    p = {
        name: rng.normal(x, 25, 20_000) if name.startswith("log") else x * np.exp(rng.normal(0, 1.5, 20_000))
        for name, x in medians.items()
    }
    k, s = p["alpha_N"] * (p["log_N_c"] - np.log(1e7)), p["log_S_c"] - np.log(1e4)
    c = p["log_B_star"] - np.log(2.0**19)
    y = kaplan.log_solve_loss(1e7, 2.0**19, 1e4, p)
    again = np.logaddexp(k, p["alpha_S"] * (s + np.logaddexp(0, c - y / p["alpha_B"])))
    slope = 1 + p["alpha_S"] / p["alpha_B"]  # that of y − again at most: what rounding of y costs
    assert np.max(np.abs(again - y) / slope / (1 + np.abs(y))) < 1e-10


def test_floor_is_kaplans_system_of_the_reducible_loss() -> None:
    p = {**TABLE2, **TABLE3}
    plain, floored = get_law("kaplan"), get_law("kaplan-floor")
    curve = {"N": np.array([1e6]), "B": np.array([1e5]), "S": np.array([1e3])}
    np.testing.assert_allclose(floored.loss({**p, "E": 1.5}, curve), 1.5 + plain.loss(p, curve), rtol=1e-12)
    assert kaplan.critical_batch(4.5, {**p, "E": 1.5}) == pytest.approx(float(kaplan.critical_batch(3.0, p)))


def test_joint_law_reads_each_row_by_its_form() -> None:
    p = {**TABLE2, **TABLE3}
    rows = {"N": np.array([1e6, 1e6]), "D": np.array([1e8, 1e8]), "B": np.array([1e5, 1e5]), "S": np.array([1e3, 1e3])}
    value = get_law("kaplan").loss(p, {**rows, "stopped": np.array([True, False])})
    np.testing.assert_allclose(value, [kaplan.loss_nd(1e6, 1e8, p), kaplan.solve_loss(1e6, 1e5, 1e3, p)], rtol=1e-12)
