"""Memory that runs out costs a warning and smaller parts, not the run."""

import numpy as np
import pytest

from scaling_sim.engine.conformance_cases import DROPOUT, PLAIN
from scaling_sim.errors import BackendWarning
from scaling_sim_torch import BACKEND
from scaling_sim_torch.plan import Plan

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True, scope="module")
def torch():
    return pytest.importorskip("torch")


def small_card(monkeypatch, torch, room):
    """Attention of more than ``room`` sequences at a time runs out of memory."""
    plain = torch.nn.functional.scaled_dot_product_attention

    def attention(query, *arguments, **options):
        if len(query) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.14 GiB")
        return plain(query, *arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)


def stacked(case):
    from scaling_sim_torch.fast import FastTrainer

    return FastTrainer(case.cohort, case.splits(), "cpu", "bfloat16", Plan("stacked", "test"))


def eager(case):
    return BACKEND.start(case.cohort, case.splits(), precision="float32")


@pytest.mark.parametrize(("start", "tolerance"), [(eager, 1e-5), (stacked, 2e-3)])
def test_a_batch_that_does_not_fit_is_computed_in_parts(torch, monkeypatch, start, tolerance):
    starts, lr = PLAIN.batches(6)
    expected = start(PLAIN).advance(0, starts, lr)
    small, big = start(PLAIN).gradient_noise(PLAIN.starts(3, 2))
    small_card(monkeypatch, torch, room=6)  # three members with two sequences each, of four
    trainer = start(PLAIN)
    with pytest.warns(BackendWarning, match=r"out of memory with 1 micro-batch\(es\); going on with 2"):
        losses = trainer.advance(0, starts, lr)
    np.testing.assert_allclose(losses, expected, atol=tolerance)
    fresh = start(PLAIN)
    with pytest.warns(BackendWarning, match="going on with 2"):
        got = fresh.gradient_noise(PLAIN.starts(3, 2))
    np.testing.assert_allclose(got[0], small, rtol=0.02)
    np.testing.assert_allclose(got[1], big, rtol=0.02)


@pytest.mark.parametrize("start", [eager, stacked])
def test_only_what_was_too_large_is_cut(torch, monkeypatch, start, recwarn):
    starts, lr = PLAIN.batches(4)
    small_card(monkeypatch, torch, room=3)
    start(PLAIN).advance(0, starts, lr)
    said = [str(one.message) for one in recwarn if issubclass(one.category, BackendWarning)]
    assert [words.split("going on with ")[1] for words in said] == ["2", "4"], "once each, then it is remembered"


@pytest.mark.parametrize("start", [eager, stacked])
def test_a_sequence_too_large_or_a_mask_that_must_stay_whole_is_an_error(torch, monkeypatch, start):
    small_card(monkeypatch, torch, room=2)
    with pytest.warns(BackendWarning), pytest.raises(torch.OutOfMemoryError):
        start(PLAIN).advance(0, *PLAIN.batches(1))
    with pytest.raises(torch.OutOfMemoryError):
        start(DROPOUT).advance(0, *DROPOUT.batches(1))
