"""What can be said of the CuPy backend without a card, and the conformance kit on one."""

import math
import os
import subprocess
import sys
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from scaling_sim.engine.conformance import Conformance
from scaling_sim.engine.conformance_cases import DROPOUT, PLAIN
from scaling_sim.engine.philox import dropout_mask
from scaling_sim.engine.registry import backends, get_backend
from scaling_sim.errors import BackendUnavailable
from scaling_sim_cupy import BACKEND
from scaling_sim_cupy.memory import USABLE_SHARE, required_bytes, why_too_large

GIB = 2**30


def fake_cupy(*, devices=1, total_bytes=GIB, error=None):
    """As much of CuPy as the backend asks before it computes."""

    def count():
        if error is not None:
            raise error
        return devices

    device = SimpleNamespace(mem_info=(total_bytes // 2, total_bytes))
    return SimpleNamespace(cuda=SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=count), Device=lambda _: device))


@pytest.fixture
def card(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(devices=2))


# Without a card.


def test_package_is_listed_without_importing_cupy():
    code = "import sys, scaling_sim_cupy; scaling_sim_cupy.BACKEND.name; sys.exit('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_missing_cupy_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "scaling-sim[cupy]" in BACKEND.why_unavailable()
    assert BACKEND.devices() == []
    (info,) = [info for info in backends() if info.name == "cupy"]
    assert not info.available
    assert "scaling-sim[cupy]" in info.reason
    with pytest.raises(BackendUnavailable, match=r"scaling-sim\[cupy\]"):
        get_backend("cupy")


def test_start_without_cupy_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(BackendUnavailable, match=r"scaling-sim\[cupy\]"):
        BACKEND.start(PLAIN.cohort, PLAIN.splits())


