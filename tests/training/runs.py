"""Tiny corpora and runs: a noisy walk over 16 token ids, models of width 8, context 16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from scaling_sim.data.corpus import Corpus
from scaling_sim.engine.cohort import Recipe
from scaling_sim.model.shape import Shape
from scaling_sim.runs.record import CurvePoint, RunConfig, RunRecord
from scaling_sim.training import Job
from scaling_sim.training.loop import CohortProgress

VOCAB = 16
SHAPE = Shape(n_layer=1, d_model=8, n_head=2, n_ctx=16, vocab_size=VOCAB)
CORPUS = "0123456789abcdef"


def walk(num: int, seed: int) -> np.ndarray:
    """Tokens with something to learn: each is the one before plus 0, 1 or 2, mod 16; entropy ln 3."""
    rng = np.random.default_rng(seed)
    return (np.cumsum(rng.integers(0, 3, num)) % VOCAB).astype(np.uint8)


def make_corpus(**lengths: int) -> Corpus:
    sizes = {"train": 6000, "validation": 1200, "test": 1200, "prose": 800, **lengths}
    splits = {name: walk(num, seed) for seed, (name, num) in enumerate(sizes.items())}
    return Corpus(
        name="walk",
        hash=CORPUS,
        vocab_size=VOCAB,
        splits=splits,
        held_out=tuple(name for name in sizes if name not in ("train", "validation", "test")),
        documents=dict.fromkeys(splits, 1),
        notes=(),
        folder=Path("unused"),
    )


def make_job(purpose: Any = "curve", shape: Shape = SHAPE, **changes: Any) -> Job:
    """A run of 60 steps of 4 sequences; keywords go to the recipe or the run, wherever they belong."""
    recipe: dict[str, Any] = {"peak_lr": 0.01, "batch_tokens": 64, "steps": 60, "warmup_steps": 4}
    run: dict[str, Any] = {"unique_tokens": 6000, "eval_points": 6, "eval_sequences": 32, "corpus": CORPUS}
    for name, value in changes.items():
        (run if name in RunConfig.__struct_fields__ else recipe)[name] = value
    return Job(RunConfig(shape=shape, recipe=Recipe(**recipe), **run), (purpose,))


def make_branch(parent: Job, step: int, length: int) -> Job:
    """A decay to zero over ``length`` steps from ``step`` of ``parent``."""
    recipe = msgspec.structs.replace(parent.config.recipe, schedule="decay", steps=step + length, decay_steps=length)
    config = msgspec.structs.replace(
        parent.config, recipe=recipe, parent=parent.run_id, branch_step=step, eval_points=2
    )
    return Job(config, ("final",))


def make_point(step: int, validation: float) -> CurvePoint:
    losses = {"validation": validation, "test": validation + 0.1}
    return CurvePoint(step=step, tokens=64 * step, lr=0.01, train=1.0, losses=losses, errors=dict.fromkeys(losses, 0.1))


def numbers(record: RunRecord) -> RunRecord:
    """A record without what differs between equal runs: the time taken."""
    return msgspec.structs.replace(record, seconds=0.0)


class Ear:
    """A listener that remembers; told to, it stops the loop at the n-th look."""

    def __init__(self, stop_at: int = -1) -> None:
        self.records: dict[str, RunRecord] = {}
        self.words: list[CohortProgress] = []
        self.looks, self.stop_at = 0, stop_at

    def progress(self, progress: CohortProgress) -> None:
        self.words.append(progress)

    def finished(self, record: RunRecord) -> None:
        self.records[record.run_id] = numbers(record)

    def should_stop(self) -> bool:
        self.looks += 1
        return self.looks == self.stop_at + 1
