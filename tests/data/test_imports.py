import subprocess
import sys

CODE = """
import sys
import scaling_sim.model, scaling_sim.data
import scaling_sim.data.ideal
loaded = {name.split(".")[0] for name in sys.modules}
heavy = {"scipy", "pandas", "pyarrow", "tokenizers", "numba", "torch", "matplotlib", "emcee", "rich", "typer"}
print(",".join(sorted(loaded & heavy)))
"""


def test_model_and_data_import_with_numpy_and_msgspec_alone():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
