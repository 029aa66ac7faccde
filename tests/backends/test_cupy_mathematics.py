"""The CuPy backend where there is no card: g++ compiles the kernels' own text, NumPy stands in for CuPy's arrays, and
the whole kit runs over it. ``cuda_on_cpu.hpp`` says what is emulated.

What this cannot see are the card's own things: NVRTC, the tensor cores' rounding, races between warps that the order
of the emulation does not bring out. The same kit runs on a card in test_cupy_card.py.
"""

import ctypes
import hashlib
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import msgspec
import numpy as np
import pytest

from scaling_sim.engine.cohort import Cohort, Member
from scaling_sim.engine.conformance import Conformance
from scaling_sim.engine.conformance_cases import DROPOUT, PLAIN, Case, reference_trainer
from scaling_sim.engine.conformance_harness import check_close, check_equal
from scaling_sim.engine.philox import keep_threshold
from scaling_sim.model.shape import Shape
from scaling_sim_cupy import BACKEND, CupyBackend

OURS = ("compiler", "dropout", "engine", "optimizer", "trainer")
HEADER = Path(__file__).with_name("cuda_on_cpu.hpp")
LIBRARIES = {}

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ compiles the kernels for the emulation")


class Context:
    """A device: something to enter."""

    mem_info = (2**33, 2**33)

    def __init__(self, *index, **settings):
        self.attributes = {"MultiProcessorCount": 2}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


class Stream(Context):
    """A stream whose graphs are lists of launches: arguments stay those of the capture."""

    captured = None

    def begin_capture(self):
        Stream.captured = []

    def end_capture(self):
        launches, Stream.captured = Stream.captured, None
        return SimpleNamespace(launch=lambda stream: [launch() for launch in launches])


class Kernel:
    """A kernel of an emulated module, called as CuPy calls one."""

    def __init__(self, function):
        self._function = function

    def __call__(self, grid, block, arguments, shared_mem=0):
        if Stream.captured is not None:
            Stream.captured.append(lambda: self._launch(grid, block, arguments))
        else:
            self._launch(grid, block, arguments)

    def _launch(self, grid, block, arguments):
        for one in arguments:
            assert not isinstance(one, np.ndarray) or one.flags.c_contiguous
        values = [
            ctypes.c_void_p(one.ctypes.data)
            if isinstance(one, np.ndarray)
            else np.ctypeslib.as_ctypes_type(one.dtype)(one.item())
            for one in arguments
        ]
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        self._function(grid[0], grid[1], block[0], addresses)


class EmulatedModule:
    """`cupy.RawModule` over g++; compiled once per session."""

    def __init__(self, code, options, folder):
        name = hashlib.sha256((code + repr(options)).encode()).hexdigest()[:16]
        if name not in LIBRARIES:
            kernels = re.findall(r'extern "C" __global__ void __launch_bounds__\([^)]*\) (\w+)\(', code)
            text = code.replace("extern __shared__ __align__(16) unsigned char shared_bytes[];", "")
            launchers = "".join(f"LAUNCHER({kernel})\n" for kernel in kernels)
            source = folder / f"{name}.cpp"
            source.write_text(f'#include "{HEADER}"\n{text}\n{launchers}')
            flags = ["-O1", "-fno-strict-aliasing", "-w", "-shared", "-fPIC"]
            command = ["g++", *options, *flags, str(source), "-o", str(folder / f"{name}.so")]
            built = subprocess.run(command, capture_output=True, text=True, check=False)
            assert built.returncode == 0, built.stderr[:3000]
            LIBRARIES[name] = ctypes.CDLL(str(folder / f"{name}.so"))
        self._library = LIBRARIES[name]

    def get_function(self, name):
        return Kernel(getattr(self._library, f"launch_{name}"))


