"""What can be said of the CuPy backend without a card.

That the kernels compute the right numbers is checked without a card as well, in test_cupy_mathematics.py; what needs
one stands in test_cupy_card.py and test_cupy_fidelity.py.
"""

import ctypes
import ctypes.util
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

from scaling_sim.engine.cohort import Cohort
from scaling_sim.engine.conformance_cases import DROPOUT, PLAIN
from scaling_sim.engine.registry import backends, get_backend
from scaling_sim.engine.throughput import fastest
from scaling_sim.errors import BackendUnavailable
from scaling_sim.model.shape import Shape
from scaling_sim_cupy import BACKEND
from scaling_sim_cupy.layout import SHARED_BESIDE_CACHE, Layout
from scaling_sim_cupy.limits import MAX_SHARED_BYTES, USABLE_SHARE, required_bytes, why_out_of_range, why_too_large
from scaling_sim_torch import BACKEND as TORCH

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


@pytest.mark.parametrize(
    ("d_model", "n_layer", "exact", "chunks"),
    [
        (64, 2, 0, (128, 256)),
        (64, 4, 0, (64, 128)),
        (48, 2, 0, (96, 256)),
        (64, 2, 1, (64, 128)),
        (32, 2, 0, (64, 128)),
    ],
)
def test_chunks_are_as_large_as_the_first_level_cache_allows(d_model, n_layer, exact, chunks):
    """In bfloat16 and where a CTA has a multiprocessor for itself; with four layers its sums take the room."""
    shape = Shape(n_layer=n_layer, d_model=d_model, n_head=d_model // 16, n_ctx=128)
    layout = Layout(shape, exact)
    assert layout.chunks == chunks
    assert all(width % chunk == 0 for width, chunk in zip((shape.d_ff, shape.vocab_size), chunks, strict=True))
    assert chunks[1] == 128 or layout.shared_bytes <= SHARED_BESIDE_CACHE


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


def test_a_cohort_goes_to_the_backend_that_was_measured_faster():
    """Over every cohort that both were measured with; the smallest models are ours."""
    others = {(row.shape, row.members, row.batch_sequences, row.precision): row for row in TORCH.measured()}
    won = set()
    for row in BACKEND.measured():
        other = others.get((row.shape, row.members, row.batch_sequences, row.precision))
        if other is None:
            continue
        members = tuple(msgspec.structs.replace(PLAIN.cohort.members[0], id=i) for i in range(row.members))
        cohort = Cohort(shape=row.shape, batch_sequences=row.batch_sequences, members=members)
        faster = BACKEND if row.tokens_per_second > other.tokens_per_second else TORCH
        assert fastest([BACKEND, TORCH], cohort, row.precision)[0] is faster
        won |= {(row.shape.d_model, row.members, row.precision)} if faster is BACKEND else set()
    assert won >= {(16, members, precision) for members in (1, 64) for precision in ("bfloat16", "float32")}


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


def nvrtc():
    """NVRTC, which comes with the CUDA toolkit and as a Python package; None where neither is."""
    name = ctypes.util.find_library("nvrtc")
    packaged = [path for folder in sys.path for path in Path(folder).glob("nvidia/*/lib/libnvrtc.so.*")]
    if name is None and not packaged:
        return None
    return ctypes.CDLL(str(packaged[0]) if packaged else name)


@pytest.mark.slow
@pytest.mark.skipif(nvrtc() is None, reason="NVRTC compiles the kernels")
@pytest.mark.parametrize("exact", [0, 1])
def test_kernels_compile_as_cupy_compiles_them(exact, compiler):
    library = nvrtc()
    options = compiler.options(Layout(PLAIN.cohort.shape, exact), "uint8", dropout=True)
    encoded = [option.encode() for option in (*options, "-default-device", "-arch=sm_90")]
    for part in compiler.PARTS:
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        library.nvrtcCreateProgram(ctypes.byref(program), compiler.source(part).encode(), b"part.cu", 0, None, None)
        failed = library.nvrtcCompileProgram(program, len(encoded), (ctypes.c_char_p * len(encoded))(*encoded))
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, log)
        assert not failed, log.value.decode()
