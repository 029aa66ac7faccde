"""Leave-one-out over what all laws read, identifiability where the data bound one side only, outliers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from scaling_sim.errors import ConfigError, DataError
from scaling_sim.inference import Posterior, fit, leave_one_out, point_fit
from scaling_sim.inference.comparison import stack
from scaling_sim.inference.diagnostics import identifiability, not_identified
from scaling_sim.laws import get_law
from scaling_sim.laws.base import Coordinate, Normal
from scaling_sim.runs.table import RunTable, read_runs
from tests.inference.support import chinchilla, epoch, table


@pytest.fixture(scope="module")
def runs() -> RunTable:
    return chinchilla(0.34, 0.28, size=40)


@pytest.fixture(scope="module")
def fitted(runs: RunTable) -> Posterior:
    return fit(runs, seed=1)


@pytest.fixture(scope="module")
def other(runs: RunTable) -> Posterior:
    return fit(runs, "power-n", seed=1)


def test_the_law_that_made_the_data_predicts_best(fitted: Posterior, other: Posterior) -> None:
    import arviz_stats

    loo = leave_one_out([other, fitted])
    frame = loo.to_dataframe()
    assert list(frame.index) == ["chinchilla", "power-n"]
    assert loo.best == "chinchilla"
    assert frame.difference["power-n"] > 5 * frame.difference_se["power-n"] > 0
    assert loo.k_limit == {"chinchilla": pytest.approx(0.7), "power-n": pytest.approx(0.7)}
    assert loo.unreliable == {}
    assert loo.weights["chinchilla"] > 0.999
    assert sum(loo.weights.values()) == pytest.approx(1.0)
    reference = arviz_stats.loo(fitted.to_arviz(), reff=1.0)
    assert loo.elpd["chinchilla"] == pytest.approx(float(reference.elpd), abs=1e-6)
    # a sanity bound: leaving a unit out never predicts it better than keeping it
    kept = np.logaddexp.reduce(fitted.pointwise_log_likelihood()[0], axis=0).sum() - 40 * np.log(len(fitted.u))
    assert loo.elpd["chinchilla"] < kept


def test_unreliable_units_are_named(fitted: Posterior, other: Posterior) -> None:
    loo = leave_one_out([fitted, other])
    k = loo.pareto_k["power-n"].copy()
    k[3] = 0.71
    worse = dataclasses.replace(loo, pareto_k={**loo.pareto_k, "power-n": k})
    assert worse.unreliable == {"power-n": (fitted.runs.run[3],)}
    assert loo.units == tuple(fitted.runs.run)


def test_few_draws_lower_the_limit_of_pareto_k(fitted: Posterior, other: Posterior) -> None:
    few = dataclasses.replace(fitted, u=fitted.u[:500])
    assert leave_one_out([few, other]).k_limit["chinchilla"] == pytest.approx(1 - 1 / np.log10(500))


def test_laws_are_judged_on_the_rows_that_all_of_them_read(fitted: Posterior, other: Posterior) -> None:
    some = np.sort(np.random.default_rng(0).permutation(40)[:25])
    fewer = dataclasses.replace(other, data=other.data.take(some))
    loo = leave_one_out([fitted, fewer])
    assert loo.units == tuple(fitted.runs.run[some])
    assert loo.other == {"chinchilla": 15, "power-n": 0}
    whole = leave_one_out([fitted, other])
    np.testing.assert_allclose(loo.pointwise["chinchilla"], whole.pointwise["chinchilla"][some])
    none = dataclasses.replace(other, data=other.data.take(some[:4]))
    with pytest.raises(DataError, match=r"4 in common \(chinchilla 40 final rows, power-n"):
        leave_one_out([fitted, none])


def test_what_cannot_be_compared_says_why(fitted: Posterior, other: Posterior) -> None:
    with pytest.raises(DataError, match="two or more different laws"):
        leave_one_out([fitted, fitted])
    elsewhere = dataclasses.replace(other, runs=chinchilla(0.34, 0.28, size=40, seed=9))
    with pytest.raises(DataError, match="one table of runs only"):
        leave_one_out([fitted, elsewhere])


def test_stacking_maximises_the_mean_log_density_of_the_mixture() -> None:
    """Against a fine grid: two densities of which each suits some of the points, and one that suits none."""
    from scipy.stats import norm

    x = np.random.default_rng(1).normal(np.where(np.arange(400) < 300, 0.0, 4.0))
    density = np.stack([norm.logpdf(x), norm.logpdf(x, 4.0), norm.logpdf(x, -9.0)], axis=1)
    weights = stack(density)
    share = np.linspace(0.001, 0.999, 999)
    mixture = np.log(np.exp(density[:, :1]) * share + np.exp(density[:, 1:2]) * (1 - share)).mean(axis=0)
    assert weights[0] == pytest.approx(share[np.argmax(mixture)], abs=2e-3)
    assert weights[2] < 1e-6
    assert weights.sum() == pytest.approx(1.0)
    # weights of rows: leaving the second group out leaves its density out
    assert stack(density, (np.arange(400) < 300).astype(float))[0] > 0.95


class _OneSided:
    """u[0] free to −∞ (the likelihood is flat there and a wall at 0); u[1] learned from both sides."""

    coordinates = (Coordinate("free", Normal(0.0, 1.0)), Coordinate("known", Normal(0.0, 1.0)))

    @staticmethod
    def draws(size: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        free = -np.abs(rng.standard_normal(size))
        known = 0.4 * rng.standard_normal(size)
        precision = 1 / 0.4**2 - 1  # of the likelihood, so that the posterior's sd is .4
        return np.stack([free, known], axis=1), -0.5 * precision * known**2


def test_a_parameter_bounded_from_one_side_only_is_not_identified() -> None:
    """Half a Normal has .603 of its sd: the ratio of sds alone would pass for knowledge."""

    class Law(type(get_law("power-n"))):  # type: ignore[misc]
        exponents = ()

        def coordinates(self, centre: object) -> tuple[Coordinate, ...]:
            return _OneSided.coordinates

        def to_parameters(self, u: np.ndarray, centre: object) -> dict[str, np.ndarray]:
            return {"free": u[:, 0], "known": u[:, 1]}

    u, likelihood = _OneSided.draws()
    by_sd = identifiability(u, _OneSided.coordinates, Law(), {})
    assert by_sd["free"] == pytest.approx(0.603, abs=0.01)
    assert not_identified(by_sd) == ()
    ratio = identifiability(u, _OneSided.coordinates, Law(), {}, likelihood)
    assert ratio["free"] > 0.95
    assert ratio["known"] == pytest.approx(0.4, abs=0.03)  # of Normals, the tail says what the sds say
    assert not_identified(ratio) == ("free",)


def test_an_exponent_that_tends_to_0_is_judged_by_its_logarithm() -> None:
    """On its own scale an α of .001 to .02 has .1 of the prior's sd, though nothing but the prior made its range."""
    law, centre = get_law("power-n"), {"log_N": 20.0, "log_loss": 1.0}
    coordinates, rng = law.coordinates(centre), np.random.default_rng(0)
    log_alpha = np.log(0.005) + coordinates[1].prior.sd * rng.standard_normal(4000)
    u = np.stack([1e-3 * rng.standard_normal(4000), log_alpha], axis=1)
    assert np.exp(log_alpha).std() < 0.1 * np.exp(coordinates[1].prior.sd * rng.standard_normal(4000)).std()
    ratios = identifiability(u, coordinates, law, centre)
    assert set(ratios) == {"N_c", "alpha_N"}
    assert ratios["alpha_N"] == pytest.approx(1.0, abs=0.05)
    assert "alpha_N" in not_identified(ratios)