class NumpyAsCupy(ModuleType):
    """NumPy under the name of CuPy; ``reads`` counts transfers to the host."""

    def __init__(self, folder):
        super().__init__("cupy")
        runtime = SimpleNamespace(getDeviceCount=lambda: 1)
        self.cuda = SimpleNamespace(Device=Context, Stream=Stream, runtime=runtime)
        self.folder = folder
        self.reads = 0

    def __getattr__(self, name):
        return getattr(np, name)

    def RawModule(self, code, options):
        return EmulatedModule(code, options, self.folder)

    def asarray(self, array):
        return np.array(array)

    def asnumpy(self, array):
        self.reads += 1
        return np.array(array)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def cupy(monkeypatch, folder):
    """The stand-in, with our modules imported over it and forgotten afterwards."""
    stand_in = NumpyAsCupy(folder)
    monkeypatch.setitem(sys.modules, "cupy", stand_in)
    package = importlib.import_module("scaling_sim_cupy")
    names = [f"scaling_sim_cupy.{name}" for name in OURS]
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.delattr(package, name.rpartition(".")[2], raising=False)
    with np.errstate(all="ignore"):
        yield stand_in
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("cupy")
class TestMathematics(Conformance):
    backend = "cupy"
    device = "cuda:0"


@pytest.mark.slow
class TestMathematicsBfloat16(TestMathematics):
    precision = "bfloat16"


SEVERAL_WARPS = Case(
    "three warps, several chunks, padding everywhere",
    Cohort(
        shape=Shape(n_layer=2, d_model=34, n_head=2, n_ctx=40, vocab_size=150),
        batch_sequences=3,
        members=(Member(id=0, seed=3, dropout=0.1), Member(id=1, seed=2**40)),
    ),
)


def small_random_state(case):
    """Weights far enough from zero that no gradient is negligible, and near enough that bfloat16 resolves the loss."""
    state = case.random_state(np.float64)
    small = {name: 0.5 * value for name, value in state.items() if name.startswith("params") and "gain" not in name}
    return state | small


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize(
    ("precision", "tensor_cores", "tolerance"),
    [
        ("float32", True, 1e-5),
        pytest.param("float32", False, 1e-5, marks=pytest.mark.slow),
        ("bfloat16", True, 0.03),
    ],
)
def test_several_warps(precision, tensor_cores, tolerance):
    """Gradients (through the first moment) and losses where a sequence spans warps and matrices span chunks."""
    case, state = SEVERAL_WARPS, small_random_state(SEVERAL_WARPS)
    reference, trainer = (
        reference_trainer(case),
        CupyBackend(tensor_cores).start(case.cohort, case.splits(), "cuda:0", precision),
    )
    reference.load_state(state)
    trainer.load_state(state)
    losses, expected = (one.advance(4, *case.batches(1)) for one in (trainer, reference))
    check_close("losses", losses, expected, tolerance)
    got, truth = trainer.state(), reference.state()
    for name in case.cohort.shape.parameter_shapes():
        bound = tolerance * np.abs(truth[f"adam_m.{name}"]).max()
        check_close(f"adam_m.{name}", got[f"adam_m.{name}"], truth[f"adam_m.{name}"], bound)
    mean, expected = (one.evaluate("test", case.starts(2))[0] for one in (trainer, reference))
    check_close("mean loss per position", mean, expected, tolerance)


def test_a_graph_changes_nothing(cupy, monkeypatch):
    """Many updates go through a graph that is launched again and again, few do not: the same bits."""
    from scaling_sim_cupy import trainer as module

    starts, lr = PLAIN.batches(7)
    plain = BACKEND.start(PLAIN.cohort, PLAIN.splits(), "cuda:0")
    expected = plain.advance(0, starts, lr)
    monkeypatch.setattr(module, "FEWEST_UPDATES", 6)
    monkeypatch.setattr(module, "UPDATES_PER_GRAPH", 3)
    graphs = BACKEND.start(PLAIN.cohort, PLAIN.splits(), "cuda:0")
    check_equal("losses", graphs.advance(0, starts, lr), expected)
    check_equal("state", graphs.state(), plain.state())


def test_a_call_reads_the_device_once(cupy):
    trainer = BACKEND.start(DROPOUT.cohort, DROPOUT.splits(), "cuda:0")
    before = cupy.reads
    trainer.advance(0, *DROPOUT.batches(5))
    assert cupy.reads == before + 1


