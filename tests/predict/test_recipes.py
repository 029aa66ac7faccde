from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from scaling_sim.errors import ConfigError, LawError
from scaling_sim.laws.constants import constants
from scaling_sim.predict.layout import Grid, log_spaced
from scaling_sim.predict.noise import Noise
from scaling_sim.predict.recipes import compare_recipes
from scaling_sim.predict.simulate import simulate
from tests.predict.support import Draws, around

P = dict(constants("besiroglu").values)
GRID = Grid(N=log_spaced(5e7, 2e9, 6), tokens=log_spaced(1e9, 5e10, 6))


def better(p: dict[str, float], k: float) -> dict[str, float]:
    """A recipe worth k times the compute: L − E ∝ C^(−αβ/(α+β)) on the frontier, so both terms shrink alike."""
    shrink = k ** (-p["alpha"] * p["beta"] / (p["alpha"] + p["beta"]))
    return {**p, "A": p["A"] * shrink, "B": p["B"] * shrink}


def fitted(p: dict[str, float], seed: int) -> Draws:
    """Stand-in for a posterior: the discrepancy learns the law itself from the runs."""
    runs = simulate({"law": "chinchilla", **p}, GRID, noise=Noise(0.003, 5.0), seed=seed)
    return Draws("chinchilla", {name: np.array([value]) for name, value in P.items()}, runs=runs)


@pytest.mark.parametrize("k", [0.5, 1.0, 3.0])
def test_constants_with_a_known_multiplier(k: float) -> None:
    base, other = constants("besiroglu"), constants("besiroglu").variant("new", "made up", **better(P, k))
    found = compare_recipes(base, other, compute=[1e20, 1e24], loss=[2.2, 2.6])
    np.testing.assert_allclose(found.multiplier, k, rtol=2e-3)
    np.testing.assert_array_equal(found.probability_better, float(k > 1))
    assert found.asked == ("compute", "compute", "loss", "loss")
    assert found.names == ("besiroglu", "new")


def test_kaplan_by_its_frontier() -> None:
    """S_c halved: C at equal loss halves on the frontier, for C ∝ S_c (B.8), and at each fixed size."""
    base = constants("kaplan-table5")
    other = base.variant("half the steps", "made up", S_c=base.values["S_c"] / 2)
    np.testing.assert_allclose(compare_recipes(base, other, compute=1e21).multiplier, 2.0, rtol=2e-3)
    np.testing.assert_allclose(compare_recipes(base, other, compute=1e21, N=1e9).multiplier, 2.0, rtol=2e-3)


def test_a_loss_below_the_floor_of_one_recipe() -> None:
    base = constants("besiroglu")
    other = base.variant("lower floor", "made up", E=1.5)
    assert np.isinf(compare_recipes(base, other, loss=1.8).multiplier).all()
    assert np.all(compare_recipes(other, base, loss=1.8).multiplier == 0)
    answer = compare_recipes(base, other, loss=1.8).to_json()
    assert answer["multiplier"]["median"] == "inf"


@pytest.mark.slow
@pytest.mark.statistical
def test_intervals_cover_known_multipliers() -> None:
    """100 pairs at the edge of the runs, a third of them equally good.

    Intervals that cover 90 % fail with probability .0065, and such that cover 75 % pass with probability .06 (binomial,
    82 to 97 of 100). Equal recipes are called better with a uniform probability, whose mean over 34 is within .15 of
    one half but with probability .003.
    """
    cover, probability = [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        k = float(np.exp(rng.uniform(-0.7, 1.0))) if seed % 3 else 1.0
        p = {**P, "alpha": P["alpha"] * np.exp(0.05 * rng.standard_normal())}
        pair = fitted(p, 2 * seed), fitted(better(p, k), 2 * seed + 1)
        found = compare_recipes(*pair, compute=5e20, seed=seed)
        low, high = found.quantity().interval(0.9)
        cover.append(low <= k <= high)
        if k == 1.0:
            probability.append(float(found.probability_better[0]))
    assert 82 <= sum(cover) <= 97
    assert abs(np.mean(probability) - 0.5) < 0.15


def test_the_default_is_the_largest_run_that_both_have() -> None:
    found = compare_recipes(fitted(P, 0), fitted(better(P, 2.0), 1))
    assert found.compute.tolist() == [pytest.approx(6 * 2e9 * 5e10)]
    assert found.to_json()["decades_beyond_runs"] == pytest.approx(0.0)
    assert found.probability_better[0] > 0.99
    assert found.verdict.startswith("simulated from chinchilla is worth")
    same = compare_recipes(fitted(P, 0), fitted(P, 0), compute=6e20)
    assert same.verdict.startswith("undecided")


def test_without_runs_or_with_other_laws() -> None:
    with pytest.raises(ConfigError, match="give compute= or loss="):
        compare_recipes(around("besiroglu"), around("besiroglu"))
    with pytest.raises(LawError, match="fitted by one law, got 'chinchilla' and 'kaplan'"):
        compare_recipes(constants("besiroglu"), constants("kaplan-table5"), compute=1e20)
    with pytest.raises(LawError, match="no allocation from 'power-n'"):
        compare_recipes(constants("kaplan-power-n"), constants("kaplan-power-n"), compute=1e20)
    with pytest.raises(LawError, match="does not price runs of a given size"):
        compare_recipes(constants("kaplan-table6"), constants("kaplan-table6"), compute=1e20, N=1e9)
    with pytest.raises(ConfigError, match="compute must be a positive number"):
        compare_recipes(constants("besiroglu"), constants("besiroglu"), compute=0.0)


def test_results_read_well_and_seeds_repeat() -> None:
    pair: Any = around("besiroglu", num=300), around("hoffmann", num=200)
    found = compare_recipes(*pair, compute=[1e20, 1e22], names=("old", "new"))
    again = compare_recipes(*pair, compute=[1e20, 1e22], names=("old", "new"))
    np.testing.assert_array_equal(found.multiplier, again.multiplier)
    assert found.multiplier.shape == (300, 2)
    answer = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert len(answer["places"]) == 2
    assert answer["base"] == "old"
    assert "no discrepancy: there are no runs" in answer["notes"][0]
    assert found.to_dataframe()["compute_flop"].tolist() == [1e20, 1e22]
    assert "new is worth" in str(found)
    assert "<table" in found._repr_html_()
