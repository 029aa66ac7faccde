from __future__ import annotations

import json

import numpy as np
import pytest

from scaling_sim.errors import ConfigError
from scaling_sim.laws.constants import constants
from scaling_sim.laws.kaplan import critical_batch, loss_ns
from scaling_sim.predict.known import KNOWN_SIZES, KnownSize, critical_loss, known_sizes
from tests.predict.support import around


def row(source: str, N: float):
    return next(r for r in known_sizes([source]).rows if r.size.N == N)


def test_the_sizes_asked_about() -> None:
    assert [(s.N, s.tokens) for s in KNOWN_SIZES] == [
        (3.4e8, 3e11),
        (1.1e9, 3e11),
        (1.1e10, 3e11),
        (1.75e11, 3e11),
        (70e9, 1.4e12),
    ]
    assert pytest.approx(3.15e23) == KNOWN_SIZES[3].C
    assert pytest.approx(5.88e23) == KNOWN_SIZES[4].C


@pytest.mark.parametrize("source", ["hoffmann", "besiroglu"])
@pytest.mark.parametrize("size", KNOWN_SIZES)
def test_numbers_follow_from_the_constants(source: str, size: KnownSize) -> None:
    """Loss by the formula; N* = G·(C/6)^a and L* at N*, by Hoffmann et al. 2022, eq. 4."""
    p = constants(source).values
    found = row(source, size.N)

    def loss(N: float, tokens: float) -> float:
        return p["E"] + p["A"] * N ** -p["alpha"] + p["B"] * tokens ** -p["beta"]

    G = (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / (p["alpha"] + p["beta"]))
    best_N = G * (size.C / 6) ** (p["beta"] / (p["alpha"] + p["beta"]))
    assert found.loss is not None
    assert found.excess is not None
    assert found.loss.median == pytest.approx(loss(size.N, size.tokens))
    assert found.size_ratio.median == pytest.approx(size.N / best_N, rel=1e-6)
    best = loss(best_N, size.C / 6 / best_N)
    assert found.excess.median == pytest.approx(loss(size.N, size.tokens) / best - 1, abs=1e-9)
    assert found.excess.median >= 0


def test_printed_values_of_besiroglu() -> None:
    """Chinchilla is about optimal by the refit, GPT-3 3.3 times too large; Hoffmann's rounded constants: 7.1 times."""
    assert row("besiroglu", 70e9).size_ratio.median == pytest.approx(70e9 / 7.3e10, rel=0.01)
    assert row("besiroglu", 70e9).training == "about optimal"
    assert row("besiroglu", 1.75e11).size_ratio.median == pytest.approx(3.30, abs=0.01)
    assert row("hoffmann-rounded", 1.75e11).size_ratio.median == pytest.approx(7.14, abs=0.01)
    assert row("besiroglu", 1.75e11).training == "undertrained"
    assert row("besiroglu", 3.4e8).training == "overtrained"


@pytest.mark.parametrize("N", [3.4e8, 1.75e11])
def test_kaplan_sets_train_at_the_critical_batch(N: float) -> None:
    """tokens = 2·B_crit(L)·S_min with L = L(N, S_min): facts of eqs 1.6, 5.4 and 5.5, solved here by bisection."""
    p = constants("kaplan-table5").values
    low, high = 1.0, 1e9
    for _ in range(200):
        S_min = (low * high) ** 0.5
        tokens = 2 * float(critical_batch(loss_ns(N, S_min, p), p)) * S_min
        low, high = (S_min, high) if tokens < 3e11 else (low, S_min)
    assert row("kaplan-table5", N).loss.median == pytest.approx(float(loss_ns(N, low, p)), rel=1e-9)


def test_critical_loss_keeps_draws_and_rows_apart() -> None:
    p = {name: np.array([[v], [v * 1.01]]) for name, v in constants("kaplan-table5").values.items()}
    found = critical_loss(np.array([1e8, 1e9, 1e10]), np.full(3, 3e11), p)
    assert found.shape == (2, 3)
    assert np.all(np.diff(found, axis=1) < 0)


def test_a_frontier_gives_the_ratio_alone() -> None:
    """Table 6: N = 1.3e9·C_min^.73 with C_min = C/2 = 1,822.9 PF-days is 3.12e11."""
    found = row("kaplan-table6", 1.75e11)
    assert found.loss is None
    assert found.excess is None
    assert found.best_N.median == pytest.approx(1.3e9 * (3.15e23 / 2 / 8.64e19) ** 0.73, rel=1e-6)
    assert found.to_json()["loss_nats"] is None


def test_all_sources_by_default_and_the_others_named() -> None:
    table = known_sizes()
    assert {r.source for r in table.rows} >= {"kaplan-table5", "kaplan-table6", "hoffmann", "besiroglu", "muennighoff"}
    assert "C = 6·N·D does not hold" in table.skipped["kaplan-table2"]
    assert [r.size.N for r in table.rows] == sorted(
        (r.size.N for r in table.rows), key=[s.N for s in KNOWN_SIZES].index
    )
    assert any("BERT" in note and "T5" in note and "not comparable" in note for note in table.notes)
    assert len(json.loads(json.dumps(table.to_json(), allow_nan=False))["rows"]) == len(table.rows)
    assert "GPT-3" in str(table)
    assert "<table" in table._repr_html_()


def test_a_fit_in_place_of_constants_has_intervals() -> None:
    found = known_sizes([around("besiroglu", num=300)]).rows[0]
    low, high = found.size_ratio.interval()
    assert low < found.size_ratio.median < high
    with pytest.raises(ConfigError, match="no constant set is called 'nobody'"):
        known_sizes(["nobody"])


def test_an_unconverged_fit_is_told_from_constants() -> None:
    fit = around("besiroglu", num=20, converged=False)
    assert known_sizes([fit, "hoffmann"]).to_json()["converged"] is False
    assert known_sizes(["hoffmann"]).to_json()["converged"] is None
