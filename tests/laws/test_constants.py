from __future__ import annotations

import math

import numpy as np
import pytest

from scaling_sim.errors import ConfigError
from scaling_sim.laws.constants import CONSTANTS, FRONTIER_LAW, PF_DAY, constants

PARAMETERS = {
    "kaplan": {"alpha_N", "N_c", "alpha_D", "D_c", "alpha_S", "S_c", "alpha_B", "B_star"},
    "kaplan-nd": {"alpha_N", "N_c", "alpha_D", "D_c"},
    "kaplan-ns": {"alpha_N", "N_c", "alpha_S", "S_c"},
    "power-n": {"alpha_N", "N_c"},
    "power-d": {"alpha_D", "D_c"},
    "power-c": {"alpha_C", "C_c"},
    "critical-batch": {"alpha_B", "B_star"},
    "chinchilla": {"E", "A", "alpha", "B", "beta"},
    "data-constrained": {"E", "A", "alpha", "B", "beta", "R_D", "R_N"},
    "learning-rate": {"lr_scale", "exponent_N", "exponent_tokens"},
    "batch-size": {"B_scale", "exponent_N", "exponent_tokens"},
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_every_set_is_whole_and_sourced(name: str) -> None:
    found = constants(name)
    assert found.name == name
    assert "arXiv" in found.source
    if found.law_name != FRONTIER_LAW:
        needed = PARAMETERS[found.law_name]
        assert needed <= set(found.values)
        assert set(found.values) - needed <= {"alpha_N_curve", "N_c_curve"}
    for parameter, draw in found.draws.items():
        assert draw.shape == (1,)
        assert draw[0] == found.values[parameter]
        assert draw[0] > 0 or parameter.startswith("exponent")


def test_the_three_values_of_N_c_stay_apart() -> None:
    sizes = [constants(f"kaplan-table{i}").values["N_c"] for i in (5, 3, 2)]
    assert sizes == [8.8e13, 6.5e13, 6.4e13]


def test_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"'kaplan'; valid names: kaplan-table5.*besiroglu"):
        constants("kaplan")


def test_a_set_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        constants("hoffmann").values["E"] = 0.0  # type: ignore[index]


def test_a_variant_has_its_own_name_and_only_known_constants() -> None:
    changed = constants("kaplan-table6").variant("mine", "figure legends", C_c_min=2.3e8)
    assert changed.values["C_c_min"] == 2.3e8
    assert constants("kaplan-table6").values["C_c_min"] == 3.1e8
    with pytest.raises(ConfigError, match="no constant C_c;"):
        changed.variant("mine", "", C_c=1.0)


def _power(name: str, symbol: str, x: float) -> float:
    values = constants(name).values
    return float((values[f"{symbol}_c"] / x) ** values[f"alpha_{symbol}"])


@pytest.mark.parametrize(
    ("name", "symbol", "x", "loss"),
    [
        ("kaplan-power-n", "N", 1e3, 6.789),
        ("kaplan-power-n", "N", 1e6, 4.016),
        ("kaplan-power-n", "N", 1.5e9, 2.304),
        ("kaplan-power-n", "N", 1.75e11, 1.604),
        ("kaplan-power-d", "D", 2.2e7, 4.046),
        ("kaplan-power-d", "D", 2.2e10, 2.099),
        ("kaplan-power-c", "C", 1e-6 * PF_DAY, 5.658),
        ("kaplan-power-c", "C", PF_DAY, 2.574),
        ("kaplan-power-c-min", "C", 1e-6 * PF_DAY, 5.304),
        ("kaplan-power-c-min", "C", 1e4 * PF_DAY, 1.677),
    ],
)
def test_worked_values_of_the_one_variable_laws(name: str, symbol: str, x: float, loss: float) -> None:
    assert _power(name, symbol, x) == pytest.approx(loss, abs=6e-4)


@pytest.mark.parametrize(("B_star", "loss", "batch"), [(2e8, 3.0, 1.07e6), (2.1e8, 3.0, 1.12e6), (2e8, 2.5, 2.55e6)])
def test_critical_batch_values(B_star: float, loss: float, batch: float) -> None:
    assert B_star / loss ** (1 / constants("kaplan-table5").values["alpha_B"]) == pytest.approx(batch, rel=5e-3)


def test_table_6_is_consistent_with_itself() -> None:
    t = constants("kaplan-table6").values
    assert t["p_N"] + t["p_B"] + t["p_S"] == pytest.approx(1.0)
    assert t["p_D"] == pytest.approx(t["p_B"] + t["p_S"])
    assert 6 * t["N_e"] * t["B_e"] * t["S_e"] / PF_DAY == pytest.approx(0.975, rel=3e-3)
    assert 2 * t["B_e"] * t["S_e"] == pytest.approx(2.16e10, rel=1e-6)
    assert t["p_N"] * t["overfit_exponent"] == pytest.approx(0.54, abs=1e-3)
    assert -t["alpha_D"] * constants("kaplan-eq6.7").values["p_D"] == pytest.approx(-0.0247, abs=1e-4)


def test_naive_and_efficient_fits_cross_inside_the_data() -> None:
    """The printed L(C) lies below L(C_min) above 1.0e-2 PF-days (Table 5): compare them inside the data only."""
    naive, efficient = constants("kaplan-power-c").values, constants("kaplan-power-c-min").values
    gap = naive["alpha_C"] * np.log(naive["C_c"]) - efficient["alpha_C"] * np.log(efficient["C_c"])
    crossing = math.exp(gap / (naive["alpha_C"] - efficient["alpha_C"])) / PF_DAY
    assert crossing == pytest.approx(1.0e-2, rel=0.06)


def test_loss_per_compute_of_the_fitted_frontier() -> None:
    """One per cent of loss costs 22 % of compute (Fig. 5)."""
    assert 1.01 ** (1 / constants("kaplan-table6").values["alpha_C_min"]) == pytest.approx(1.2202, abs=1e-4)


def test_unrounded_hoffmann_constants_round_to_the_printed_ones() -> None:
    exact, printed = constants("hoffmann").values, constants("hoffmann-rounded").values
    assert {k: round(exact[k], 2) for k in ("E", "alpha", "beta")} == {k: printed[k] for k in ("E", "alpha", "beta")}
    assert {k: round(exact[k], 1) for k in "AB"} == {k: printed[k] for k in "AB"}
