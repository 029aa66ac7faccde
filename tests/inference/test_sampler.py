from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from scaling_sim.inference.autocorrelation import integrated_time, tail_time
from scaling_sim.inference.design import prepare
from scaling_sim.inference.diagnostics import diagnose
from scaling_sim.inference.laplace import Laplace
from scaling_sim.inference.point import posterior_mode
from scaling_sim.inference.sampler import Progress, moves, sample
from scaling_sim.inference.target import LogPosterior
from scaling_sim.laws import get_law
from scaling_sim.laws.base import Coordinate, Normal
from tests.inference.support import chinchilla


def gaussian_sd(move: object, scales: np.ndarray, steps: int = 4000, walkers: int = 100) -> np.ndarray:
    """sd over true sd of a Gaussian target sampled with one move, started in equilibrium."""
    import emcee

    rng = np.random.RandomState(0)
    start = emcee.State(rng.randn(walkers, len(scales)) * scales, random_state=rng.get_state())

    def density(u: np.ndarray) -> np.ndarray:
        return -0.5 * np.sum((u / scales) ** 2, axis=1)

    sampler = emcee.EnsembleSampler(walkers, len(scales), density, moves=move, vectorize=True)
    sampler.run_mcmc(start, steps, skip_initial_state_check=True)
    return np.asarray(sampler.get_chain(flat=True).std(axis=0) / scales)


@pytest.mark.statistical
@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("scales", [[1, 1], [1, 100], [1] * 6, [1, 1, 1, 100, 100, 100]], ids=str)
def test_every_move_that_ships_samples_a_gaussian(which: int, scales: list[float]) -> None:
    # ESS ≥ 100·4000/60 = 6,700, so that sd is known to .9 %: 2 % is 2.3 Monte Carlo errors for the slowest coordinate
    # a wrong approximation, off by .5 sd and too narrow by a third, must cost τ alone
    wrong = Laplace(0.5 * np.array(scales, dtype=float), np.diag(scales) / 1.5)
    ratio = gaussian_sd(moves(wrong)[which][0], np.array(scales, dtype=float))
    assert np.all(np.abs(ratio - 1) < 0.02)


@pytest.mark.statistical
def test_the_snooker_move_fails_the_same_test() -> None:
    from emcee.moves import DESnookerMove

    assert np.all(gaussian_sd(DESnookerMove(), np.ones(6), steps=400) < 0.9)


def test_the_snooker_move_never_ships() -> None:
    from emcee.moves import DESnookerMove

    assert not any(isinstance(move, DESnookerMove) for move, _ in moves(Laplace(np.zeros(2), np.eye(2))))


def test_integrated_time_is_emcees_and_that_of_an_ar1_process() -> None:
    from emcee.autocorr import integrated_time as reference

    rng, phi = np.random.default_rng(0), 0.9
    x = np.zeros((8000, 16, 2))
    for k in range(1, len(x)):
        x[k] = phi * x[k - 1] + rng.standard_normal(x.shape[1:])
    tau = integrated_time(x[None])
    np.testing.assert_allclose(tau, reference(x), rtol=1e-6)
    np.testing.assert_allclose(tau, (1 + phi) / (1 - phi), rtol=0.1)


