"""The conformance kit over every backend of ours.

A backend that cannot be imported is skipped with its reason; the names in the environment variable
SCALING_SIM_REQUIRE_BACKENDS (``numba,torch``) turn that skip into a failure.
"""

import os

import pytest

from scaling_sim.engine.conformance import Conformance
from scaling_sim.engine.registry import OWN_BACKENDS, get_backend
from scaling_sim.errors import BackendUnavailable
from scaling_sim_torch import TorchBackend


def require(name):
    """Skip, or fail if the environment demands it, when a backend does not work here."""
    try:
        get_backend(name)
    except BackendUnavailable as error:
        if name in os.environ.get("SCALING_SIM_REQUIRE_BACKENDS", "").split(","):
            pytest.fail(str(error))
        pytest.skip(str(error))


def require_cuda():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("this PyTorch sees no CUDA device")


def test_a_required_backend_fails_instead_of_being_skipped(monkeypatch):
    monkeypatch.setitem(OWN_BACKENDS, "numba", "a_package_that_is_missing:BACKEND")
    monkeypatch.setenv("SCALING_SIM_REQUIRE_BACKENDS", "torch,numba")
    with pytest.raises(pytest.fail.Exception, match="a_package_that_is_missing"):
        require("numba")
    monkeypatch.delenv("SCALING_SIM_REQUIRE_BACKENDS")
    with pytest.raises(pytest.skip.Exception, match="a_package_that_is_missing"):
        require("numba")


class TestNumpy(Conformance):
    backend = "numpy"


class TestNumpyFloat64(Conformance):
    backend = "numpy"
    precision = "float64"


@pytest.mark.numba
class TestNumba(Conformance):
    backend = "numba"

    @pytest.fixture(autouse=True)
    def required(self):
        require("numba")


@pytest.mark.torch
class TestTorch(Conformance):
    backend = "torch"

    @pytest.fixture(autouse=True)
    def required(self):
        require("torch")


@pytest.mark.torch
class TestTorchFloat64(TestTorch):
    precision = "float64"


@pytest.mark.torch
class TestTorchBfloat16(TestTorch):
    precision = "bfloat16"


@pytest.mark.gpu
@pytest.mark.torch
class TestTorchCuda(TestTorch):
    """The default path: kernels with atomics are allowed, so only losses are compared when a call is repeated."""

    device = "cuda:0"
    deterministic = False

    @pytest.fixture(autouse=True)
    def on_a_card(self, required):
        require_cuda()


@pytest.mark.gpu
@pytest.mark.torch
class TestTorchCudaFloat64(TestTorchCuda):
    precision = "float64"


@pytest.mark.gpu
@pytest.mark.torch
class TestTorchCudaBfloat16(TestTorchCuda):
    precision = "bfloat16"


@pytest.mark.gpu
@pytest.mark.torch
class TestTorchCudaDeterministic(TestTorchCuda):
    backend = TorchBackend(deterministic=True)
    deterministic = True
