"""One side of bench_cupy.py: trains on the card when it is asked to, by a number of updates per line of standard input.

    python benchmarks/cupy_sides.py cupy bfloat16 LAYERS WIDTH HEADS MEMBERS       # or torch, or float32
    python benchmarks/cupy_sides.py peer LAYERS WIDTH HEADS MEMBERS

The first line printed says that it is ready, after how long, and with which versions; then one line per line read.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
BACKENDS = HERE.parent / "backends"
sys.path[:0] = [str(HERE.parent), str(BACKENDS)]

from scaling_sim.engine.cohort import Cohort, Member, Precision  # noqa: E402
from scaling_sim.model.shape import Shape  # noqa: E402

VOCABULARY, CONTEXT, BATCH = 256, 128, 64
PEER = "peer"


def main() -> None:
    *name, layers, width, heads, members = sys.argv[1:]
    sizes = [int(size) for size in (layers, width, heads, members)]
    if name == [PEER]:
        serve_peer(*sizes)
    else:
        serve(cohort_of(*sizes), *name)  # type: ignore[arg-type]


def cohort_of(layers: int, width: int, heads: int, members: int) -> Cohort:
    shape = Shape(n_layer=layers, d_model=width, n_head=heads, n_ctx=CONTEXT, vocab_size=VOCABULARY)
    listed = tuple(Member(id=number, seed=number) for number in range(members))
    return Cohort(shape=shape, batch_sequences=BATCH, members=listed, weight_decay=0.1)


def serve(cohort: Cohort, backend: str, precision: Precision) -> None:
    """Our side: k updates per line read, all in one call."""
    from scaling_sim.engine.registry import get_backend

    rng = np.random.default_rng(0)
    tokens = rng.integers(0, VOCABULARY, 4_000_000).astype(np.uint8)
    begin = time.perf_counter()
    trainer = get_backend(backend).start(cohort, {"train": tokens}, "cuda:0", precision)
    trainer.advance(0, rng.integers(0, 1_000_000, (1, len(cohort.members), BATCH)), np.zeros((1, len(cohort.members))))
    print(json.dumps({"ready_s": round(time.perf_counter() - begin, 2), **versions(backend)}), flush=True)
    done = 0
    for line in sys.stdin:
        steps = int(line)
        starts = rng.integers(0, tokens.size - CONTEXT, (steps, len(cohort.members), BATCH))
        rates = np.full((steps, len(cohort.members)), 1e-3)
        begin = time.perf_counter()
        trainer.advance(done, starts, rates)
        wall = time.perf_counter() - begin
        done += steps
        print(json.dumps({"wall": wall, "memory_gib": memory_gib(backend)}), flush=True)


def serve_peer(layers: int, width: int, heads: int, members: int) -> None:
    """The peer's side: k replays per line read."""
    import torch
    from peers.torch_stacked import prepare

    begin = time.perf_counter()
    replay = prepare(layers, width, heads, members, VOCABULARY, CONTEXT, BATCH)
    torch.cuda.synchronize()
    print(json.dumps({"ready_s": round(time.perf_counter() - begin, 1), **versions("torch")}), flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        for _ in range(int(line)):
            replay()
        torch.cuda.synchronize()
        wall = time.perf_counter() - begin
        print(json.dumps({"wall": wall, "memory_gib": memory_gib("torch")}), flush=True)


def versions(backend: str) -> dict[str, str]:
    if backend == "cupy":
        from scaling_sim_cupy import BACKEND

        return BACKEND.describe()
    import torch

    return {"torch": torch.__version__}


def memory_gib(backend: str) -> float:
    """What the process took from the card, its context not counted."""
    if backend == "cupy":
        import cupy

        taken = cupy.get_default_memory_pool().total_bytes()
    else:
        import torch

        taken = torch.cuda.max_memory_reserved()
    return float(round(taken / 2**30, 3))


if __name__ == "__main__":
    main()
