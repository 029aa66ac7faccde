"""Minima of isoFLOP valleys: the cubic is unbiased where the parabola is not, and its intervals cover."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scaling_sim.errors import DataError, DesignError
from scaling_sim.laws import get_law
from scaling_sim.predict.isoflop import isoflop_minima, power_law
from scaling_sim.predict.slices import Slice, points_of, slices_of
from tests.inference.support import KAPLAN, joint
from tests.predict.support import table

STEEP = {"E": 1.69, "A": 400.0, "alpha": 0.5, "B": 1000.0, "beta": 0.25}
BUDGETS = np.geomspace(1e19, 1e22, 7)


def best_size(C: Any, p: dict[str, float] = STEEP) -> Any:
    a = p["beta"] / (p["alpha"] + p["beta"])
    return (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / (p["alpha"] + p["beta"])) * (np.asarray(C) / 6) ** a


def sweep(decades: float = 1.0, noise: float = 0.0, seed: int = 0, offset: float = 0.0, jitter: float = 0.0) -> Any:
    """Nine sizes at each budget, ``decades`` to either side of the best one, Student-t errors."""
    rng = np.random.default_rng(seed)
    grid = 10 ** (np.linspace(-decades, decades, 9) + offset)
    N = (best_size(BUDGETS)[:, None] * grid).ravel()
    C = np.repeat(BUDGETS, 9) * np.exp(jitter * rng.uniform(-1, 1, N.size))
    tokens = C / 6 / N
    loss = get_law("chinchilla").loss(STEEP, {"N": N, "tokens": tokens}) * np.exp(noise * rng.standard_t(5, N.size))
    draws = {name: np.full(4, value) for name, value in STEEP.items()}
    return SimpleNamespace(law_name="chinchilla", draws=draws, runs=table(N=N, tokens=tokens, loss=loss))


def medians(fit: Any, degree: int = 3) -> Any:
    """ln of found over true best size at every budget."""
    found = isoflop_minima(slices_of(points_of(fit)), degree=degree, num_draws=200)
    return np.array([v.log_N for v in found.valleys]) - np.log(best_size(np.exp(found.log_C)))


@pytest.mark.parametrize(("decades", "bias"), [(0.5, 0.04), (1.0, 0.13), (1.5, 0.13)])
def test_the_cubic_is_unbiased_where_the_parabola_is_biased(decades: float, bias: float) -> None:
    """Without noise: what is left is bias. (At 1.5 decades the window holds both to one decade.)"""
    cubic, parabola = medians(sweep(decades)), medians(sweep(decades), degree=2)
    assert np.abs(cubic).max() < bias / 6
    assert parabola.min() > 0.8 * bias


def test_lopsided_sizes_bias_the_cubic_little() -> None:
    assert np.abs(medians(sweep(1.0, offset=0.3))).max() < 0.03


@pytest.mark.statistical
def test_intervals_of_the_cubic_cover_and_those_of_the_parabola_do_not() -> None:
    """60 sweeps: 90 % intervals of the exponent and of N* must cover 47 to 60 of them (a .3 % false alarm each)."""
    truth, C = 1 / 3, np.log(1e22)
    cover = {2: np.zeros(2), 3: np.zeros(2)}
    for seed in range(60):
        slices = slices_of(points_of(sweep(noise=0.003, seed=seed)))
        for degree, counts in cover.items():
            found = isoflop_minima(slices, degree=degree, num_draws=500, seed=seed)
            slope, level, centre = power_law(found.log_C, found.log_N)
            at = level + slope * (C - centre)
            for k, (values, true) in enumerate(((slope, truth), (at, np.log(best_size(1e22))))):
                low, high = np.quantile(values, [0.05, 0.95])
                counts[k] += low <= true <= high
    assert cover[3].min() >= 47
    assert cover[2][1] <= 6  # the parabola's N* is off by 16 %, with an interval of ±4 %


def test_points_that_do_not_share_one_compute_are_corrected_for_it() -> None:
    """C uniform within ±10 % moves losses by more than the sizes do near the minimum."""
    fit = sweep(jitter=0.1)
    slices = slices_of(points_of(fit))
    assert [len(s.log_N) for s in slices] == [9] * 7  # grouped as made, although 1e19, 1e20, … would split by decades
    assert min(np.ptp(s.log_C) for s in slices) > 0.1
    assert np.abs(medians(fit)).max() < 0.03


def test_one_bad_run_is_harmless() -> None:
    fit = sweep(noise=1e-4)
    loss = fit.runs.loss.copy()
    loss[[4, 20, 31]] *= 1.1
    spoilt = SimpleNamespace(
        law_name="chinchilla", draws=fit.draws, runs=table(N=fit.runs.N, tokens=fit.runs.tokens, loss=loss)
    )
    assert np.abs(medians(spoilt)).max() < 0.02


def test_only_bracketed_minima_count_and_the_others_are_named() -> None:
    """Sizes that all lie above the best one, at two budgets."""
    fit = sweep()
    N = fit.runs.N.copy()
    N[:18] *= 40
    C = np.repeat(BUDGETS, 9)
    loss = get_law("chinchilla").loss(STEEP, {"N": N, "tokens": C / 6 / N})
    moved = SimpleNamespace(law_name="chinchilla", draws=fit.draws, runs=table(N=N, tokens=C / 6 / N, loss=loss))
    found = isoflop_minima(slices_of(points_of(moved)), num_draws=200)
    np.testing.assert_allclose(np.exp(found.log_C), BUDGETS[2:], rtol=1e-6)
    np.testing.assert_allclose(sorted(found.skipped), BUDGETS[:2], rtol=1e-6)
    assert all("no minimum between" in why for why in found.skipped.values())


def test_too_few_sizes_or_budgets_are_refused_with_the_reason() -> None:
    fit = sweep()
    few = fit.runs.select(np.tile(np.arange(9) < 4, 7), "fewer sizes")
    with pytest.raises(DesignError, match="4 sizes; a polynomial of degree 3 needs 5"):
        isoflop_minima(slices_of(points_of(SimpleNamespace(law_name="chinchilla", draws=fit.draws, runs=few))))
    with pytest.raises(DataError, match="published constants"):
        points_of(SimpleNamespace(law_name="chinchilla", draws=fit.draws))


def test_learning_curves_are_cut_at_budgets_and_move_together() -> None:
    fit = SimpleNamespace(
        law_name="kaplan", draws={k: np.full(4, v) for k, v in KAPLAN.items()}, runs=joint(noise=False, points=40)
    )
    points = points_of(fit)
    assert points.curves
    slices = slices_of(points, 8)
    assert len(slices) == 8
    one, two = slices[3], slices[4]
    both = np.intersect1d(one.run, two.run)
    assert len(both) >= 5
    # a curve's losses fall with compute, and a size is the same in every slice
    for run in both:
        i, j = np.flatnonzero(one.run == run)[0], np.flatnonzero(two.run == run)[0]
        assert one.log_N[i] == two.log_N[j]
        assert one.log_loss[i] > two.log_loss[j]


def test_equal_points_of_one_curve_err_together() -> None:
    """The same runs in two slices give equal draws; other runs do not."""
    fit = sweep(noise=0.002)
    one = slices_of(points_of(fit))[0]
    twin = Slice(one.at, one.log_N, one.log_loss, one.log_C, one.run)
    other = Slice(one.at, one.log_N, one.log_loss, one.log_C, one.run + 100)
    draws = isoflop_minima([one, twin, other], num_draws=500).log_N
    np.testing.assert_allclose(draws[:, 0], draws[:, 1])
    assert abs(np.corrcoef(draws[:, 0], draws[:, 2])[0, 1]) < 0.2


def test_a_line_through_minima_widens_where_they_scatter() -> None:
    rng = np.random.default_rng(0)
    x = np.linspace(0, 7, 8)
    true = 1.0 + 0.5 * x
    sure = true + 0.01 * rng.standard_normal((4000, 8))
    slope, level, centre = power_law(x, sure)
    assert np.median(slope) == pytest.approx(0.5, abs=0.002)
    assert np.median(level - slope * centre) == pytest.approx(1.0, abs=0.01)
    assert slope.std() == pytest.approx(0.01 / np.sqrt(np.sum((x - x.mean()) ** 2)), rel=0.1)
    scattered = power_law(x, sure + 0.1 * np.resize([1, -1], 8))[0]
    assert scattered.std() > 8 * slope.std()
