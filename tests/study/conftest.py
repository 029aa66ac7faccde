"""A study that is trained in seconds: three tiny sizes on a tiny corpus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

STUDY = """
name = "tiny"
minutes = 3.0
eval_points = 12
eval_sequences = 16
laws = ["chinchilla"]
backend = "numpy"
workers = 0

[corpus]
source = "files"
paths = ["{folder}/*.txt"]
environment_held_out = false
validation_fraction = 0.2
test_fraction = 0.2

[[shapes]]
n_layer = 1
d_model = 4
n_head = 1
n_ctx = 16

[[shapes]]
n_layer = 1
d_model = 8
n_head = 1
n_ctx = 16

[[shapes]]
n_layer = 2
d_model = 8
n_head = 1
n_ctx = 16

[curves]
batch_tokens = 64
steps = 60
warmup_steps = 4
branch_steps = [10, 25, 60]
"""


def words(number: int) -> str:
    """Text that a tiny model can learn something about; no two documents are equal."""
    nouns = ("model", "loss", "batch", "token", "layer", "curve", "budget", "law")
    rng = np.random.default_rng(number)
    return " ".join(f"the {nouns[i]} of {nouns[j]}" for i, j in rng.integers(0, 8, (150, 2)))


@pytest.fixture(scope="session")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for number in range(40):
        (folder / f"{number}.txt").write_text(words(number))
    path = folder / "tiny.toml"
    path.write_text(STUDY.format(folder=folder.as_posix()))
    return path
