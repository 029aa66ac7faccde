"""The CuPy backend where there is no card: g++ compiles the kernels' own text, NumPy stands in for CuPy's arrays, and
the whole kit runs over it. ``cuda_on_cpu.hpp`` says what is emulated.

What this cannot see are the card's own things: NVRTC, the tensor cores' rounding, races between warps that the order
of the emulation does not bring out. The same kit runs on a card in test_cupy.py.
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

import numpy as np
import pytest

from scaling_sim.engine.conformance import Conformance

OURS = ("compiler", "dropout", "engine", "optimizer", "trainer")
HEADER = Path(__file__).with_name("cuda_on_cpu.hpp")
LIBRARIES = {}

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ compiles the kernels for the emulation")


class Context:
    """A device or a stream: something to enter."""

    mem_info = (2**33, 2**33)
    attributes = {"MultiProcessorCount": 2}

    def __init__(self, *index, **settings):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


class Kernel:
    """A kernel of an emulated module, called as CuPy calls one."""

    def __init__(self, function):
        self._function = function

    def __call__(self, grid, block, arguments, shared_mem=0):
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
            command = ["g++", *options, "-O1", "-w", "-shared", "-fPIC", str(source), "-o", str(folder / f"{name}.so")]
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
        self.cuda = SimpleNamespace(Device=Context, Stream=Context, runtime=runtime)
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


class TestMathematicsBfloat16(TestMathematics):
    precision = "bfloat16"
