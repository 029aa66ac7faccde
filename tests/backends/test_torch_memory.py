"""Memory that runs out costs a warning and smaller parts, not the run."""

import gc
import warnings
import weakref

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


def losses_of_few(most, exact, error):
    """`StackedModel.losses` or `position_losses` on a card that holds ``most`` sequences."""

    def losses(*arguments):
        if arguments[-1].shape[1] > most:
            raise error("no room")
        return exact(*arguments)

    return losses


@pytest.mark.parametrize("path", ["stacked", "eager"])
def test_evaluations_are_cut_when_memory_runs_out(torch, path, monkeypatch):
    from scaling_sim_torch import trainer as eager
    from scaling_sim_torch.fast import FastTrainer
    from scaling_sim_torch.stacked import StackedModel

    given = (PLAIN.cohort, PLAIN.splits(), "cpu", "bfloat16")
    trainer = FastTrainer(*given, Plan("stacked", "test")) if path == "stacked" else BACKEND.start(*given)
    expected = trainer.evaluate("test", PLAIN.starts(2))
    owner, name = (StackedModel, "losses") if path == "stacked" else (eager, "position_losses")
    monkeypatch.setattr(owner, name, losses_of_few(1, getattr(owner, name), torch.OutOfMemoryError))
    with pytest.warns(BackendWarning, match="going on with"):
        found = trainer.evaluate("test", PLAIN.starts(2))
    for got, exact in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, exact, rtol=1e-6, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.evaluate("test", PLAIN.starts(2))


def test_the_compiled_path_follows_where_the_work_space_of_kernels_does_not_fit(torch, monkeypatch):
    from scaling_sim_torch.fast import FastTrainer, FusedPath, StackedPath

    def nothing(self, *_, **__):
        raise torch.OutOfMemoryError("no room")

    given = (PLAIN.cohort, PLAIN.splits(), "cpu", "bfloat16")
    monkeypatch.setattr(FusedPath, "_model", nothing)
    monkeypatch.setattr("scaling_sim_torch.fast.stacked_plan", lambda *_: Plan("stacked", "test"))
    for method, arguments, remains in (
        ("advance", (0, *PLAIN.batches(3)), StackedPath),
        ("evaluate", ("test", PLAIN.starts(2)), FusedPath),
        ("gradient_noise", (PLAIN.starts(3, 2),), FusedPath),
    ):
        stacked, fused = (FastTrainer(*given, Plan(path, "test")) for path in ("stacked", "fused"))
        with pytest.warns(BackendWarning, match="going on on the compiled path"):
            found = getattr(fused, method)(*arguments)
        for got, expected in zip(found, getattr(stacked, method)(*arguments), strict=True):
            np.testing.assert_array_equal(got, expected)
        assert isinstance(fused.path, remains), "updates may fit where an evaluation does not"


def test_updates_and_evaluations_have_rooms_of_their_own(torch, monkeypatch):
    from scaling_sim_torch.fast import FastTrainer
    from scaling_sim_torch.stacked import StackedModel

    trainer = FastTrainer(PLAIN.cohort, PLAIN.splits(), "cpu", "bfloat16", Plan("stacked", "test"))
    monkeypatch.setattr(StackedModel, "losses", losses_of_few(1, StackedModel.losses, torch.OutOfMemoryError))
    with pytest.warns(BackendWarning, match="going on with"):
        trainer.evaluate("test", PLAIN.starts(2))
    assert trainer.room_beside.sequences == 1
    assert trainer.room.sequences == PLAIN.cohort.batch_sequences


@pytest.mark.parametrize("failing", [1, 8])
def test_updates_go_on_without_graphs_when_memory_runs_out_while_capturing(torch, monkeypatch, failing):
    from scaling_sim_torch.capture import Replays

    class Graph:
        def __init__(self, size):
            self.size = size

        def replay(self):
            done.extend([True] * self.size)

    def capture(self, size):
        if size == failing:
            raise torch.OutOfMemoryError("no room")
        return Graph(size)

    done = []
    replays = Replays(lambda: done.append(False), torch.device("cuda:0"))
    monkeypatch.setattr(Replays, "_warm_up", lambda self: (self.update(), setattr(self, "warm", True)))
    monkeypatch.setattr(Replays, "_capture", capture)
    with pytest.warns(BackendWarning, match="without graphs"):
        replays.run(21)
    assert len(done) == 21
    assert sum(done) == (16 if failing == 1 else 0)
    replays.run(9)
    assert len(done) == 30
    assert sum(done) == (16 if failing == 1 else 0), "no graph is left"


def test_work_space_of_updates_makes_room_for_an_evaluation(torch, monkeypatch):
    """And is made anew for the next update."""
    from scaling_sim_torch.fast import FastTrainer
    from scaling_sim_torch.stacked import StackedModel

    given = (PLAIN.cohort, PLAIN.splits(), "cpu", "bfloat16", Plan("stacked", "test"))
    trainer, undisturbed = FastTrainer(*given), FastTrainer(*given)
    exact = StackedModel.losses

    def losses(self, *arguments):
        if trainer.replays is not None:
            raise torch.OutOfMemoryError("no room")
        return exact(self, *arguments)

    starts, lr = PLAIN.batches(6)
    trainer.advance(0, starts[:3], lr[:3]), undisturbed.advance(0, starts[:3], lr[:3])
    expected = undisturbed.evaluate("test", PLAIN.starts(2))[0]
    monkeypatch.setattr(StackedModel, "losses", losses)
    with pytest.warns(BackendWarning, match="out of memory"):
        np.testing.assert_allclose(trainer.evaluate("test", PLAIN.starts(2))[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(trainer.advance(3, starts[3:], lr[3:]), undisturbed.advance(3, starts[3:], lr[3:]))


def test_a_trainer_that_nobody_uses_is_gone_at_once(torch):
    """With its memory and its graphs, whose destruction during a later capture would end that."""
    from scaling_sim_torch.fast import FastTrainer

    trainer = FastTrainer(PLAIN.cohort, PLAIN.splits(), "cpu", "bfloat16", Plan("stacked", "test"))
    trainer.advance(0, *PLAIN.batches(3))
    trainer.evaluate("test", PLAIN.starts(2))
    gone = weakref.ref(trainer)
    gc.disable()
    try:
        del trainer
        assert gone() is None
    finally:
        gc.enable()
