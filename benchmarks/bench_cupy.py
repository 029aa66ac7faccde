"""Tiny cohorts on one card: our CUDA kernels beside a stacked, compiled, captured PyTorch peer and our PyTorch backend.

    python benchmarks/bench_cupy.py --json > rows.jsonl          # all sides of a row take turns, in one run
    python benchmarks/bench_cupy.py --throughput rows.jsonl      # the same rows as the backends' tables of speeds
    python benchmarks/bench_cupy.py --start-up --json            # cold compilation, one shape after the other

One object per row: shape, members, what each side took (medians of whole updates of the whole cohort), and ratios. Ours
is the time of whole `advance` calls: windows and rates travel to the card, tokens are gathered there, gradients are
clipped per member, losses come back; the peer replays updates of fixed tokens without clipping. Every side is a process
of its own (cupy_sides.py): all prepare at the same time, then only one is at work.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cupy_sides import BACKENDS, BATCH, CONTEXT, PEER, VOCABULARY

SLICE_SECONDS = 0.15
"""Work per side and round."""
OURS = ("cupy bfloat16", "cupy float32", "torch bfloat16", "torch float32")
RATIOS = {
    "ratio": (PEER, "cupy bfloat16"),
    "ratio_to_torch": ("torch bfloat16", "cupy bfloat16"),
    "ratio_to_torch_float32": ("torch float32", "cupy float32"),
}
"""Name → (baseline, side): how many times faster the side is."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    layers: int
    width: int
    heads: int
    members: int
    sides: tuple[str, ...] = (*OURS, PEER)

    @property
    def tokens(self) -> int:
        """Per update of the whole cohort."""
        return self.members * BATCH * CONTEXT


SIZES = ((1, 16, 1), (2, 32, 2), (2, 64, 2))
ROWS = (
    *(Row(*size, members) for members in (64, 1) for size in SIZES),
    *(Row(*size, 8, OURS) for size in SIZES),
    Row(4, 64, 4, 64, OURS),
    Row(2, 64, 2, 512, ("cupy bfloat16", "cupy float32")),
)


class Side:
    """A process that trains when asked; one that fails says so and is left out."""

    def __init__(self, row: Row, name: str, environment: dict[str, str] | None = None) -> None:
        sizes = map(str, (row.layers, row.width, row.heads, row.members))
        command = [sys.executable, str(Path(__file__).with_name("cupy_sides.py")), *name.split(), *sizes]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
        )
        self.steps = 1
        self.milliseconds: list[float] = []
        self.about: dict[str, Any] = {}
        self.memory_gib = math.nan

    def read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def get_ready(self) -> None:
        self.about = self.read()

    def attempt(self, what: Callable[[], None]) -> bool:
        """Whether it could; if not, the reason goes to standard error."""
        try:
            what()
        except (RuntimeError, OSError) as error:
            print(f"{' '.join(map(str, self._process.args[2:]))}: {error}", file=sys.stderr)  # type: ignore[index]
            return False
        return True

    def ask(self, steps: int) -> float:
        """Seconds of so many updates."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        answer = self.read()
        self.memory_gib = answer["memory_gib"]
        return float(answer["wall"])

    def calibrate(self) -> None:
        """As many updates per round as `SLICE_SECONDS` hold, in whole graphs where there are many."""
        self.ask(8)
        steps = max(1, round(SLICE_SECONDS / (self.ask(8) / 8)))
        self.steps = steps // 64 * 64 or steps // 8 * 8 or steps

    def measure(self) -> None:
        self.milliseconds.append(self.ask(self.steps) / self.steps * 1e3)

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def summary(self, tokens: int) -> dict[str, Any]:
        median = statistics.median(self.milliseconds)
        return {
            "ms": round(median, 4),
            "spread_ms": [round(min(self.milliseconds), 4), round(max(self.milliseconds), 4)],
            "mtok_s": round(tokens / median / 1e3, 1),
            "memory_gib": self.memory_gib,
            "updates_per_round": self.steps,
            **self.about,
        }


def run_row(row: Row, sides: dict[str, Side], rounds: int) -> dict[str, Any]:
    """All sides of a row in turn."""
    for _ in range(rounds):
        for side in sides.values():
            side.measure()
    found = {name: side.summary(row.tokens) for name, side in sides.items()}
    for side in sides.values():
        side.stop()
    ratios = {
        ratio: round(found[baseline]["ms"] / found[ours]["ms"], 3)
        for ratio, (baseline, ours) in RATIOS.items()
        if baseline in found and ours in found
    }
    return {"shape": [row.layers, row.width, row.heads], "members": row.members, "rounds": rounds, **ratios, **found}


def run_rows(rows: Sequence[Row], only: Sequence[str], rounds: int) -> Iterator[dict[str, Any]]:
    """Start every side of every row, wait until all are ready, then measure row by row."""
    sides = {row: {name: Side(row, name) for name in row.sides if name in only} for row in rows}
    for row in rows:
        sides[row] = {name: side for name, side in sides[row].items() if side.attempt(side.get_ready)}
    for row in rows:
        able = {name: side for name, side in sides[row].items() if side.attempt(side.calibrate)}
        if able:
            yield run_row(row, able, rounds)


def start_up(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Seconds from `start` to the end of the first update, nothing compiled before; then once more."""
    for row in rows:
        for name in OURS[:2]:
            with tempfile.TemporaryDirectory() as cache:
                seconds = []
                for _ in range(2):
                    side = Side(row, name, {"CUPY_CACHE_DIR": cache})
                    side.get_ready()
                    side.stop()
                    seconds.append(side.about["ready_s"])
            yield {
                "shape": [row.layers, row.width, row.heads],
                "side": name,
                "cold_s": seconds[0],
                "warm_s": seconds[1],
            }


