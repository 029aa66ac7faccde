"""The CuPy backend's mathematics where there is no card: NumPy stands in for CuPy, and the whole kit runs over it.

What this cannot see are the card's own things: the text of the dropout kernel, cuBLAS, dtype rules that differ between
CuPy and NumPy. The same kit runs on a card in test_cupy.py.
"""

import importlib
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from scaling_sim.engine.conformance import Conformance
from scaling_sim.engine.conformance_cases import DROPOUT
from scaling_sim.engine.philox import keep_threshold, philox4x32

OURS = ("attention", "block", "dropout", "layers", "model", "optimizer", "parameters", "trainer")


class Device:
    mem_info = (2**30, 2**30)

    def __init__(self, index):
        self.index = index

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


def dropout_factors(update, site, num_rows, num_columns, low, high, threshold, scale, factor, *, size):
    """What the dropout kernel computes, with the same arguments, from the engine's Philox."""
    num_blocks = -(-num_columns // 4)
    assert size == len(low) * num_rows * num_blocks
    row, block = np.meshgrid(np.arange(num_rows), np.arange(num_blocks), indexing="ij")
    counter = np.stack([np.full_like(row, int(update[0])), np.full_like(row, site), row, block], -1).astype(np.uint64)
    for member in range(len(low)):
        words = philox4x32(counter, (int(low[member]), int(high[member]))).reshape(num_rows, -1)[:, :num_columns]
        factor[member] = np.where(words >= threshold[member], scale[member], 0)


class NumpyAsCupy(ModuleType):
    """NumPy under the name of CuPy; ``reads`` counts transfers to the host."""

    def __init__(self):
        super().__init__("cupy")
        runtime = SimpleNamespace(getDeviceCount=lambda: 1)
        self.cuda = SimpleNamespace(Device=Device, runtime=runtime)
        self.reads = 0

    def __getattr__(self, name):
        return getattr(np, name)

    def asarray(self, array):
        return np.array(array)

    def asnumpy(self, array):
        self.reads += 1
        return np.array(array)

    def ElementwiseKernel(self, inputs, outputs, body, name):
        assert name == "scaling_sim_dropout_factors"
        return dropout_factors


@pytest.fixture
def cupy(monkeypatch):
    """The stand-in, with our modules imported over it and forgotten afterwards."""
    stand_in = NumpyAsCupy()
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


class TestMathematicsFloat64(TestMathematics):
    precision = "float64"


def test_a_call_reads_the_device_once(cupy):
    from scaling_sim_cupy import BACKEND

    trainer = BACKEND.start(DROPOUT.cohort, DROPOUT.splits())
    before = cupy.reads
    trainer.advance(0, *DROPOUT.batches(5))
    assert cupy.reads == before + 1


def test_retired_members_leave_the_memory(cupy):
    from scaling_sim_cupy import BACKEND

    trainer = BACKEND.start(DROPOUT.cohort, DROPOUT.splits())
    trainer.retire([member.id for member in DROPOUT.cohort.members if member.dropout])
    assert {len(value) for value in trainer.flat.values()} == {1}
    assert trainer.dropout_keys is None, "the member that is left drops nothing"


def test_all_members_may_retire(cupy):
    from scaling_sim_cupy import BACKEND

    trainer = BACKEND.start(DROPOUT.cohort, DROPOUT.splits())
    trainer.retire(trainer.live())
    state, (starts, lr) = trainer.state(), DROPOUT.batches(2)
    assert state["params.qkv"].shape[0] == 0
    assert trainer.advance(0, starts[:, :0], lr[:, :0]).shape == (2, 0)
    trainer.load_state(state)
    assert trainer.live() == ()


def test_a_threshold_beyond_every_word_drops_all(cupy):
    from scaling_sim.engine.cohort import Member
    from scaling_sim_cupy.dropout import Dropout, DropoutKeys

    rate = 1 - 2**-40
    assert keep_threshold(rate) == 2**32, "one more than a 32-bit word holds"
    keys = DropoutKeys.of([Member(id=0, seed=1, dropout=rate)], np.dtype(np.float64))
    factor = Dropout(keys, np.array([3], np.uint32)).factor(site=0, num_rows=4, num_columns=5)
    assert factor.shape == (1, 4, 5)
    assert not factor.any()