def test_errors_are_named_as_the_table_names_them() -> None:
    """Curves that tell their loss scale alone: the share of independent errors (σ) and ℓ stay at their priors."""
    law, centre, rng = get_law("kaplan-ns"), {"log_N": 10.0, "log_S": 8.0, "log_loss": 1.0}, np.random.default_rng(0)
    names = ("log_scale_curve", "logit_independent_curve", "log_ell_curve")
    coordinates = (*law.coordinates(centre), *(Coordinate(name, Normal(0.0, 1.0)) for name in names))
    sd = np.array([c.prior.sd for c in coordinates]) * np.array([*[0.01] * 5, 1.0, 1.0])
    u = np.array([c.prior.mean for c in coordinates]) + sd * rng.standard_normal((4000, len(sd)))
    ratios = identifiability(u, coordinates, law, centre)
    assert set(ratios) == {*law.parameters, "sigma_curve", "ell_curve"}
    assert not_identified(ratios) == ("sigma_curve", "ell_curve")


def misfitting(shared_data: Path) -> RunTable:
    """Final checkpoints, the best of each (N, D), N without embeddings."""
    import pandas as pd

    frame = pd.read_csv(shared_data / "misfitting" / "scaling_results.csv")
    last = frame[frame.current_steps == frame.total_steps].sort_values("loss").drop_duplicates(["N_no_emb", "D"])
    return read_runs(pd.DataFrame({"N": last.N_no_emb, "D": last.D, "loss": last.loss}))


def test_the_floor_of_misfitting_is_not_identified(shared_data: Path) -> None:
    """Its point estimate is E → 0; a posterior bounds E from above only, and says so (few steps: seconds)."""
    runs = misfitting(shared_data)
    assert point_fit(runs).parameters["E"] < 1e-2
    with pytest.warns(UserWarning, match="not converged"):
        found = fit(runs, seed=0, min_ess=200, max_steps=1500)
    assert "E" in found.not_identified
    assert found.summary().sd_ratio["E"] > 0.9
    assert set(found.not_identified) <= {*found.draws, *found.noise}
    (note,) = (note for note in found.notes if note.startswith("not identified"))
    assert note.split("): ")[1].split(", ")[0] == "E"


def test_a_spoilt_run_is_an_outlier_and_the_others_are_not(fitted: Posterior, runs: RunTable) -> None:
    probability, names = fitted.outlier_probability()
    assert names.tolist() == runs.run.tolist()
    assert probability.max() < 0.5
    assert np.all(probability > 0)
    assert np.all(fitted.outlier_probability(2.0)[0] > probability)
    loss = runs.loss.copy()
    loss[7] *= 1.2
    spoilt = fit(table(N=runs.N, tokens=runs.tokens, loss=loss), seed=1)
    found = spoilt.outlier_probability()[0]
    assert found[7] > 0.999
    assert np.delete(found, 7).max() < 0.5
    with pytest.raises(ConfigError, match="above 1"):
        fitted.outlier_probability(1.0)


@pytest.mark.slow
def test_the_five_highest_losses_of_epoch_are_its_first_outliers(shared_data: Path) -> None:
    runs = epoch(shared_data)
    probability, names = fit(runs, seed=0).outlier_probability()
    highest = set(runs.run[np.argsort(-runs.loss)[:5]])
    assert set(names[np.argsort(-probability)[:5]]) == highest
    assert np.sort(probability)[-5] > 0.99
