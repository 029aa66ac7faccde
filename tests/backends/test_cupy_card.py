"""The CuPy backend on a card: the conformance kit in both precisions, and what only a card can show."""

import msgspec
import numpy as np
import pytest

from scaling_sim.engine.conformance import Conformance
from scaling_sim.engine.conformance_cases import DROPOUT, PLAIN
from scaling_sim.model.shape import Shape
from scaling_sim_cupy import BACKEND, CupyBackend
from scaling_sim_cupy.layout import Layout
from scaling_sim_cupy.limits import USABLE_SHARE, required_bytes
from tests.backends.cupy_card import OnACard


@pytest.mark.gpu
@pytest.mark.cupy
class TestCupy(OnACard, Conformance):
    backend = "cupy"
    device = "cuda:0"


@pytest.mark.gpu
@pytest.mark.cupy
class TestCupyBfloat16(TestCupy):
    precision = "bfloat16"


@pytest.mark.gpu
@pytest.mark.cupy
class TestOnTheCard(OnACard):
    @pytest.mark.parametrize("size", [(1, 16, 1), (2, 32, 2), (2, 64, 2)])
    def test_split_tf32_is_float32(self, size):
        """One update of a real size: tensor cores against plain float32 multiply-adds of the same source."""
        n_layer, d_model, n_head = size
        shape = Shape(n_layer=n_layer, d_model=d_model, n_head=n_head, n_ctx=128)
        cohort = msgspec.structs.replace(DROPOUT.cohort, shape=shape)
        tokens = np.random.default_rng(0).integers(0, 256, 5000).astype(np.uint8)
        starts = np.random.default_rng(1).integers(0, 4800, (1, 3, 4))
        states = []
        for tensor_cores in (True, False):
            trainer = CupyBackend(tensor_cores).start(cohort, {"train": tokens})
            losses = trainer.advance(0, starts, np.full((1, 3), 1e-3))
            states.append(trainer.state() | {"losses": losses})
        np.testing.assert_allclose(states[0]["losses"], states[1]["losses"], atol=2e-6)
        for name in shape.parameter_shapes():
            got, expected = (state[f"adam_m.{name}"] for state in states)
            assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max(), name

    def test_an_update_never_waits_for_the_host(self):
        """Updates are queued behind a kernel that spins for a second; the host is through before it ends."""
        import cupy

        spin = cupy.RawKernel(
            'extern "C" __global__ void spin(long long cycles)'
            "{ const long long start = clock64(); while (clock64() - start < cycles) {} }",
            "spin",
        )
        trainer, (starts, lr) = BACKEND.start(DROPOUT.cohort, DROPOUT.splits()), DROPOUT.batches(4)
        with trainer.device, trainer.stream:
            batch = trainer.placed(0, starts, lr)
            spin((1,), (1,), (np.int64(1),))  # kernels are compiled and the memory pool is filled on the first use
            trainer.queue(batch, 2)
            trainer.stream.synchronize()
            spin((1,), (1,), (np.int64(2_000_000_000),))
            gate = cupy.cuda.Event()
            gate.record(trainer.stream)
            trainer.queue(batch, 2)
            assert not gate.done, "an update waited for the device"
            assert np.isfinite(cupy.asnumpy(batch.losses_KM)).all()
            assert gate.done, "reading must wait, or the spinning kernel proves nothing"

    def test_all_members_may_retire(self):
        trainer = BACKEND.start(DROPOUT.cohort, DROPOUT.splits())
        trainer.retire(trainer.live())
        assert trainer.live() == ()
        assert trainer.state()["params.qkv"].shape[0] == 0
        starts, lr = DROPOUT.batches(2)
        assert trainer.advance(0, starts[:, :0], lr[:, :0]).shape == (2, 0)

    @pytest.mark.parametrize("num_members", [1, 64])
    def test_memory_estimate_is_an_upper_bound(self, num_members):
        import cupy

        shape = Shape(n_layer=2, d_model=32, n_head=2, n_ctx=128)
        members = tuple(msgspec.structs.replace(PLAIN.cohort.members[0], id=i) for i in range(num_members))
        cohort = msgspec.structs.replace(PLAIN.cohort, shape=shape, batch_sequences=64, members=members)
        pool = cupy.get_default_memory_pool()
        pool.free_all_blocks()
        before = pool.used_bytes()
        trainer = BACKEND.start(cohort, PLAIN.splits())
        trainer.advance(0, np.zeros((2, num_members, 64), np.int64), np.full((2, num_members), 1e-3))
        assert pool.used_bytes() - before < required_bytes(cohort, Layout(shape, 1)) / USABLE_SHARE

    def test_record_names_the_card(self):
        described = BACKEND.describe()
        assert set(described) == {"cupy", "cuda", "card"}
        assert all(described.values())
