from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_sim.errors import ConfigError, DesignError
from scaling_sim.inference.design import check_noise, left_out, prepare
from scaling_sim.inference.fitting import fit
from scaling_sim.inference.optimum import huber
from scaling_sim.inference.point import point_fit
from scaling_sim.inference.target import LogPosterior
from scaling_sim.laws import get_law
from scaling_sim.runs.table import RunTable
from tests.inference.support import KAPLAN, chinchilla, epoch, joint, table


def rescaled(runs: RunTable, n: float, tokens: float, loss: float) -> RunTable:
    return dataclasses.replace(
        runs, N=runs.N * n, D=runs.D * tokens, tokens=runs.tokens * tokens, B=runs.B * tokens, loss=runs.loss * loss,
        C=runs.C * n * tokens, data_hash="",
    )  # fmt: skip


def permuted(runs: RunTable, seed: int) -> RunTable:
    order = np.random.default_rng(seed).permutation(len(runs))
    names = ("run", "N", "D", "tokens", "C", "B", "S", "loss", "loss_error", "warmup", "decayed", "stopped", "curve")
    return dataclasses.replace(runs, **{name: getattr(runs, name)[order] for name in names}, data_hash="")


def posterior_at(runs: RunTable, law: str, seed: int = 0) -> np.ndarray:
    """Log posterior at fixed points of the centred coordinates."""
    form = get_law(law)
    target = LogPosterior(form, prepare(runs, form))
    rng = np.random.default_rng(seed)
    u = np.stack([rng.normal(c.prior.mean, 0.3 * c.prior.sd, 20) for c in target.coordinates], axis=1)
    return target(u)


@given(n=st.floats(-9, 9), tokens=st.floats(-9, 9), loss=st.floats(-1, 1))
@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("law", ["chinchilla", "kaplan"])
def test_units_leave_the_log_posterior(law: str, n: float, tokens: float, loss: float) -> None:
    runs = chinchilla(0.34, 0.28) if law == "chinchilla" else joint()
    other = rescaled(runs, 10**n, 10**tokens, 10**loss)
    np.testing.assert_allclose(posterior_at(other, law), posterior_at(runs, law), rtol=1e-9)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
@pytest.mark.parametrize("law", ["chinchilla", "kaplan"])
def test_order_of_rows_leaves_the_log_posterior(law: str, seed: int) -> None:
    runs = chinchilla(0.34, 0.28) if law == "chinchilla" else joint()
    np.testing.assert_allclose(posterior_at(permuted(runs, seed), law), posterior_at(runs, law), rtol=1e-9)


def test_units_and_order_leave_the_exponents_of_the_point_fit() -> None:
    runs = chinchilla(0.34, 0.28)
    first = point_fit(runs)
    second = point_fit(permuted(rescaled(runs, 1e3, 1e-9, 1.1), 3))
    assert second.objective == pytest.approx(first.objective, rel=1e-9)
    for name in ("alpha", "beta"):
        assert second.parameters[name] == pytest.approx(first.parameters[name], rel=1e-5)
    assert second.parameters["E"] == pytest.approx(1.1 * first.parameters["E"], rel=1e-5)


@given(alpha=st.floats(0.15, 0.8), beta=st.floats(0.15, 0.8))
@settings(max_examples=10, deadline=None)
def test_noise_free_chinchilla_is_recovered(alpha: float, beta: float) -> None:
    found = point_fit(chinchilla(alpha, beta, noise=0.0)).parameters
    assert found["alpha"] == pytest.approx(alpha, rel=1e-4)
    assert found["beta"] == pytest.approx(beta, rel=1e-4)
    assert found["E"] == pytest.approx(1.8, rel=1e-4)


def test_noise_free_kaplan_is_recovered() -> None:
    found = point_fit(joint(noise=False), "kaplan").parameters
    for name, value in KAPLAN.items():
        assert found[name] == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize(
    ("law", "truth", "columns"),
    [
        ("power-n", {"alpha_N": 0.08, "N_c": 9e13}, {"N": np.geomspace(1e3, 1e9, 8)}),
        ("power-d", {"alpha_D": 0.095, "D_c": 5.4e13}, {"D": np.geomspace(1e7, 1e10, 8), "N": np.full(8, 7e8)}),
        ("power-c", {"alpha_C": 0.05, "C_c": 1e28}, {"C": np.geomspace(1e15, 1e22, 8), "N": np.geomspace(1e5, 1e9, 8)}),
    ],
)
def test_noise_free_power_laws_are_recovered(law: str, truth: dict[str, float], columns: dict[str, np.ndarray]) -> None:
    loss = get_law(law).loss(truth, columns)
    found = point_fit(table(loss=loss, **columns), law).parameters
    for name, value in truth.items():
        assert found[name] == pytest.approx(value, rel=1e-4)


