"""Adafactor in PyTorch beside the NumPy reference: updates, resuming, members, and the captured path's version."""

import numpy as np
import pytest

from scaling_sim.engine.conformance_cases import ADAFACTOR, reference_losses, reference_trainer
from scaling_sim.engine.moments import MATRICES, adafactor
from scaling_sim_torch import BACKEND
from scaling_sim_torch.memory import least_bytes
from scaling_sim_torch.plan import Plan

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True, scope="module")
def torch():
    return pytest.importorskip("torch")


def test_weights_and_moments_equal_the_reference():
    ours = BACKEND.start(ADAFACTOR.cohort, ADAFACTOR.splits(), precision="float64")
    truth = reference_trainer(ADAFACTOR)
    for one in (ours, truth):
        one.load_state(ADAFACTOR.random_state(np.float64))
        one.advance(0, *ADAFACTOR.batches(7))
    state = ours.state()
    for name, expected in truth.state().items():
        np.testing.assert_allclose(state[name], expected, rtol=1e-7, atol=1e-12, err_msg=name)


def test_an_update_is_as_large_as_the_paper_says():
    """The first update of a matrix whose squared gradient is of rank one is ± lr; larger ones are clipped to RMS 1."""
    rng = np.random.default_rng(0)
    size = np.exp(rng.normal(size=(6, 1)) + rng.normal(size=(1, 9)))
    grad = size * rng.choice([-1.0, 1.0], size.shape)
    param, moments = np.zeros((6, 9)), {"row": np.zeros(6), "column": np.zeros(9)}
    adafactor(param, grad, moments, 1, 0.1, 0.0)
    np.testing.assert_allclose(param, -0.1 * np.sign(grad), rtol=1e-9)
    before = param.copy()
    adafactor(param, 100 * grad, moments, 1000, 0.1, 0.0)  # the moments move by 1000^-0.8 only
    assert np.sqrt(np.mean((param - before) ** 2)) == pytest.approx(0.1)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_stopped_and_resumed_is_the_same(precision):
    starts, lr = ADAFACTOR.batches(9)
    whole = BACKEND.start(ADAFACTOR.cohort, ADAFACTOR.splits(), precision=precision)
    expected = whole.advance(0, starts, lr)
    before = BACKEND.start(ADAFACTOR.cohort, ADAFACTOR.splits(), precision=precision)
    before.advance(0, starts[:4], lr[:4])
    after = BACKEND.start(ADAFACTOR.cohort, ADAFACTOR.splits(), precision=precision)
    after.load_state(before.state())
    np.testing.assert_array_equal(after.advance(4, starts[4:], lr[4:]), expected[4:])
    assert {name.split(".")[0] for name in whole.state()} == {
        "ids", "diverged", "params", "adafactor_row", "adafactor_column", "adafactor_v",
    }  # fmt: skip


def test_the_fast_path_s_update_is_the_same():
    from scaling_sim_torch.fast import FastTrainer

    fast = FastTrainer(ADAFACTOR.cohort, ADAFACTOR.splits(), "cpu", "bfloat16", Plan("stacked", "test"))
    starts, lr = ADAFACTOR.batches(12)
    losses = fast.advance(0, starts, lr)
    np.testing.assert_allclose(losses, reference_losses(ADAFACTOR, 50)[:12], atol=0.02)
    broken = fast.state()
    broken["params.ln_f_gain"][1] = np.nan
    fast.load_state(broken)
    fast.advance(12, starts, lr)
    after = fast.state()
    assert list(after["diverged"]) == [False, True]
    np.testing.assert_array_equal(after["adafactor_row.qkv"][1], broken["adafactor_row.qkv"][1])
    assert np.isfinite(after["params.qkv"]).all()
    assert not np.array_equal(after["params.qkv"][0], broken["params.qkv"][0])


def test_its_moments_are_small_and_counted():
    state = BACKEND.start(ADAFACTOR.cohort, ADAFACTOR.splits()).state()
    numbers = sum(value[0].size for name, value in state.items() if name.startswith("adafactor"))
    weights = sum(state[f"params.{name}"][0].size for name in MATRICES)
    assert numbers < 0.2 * weights, "for AdamW it is twice the weights"
    import msgspec

    plain = msgspec.structs.replace(ADAFACTOR.cohort, optimizer="adamw")
    assert least_bytes(ADAFACTOR.cohort, "bfloat16") < least_bytes(plain, "bfloat16")
