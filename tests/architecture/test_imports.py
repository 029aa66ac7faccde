"""Import rules that a linter cannot see: what an import loads, and how long it takes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("numba", "torch", "cupy", "matplotlib", "pandas", "emcee", "pyarrow", "typer", "rich", "safetensors")


def loaded_after(statement: str) -> set[str]:
    code = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(json.loads(output.splitlines()[-1]))


def test_import_loads_no_heavy_library() -> None:
    modules = loaded_after("import scaling_sim")
    heavy = [name for name in modules if name.split(".")[0] in HEAVY or name.startswith(("arviz", "scipy.stats"))]
    assert heavy == []


@pytest.mark.parametrize("package", ["model", "data", "engine", "training"])
def test_training_needs_numpy_and_msgspec_alone(package: str) -> None:
    """A finder that refuses every other third-party library stands in for a bare GPU machine."""
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        root = name.split(".")[0]
        if root in {{"scipy", "pandas", "pyarrow", "emcee", "matplotlib", "safetensors", "rich", "typer",
                     "jinja2", "h5py", "h5netcdf", "numba", "torch", "arviz", "arviz_base",
                     "arviz_stats", "xarray", "tokenizers"}}:
            raise ImportError(name + " is not on a bare machine")
sys.meta_path.insert(0, Refuse())
import importlib, pkgutil, scaling_sim.{package} as package
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
"""
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr


def test_importing_is_quick() -> None:
    """Below 0.3 s of CPU in all, NumPy included, the best of five."""
    timed = "import time; t = time.process_time(); import {}; print(time.process_time() - t)"

    def best(module: str) -> float:
        command = [sys.executable, "-c", timed.format(module)]
        return min(float(subprocess.check_output(command, text=True)) for _ in range(5))

    assert best("scaling_sim") < 0.3


def test_public_names_resolve() -> None:
    import scaling_sim as ss

    missing = [name for name in ss.__all__ if not hasattr(ss, name)]
    assert missing == []
    assert set(ss.__all__) <= set(dir(ss))
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        ss.no_such_name
