"""What can be said of the CuPy backend without a card, and the conformance kit on one.

That the kernels compute the right numbers is checked without a card as well, in test_cupy_mathematics.py.
"""

import importlib
import math
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import msgspec
import numpy as np
import pytest

from scaling_sim.engine.conformance import Conformance
from scaling_sim.engine.conformance_cases import DROPOUT, PLAIN
from scaling_sim.engine.registry import backends, get_backend
from scaling_sim.errors import BackendUnavailable
from scaling_sim.model.shape import Shape
from scaling_sim_cupy import BACKEND, CupyBackend
from scaling_sim_cupy.layout import Layout
from scaling_sim_cupy.limits import MAX_SHARED_BYTES, USABLE_SHARE, required_bytes, why_out_of_range, why_too_large
from tests.backends.cupy_card import OnACard

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
        for precision in ("float32", "bfloat16"):
            assert BACKEND.why_unsupported(PLAIN.cohort, device, precision) is None


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("device", ["cpu", "cuda:2", "cuda:x", "abacus:0"])
def test_other_devices_are_refused_by_name(device):
    assert repr(device) in BACKEND.why_unsupported(PLAIN.cohort, device, "float32")


@pytest.mark.usefixtures("card")
def test_float64_is_refused_with_the_way_out():
    reason = BACKEND.why_unsupported(PLAIN.cohort, "cuda:0", "float64")
    assert "'float64'" in reason
    assert "'torch'" in reason


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"d_model": 96, "d_ff": 384}, "d_model must be at most 64, got 96"),
        ({"d_model": 64, "n_head": 8}, "padded width of all heads must be at most 64, got 128"),
        ({"n_ctx": 512}, "n_ctx must be at most 256, got 512"),
        ({"vocab_size": 50257}, "vocab_size must be at most 1024, got 50257"),
        ({"n_ctx": 256, "d_model": 64}, "take a shorter context than 256, bfloat16 or backend 'torch'"),
    ],
)
def test_shapes_out_of_range_are_refused_by_number(changes, said):
    cohort = msgspec.structs.replace(PLAIN.cohort, shape=msgspec.structs.replace(PLAIN.cohort.shape, **changes))
    reason = BACKEND.why_unsupported(cohort, "cuda:0", "float32")
    assert said in reason
    assert "'torch'" in reason
    with pytest.raises(BackendUnavailable, match="'cupy'"):
        BACKEND.start(cohort, PLAIN.splits(), "cuda:0")


@pytest.mark.parametrize("exact", [0, 1])
@pytest.mark.parametrize("size", [(1, 16, 1), (2, 32, 2), (2, 64, 2)])
def test_the_first_decades_of_a_law_are_in_range(size, exact):
    n_layer, d_model, n_head = size
    layout = Layout(Shape(n_layer=n_layer, d_model=d_model, n_head=n_head, n_ctx=128), exact)
    assert why_out_of_range(layout) is None
    assert layout.shared_bytes <= MAX_SHARED_BYTES
    assert layout.resident >= 1


def test_512_models_of_a_hundred_thousand_parameters_fit_in_4_gib():
    shape = Shape(n_layer=2, d_model=64, n_head=2, n_ctx=128)
    members = tuple(msgspec.structs.replace(PLAIN.cohort.members[0], id=i) for i in range(512))
    cohort = msgspec.structs.replace(PLAIN.cohort, shape=shape, batch_sequences=64, members=members)
    assert required_bytes(cohort, Layout(shape, 0)) < 4 * GIB


def test_more_members_than_the_card_holds_are_refused():
    cohort, layout = DROPOUT.cohort, Layout(DROPOUT.cohort.shape, 1)
    needed = required_bytes(cohort, layout)
    assert why_too_large(cohort, layout, math.ceil(needed / USABLE_SHARE) + 1, "cuda:0") is None
    reason = why_too_large(cohort, layout, needed, "cuda:0")
    assert f"3 members of {layout.num_parameters} parameters" in reason
    assert "cuda:0" in reason


@pytest.mark.parametrize(
    "shape",
    [
        PLAIN.cohort.shape,
        Shape(n_layer=3, d_model=12, n_head=3, n_ctx=20, vocab_size=300, d_ff=20),
        Shape(n_layer=0, d_model=8, n_head=2, n_ctx=5, vocab_size=17),
    ],
)
def test_every_parameter_has_places_of_its_own(shape):
    """Packed arrays hold each parameter where nobody else is: gradients once, operands once per orientation."""
    layout = Layout(shape, 0)
    results, (forward, backward) = layout.result_positions(), layout.operand_positions()
    assert len(np.unique(results)) == len(results) == layout.num_parameters
    assert results.min() >= 0
    assert results.max() < layout.results_size
    operands = np.concatenate([forward[forward >= 0], backward[backward >= 0]])
    assert len(np.unique(operands)) == len(operands)
    assert operands.max() < layout.packed_size
    matrices = sum(math.prod(shape.parameter_shapes()[name]) for name in ("qkv", "attn_out", "mlp_up", "mlp_down"))
    assert 2 * (matrices + shape.vocab_size * shape.d_model) == len(operands)
    np.testing.assert_array_equal(forward >= 0, backward >= 0)


@pytest.fixture
def compiler(monkeypatch):
    """The module, over a CuPy that has nothing."""
    name = "scaling_sim_cupy.compiler"
    monkeypatch.setitem(sys.modules, "cupy", ModuleType("cupy"))
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module(name)
    monkeypatch.delitem(sys.modules, name)


def test_the_folder_of_kernels_is_what_is_compiled(compiler):
    """And part of the package, so that a wheel (pyproject.toml: all of backends/) carries it."""
    folder = Path(compiler.__file__).parent / "kernels"
    assert {path.stem for path in folder.glob("*.cu")} == {name for names in compiler.PARTS.values() for name in names}
    for part, kernels in compiler.KERNELS.items():
        assert all(f" {kernel}(" in compiler.source(part) for kernel in kernels)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc compiles the kernels")
@pytest.mark.parametrize("exact", [0, 1, 2])
def test_kernels_compile_for_a_card(exact, tmp_path, compiler):
    """For Hopper, with dropout, within the registers of a multiprocessor; needs the compiler, not the card."""
    options = compiler.options(Layout(PLAIN.cohort.shape, exact), "uint8", dropout=True)
    for part in compiler.PARTS:
        text = tmp_path / f"{part}.cu"
        text.write_text(compiler.source(part))
        command = ["nvcc", *options, "-arch=sm_90", "-cubin", "-o", str(tmp_path / f"{part}.cubin"), str(text)]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        assert built.returncode == 0, built.stderr


# On a card.


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