def write_throughput(lines: Sequence[str]) -> None:
    """``throughput.json`` of both backends: rows of this benchmark, and those of other cohorts that stand there."""
    rows = [json.loads(line) for line in lines]
    for backend in ("cupy", "torch"):
        names = [name for name in OURS if name.startswith(backend)]
        merge_throughput(backend, [throughput(row, name) for row in rows for name in names if name in row])


def merge_throughput(backend: str, measured: Sequence[dict[str, Any]]) -> None:
    """Put rows into a backend's table, in place of those of the same cohorts."""
    path = BACKENDS / f"scaling_sim_{backend}" / "throughput.json"
    table = {cohort_key(one): one for one in json.loads(path.read_text(encoding="utf-8"))}
    table |= {cohort_key(one): one for one in measured}
    text = ",\n".join(f"  {json.dumps(one)}" for _, one in sorted(table.items()))
    path.write_text(f"[\n{text}\n]\n", encoding="utf-8")


def throughput(row: dict[str, Any], name: str) -> dict[str, Any]:
    """One side of a row as `scaling_sim.engine.throughput.read_measured` reads it."""
    shape = dict(zip(("n_layer", "d_model", "n_head"), row["shape"], strict=True))
    return shape | {
        "n_ctx": CONTEXT, "vocab_size": VOCABULARY, "members": row["members"], "batch_sequences": BATCH,
        "precision": name.split()[1], "tokens_per_second": round(1e6 * row[name]["mtok_s"]),
    }  # fmt: skip


def cohort_key(one: dict[str, Any]) -> tuple[Any, ...]:
    """Everything but the speed."""
    names = ("precision", "n_layer", "d_model", "n_head", "n_ctx", "vocab_size", "batch_sequences", "members")
    return tuple(one[name] for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object per row")
    parser.add_argument("--rows", help="indices of rows, comma-separated (default all)")
    parser.add_argument("--sides", default=",".join((*OURS, PEER)), help="comma-separated (default all)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--start-up", action="store_true", help="time cold compilation instead")
    parser.add_argument("--throughput", metavar="ROWS", help="write the backends' tables from rows of --json")
    arguments = parser.parse_args()
    if arguments.throughput:
        write_throughput(Path(arguments.throughput).read_text(encoding="utf-8").splitlines())
        return
    chosen = [ROWS[int(index)] for index in arguments.rows.split(",")] if arguments.rows else ROWS
    if arguments.start_up:
        results = start_up([row for row in chosen if row.members == 1])
    else:
        results = run_rows(chosen, arguments.sides.split(","), arguments.rounds)
    for result in results:
        print(json.dumps(result) if arguments.json else readable(result), flush=True)


def readable(result: dict[str, Any]) -> str:
    if "cold_s" in result:
        return "{shape} {side}: {cold_s} s cold, {warm_s} s warm".format(**result)
    rates = ", ".join(f"{name} {result[name]['mtok_s']} Mtok/s" for name in (*OURS, PEER) if name in result)
    ratios = ", ".join(f"{name} {result[name]:.2f}" for name in RATIOS if name in result)
    return f"{result['shape']} M={result['members']}: {rates}; {ratios}"


if __name__ == "__main__":
    main()
