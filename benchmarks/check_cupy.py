"""A small run of every kernel for compute-sanitizer, in both precisions; memory is allocated piece by piece.

compute-sanitizer --tool memcheck  python benchmarks/check_cupy.py
compute-sanitizer --tool racecheck python benchmarks/check_cupy.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "backends")]

from scaling_sim.engine.cohort import Cohort, Member  # noqa: E402
from scaling_sim.model.shape import Shape  # noqa: E402


def main() -> None:
    import cupy

    from scaling_sim_cupy import BACKEND

    cupy.cuda.set_allocator(None)  # a pool would hide accesses beyond an array
    shape = Shape(n_layer=2, d_model=20, n_head=2, n_ctx=40, vocab_size=70)
    members = (Member(id=0, seed=1, dropout=0.1), Member(id=1, seed=2**40))
    cohort = Cohort(shape=shape, batch_sequences=3, members=members, weight_decay=0.1)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 70, 500).astype(np.uint16)
    for precision in ("bfloat16", "float32"):
        trainer = BACKEND.start(cohort, {"train": tokens}, "cuda:0", precision)
        losses = trainer.advance(0, rng.integers(0, 460, (2, 2, 3)), np.full((2, 2), 1e-3))
        mean, _ = trainer.evaluate("train", rng.integers(0, 460, (2, 3)))
        noise, _ = trainer.gradient_noise(rng.integers(0, 460, (2, 2, 1)))
        print(precision, losses.round(4).tolist(), mean.mean().round(4), noise.round(4).tolist())


if __name__ == "__main__":
    main()
