from __future__ import annotations

import numpy as np
import pytest

from scaling_sim.inference.autocorrelation import integrated_time
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


def test_progress_can_cancel() -> None:
    law = get_law("chinchilla")
    target = LogPosterior(law, prepare(chinchilla(0.34, 0.28, size=20), law))

    def cancel(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(target, posterior_mode(target)[0], seed=0, max_steps=10, progress=cancel)
