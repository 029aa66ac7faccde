"""Shapes that can be built, and what they cost."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_sim.errors import ConfigError, LawError
from scaling_sim.laws.constants import CONSTANTS, constants
from scaling_sim.model.count import num_parameters
from scaling_sim.predict.allocate import allocate
from scaling_sim.predict.buildable import NEAR, SPREAD, Family, buildable
from tests.predict.support import around


@given(log10_C=st.floats(18, 26), d_head=st.sampled_from([16, 64, 128]), aspect=st.floats(20, 200))
@settings(max_examples=50, deadline=None)
def test_no_shape_of_the_family_is_nearer(log10_C: float, d_head: int, aspect: float) -> None:
    plan = allocate(constants("besiroglu"), 10.0**log10_C)
    found = buildable(plan, d_head=d_head, aspect=aspect, count="non-embedding")
    shape, wanted = found.shape, plan.N.median
    assert shape.d_model == shape.n_head * d_head
    assert aspect / SPREAD <= shape.d_model / shape.n_layer <= aspect * SPREAD
    assert num_parameters(shape) == found.N
    # every shape of this family with its width within a factor of 3
    centre = (wanted * aspect / 12) ** (1 / 3)
    for heads in range(max(1, int(centre / 3 / d_head)), int(3 * centre / d_head) + 2):
        d = heads * d_head
        layers = np.arange(max(1, np.ceil(d / aspect / SPREAD)), np.floor(d / aspect * SPREAD) + 1)
        if len(layers):
            away = np.abs(np.log(12 * layers * d**2 / wanted))
            distance = abs(np.log(found.N / wanted))
            if distance > NEAR:
                assert away.min() >= distance - 1e-12
            else:  # of the shapes that near none has a better aspect
                nearest = layers[np.argmin(away)]
                if away.min() < NEAR:
                    other = abs(np.log(d / nearest / aspect))
                    assert other >= abs(np.log(shape.d_model / shape.n_layer / aspect)) - 1e-12


def test_penalties() -> None:
    fit = around("besiroglu", num=500)
    plan = allocate(fit, 5.76e23)
    found = buildable(plan, d_head=128, aspect=100)
    assert abs(found.N / plan.N.median - 1) < 0.05
    assert abs(found.penalty.median) < 1e-5  # the valley is flat
    assert np.all(found.regret.draws >= -1e-12)
    assert found.regret.median > found.penalty.median
    answer = json.loads(json.dumps(found.to_json()))
    assert answer["n_head"] * 128 == answer["d_model"]
    assert answer["assumed"]["aspect"] == 100


def test_a_shape_keeps_the_bound_on_size() -> None:
    plan = allocate(constants("besiroglu"), 1e22, max_N=1e9)
    assert buildable(plan).N <= 1e9


@pytest.mark.parametrize("name", ["hoffmann", "hoffmann-rounded", "besiroglu", "muennighoff"])
def test_embeddings_count_where_the_paper_counts_them(name: str) -> None:
    """At 1e18 FLOP half of a model of 1e8 parameters is embeddings: counted otherwise, 1.4e-2 nats are lost unsaid."""
    plan = allocate(constants(name), 1e18)
    found = buildable(plan)
    assert found.family.count == "total"
    assert found.N == num_parameters(found.shape, "total") > 1.3 * num_parameters(found.shape)
    assert pytest.approx(plan.N.median, rel=0.1) == found.N
    wrong = buildable(plan, count="non-embedding")
    assert abs(found.penalty.median) < 2e-3
    assert plan.penalty(num_parameters(wrong.shape, "total")).median > 5 * abs(found.penalty.median)


def test_only_sets_of_chinchilla_s_form_count_embeddings() -> None:
    total = {name for name, found in CONSTANTS.items() if found.count == "total"}
    assert total == {"hoffmann", "hoffmann-rounded", "besiroglu", "muennighoff"}
    assert {found.count for name, found in CONSTANTS.items() if name not in total} == {"non-embedding"}
    assert constants("hoffmann").variant("mine", "me", A=400.0).count == "total"


def runs_with(**extra: Any) -> Any:
    return SimpleNamespace(runs=SimpleNamespace(extra={name: np.array(values) for name, values in extra.items()}))


def test_the_family_is_that_of_the_runs_as_far_as_they_say() -> None:
    assert Family.of(SimpleNamespace(runs=None)) == Family()
    lengths = {"n_ctx": [1024.0, 1024.0], "vocab_size": [32000.0, 32000.0]}
    assert Family.of(runs_with(**lengths)) == Family(n_ctx=1024, vocab_size=32000)
    shapes = {"d_model": [256.0, 512.0], "n_layer": [4.0, 16.0]}
    assert Family.of(runs_with(**lengths, **shapes)) == Family(n_ctx=1024, vocab_size=32000, aspect=32)
    heads = {"n_head": [2.0, 4.0]}
    assert Family.of(runs_with(**lengths, **shapes, **heads)) == Family(128, 32.0, 1024, 32000)
    assert Family.of(runs_with(**lengths, **heads), n_ctx=99) == Family(n_ctx=99, vocab_size=32000)
    unknown = {"n_ctx": [np.nan, -1.0], "vocab_size": ["a", "b"], "d_model": [np.nan, 0.0]}
    assert Family.of(runs_with(**unknown)) == Family()


def test_refusals() -> None:
    plan = allocate(constants("besiroglu"), 1e20)
    with pytest.raises(ConfigError, match="a shape is described by d_head, aspect"):
        buildable(plan, heads=3)
    with pytest.raises(ConfigError, match="aspect of a shape must be above 0"):
        buildable(plan, aspect=0)
    with pytest.raises(ConfigError, match="make d_head smaller"):
        buildable(allocate(constants("besiroglu"), 1e20, max_N=1e4))
    with pytest.raises(LawError, match="do not say what another N"):
        buildable(allocate(constants("kaplan-table6"), 1e20))
    with pytest.raises(ConfigError, match="unknown convention"):
        list(Family(count="some").near(1e6))


@pytest.mark.timeout(60)
def test_a_budget_beyond_reason_is_answered_within_seconds() -> None:
    """A width of 10⁸ heads is not found by trying every one before it."""
    found = buildable(allocate(constants("besiroglu"), 1e60))
    assert found.N / found.wanted == pytest.approx(1, rel=1e-3)
