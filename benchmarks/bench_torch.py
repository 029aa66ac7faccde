"""The CUDA backend beside what somebody would write today, in one run on one card.

    python benchmarks/bench_torch.py --json                    # cohorts and single small models
    python benchmarks/bench_torch.py --large --json            # 8.5e7 to 1.2e9 parameters

prints one object per row: peer_ms and ours_ms (medians per update), tokens per second, ratio = peer_ms / ours_ms, and
memory. Small rows: the peer replays one captured, compiled, stacked update on fixed tokens; ours also gathers tokens,
has a learning rate and clips per member, and records losses. Every side is a process of its own. Those of small rows
compile and make their first updates at the same time and are then timed one after another; of large rows only one is
there at a time. ``peak``: 8192³ bfloat16 product of random data in the timing process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "backends"), str(HERE / "peers")]

COHORTS = [(n, d, h, m, 256, 128, 64) for m in (64, 1) for n, d, h in ((1, 16, 1), (2, 32, 2), (2, 64, 2), (4, 128, 4))]
WIDE_VOCABULARY = [(2, 64, 2, 16, 50304, 128, 64)]
LARGE = [(12, 768, 12, 1, 50304, 1024, 64), (24, 1024, 16, 1, 50304, 1024, 48), (24, 2048, 16, 1, 50304, 1024, 32)]
REPEATS = 5
SIDES = ("peer", "ours")


def num_updates(d: int, members: int) -> int:
    """Updates of one timed repetition."""
    return 4 if d >= 256 else 512 if members == 1 else 32


def ours(n_layer: int, d: int, heads: int, members: int, vocab: int, context: int, batch: int) -> Callable[[], Any]:
    """A function that makes `num_updates` of our trainer, tables uploaded, losses read back at the end."""
    import numpy as np

    from scaling_sim.engine.cohort import Cohort, Member
    from scaling_sim.model.shape import Shape
    from scaling_sim_torch import BACKEND

    shape = Shape(n_layer=n_layer, d_model=d, n_head=heads, n_ctx=context, vocab_size=vocab)
    cohort = Cohort(shape=shape, batch_sequences=batch, members=tuple(Member(id=i, seed=i) for i in range(members)))
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, vocab, 2_000_000).astype(np.uint8 if vocab <= 256 else np.uint16)
    trainer = BACKEND.start(cohort, {"train": tokens}, "cuda:0", "bfloat16")
    print(BACKEND.explain(cohort, "cuda:0", "bfloat16"), file=sys.stderr, flush=True)
    num = num_updates(d, members)
    starts, lr = rng.integers(0, 1_900_000, (num, members, batch)), np.full((num, members), 1e-3)
    return lambda: float(trainer.advance(num, starts, lr)[-1].mean())


def peer(n_layer: int, d: int, heads: int, members: int, vocab: int, context: int, batch: int) -> Callable[[], Any]:
    """The same number of updates of the peer."""
    import torch_gpt
    import torch_stacked

    replay = (torch_gpt if d >= 256 else torch_stacked).prepare(n_layer, d, heads, members, vocab, context, batch)
    return lambda: [replay() for _ in range(num_updates(d, members))]


def side(which: str, row: tuple[int, ...]) -> None:
    """Body of a side's process: prepare, say so, wait, time, print."""
    import torch

    run = (ours if which == "ours" else peer)(*row)
    run()
    torch.cuda.synchronize()
    print("ready", flush=True)
    sys.stdin.readline()
    run()
    memory, peak = torch.cuda.max_memory_allocated() / 2**30, matrix_peak()
    updates = num_updates(row[1], row[3])
    times = [timed(run) / updates for _ in range(REPEATS if row[1] < 256 else 3)]
    print(json.dumps({"ms": statistics.median(times), "spread": max(times) - min(times), "gib": memory, "peak": peak}))


def timed(run: Callable[[], Any]) -> float:
    """Milliseconds of one call, by events."""
    import torch

    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    run()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last)


def matrix_peak() -> float:
    """TFLOP/s of an 8192³ bfloat16 product of random data."""
    import torch

    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    run = lambda: [a @ b for _ in range(10)]  # noqa: E731
    run()
    return 2 * 8192**3 * 10 / timed(run) / 1e9


def flops_per_token(n_layer: int, d: int, vocab: int, context: int) -> tuple[float, float]:
    """6·(12Ld² + Vd) + 12LTd, and with the causal half of attention only."""
    products, attention = 6 * (12 * n_layer * d * d + vocab * d), 12 * n_layer * context * d
    return products + attention, products + attention / 2


def report(row: tuple[int, ...], found: dict[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    n_layer, d, heads, members, vocab, context, batch = row
    tokens = members * batch * context
    line = {"shape": [n_layer, d, heads], "members": members, "vocab": vocab, "context": context, "batch": batch}
    for which, measured in found.items():
        if "ms" not in measured:
            line[f"{which}_error"] = measured["error"]
            continue
        line |= {
            f"{which}_ms": round(measured["ms"], 4),
            f"{which}_tokens_per_second": round(tokens / measured["ms"] * 1e3),
        }
        line |= {f"{which}_spread_ms": round(measured["spread"], 4), f"{which}_gib": round(measured["gib"], 2)}
        full, causal = (
            f * tokens / measured["ms"] / 1e9 / measured["peak"] for f in flops_per_token(n_layer, d, vocab, context)
        )
        line |= {f"{which}_peak_share": round(full, 4), f"{which}_peak_share_causal": round(causal, 4)}
        line["peak_tflops"] = round(measured["peak"])
    if all("ms" in measured for measured in found.values()) and len(found) == 2:
        line["ratio"] = round(found["peer"]["ms"] / found["ours"]["ms"], 3)
    return line


def measure(rows: Sequence[tuple[int, ...]], *, together: bool) -> None:
    """Print all rows; with ``together`` all sides prepare themselves at the same time."""
    kids = {(row, which): start(row, which) for row in rows for which in SIDES} if together else {}
    for kid in kids.values():
        assert kid.stdout is not None
        kid.stdout.readline()  # ready, or dead
    for row in rows:
        found = {which: answer(kids.get((row, which)) or start(row, which)) for which in SIDES}
        print(json.dumps(report(row, found)), flush=True)


def start(row: tuple[int, ...], which: str) -> subprocess.Popen[str]:
    """A side's process."""
    command = [sys.executable, __file__, "--side", which, "--row", json.dumps(row)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def answer(kid: subprocess.Popen[str]) -> dict[str, Any]:
    """Let a side go on, and what it measured."""
    out, _ = kid.communicate("go\n")
    return json.loads(out.splitlines()[-1]) if kid.returncode == 0 else {"error": f"exit {kid.returncode}"}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--json", action="store_true", help="one object per row (the only form there is)")
    parser.add_argument("--rows", help="JSON list of rows [layers, d, heads, members, vocabulary, context, batch]")
    parser.add_argument("--side")
    parser.add_argument("--row")
    options = parser.parse_args()
    if options.side:
        side(options.side, tuple(json.loads(options.row)))
    elif options.rows:
        chosen = [tuple(row) for row in json.loads(options.rows)]
        measure(chosen, together=all(row[1] < 256 for row in chosen))
    elif options.large:
        measure(LARGE, together=False)
    else:
        measure(COHORTS + WIDE_VOCABULARY, together=True)
