"""The same runs under several definitions of N and C."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_sim.errors import ConfigError, DataError
from scaling_sim.laws.constants import constants
from scaling_sim.laws.non_embedding import optimal_compute, size_exponent, total_parameters
from scaling_sim.model.count import flops_per_token, num_parameters
from scaling_sim.model.shape import Shape
from scaling_sim.predict.allocate import allocate
from scaling_sim.predict.counts import Curve, countings
from scaling_sim.predict.definitions import _Optimum, compare_definitions
from scaling_sim.runs.table import RunTable, read_runs
from tests.predict.support import around, table

ASPECT, VOCABULARY, CONTEXT = 40, 32_000, 2048


def shapes(num: int = 9) -> list[Shape]:
    """Models of one aspect, of 3e4 to 1e9 parameters outside embeddings."""
    widths = np.unique(np.geomspace(40, 1600, num).round(-1).astype(int))
    return [Shape(max(1, round(d / ASPECT)), int(d), 1, CONTEXT, VOCABULARY) for d in widths]


def sweep(num_sizes: int = 9, noise: float = 1e-3) -> RunTable:
    """A grid whose losses follow Hoffmann et al.'s law in *all* parameters; N of the table leaves embeddings out."""
    p = constants("hoffmann").values
    family = [shape for shape in shapes(num_sizes) for _ in range(7)]
    N = np.array([num_parameters(shape) for shape in family], dtype=float)
    total = np.array([num_parameters(shape, "total") for shape in family], dtype=float)
    tokens = total * np.tile(np.geomspace(2, 200, 7), len(family) // 7)
    loss = p["E"] + p["A"] * total ** -p["alpha"] + p["B"] * tokens ** -p["beta"]
    loss *= np.exp(noise * np.random.default_rng(0).standard_normal(len(loss)))
    extra = {name: np.array([float(getattr(s, name)) for s in family]) for name in ("n_layer", "d_model", "n_head")}
    extra |= {"n_ctx": np.full(len(N), float(CONTEXT)), "vocab_size": np.full(len(N), float(VOCABULARY))}
    return replace(table(N=N, tokens=tokens, loss=loss, decayed=np.ones(len(N), dtype=bool)), extra=extra)


@pytest.fixture(scope="module")
def runs() -> RunTable:
    return sweep()


def test_counts_follow_from_shapes(runs: RunTable) -> None:
    found = countings(runs)
    assert list(found) == ["own", "with head", "total", "exact FLOP"]  # "non-embedding" is the table's own
    k = 20
    shape = next(s for s in shapes() if s.d_model == runs.extra["d_model"][k])
    assert found["total"].N[k] == num_parameters(shape, "total")
    assert found["with head"].N[k] == num_parameters(shape, "non-embedding+head")
    assert found["exact FLOP"].cost[k] == pytest.approx(flops_per_token(shape, "exact") * runs.tokens[k])


@given(omega=st.floats(1, 1e6), n=st.floats(1e4, 1e11), name=st.sampled_from(["hoffmann", "besiroglu"]))
@settings(max_examples=60, deadline=None)
def test_the_optimum_is_pearce_and_songs(omega: float, n: float, name: str) -> None:
    p = constants(name).values
    columns = {key: np.array([[value]]) for key, value in p.items()}
    size = Curve(np.array([1.0, omega]), np.array([1.0, 1 / 3]))
    optimum = _Optimum(columns, size, Curve.proportional(6.0), (np.log(n) - 60, np.log(n) + 60))
    cost = optimal_compute(n, p, omega)
    assert np.exp(optimum.log_cost(np.log(np.array([n]))))[0, 0] == pytest.approx(float(cost), rel=1e-9)
    assert np.exp(optimum.at(np.log(np.array([cost]))))[0, 0] == pytest.approx(n, rel=1e-8)


def test_curves_of_a_family_are_followed() -> None:
    n = np.geomspace(1e4, 1e10, 30)
    curve = Curve.through(n, total_parameters(n, 5e4))
    assert curve.scatter < 1e-6
    np.testing.assert_allclose(np.exp(curve.log(np.log(n))), total_parameters(n, 5e4), rtol=1e-6)
    h = 1e-4
    numeric = (curve.log(np.log(n) + h) - curve.log(np.log(n) - h)) / (2 * h)
    np.testing.assert_allclose(curve.slope(np.log(n)), numeric, rtol=1e-6)


def test_the_truth_is_recovered_by_its_own_definition_and_mapped_to_the_others(runs: RunTable) -> None:
    """A law of all parameters: exponent β/(α+β) = .457 by that count, Pearce & Song's without embeddings."""
    found = compare_definitions(runs, [1e18, 1e20], seed=0)
    p = constants("hoffmann").values
    low, high = found.rows["total"].exponent.interval(0.99)
    assert low < p["beta"] / (p["alpha"] + p["beta"]) < high
    cost = runs.C
    expected = size_exponent(p, (float(cost.min()), float(cost.max())), omega=found.omega)  # type: ignore[arg-type]
    assert found.mapped is not None
    assert found.mapped.median == pytest.approx(expected, abs=0.03)
    own, total = found.rows["own"].exponent.median, found.rows["total"].exponent.median
    assert own > total + 0.1
    assert found.mapped.median > total + 0.1
    rows = VOCABULARY + CONTEXT
    assert found.omega == pytest.approx(rows * (ASPECT / 12) ** (1 / 3), rel=0.1)
    best = allocate(constants("hoffmann"), found.rows["total"].cost)
    np.testing.assert_allclose(np.median(found.rows["total"].N, axis=0), best.draws["N"][0], rtol=0.1)


def test_an_optimum_spends_its_cost(runs: RunTable) -> None:
    found = compare_definitions(runs, [1e19])
    np.testing.assert_allclose(found.rows["own"].cost, 1e19, rtol=0.01)  # at the median of the draws
    for name in ("own", "total"):
        row = found.rows[name]
        np.testing.assert_allclose(6 * row.N * row.tokens, np.broadcast_to(row.cost, row.N.shape), rtol=1e-8)


def test_more_definitions_through_columns(runs: RunTable) -> None:
    per_token = 1e-14 * runs.N + 1e-8
    plain = replace(runs, extra={"all": countings(runs)["total"].N, "clock": per_token * runs.tokens})
    found = compare_definitions(plain, columns={"N_total": "all", "seconds": "clock"})
    assert list(found.rows) == ["own", "total", "seconds"]
    assert found.rows["seconds"].scatter < 1e-6
    # a token costs small models no less than 1e-8 s, so that they are not worth their saving at small budgets
    assert found.rows["seconds"].exponent.median < found.rows["own"].exponent.median
    answer = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert answer["definitions"]["seconds"]["cost_seconds"][0] > 0
    assert answer["pearce_song_mapping"]["omega"] == found.omega
    assert "The exponent of N* goes from" in str(found)
    assert "<table" in found._repr_html_()


def test_allocations_carry_the_table(runs: RunTable) -> None:
    fit = around("hoffmann", num=50, runs=runs)
    found = allocate(fit, 1e18, backtest=None)
    assert set(found.to_json()["definitions"]["definitions"]) == {"own", "with head", "total", "exact FLOP"}
    without = allocate(around("hoffmann", num=50), 1e18)
    assert "definitions" not in without.to_json()
    assert without.definitions == "published constants come without runs"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"columns": {"N_total": "absent"}}, DataError, "no column absent"),
        ({"columns": {"size": "N"}}, DataError, "unknown counts size; known: N_non_embedding"),
        ({"compute": -1.0}, ConfigError, "positive numbers of FLOP"),
    ],
)
def test_refusals(runs: RunTable, call: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        compare_definitions(runs, **call)


def test_one_definition_is_not_enough() -> None:
    plain = table(N=[1e6, 1e7], tokens=[1e8, 1e9], loss=[4.0, 3.0])
    with pytest.raises(DataError, match="need the models' shapes"):
        compare_definitions(plain)


@pytest.mark.shared_data
def test_public_runs_move_as_pearce_and_song_say(shared_data: Path) -> None:
    """Gadre et al.'s C4 models: leaving embeddings out raises the exponent, by less than the mapping would."""
    public = read_runs(shared_data / "gadre" / "runs.csv", "N=N,D=D,loss=loss_c4_val", where="train_data=c4_original")
    found = compare_definitions(public, columns={"N_non_embedding": "N_no_embed"})
    assert found.rows["non-embedding"].exponent.median > found.rows["own"].exponent.median + 0.02
