"""Tiny corpora and runs: second-order Markov bytes over 16 ids, models of width 8, context 16."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaling_sim.data.corpus import Corpus
from scaling_sim.engine.cohort import Recipe
from scaling_sim.model.shape import Shape
from scaling_sim.runs.record import RunConfig
from scaling_sim.runs.store import RunStore
from scaling_sim.training import Job

VOCAB = 16
SHAPE = Shape(n_layer=1, d_model=8, n_head=2, n_ctx=16, vocab_size=VOCAB)
CORPUS = "0123456789abcdef"

MakeJob = Callable[..., Job]


def markov_tokens(num: int, seed: int) -> np.ndarray:
    """Tokens with something to learn: each is the one before plus a small step, mod 16."""
    rng = np.random.default_rng(seed)
    return (np.cumsum(rng.integers(0, 3, num)) % VOCAB).astype(np.uint8)


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    sizes = {"train": 6000, "validation": 1200, "test": 1200, "prose": 800}
    splits = {name: markov_tokens(num, seed) for seed, (name, num) in enumerate(sizes.items())}
    return Corpus(
        name="markov",
        hash=CORPUS,
        vocab_size=VOCAB,
        splits=splits,
        held_out=("prose",),
        documents=dict.fromkeys(splits, 1),
        notes=(),
        folder=Path("unused"),
    )


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    with RunStore(tmp_path / "study") as store:
        yield store


def make_job(purpose: str = "curve", shape: Shape = SHAPE, **changes: Any) -> Job:
    """A run of 60 steps of 4 sequences; keywords go to the recipe or the run, wherever they belong."""
    recipe = {"peak_lr": 0.01, "batch_tokens": 64, "steps": 60, "warmup_steps": 4}
    run = {"unique_tokens": 6000, "eval_points": 6, "eval_sequences": 32, "corpus": CORPUS}
    for name, value in changes.items():
        (run if name in RunConfig.__struct_fields__ else recipe)[name] = value
    return Job(RunConfig(shape=shape, recipe=Recipe(**recipe), **run), (purpose,))
