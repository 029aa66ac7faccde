"""Expected errors of answers, against many simulated answers."""

from __future__ import annotations

import numpy as np
import pytest

from scaling_sim.predict.criteria import FitError, PosteriorVariance
from scaling_sim.predict.joint import World
from scaling_sim.predict.outlook import Outlook

Array = np.ndarray


def view(
    seed: int, sizes: tuple[int, ...] = (1, 3, 1, 1), made: int = 4, p: int = 3, amplitude: float = 0.4
) -> Outlook:
    """A linear target and runs, misfit by a random smooth function."""
    rng = np.random.default_rng(seed)
    rows = made + sum(sizes)
    place = rng.uniform(0, 3, rows + 1)
    kernel = np.exp(-0.5 * (place[:, None] - place) ** 2) + 1e-9 * np.eye(rows + 1)
    noise = []
    for m in sizes:
        half = 0.3 * rng.standard_normal((m, m))
        noise.append(half @ half.T + 0.1 * np.eye(m))
    return Outlook(
        jacobian=rng.standard_normal((rows, p)),
        gradient=rng.standard_normal(p),
        prior_sd=rng.uniform(0.5, 2.0, p),
        amplitude=amplitude,
        kernel=kernel[:-1, :-1],
        reads=0.7 * kernel[-1, :-1],
        reads_itself=0.49,
        made_noise=rng.uniform(0.05, 0.2, made),
        noise=noise,
    )


def simulated(one: Outlook, chosen: list[int], num: int = 200_000) -> Array:
    """Squared errors of the target by the law alone: truths, misfits and noise drawn, the law fitted to each."""
    rng = np.random.default_rng(1)
    ends = np.cumsum([len(one.made_noise), *(len(noise) for noise in one.noise)])
    made = len(one.made_noise)
    at = np.concatenate([np.arange(made), *(np.arange(ends[i], ends[i + 1]) for i in chosen)])
    R = np.zeros((len(at), len(at)))
    R[:made, :made] = np.diag(one.made_noise)
    first = made
    for i in chosen:
        last = first + len(one.noise[i])
        R[first:last, first:last] = one.noise[i]
        first = last
    J, u = one.jacobian[at], one.prior_sd * rng.standard_normal((num, len(one.gradient)))
    both = np.block([[one.kernel, one.reads[:, None]], [one.reads[None], np.array([[one.reads_itself]])]])
    misfit = (
        one.amplitude * rng.standard_normal((num, len(both))) @ np.linalg.cholesky(both + 1e-9 * np.eye(len(both))).T
    )
    y = u @ J.T + misfit[:, at] + rng.standard_normal((num, len(at))) @ np.linalg.cholesky(R).T
    weighted = np.linalg.solve(R, J)
    estimate = np.linalg.solve(np.diag(one.prior_sd**-2) + J.T @ weighted, weighted.T @ y.T).T @ one.gradient
    return (estimate - u @ one.gradient - misfit[:, -1]) ** 2


@pytest.mark.parametrize("chosen", [[], [0], [1, 3], [0, 1, 2, 3]])
@pytest.mark.parametrize("seed", range(3))
def test_error_of_a_fitted_law_is_what_simulation_gives(seed: int, chosen: list[int]) -> None:
    one = view(seed)
    squares = simulated(one, chosen)
    error = 4 * squares.std() / np.sqrt(len(squares))  # false alarm 6e-5 for each of 12
    assert FitError([one]).error(chosen)[0] == pytest.approx(squares.mean(), abs=error)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("chosen", [[], [1], [0, 0, 1], [2, 1, 3]])
def test_one_run_more_is_what_it_says(seed: int, chosen: list[int]) -> None:
    views = [view(seed), view(seed, amplitude=0.05)]
    for criterion in (FitError(views), PosteriorVariance([each.world() for each in views])):
        more = criterion.with_one_more(chosen)
        for i in range(4):
            np.testing.assert_allclose(more[:, i], criterion.error([*chosen, i]), rtol=1e-9)


def test_a_law_without_misfit_has_the_error_of_its_posterior() -> None:
    one = view(0, amplitude=0.0)
    for chosen in ([], [1], [0, 2, 3]):
        posterior = PosteriorVariance([one.world()]).error(chosen)[0]
        assert FitError([one]).error(chosen)[0] == pytest.approx(posterior, rel=1e-9)


def test_who_reckons_with_the_misfit_errs_less_than_who_does_not() -> None:
    one = view(2)
    for chosen in ([], [1], [0, 2, 3]):
        assert PosteriorVariance([one.world()]).error(chosen)[0] < FitError([one]).error(chosen)[0]


def test_copies_of_a_run_have_noise_of_their_own_and_share_its_misfit() -> None:
    one = view(1, sizes=(1, 2))
    halved = Outlook(**{**vars(one), "noise": [noise / 2 for noise in one.noise]})
    pairs = (
        (FitError([one]), FitError([halved])),
        (PosteriorVariance([one.world()]), PosteriorVariance([halved.world()])),
    )
    for twice, once in pairs:
        for i in range(2):
            assert twice.error([i, i])[0] == pytest.approx(once.error([i])[0], rel=1e-9)
            assert twice.error([i, i])[0] < twice.error([i])[0]


def test_the_error_does_not_depend_on_the_order_of_runs() -> None:
    world = World(view(3).world().covariance, view(3).noise, "log")
    for criterion in (FitError([view(3)]), PosteriorVariance([world])):
        assert criterion.error([0, 1, 3])[0] == pytest.approx(criterion.error([3, 0, 1])[0], rel=1e-10)