def walk(phi: float, steps: int, walkers: int, seed: int = 0) -> np.ndarray:
    """Stationary AR(1) chains (4, steps, walkers, 1) of unit variance."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((4, steps, walkers, 1))
    for k in range(1, steps):
        x[:, k] = phi * x[:, k - 1] + np.sqrt(1 - phi**2) * x[:, k]
    return x


@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_tail_time_is_arvizs_where_walkers_are_chains(phi: float) -> None:
    """Independent walkers are chains of their own, for which ArviZ gives the ESS of a quantile."""
    from arviz_stats.base import array_stats

    x = walk(phi, 4000, 16)
    ours = x.size / float(tail_time(x, 0.05)[0])
    chains = x[..., 0].transpose(0, 2, 1).reshape(64, -1)
    theirs = float(array_stats.ess(chains, chain_axis=0, draw_axis=1, method="tail", prob=(0.05, 0.95)))
    assert ours == pytest.approx(theirs, rel=0.1)


def test_tails_that_are_seldom_visited_fail_the_rule() -> None:
    """A normal distribution whose upper 5 % are entered seldom and left late."""
    rng, shape = np.random.default_rng(1), (4, 2000, 8, 1)
    tail = np.zeros(shape, dtype=bool)
    for k in range(1, shape[1]):
        change = rng.uniform(size=shape[:1] + shape[2:])
        tail[:, k] = np.where(tail[:, k - 1], change > 1 / 60, change < 1 / 60 / 19)
    x = np.asarray(norm.ppf(np.where(tail, rng.uniform(0.95, 1, shape), rng.uniform(0, 0.95, shape))))
    coordinates = (Coordinate("slow", Normal(0, 1)),)
    found = diagnose(x, coordinates, min_ess=2000, acceptance=0.4)
    assert found.ess["slow"] > 2000
    assert found.tail_ess["slow"] < 1000
    assert "ESS of the tails of slow" in found.verdict
    mixed = diagnose(rng.permutation(x.ravel()).reshape(shape), coordinates, min_ess=2000, acceptance=0.4)
    assert mixed.converged
    assert mixed.tail_ess["slow"] > 0.8 * x.size


def test_natural_parameters_are_judged_with_the_coordinates() -> None:
    """A difference of two coordinates that each mix well, but whose ensembles disagree."""
    rng = np.random.default_rng(0)
    common = rng.standard_normal((4, 500, 32)) * 30
    chain = np.stack([common, common + rng.standard_normal((4, 500, 32)) + np.arange(4)[:, None, None]], axis=-1)
    coordinates = (Coordinate("a", Normal(0, 1)), Coordinate("b", Normal(0, 1)))
    assert diagnose(chain, coordinates, min_ess=1000, acceptance=0.4).converged
    found = diagnose(
        chain, coordinates, min_ess=1000, acceptance=0.4, natural=lambda u: {"difference": u[:, 1] - u[:, 0]}
    )
    assert "R-hat of difference" in found.verdict


def test_scales_that_differ_between_ensembles_are_seen() -> None:
    """By R-hat of the distances from the median, which R-hat of the draws themselves does not see."""
    chain = np.random.default_rng(0).standard_normal((4, 500, 32, 1))
    chain[0] *= 1.5
    assert "R-hat of wide" in diagnose(chain, (Coordinate("wide", Normal(0, 1)),), min_ess=10, acceptance=0.4).verdict


def test_diagnostics_say_why() -> None:
    coordinates = (Coordinate("good", Normal(0, 1)), Coordinate("bad", Normal(0, 1)))
    chain = np.random.default_rng(0).standard_normal((4, 500, 32, 2))
    fine = diagnose(chain, coordinates, min_ess=1000, acceptance=0.4)
    assert fine.converged
    assert fine.verdict.startswith("converged: R-hat 1.00")
    chain[0, :, :, 1] += 0.5
    shifted = diagnose(chain, coordinates, min_ess=1000, acceptance=0.4)
    assert not shifted.converged
    assert "R-hat of bad" in shifted.verdict
    assert (
        "at least 4 independent ensembles, got 2"
        in diagnose(chain[1:3], coordinates, min_ess=10, acceptance=0.4).verdict
    )
    assert "ESS of" in diagnose(chain[:, :, :, :1][:, :60, :2], coordinates[:1], min_ess=1000, acceptance=0.4).verdict


def test_same_seed_same_numbers_here_and_in_other_processes() -> None:
    law = get_law("chinchilla")
    target = LogPosterior(law, prepare(chinchilla(0.34, 0.28, size=20), law))
    mode, agreed = posterior_mode(target)
    assert agreed
    seen: list[Progress] = []
    first = sample(target, mode, seed=1, max_steps=40, progress=seen.append)
    assert seen[-1].steps == 40
    assert not first.diagnostics.converged
    second = sample(target, mode, seed=1, max_steps=40, processes=2)
    np.testing.assert_array_equal(first.chain, second.chain)
    assert not np.array_equal(first.chain, sample(target, mode, seed=2, max_steps=40).chain)


def test_the_time_left_follows_a_growing_tau() -> None:
    """The first report knows no trend and says so; the second expects within 40 % what is needed in the end."""
    law, seen = get_law("chinchilla"), list[Progress]()
    target = LogPosterior(law, prepare(chinchilla(0.34, 0.28, size=9, seed=1), law))
    sample(target, posterior_mode(target)[0], seed=0, progress=seen.append)
    first, second, *_, last = seen
    assert first.at_least
    assert first.expected_steps < 0.5 * last.steps
    assert second.at_least
    assert 0.6 * last.steps < second.expected_steps < 1.4 * last.steps
    assert not last.at_least


def test_progress_can_cancel() -> None:
    law = get_law("chinchilla")
    target = LogPosterior(law, prepare(chinchilla(0.34, 0.28, size=20), law))

    def cancel(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(target, posterior_mode(target)[0], seed=0, max_steps=10, progress=cancel)
