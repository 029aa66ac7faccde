"""Shapes that can be built, and what they cost."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_sim.errors import ConfigError, LawError
from scaling_sim.laws.constants import constants
from scaling_sim.model.count import num_parameters
from scaling_sim.predict.allocate import allocate
from scaling_sim.predict.buildable import NEAR, SPREAD, Family, buildable
from tests.predict.support import around


@given(log10_C=st.floats(18, 26), d_head=st.sampled_from([16, 64, 128]), aspect=st.floats(20, 200))
@settings(max_examples=50, deadline=None)
def test_no_shape_of_the_family_is_nearer(log10_C: float, d_head: int, aspect: float) -> None:
    plan = allocate(constants("besiroglu"), 10.0**log10_C)
    found = buildable(plan, d_head=d_head, aspect=aspect)
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


def test_embeddings_count_where_the_fit_counts_them() -> None:
    plan = allocate(constants("hoffmann"), 1e21)
    found = buildable(plan, count="total")
    assert num_parameters(found.shape, "total") == found.N
    assert pytest.approx(plan.N.median, rel=0.2) == found.N


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
