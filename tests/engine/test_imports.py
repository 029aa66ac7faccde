"""A bare GPU machine trains with NumPy and msgspec alone."""

import subprocess
import sys

import pytest

MODULES = ["", ".registry", ".reference", ".conformance"]


@pytest.mark.parametrize("module", MODULES)
def test_engine_needs_numpy_and_msgspec_only(module):
    heavy = ("pytest", "torch", "numba", "cupy", "scipy", "pandas", "matplotlib", "emcee", "typer", "rich")
    code = f"import sys, scaling_sim.engine{module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
