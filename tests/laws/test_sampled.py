"""Posteriors of the laws that are hardest to sample, on simulated sweeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scaling_sim.errors import DesignError
from scaling_sim.inference import fit, load_fit, point_fit
from scaling_sim.inference.posterior import Posterior
from scaling_sim.laws import get_law
from scaling_sim.laws.constants import constants
from scaling_sim.predict.layout import Grid, Sweep, log_spaced
from scaling_sim.predict.simulate import simulate
from scaling_sim.study import report_on

REPEATED = {"law": "data-constrained"}
PAIRS = {**constants("kaplan-table5").values, "alpha_N_curve": 0.095, "N_c_curve": 3e12}
SMALL = Sweep(
    N=log_spaced(1e5, 1e9, 5), points=8, batch_N=(1e7,), seed_N=(), data_N=log_spaced(1e6, 1e9, 4),
    data_D=log_spaced(2e7, 2e10, 4),
)  # fmt: skip


def within(found: Posterior, truth: dict[str, float], sds: float) -> None:
    """Each parameter within ``sds`` posterior sd (of its logarithm where positive) of the truth."""
    for name in found.law.parameters:
        draws, true = found.draws[name], truth[name]
        values, target = (np.log(draws), np.log(true)) if true > 0 else (draws, true)
        assert abs(np.mean(values) - target) < sds * np.std(values), name


@pytest.mark.slow
def test_data_constrained_converges_and_finds_what_repetition_is_worth() -> None:
    """Seven parameters within 4 sd of the truth: a false alarm in 5e-4 of sweeps."""
    found = fit(simulate(REPEATED, seed=1, noise=0.003), "data-constrained", min_ess=400)
    assert found.converged
    within(found, dict(constants("muennighoff").values), 4)
    assert max(found.identifiability[name] for name in ("R_D", "R_N")) < 0.1


@pytest.mark.slow
def test_few_repetitions_do_not_identify_their_worth_and_the_notes_say_so() -> None:
    """At 1.3 epochs e^(−r/R_D) is 1 − r/R_D: the data give a bound from below only."""
    runs = simulate(REPEATED, Grid(N=log_spaced(5e7, 5e9, 7), epochs=(1.0, 1.3)), seed=1, noise=0.003)
    found = fit(runs, "data-constrained", min_ess=400)
    assert found.converged
    (note,) = [note for note in found.notes if note.startswith("not identified")]
    assert note.endswith(": R_D")


def test_without_repetitions_the_law_is_refused() -> None:
    runs = simulate(REPEATED, Grid(), seed=1)
    with pytest.raises(DesignError, match=r"rows whose data repeat .* without which R_D and R_N are not identified"):
        point_fit(runs, "data-constrained")


@pytest.mark.slow
def test_pairs_of_their_own_are_found_and_their_difference_is_reported() -> None:
    """Truth: α_N .076 of early-stopped runs, .095 of curves. Ten parameters within 4 sd (6e-4)."""
    law = get_law("kaplan", shared=False)
    found = fit(simulate(PAIRS, SMALL, law=law, seed=1), law, min_ess=300)
    assert found.converged
    within(found, PAIRS, 4)
    (note,) = [note for note in found.notes if note.startswith("alpha_N of early-stopped runs less that of curves")]
    assert "which excludes 0: they disagree" in note


def test_the_difference_of_two_pairs_is_read_off_the_draws() -> None:
    rng = np.random.default_rng(0)
    draws = {"alpha_N": 0.08 + 0.001 * rng.standard_normal(4000), "alpha_N_curve": np.full(4000, 0.08)}
    (note,) = get_law("kaplan-floor", shared=False).remarks(draws)
    assert "(90 %: -0.0016" in note
    assert "which holds 0: one α_N serves both" in note
    assert get_law("kaplan").remarks(draws) == ()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "published"), [("learning-rate", "step-law-learning-rate")])
def test_the_law_of_the_learning_rate_converges(name: str, published: str, tmp_path: Path) -> None:
    """Three parameters within 4 sd; one exponent is negative, and is diagnosed, saved and reported all the same."""
    found = fit(simulate({"law": name}, seed=1, noise=0.001), name, min_ess=400)
    assert found.converged
    within(found, dict(constants(published).values), 4)
    assert all(np.isfinite(row["r_hat"]) for row in found.parameter_diagnostics.values())
    again = load_fit(found.save(tmp_path / "fit.nc"))
    assert len(again.data) == len(found.data) == 9
    np.testing.assert_array_equal(again.draws["exponent_N"], found.draws["exponent_N"])
    assert report_on(tmp_path / "fit.nc", tmp_path / "fit.html").is_file()
