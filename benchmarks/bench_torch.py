"""The CUDA backend beside what somebody would write today, in one run on one card.

    python benchmarks/bench_torch.py --json                    # cohorts and single small models
    python benchmarks/bench_torch.py --throughput rows.jsonl   # rows of the former as the backend's table of speeds
    python benchmarks/bench_torch.py --large --json            # 8.5e7 to 1.2e9 parameters
    python benchmarks/bench_torch.py --large --mode max-autotune-no-cudagraphs --json    # the peer compiled so

prints one object per row: peer_ms and ours_ms (medians per update), tokens per second, ratio = peer_ms / ours_ms, and
memory. Small rows: the peer replays one captured, compiled, stacked update on fixed tokens; ours also gathers tokens,
has a learning rate and clips per member, and records losses. Every side is a process of its own; the two of a row take
turns, since a card at its power limit is the slower the warmer it is. All small rows compile at the same time, large
ones one after another; where the two of a row do not fit beside one another, name one with ``--only``.
``peak``: 8192³ bfloat16 product of random data, the larger of both sides' measurements after their last turns.
"""

from __future__ import annotations

import argparse
import contextlib
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
TURNS = 7
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


def peer(
    n_layer: int, d: int, heads: int, members: int, vocab: int, context: int, batch: int, mode: str
) -> Callable[[], Any]:
    """The same number of updates of the peer."""
    import torch_gpt
    import torch_stacked

    row = (n_layer, d, heads, members, vocab, context, batch)
    replay = torch_gpt.prepare(*row, mode) if d >= 256 else torch_stacked.prepare(*row)
    return lambda: [replay() for _ in range(num_updates(d, members))]


def side(which: str, row: tuple[int, ...], mode: str) -> None:
    """Body of a side's process: prepare, say so, make a timed turn for every line that comes in, then print."""
    import torch

    run = ours(*row) if which == "ours" else peer(*row, mode)
    run()
    torch.cuda.synchronize()
    print("ready", flush=True)
    turns, updates = [], num_updates(row[1], row[3])
    for _ in sys.stdin:
        run()  # warm again after the other side's turn
        turns.append(timed(run) / updates)
        print("done", flush=True)
    memory = torch.cuda.max_memory_allocated() / 2**30
    times = turns[1:]  # the first turn may capture
    found = {"ms": statistics.median(times), "spread": max(times) - min(times), "gib": memory, "peak": matrix_peak()}
    print(json.dumps(found))


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


def report(row: tuple[int, ...], found: dict[str, Any], mode: str) -> dict[str, Any]:
    """One line of the table."""
    n_layer, d, heads, members, vocab, context, batch = row
    tokens = members * batch * context
    peak = max((measured["peak"] for measured in found.values() if "ms" in measured), default=0.0)
    line = {"shape": [n_layer, d, heads], "members": members, "vocab": vocab, "context": context, "batch": batch}
    line |= {"mode": mode} if d >= 256 else {}
    for which, measured in found.items():
        if "ms" not in measured:
            line[f"{which}_error"] = measured["error"]
            continue
        line |= {
            f"{which}_ms": round(measured["ms"], 4),
            f"{which}_tokens_per_second": round(tokens / measured["ms"] * 1e3),
        }
        line |= {f"{which}_spread_ms": round(measured["spread"], 4), f"{which}_gib": round(measured["gib"], 2)}
        full, causal = (f * tokens / measured["ms"] / 1e9 / peak for f in flops_per_token(n_layer, d, vocab, context))
        line |= {f"{which}_peak_share": round(full, 4), f"{which}_peak_share_causal": round(causal, 4)}
        line["peak_tflops"] = round(peak)
    if all("ms" in measured for measured in found.values()) and len(found) == 2:
        line["ratio"] = round(found["peer"]["ms"] / found["ours"]["ms"], 3)
    return line


def measure(rows: Sequence[tuple[int, ...]], sides: Sequence[str], mode: str, *, together: bool) -> None:
    """Print all rows; with ``together`` the sides of all of them prepare themselves at the same time."""
    begun = [[start(row, which, mode) for which in sides] for row in rows] if together else []
    for kids in begun:
        for kid in kids:
            said(kid)
    for place, row in enumerate(rows):
        kids = begun[place] if together else [start(row, which, mode) for which in sides]
        if not together:
            for kid in kids:
                said(kid)
        for _ in range(TURNS + 1):
            for kid in kids:
                turn(kid)
        found = {which: answer(kid) for which, kid in zip(sides, kids, strict=True)}
        print(json.dumps(report(row, found, mode)), flush=True)


def write_throughput(path: Path) -> None:
    """``throughput.json`` of the backend: our side of the cohorts, and what stands there of others."""
    from bench_cupy import merge_throughput

    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    merge_throughput(
        "torch",
        [
            dict(zip(("n_layer", "d_model", "n_head"), row["shape"], strict=True))
            | {"n_ctx": row["context"], "vocab_size": row["vocab"], "members": row["members"]}
            | {"batch_sequences": row["batch"], "precision": "bfloat16"}
            | {"tokens_per_second": round(row["ours_tokens_per_second"], -5)}
            for row in rows
            if "ours_ms" in row and row["vocab"] == COHORTS[0][4]
        ],
    )


def start(row: tuple[int, ...], which: str, mode: str) -> subprocess.Popen[str]:
    """A side's process."""
    command = [sys.executable, __file__, "--side", which, "--row", json.dumps(row), "--mode", mode]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(kid: subprocess.Popen[str]) -> str:
    """Its next line; empty if it is gone."""
    assert kid.stdout is not None
    return kid.stdout.readline()


def turn(kid: subprocess.Popen[str]) -> None:
    """Let a side time its updates while the other waits."""
    assert kid.stdin is not None
    if kid.poll() is None:
        with contextlib.suppress(BrokenPipeError):
            print("go", file=kid.stdin, flush=True)
            said(kid)


def answer(kid: subprocess.Popen[str]) -> dict[str, Any]:
    """What a side measured; it is over then."""
    with contextlib.suppress(BrokenPipeError):
        out, _ = kid.communicate()
    return json.loads(out.splitlines()[-1]) if kid.returncode == 0 else {"error": f"exit {kid.returncode}"}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--json", action="store_true", help="one object per row (the only form there is)")
    parser.add_argument("--rows", help="JSON list of rows [layers, d, heads, members, vocabulary, context, batch]")
    parser.add_argument("--only", choices=SIDES, help="one side alone, where a card cannot hold both")
    parser.add_argument("--mode", default="default", help="of torch.compile for the peer of large models")
    parser.add_argument("--throughput", type=Path, metavar="ROWS", help="write the backend's table from such rows")
    parser.add_argument("--side")
    parser.add_argument("--row")
    options = parser.parse_args()
    if options.throughput:
        write_throughput(options.throughput)
    elif options.side:
        side(options.side, tuple(json.loads(options.row)), options.mode)
    else:
        small, large = COHORTS + WIDE_VOCABULARY, LARGE
        chosen = [tuple(row) for row in json.loads(options.rows)] if options.rows else large if options.large else small
        sides = [options.only] if options.only else SIDES
        measure(chosen, sides, options.mode, together=all(row[1] < 256 for row in chosen))