@pytest.mark.usefixtures("cupy")
def test_retired_members_leave_the_memory():
    trainer = BACKEND.start(DROPOUT.cohort, DROPOUT.splits(), "cuda:0")
    trainer.retire([member.id for member in DROPOUT.cohort.members if member.dropout])
    engine = trainer.engine
    assert {len(value) for value in (*engine.flat.values(), engine.packed_MP, engine.grad_MP, engine.healthy_M)} == {1}


@pytest.mark.usefixtures("cupy")
def test_all_members_may_retire():
    trainer = BACKEND.start(DROPOUT.cohort, DROPOUT.splits(), "cuda:0")
    trainer.retire(trainer.live())
    state, (starts, lr) = trainer.state(), DROPOUT.batches(2)
    assert state["params.qkv"].shape[0] == 0
    assert trainer.advance(0, starts[:, :0], lr[:, :0]).shape == (2, 0)
    mean, error = trainer.evaluate("test", np.zeros((0, 2, 4), np.int64))
    assert mean.shape == (0, DROPOUT.cohort.shape.n_ctx)
    assert error.shape == (0,)
    trainer.load_state(state)
    assert trainer.live() == ()


@pytest.mark.usefixtures("cupy")
def test_a_threshold_beyond_every_word_drops_all():
    """At a rate of 1 − 2⁻⁴⁰ the threshold is one more than a 32-bit word holds; nothing is left but the biases."""
    rate = 1 - 2**-40
    assert keep_threshold(rate) == 2**32
    member = msgspec.structs.replace(PLAIN.cohort.members[0], dropout=rate)
    cohort = msgspec.structs.replace(PLAIN.cohort, members=(member,))
    (starts, lr), losses = PLAIN.batches(1), BACKEND.start(cohort, PLAIN.splits(), "cuda:0")
    np.testing.assert_allclose(losses.advance(0, starts[:, :1], lr[:, :1]), np.log(17), rtol=1e-6)


def test_launches_of_a_few_members_change_nothing(cupy, monkeypatch):
    """Two members and one, each launch over the same memory: the same bits as all three together, graphs included."""
    from scaling_sim_cupy import engine
    from scaling_sim_cupy import trainer as module

    starts, lr = DROPOUT.batches(7)
    together = BACKEND.start(DROPOUT.cohort, DROPOUT.splits(), "cuda:0")
    expected = together.advance(0, starts, lr)
    monkeypatch.setattr(engine, "members_at_once", lambda num_members, num_sequences: 2)
    monkeypatch.setattr(engine, "ctas_per_member", lambda *sizes: together.engine.work_for(starts.shape[2]).num_ctas)
    monkeypatch.setattr(module, "FEWEST_UPDATES", 6)
    monkeypatch.setattr(module, "UPDATES_PER_GRAPH", 3)
    apart = BACKEND.start(DROPOUT.cohort, DROPOUT.splits(), "cuda:0")
    check_equal("losses", apart.advance(0, starts, lr), expected)
    check_equal("state", apart.state(), together.state())
    noise = DROPOUT.starts(3, 2)
    for got, wanted in zip(apart.gradient_noise(noise), together.gradient_noise(noise), strict=True):
        check_equal("gradient noise", got, wanted)
    assert len(apart.engine.work_for(noise.shape[2]).results) == 2


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize(
    ("members", "sequences", "slots", "at_once", "ctas"),
    [(1, 64, 132, 1, 64), (64, 64, 264, 64, 16), (512, 64, 132, 64, 16), (3, 4, 264, 3, 4), (3000, 1, 264, 1000, 1)],
)
def test_launches_fill_the_card_and_leave_the_cache_its_weights(members, sequences, slots, at_once, ctas):
    from scaling_sim_cupy.engine import ctas_per_member, members_at_once

    assert members_at_once(members, sequences) == at_once
    assert ctas_per_member(at_once, sequences, slots) == ctas
