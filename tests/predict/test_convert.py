from __future__ import annotations

import json

import numpy as np
import pytest

from scaling_sim.errors import LawError
from scaling_sim.laws.constants import constants
from scaling_sim.predict.convert import batch_sweep_range, convert
from tests.predict.support import around, table


@pytest.mark.parametrize(
    ("loss", "S_share", "C_share"),
    [(4.0, 0.6587, 0.3413), (3.5, 0.5054, 0.4946), (3.0, 0.3290, 0.6710), (2.5, 0.1707, 0.8293)],
)
def test_shares_at_the_papers_batch(loss: float, S_share: float, C_share: float) -> None:
    """(5.4) and (5.5) at B = 2^19 with B* = 2e8; S_min/S + C_min/C = 1."""
    runs = table(N=[1e8], tokens=[2**19 * 1e4], B=[2**19], S=[1e4], loss=[loss])
    found = convert(constants("kaplan-text"), runs)
    assert found.S_min[0] / 1e4 == pytest.approx(S_share, abs=6e-5)
    assert found.C_min[0] / runs.C[0] == pytest.approx(C_share, abs=6e-5)
    assert found.S_min[0] / 1e4 + found.C_min[0] / runs.C[0] == pytest.approx(1, abs=1e-12)


def test_points_outside_the_batch_sweep_are_marked() -> None:
    runs = table(
        N=[1e6] * 6 + [1e8],
        tokens=np.full(7, 1e9),
        B=[1e4, 1e4, 1e4, 1e5, 1e5, 1e5, 1e5],
        S=np.full(7, 1e4),
        loss=[6.0, 5.0, 4.0, 5.5, 4.5, 3.5, 2.5],
    )
    assert batch_sweep_range(runs) == (4.0, 5.5)  # both batches reached these losses
    found = convert(around("kaplan-table5", num=50), runs)
    assert list(found.outside) == [True, False, False, False, False, True, True]
    assert np.all((found.C_min_low < found.C_min) & (found.C_min < found.C_min_high))
    answer = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert answer["num_outside"] == 3
    assert (answer["law"], answer["source"], answer["converged"]) == ("kaplan", "posterior", True)
    assert "<table" in found._repr_html_()


def test_without_a_batch_sweep_all_is_outside() -> None:
    runs = table(N=[1e6, 1e7], tokens=[1e9, 1e9], loss=[4.0, 3.0])
    found = convert(constants("kaplan-table5"), runs)
    assert batch_sweep_range(runs) is None
    assert found.outside.all()
    assert np.isnan(found.C_min).all()  # the batch is unknown
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["rows"][0]["C_min_flop"] is None


def test_refusals() -> None:
    with pytest.raises(LawError, match="needs B_crit"):
        convert(constants("besiroglu"))
    with pytest.raises(LawError, match="pass runs="):
        convert(constants("kaplan-table5"))
