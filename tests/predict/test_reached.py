"""What measured curves paid for a loss."""

from __future__ import annotations

import numpy as np
import pytest

import scaling_sim as ss
from scaling_sim.errors import LawError
from scaling_sim.laws import kaplan
from scaling_sim.predict.reached import reached
from tests.predict.support import Draws, around
from tests.predict.test_critical_batches import BATCHES, SIZES, TRUTH, sweep


def exact() -> Draws:
    return Draws("kaplan", {name: np.full(50, TRUTH[name]) for name in ("alpha_B", "B_star")})


def test_steps_are_those_at_which_the_curve_passes() -> None:
    found = ss.reached(sweep(noise=1e-6), 2.8)
    assert found.N.tolist() == [N for N in SIZES for _ in BATCHES]
    k = list(zip(found.N, found.B, strict=True)).index((SIZES[1], 4096.0))
    S = found.paid["S"][k, 0]
    assert kaplan.solve_loss(SIZES[1], 4096.0, S, TRUTH) == pytest.approx(2.8, rel=1e-3)
    assert found.paid["tokens"][k, 0] == pytest.approx(4096 * S)
    assert found.paid["C"][k, 0] == pytest.approx(6 * SIZES[1] * 4096 * S)


def test_minimal_costs_do_not_depend_on_the_batch() -> None:
    """Without noise every batch gives the same S_min, E_min and C_min (5.4, 5.5); the steps paid differ."""
    found = reached(sweep(noise=1e-6), 2.7, exact())
    own = (SIZES[1] == found.N) & np.isfinite(found.paid["S"][:, 0])
    assert own.sum() == len(BATCHES)
    assert found.paid["S"][own, 0].max() / found.paid["S"][own, 0].min() > 2
    for name in ("S_min", "E_min", "C_min"):
        values = found.least[name][1, own, 0]
        assert values.max() / values.min() < 1.02, name


def test_losses_that_are_not_passed_are_unknown() -> None:
    found = reached(sweep(), [1.0, 2.8, 9.0])
    assert np.isnan(found.paid["S"][:, [0, 2]]).all()
    assert len(found.to_dataframe()) == np.isfinite(found.paid["S"]).sum()


def test_bounds_are_in_order() -> None:
    found = reached(sweep(), [2.6, 2.8], around("kaplan-table5", 0.05))
    for name, values in found.least.items():
        known = np.isfinite(values[1])
        assert (values[0][known] <= values[1][known]).all(), name
        assert (values[1][known] <= values[2][known]).all(), name
    assert "S_min_lo90" in found.to_dataframe()


def test_a_fit_without_critical_batch_is_refused() -> None:
    with pytest.raises(LawError, match="'chinchilla' does not have"):
        reached(sweep(), 2.8, around("besiroglu"))
