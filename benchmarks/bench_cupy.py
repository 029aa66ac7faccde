"""Tiny cohorts on one card: our CUDA kernels beside the stacked, compiled, captured PyTorch peer, in one run.

    python benchmarks/bench_cupy.py --json

prints one object per row: shape, members, precision, baseline_ms and ours_ms (medians per update of the whole cohort),
tokens per second of both, ratio, and what they rest on. Ours is the time of whole `advance` calls: windows and rates
travel to the card, tokens are gathered there, gradients are clipped, losses come back. Both sides run in processes of
their own, take turns, and are never on the card at the same time. Vocabulary 256, context 128, 64 sequences per member.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "backends")]

from scaling_sim.engine.cohort import Cohort, Member, Precision  # noqa: E402
from scaling_sim.model.shape import Shape  # noqa: E402

CONTEXT, BATCH = 128, 64
SLICE_SECONDS = 0.15
"""Work per side and round."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    layers: int
    width: int
    heads: int
    members: int

    @property
    def cohort(self) -> Cohort:
        shape = Shape(n_layer=self.layers, d_model=self.width, n_head=self.heads, n_ctx=CONTEXT)
        members = tuple(Member(id=number, seed=number) for number in range(self.members))
        return Cohort(shape=shape, batch_sequences=BATCH, members=members, weight_decay=0.1)

    @property
    def tokens(self) -> int:
        """Per update of the whole cohort."""
        return self.members * BATCH * CONTEXT

    @property
    def arguments(self) -> list[str]:
        return [*map(str, (self.layers, self.width, self.heads)), "--members", str(self.members)]


ROWS = tuple(Row(*size, members) for members in (64, 1) for size in ((1, 16, 1), (2, 32, 2), (2, 64, 2)))


def serve(row: Row, precision: Precision) -> None:
    """Our side: k updates per line read, all in one call."""
    from scaling_sim_cupy import BACKEND

    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 256, 4_000_000).astype(np.uint8)
    begin = time.perf_counter()
    trainer = BACKEND.start(row.cohort, {"train": tokens}, "cuda:0", precision)
    trainer.advance(0, rng.integers(0, 1_000_000, (1, row.members, BATCH)), np.zeros((1, row.members)))
    print(json.dumps({"ready_s": time.perf_counter() - begin, **BACKEND.describe()}), flush=True)
    done = 0
    for line in sys.stdin:
        steps = int(line)
        starts = rng.integers(0, tokens.size - CONTEXT, (steps, row.members, BATCH))
        rates = np.full((steps, row.members), 1e-3)
        begin = time.perf_counter()
        losses = trainer.advance(done, starts, rates)
        wall = time.perf_counter() - begin
        done += steps
        print(json.dumps({"wall": wall, "loss": float(losses[-1].mean())}), flush=True)


def serve_peer(row: Row) -> None:
    """The peer's side: k replays per line read."""
    import torch
    from peers.torch_stacked import prepare

    begin = time.perf_counter()
    replay = prepare(row.layers, row.width, row.heads, row.members, 256, CONTEXT, BATCH)
    torch.cuda.synchronize()
    print(json.dumps({"ready_s": time.perf_counter() - begin, "what": f"torch {torch.__version__}"}), flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        for _ in range(int(line)):
            replay()
        torch.cuda.synchronize()
        print(json.dumps({"wall": time.perf_counter() - begin}), flush=True)


class Side:
    """A process that trains when asked."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.steps = 1
        self.milliseconds: list[float] = []

    def read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a benchmark process ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, steps: int) -> float:
        """Seconds of so many updates."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return float(self.read()["wall"])

    def calibrate(self) -> None:
        self.ask(8)
        self.steps = max(8, round(SLICE_SECONDS / (self.ask(16) / 16)))

    def measure(self) -> None:
        self.milliseconds.append(self.ask(self.steps) / self.steps * 1e3)

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def run_row(row: Row, peer: Side | None, precisions: list[Precision], rounds: int) -> Iterator[dict[str, Any]]:
    """Interleave all sides; one JSON object per precision."""
    started = peer.read() if peer else {}
    ours = {one: Side(__file__, *row.arguments, "--serve", one) for one in precisions}
    about = {precision: side.read() for precision, side in ours.items()}
    sides = [*ours.values(), *([peer] if peer else [])]
    for side in sides:
        side.calibrate()
    for _ in range(rounds):
        for side in sides:
            side.measure()
    for side in sides:
        side.stop()
    for precision, side in ours.items():
        yield summary(row, precision, side.milliseconds, peer.milliseconds if peer else []) | {
            "ready_s": round(about[precision]["ready_s"], 2),
            "card": about[precision]["card"],
            "cupy": about[precision]["cupy"],
            "baseline": started.get("what"),
            "baseline_ready_s": round(started.get("ready_s", float("nan")), 1),
        }


def summary(row: Row, precision: str, ours: list[float], peer: list[float]) -> dict[str, Any]:
    """Medians, their spread and the ratio."""
    our_ms = statistics.median(ours)
    found: dict[str, Any] = {
        "shape": [row.layers, row.width],
        "members": row.members,
        "precision": precision,
        "ours_ms": round(our_ms, 4),
        "ours_spread_ms": [round(min(ours), 4), round(max(ours), 4)],
        "ours_mtok_s": round(row.tokens / our_ms / 1e3, 1),
        "rounds": len(ours),
    }
    if peer:
        peer_ms = statistics.median(peer)
        found |= {
            "baseline_ms": round(peer_ms, 4),
            "baseline_spread_ms": [round(min(peer), 4), round(max(peer), 4)],
            "baseline_mtok_s": round(row.tokens / peer_ms / 1e3, 1),
            "ratio": round(peer_ms / our_ms, 3),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object per row")
    parser.add_argument("--rows", help="indices of rows, comma-separated (default all)")
    parser.add_argument("--precisions", default="bfloat16,float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--alone", action="store_true", help="without the peer")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--members", type=int, help=argparse.SUPPRESS)
    parser.add_argument("size", nargs="*", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        row = Row(*arguments.size, arguments.members)
        serve_peer(row) if arguments.serve == "peer" else serve(row, arguments.serve)
        return
    rows = [ROWS[int(index)] for index in arguments.rows.split(",")] if arguments.rows else ROWS
    # All peers compile at once, on the CPU; each is measured when its row's turn comes, and then waits.
    peers = [None if arguments.alone else Side(__file__, *row.arguments, "--serve", "peer") for row in rows]
    for row, peer in zip(rows, peers, strict=True):
        for result in run_row(row, peer, arguments.precisions.split(","), arguments.rounds):
            print(json.dumps(result) if arguments.json else readable(result), flush=True)


def readable(result: dict[str, Any]) -> str:
    line = "({}, {}) M={members} {precision}: ours {ours_ms:.3f} ms, {ours_mtok_s} Mtok/s".format(
        *result["shape"], **result
    )
    return line + (", peer {baseline_ms:.3f} ms, ratio {ratio:.2f}".format(**result) if "ratio" in result else "")


if __name__ == "__main__":
    main()