def test_critical_batch_is_read_from_the_batch_sweep() -> None:
    # interpolation between curve points is the only error: B_crit near the losses of the data within 10 %
    found = point_fit(joint(noise=False, points=40), "critical-batch")
    law = get_law("critical-batch")
    for loss in (4.0, 5.0):
        ours = float(np.exp(law.log_response(found.parameters, {"loss": loss})))
        true = float(np.exp(law.log_response(KAPLAN, {"loss": loss})))
        assert ours == pytest.approx(true, rel=0.1)


def test_single_form_laws_read_their_own_rows_of_a_study() -> None:
    runs = joint(noise=False)
    nd = point_fit(runs, "kaplan-nd")
    assert nd.n_used == 15
    assert nd.parameters["alpha_D"] == pytest.approx(0.11, rel=1e-4)
    ns = point_fit(runs, "kaplan-ns")
    assert ns.n_used == 6 * 16
    assert ns.n_used + ns.n_dropped == len(runs)
    assert ns.parameters["alpha_N"] == pytest.approx(0.09, rel=0.1)  # S_min is not S: near, not equal


@pytest.mark.parametrize("law", ["kaplan", "kaplan-ns", "kaplan-nd", "chinchilla", "power-c"])
def test_every_row_is_used_or_left_out_once(law: str) -> None:
    """Long curves are thinned; two reasons of the reader meet one of the law."""
    runs = joint(noise=False, points=24)
    runs = runs.select(runs.N > 1e3, "not an early-stopped result")
    found = point_fit(runs, law)
    target = LogPosterior(get_law(law), prepare(runs, get_law(law)))
    names = [name for reason in left_out(runs, target.data).values() for name in reason]
    assert found.n_dropped == len(names) == len(set(names))
    assert found.n_used + found.n_dropped == len(joint(noise=False, points=24))


def _few_sizes(runs: RunTable, kind: str) -> RunTable:
    """The study with runs of one kind at two sizes, a factor of 3.1 apart, only."""
    flagged = runs.stopped if kind == "stopped" else runs.curve
    narrow = np.isin(runs.N, [8e3, 5e4]) if kind == "stopped" else np.isin(runs.N, [8e3, 2.5e4])
    return runs.select(~flagged | narrow, "other sizes")


def test_a_range_is_pooled_over_the_rows_that_share_its_parameter() -> None:
    runs = _few_sizes(joint(noise=False), "stopped")
    assert not any("spans" in note for note in prepare(runs, get_law("kaplan")).notes)
    notes = prepare(runs, get_law("kaplan", shared=False)).notes
    assert [note for note in notes if "spans" in note] == [
        "N spans 0.80 decades, less than one: alpha_N rests on a short range"
    ]
    other = prepare(_few_sizes(joint(noise=False), "curve"), get_law("kaplan", shared=False)).notes
    assert any("alpha_N_curve rests on a short range" in note for note in other)
    one = runs.select(~runs.stopped | (runs.N == 8e3), "other sizes")
    assert len(prepare(one, get_law("kaplan"))) > 0
    with pytest.raises(DesignError, match="cannot identify alpha_N: N must vary"):
        prepare(one, get_law("kaplan", shared=False))


def test_epoch_240_reaches_the_certified_minimum(shared_data: Path) -> None:
    runs = epoch(shared_data, 240)
    point_fit(runs)  # imports
    began = time.process_time()
    found = point_fit(runs)
    assert time.process_time() - began < 0.3
    assert found.agreed
    assert found.objective == pytest.approx(1.01827402e-3, rel=1e-7)
    assert found.parameters["alpha"] == pytest.approx(0.34731, abs=2e-4)
    assert found.parameters["beta"] == pytest.approx(0.36717, abs=2e-4)
    assert huber(found.residuals, 1e-3).sum() == pytest.approx(found.objective)


def test_an_unknown_objective_lists_the_valid_ones() -> None:
    with pytest.raises(ValueError, match='"huber" or "posterior"'):
        point_fit(chinchilla(0.3, 0.3), objective="mean")  # type: ignore[arg-type]