def test_a_broken_cupy_is_not_called_missing(monkeypatch, tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('libnvrtc.so.13:\\n not found')")
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    reason = BACKEND.why_unavailable()
    assert "installed but cannot be loaded (libnvrtc.so.13: not found)" in reason
    assert "cupy-cuda12" in reason


@pytest.mark.parametrize("cupy", [fake_cupy(devices=0), fake_cupy(error=RuntimeError("cudaErrorNoDevice"))])
def test_no_device_is_said(monkeypatch, cupy):
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert "no CUDA device" in BACKEND.why_unavailable()
    assert "no CUDA device" in BACKEND.why_unsupported(PLAIN.cohort, "cuda:0", "float32")
    assert BACKEND.devices() == []


@pytest.mark.usefixtures("card")
def test_devices_are_counted():
    assert BACKEND.devices() == ["cuda:0", "cuda:1"]
    for device in ("cuda", "cuda:0", "cuda:1"):
        for precision in ("float32", "float64"):
            assert BACKEND.why_unsupported(PLAIN.cohort, device, precision) is None


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("device", ["cpu", "cuda:2", "cuda:x", "abacus:0"])
def test_other_devices_are_refused_by_name(device):
    assert repr(device) in BACKEND.why_unsupported(PLAIN.cohort, device, "float32")


@pytest.mark.usefixtures("card")
def test_bfloat16_is_refused_with_the_way_out():
    reason = BACKEND.why_unsupported(PLAIN.cohort, "cuda:0", "bfloat16")
    assert "'bfloat16'" in reason
    assert "'torch'" in reason


@pytest.mark.usefixtures("card")
def test_vocabulary_times_batch_beyond_the_card_is_refused():
    shape = msgspec.structs.replace(PLAIN.cohort.shape, vocab_size=50_000)
    cohort = msgspec.structs.replace(PLAIN.cohort, shape=shape, batch_sequences=64)
    reason = BACKEND.why_unsupported(cohort, "cuda:0", "float32")
    assert "vocabulary 50000" in reason
    assert "3 members × 512 tokens" in reason
    assert "has 1.0 GiB" in reason
    assert BACKEND.why_unsupported(msgspec.structs.replace(cohort, batch_sequences=1), "cuda:0", "float32") is None


def test_memory_grows_with_members_batch_and_precision():
    cohort = DROPOUT.cohort
    needed = required_bytes(cohort, 4)
    assert required_bytes(cohort, 8) == 2 * needed
    alone = msgspec.structs.replace(cohort, members=cohort.members[:1])
    assert len(cohort.members) * required_bytes(alone, 4) == needed
    assert why_too_large(cohort, 4, math.ceil(needed / USABLE_SHARE) + 1, "cuda:0") is None
    assert "cuda:0" in why_too_large(cohort, 4, needed, "cuda:0")
    rows = cohort.shape.n_ctx
    larger = msgspec.structs.replace(cohort, batch_sequences=cohort.batch_sequences + 1)
    logits_bytes = len(cohort.members) * rows * cohort.shape.vocab_size * 4
    assert required_bytes(larger, 4) - needed > logits_bytes


# On a card.


class OnACard:
    """Skips, or fails if SCALING_SIM_REQUIRE_BACKENDS names cupy, where there is none."""

    @pytest.fixture(autouse=True)
    def required(self):
        reason = BACKEND.why_unavailable()
        if reason is None:
            return
        if "cupy" in os.environ.get("SCALING_SIM_REQUIRE_BACKENDS", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.mark.gpu
@pytest.mark.cupy
class TestCupy(OnACard, Conformance):
    backend = "cupy"
    device = "cuda:0"


@pytest.mark.gpu
@pytest.mark.cupy
class TestCupyFloat64(TestCupy):
    precision = "float64"


@pytest.mark.gpu
@pytest.mark.cupy
class TestOnTheCard(OnACard):
    def test_masks_equal_numpys(self):
        import cupy

        from scaling_sim.engine.cohort import Member
        from scaling_sim_cupy.dropout import Dropout, DropoutKeys

        rates, seeds = (0.1, 0.0, 0.5, 0.999), (0, 7, 2**32 - 1, 2**63 + 12345)
        members = [Member(id=i, seed=seeds[i], dropout=rates[i]) for i in range(4)]
        for dtype in (np.float32, np.float64):
            keys = DropoutKeys.of(members, np.dtype(dtype))
            for update in (1, 2**32 - 1):
                dropout = Dropout(keys, cupy.asarray(np.array([update], np.uint32)))
                for site, columns in ((0, 8), (5, 7), (2, 1)):
                    factor = cupy.asnumpy(dropout.factor(site, 33, columns))
                    masks = [dropout_mask(one.seed, update, site, 33, columns, one.dropout) for one in members]
                    scales = np.array([1 / (1 - rate) for rate in rates], dtype)[:, None, None]
                    assert np.array_equal(factor, np.stack(masks) * scales)

    def test_an_update_never_waits_for_the_host(self):
        """Updates are queued behind a kernel that spins for a second; the host is through before it ends."""
        import cupy

        from scaling_sim_cupy.optimizer import Schedule

        spin = cupy.RawKernel(
            'extern "C" __global__ void spin(long long cycles)'
            "{ const long long start = clock64(); while (clock64() - start < cycles) {} }",
            "spin",
        )
        trainer, (starts, lr) = BACKEND.start(DROPOUT.cohort, DROPOUT.splits()), DROPOUT.batches(4)
        schedule, placed = Schedule.of(trainer.cohort, 0, lr, trainer.dtype), cupy.asarray(starts)
        spin((1,), (1,), (np.int64(1),))  # kernels are compiled and the memory pool is filled on the first use
        for step in range(2):
            trainer.update(step, placed[step], schedule)
        cupy.cuda.Device().synchronize()
        spin((1,), (1,), (np.int64(2_000_000_000),))
        gate = cupy.cuda.Event()
        gate.record()
        for step in (2, 3):
            losses = trainer.update(step, placed[step], schedule)
        assert not gate.done, "an update waited for the device"
        assert np.isfinite(cupy.asnumpy(losses)).all()
        assert gate.done, "reading must wait, or the spinning kernel proves nothing"

    def test_more_sequences_than_a_grid_axis(self):
        shape = msgspec.structs.replace(PLAIN.cohort.shape, n_layer=1)
        cohort = msgspec.structs.replace(PLAIN.cohort, shape=shape, batch_sequences=35000)
        starts, lr = np.random.default_rng(0).integers(0, 600, (2, 3, 35000)), np.full((2, 3), 0.01)
        large = BACKEND.start(cohort, PLAIN.splits()).advance(0, starts, lr)
        precise = BACKEND.start(cohort, PLAIN.splits(), precision="float64").advance(0, starts, lr)
        np.testing.assert_allclose(large, precise, atol=1e-5)

    def test_all_members_may_retire(self):
        trainer = BACKEND.start(DROPOUT.cohort, DROPOUT.splits())
        trainer.retire(trainer.live())
        assert trainer.live() == ()
        assert trainer.state()["params.qkv"].shape[0] == 0
        starts, lr = DROPOUT.batches(2)
        assert trainer.advance(0, starts[:, :0], lr[:, :0]).shape == (2, 0)

    def test_memory_estimate_is_an_upper_bound(self):
        import cupy

        shape = msgspec.structs.replace(PLAIN.cohort.shape, n_ctx=64, d_model=64, d_ff=256, vocab_size=512)
        for n_layer in (1, 4):
            layered = msgspec.structs.replace(shape, n_layer=n_layer)
            cohort = msgspec.structs.replace(DROPOUT.cohort, shape=layered, batch_sequences=32)
            tokens = (np.arange(5000) % 512).astype(np.uint16)
            starts = np.random.default_rng(0).integers(0, 4900, (2, 3, 32))
            trainer = BACKEND.start(cohort, {"train": tokens})
            pool = cupy.get_default_memory_pool()
            pool.free_all_blocks()
            trainer.advance(0, starts, np.full((2, 3), 1e-3))
            assert pool.total_bytes() < required_bytes(cohort, 4) / USABLE_SHARE

    def test_record_names_the_card(self):
        described = BACKEND.describe()
        assert set(described) == {"cupy", "cuda", "card"}
        assert all(described.values())