def test_designs_that_cannot_identify_a_law_are_refused() -> None:
    runs = chinchilla(0.34, 0.28)
    with pytest.raises(DesignError, match="needs at least 7 points, got 3"):
        point_fit(runs.select(np.arange(len(runs)) < 3, "few"))
    with pytest.raises(DesignError, match="cannot identify alpha: N must vary"):
        point_fit(dataclasses.replace(runs, N=np.full(len(runs), 1e8), data_hash=""))
    with pytest.raises(DesignError, match="cannot tell alpha from beta"):
        point_fit(dataclasses.replace(runs, tokens=20 * runs.N, data_hash=""))
    with pytest.raises(DesignError, match=r"Laws that its columns allow: .*kaplan-nd.*chinchilla"):
        point_fit(runs, "kaplan")


def test_less_than_a_decade_is_noted() -> None:
    runs = chinchilla(0.34, 0.28)
    near = runs.select((runs.N > 1e9) & (runs.N < 9e9), "N far away")
    assert any("N spans" in note and "alpha" in note for note in point_fit(near).notes)


def test_unknown_objectives_and_thresholds_are_mistakes_of_configuration() -> None:
    with pytest.raises(ConfigError, match='must be "huber" or "posterior"'):
        point_fit(chinchilla(0.34, 0.28, size=12), objective="squares")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must be positive, got 0"):
        point_fit(chinchilla(0.34, 0.28, size=12), delta=0)


@pytest.mark.parametrize(
    ("runs", "law"), [(chinchilla(0.34, 0.28, noise=0.0), "chinchilla"), (joint(noise=False), "kaplan")]
)
def test_losses_without_noise_have_no_posterior(runs: RunTable, law: str) -> None:
    """Their error scale tends to 0 and τ to thousands of steps: refused at once; the point estimate is exact."""
    assert np.max(np.abs(point_fit(runs, law).residuals)) < 1e-9
    with pytest.raises(DesignError, match=rf"follow {law} exactly, to 1\d digits: take the point estimate"):
        fit(runs, law)


def test_measured_errors_are_noise_enough() -> None:
    runs = chinchilla(0.34, 0.28, noise=0.0)
    known = prepare(dataclasses.replace(runs, loss_error=1e-3 * runs.loss, data_hash=""), get_law("chinchilla"))
    check_noise(get_law("chinchilla"), known, np.zeros(len(known)))  # refuses nothing


def test_equal_losses_are_refused() -> None:
    runs = chinchilla(0.34, 0.28, size=20)
    equal = dataclasses.replace(runs, loss=np.full(20, 2.5), data_hash="")
    with pytest.raises(DesignError, match=r"all 20 losses are 2\.5; is another column the loss"):
        point_fit(equal)


def test_a_sound_point_estimate_raises_no_doubts() -> None:
    assert point_fit(chinchilla(0.34, 0.28)).notes == ()
    assert point_fit(joint(), "kaplan").notes == ()


def test_a_floor_at_zero_is_said() -> None:
    runs = chinchilla(0.34, 0.28)
    power = dataclasses.replace(runs, loss=2.5 * (runs.N / 3e8) ** -0.1 * (runs.tokens / 3e10) ** -0.1, data_hash="")
    (note,) = (note for note in point_fit(power).notes if note.startswith("E is"))
    assert "not identified" in note


@pytest.mark.parametrize("rises", ["N", "tokens"])
def test_a_loss_that_rises_is_questioned(rises: str) -> None:
    runs = chinchilla(0.34, 0.28, size=40)
    x, y = (runs.N / 3e8, runs.tokens / 3e10) if rises == "N" else (runs.tokens / 3e10, runs.N / 3e8)
    notes = point_fit(dataclasses.replace(runs, loss=2 + 0.5 * x**0.2 + y**-0.3, data_hash="")).notes
    assert any(f"{'alpha' if rises == 'N' else 'beta'} is" in note and "rises with it" in note for note in notes)


def test_accuracies_are_no_losses() -> None:
    runs = chinchilla(0.34, 0.28, size=40)
    accuracy = 0.9 - 0.3 * (runs.N / 1e7) ** -0.2 - 0.2 * (runs.tokens / 1e9) ** -0.2
    notes = point_fit(dataclasses.replace(runs, loss=accuracy, data_hash="")).notes
    assert any("no better than a constant; accuracies instead of losses" in note for note in notes)
