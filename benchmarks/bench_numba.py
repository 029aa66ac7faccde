"""The CPU backend beside plain PyTorch: the same weights, batches and threads, interleaved in one run.

    python benchmarks/bench_numba.py --quick --json

prints one object per row: shape, baseline_ms and ours_ms (medians per step), ratio, peak_share, loss_diff, and what
they rest on. Baseline: PyTorch eager with fused AdamW, or the better of eager and torch.compile with ``--compile``.
peak_share: matrix-product FLOPs of a step (causal half of attention) over time, divided by what sgemm reaches on one
thread of the same process in the same minute, times threads. Each side runs in its own process, never at the same time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "backends")]

from scaling_sim.engine.cohort import Cohort, Member  # noqa: E402
from scaling_sim.model.init import initial_parameters  # noqa: E402
from scaling_sim.model.shape import Shape  # noqa: E402

NUM_BATCHES = 8
LR = 1e-3
SLICE_SECONDS = 0.15
"""Work per side and round: long enough for the clock, short enough that both sides see the same machine."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    layers: int
    width: int
    heads: int
    batch: int = 32
    context: int = 64

    @property
    def shape(self) -> Shape:
        return Shape(n_layer=self.layers, d_model=self.width, n_head=self.heads, n_ctx=self.context)

    @property
    def cohort(self) -> Cohort:
        members = (Member(id=0, seed=1),)
        return Cohort(shape=self.shape, batch_sequences=self.batch, members=members, weight_decay=0.1)

    @property
    def flops(self) -> float:
        """Matrix-product FLOPs of one step: 6·(12·L·d² + V·d) + 6·L·T·d per token."""
        shape = self.shape
        per_token = 6 * (12 * self.layers * self.width**2 + shape.vocab_size * self.width)
        return (per_token + 6 * self.layers * self.context * self.width) * self.batch * self.context


ROWS = (Row(1, 16, 1), Row(2, 32, 2), Row(2, 64, 4), Row(4, 128, 4), Row(6, 256, 8), Row(1, 16, 1, batch=1))


def tokens_and_starts(row: Row) -> tuple[np.ndarray, np.ndarray]:
    """A stream of skewed bytes and the windows of the batches (steps, 1, B); made from a fixed seed."""
    rng = np.random.default_rng(0)
    tokens = (rng.integers(0, 256, 200_000) * rng.integers(0, 256, 200_000) // 256).astype(np.uint8)
    return tokens, rng.integers(0, tokens.size - row.context, (NUM_BATCHES, 1, row.batch))


def write_case(row: Row, path: Path) -> None:
    """What `peers/torch_step.py` reads."""
    tokens, starts = tokens_and_starts(row)
    windows = tokens[starts[:, 0, :, None] + np.arange(row.context + 1)]
    cohort, shape = row.cohort, row.shape
    np.savez(
        path,
        windows=windows,
        n_layer=shape.n_layer,
        n_head=shape.n_head,
        lr=LR,
        beta1=cohort.beta1,
        beta2=cohort.beta2,
        weight_decay=cohort.weight_decay,
        clip_norm=cohort.clip_norm,
        **initial_parameters(shape, cohort.members[0].seed),
    )


def serve(row: Row, threads: int) -> None:
    """Our side: k steps per line read, all in one call; "peak" measures sgemm on one thread."""
    from scaling_sim_numba import NumbaBackend

    tokens, starts = tokens_and_starts(row)
    backend = NumbaBackend(num_threads=threads)
    trainer = backend.start(row.cohort, {"train": tokens})
    print(json.dumps({"what": "ours", **backend.describe()}), flush=True)
    done = 0
    for line in sys.stdin:
        if line.strip() == "peak":
            print(json.dumps({"peak_gflops": sgemm_peak()}), flush=True)
            continue
        steps = int(line)
        batches = np.ascontiguousarray(starts[(done + np.arange(steps)) % NUM_BATCHES])
        wall, cpu = time.perf_counter(), time.process_time()
        losses = trainer.advance(done, batches, np.full((steps, 1), LR))
        answer = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps(answer | {"losses": losses[:, 0].tolist()}), flush=True)
        done += steps


def sgemm_peak(size: int = 768, repetitions: int = 5) -> float:
    """Best GFLOP/s of SciPy's sgemm on this thread."""
    from scipy.linalg.blas import sgemm

    from scaling_sim_numba.blas import single_threaded_blas

    a = np.asfortranarray(np.random.default_rng(0).random((size, size), np.float32))
    best = np.inf
    with single_threaded_blas():
        for _ in range(repetitions):
            start = time.perf_counter()
            sgemm(1.0, a, a)
            best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


class Side:
    """A process that trains when asked."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        self.steps = 1
        self.rounds: list[dict[str, Any]] = []

    def read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a benchmark process ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, question: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{question}\n")
        self._process.stdin.flush()
        return self.read()

    def calibrate(self) -> list[float]:
        """Three steps for the losses, then choose the steps of a round."""
        losses: list[float] = self.ask(3)["losses"]
        self.steps = max(1, round(SLICE_SECONDS / max(self.ask(2)["wall"] / 2, 1e-5)))
        return losses

    def measure(self) -> None:
        answer = self.ask(self.steps)
        self.rounds.append({key: answer[key] / self.steps * 1e3 for key in ("wall", "cpu")})

    def milliseconds(self, kind: str = "wall") -> list[float]:
        return [one[kind] for one in self.rounds]

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def run_row(row: Row, threads: int, modes: list[str], num_rounds: int, seconds: float) -> dict[str, Any]:
    """Interleave both sides; one JSON object."""
    from scaling_sim_numba.cpu import worker_environment

    with tempfile.TemporaryDirectory() as folder:
        case = Path(folder) / "case.npz"
        write_case(row, case)
        ours = Side(
            [__file__, "--serve", json.dumps(row.__dict__), "--threads", str(threads)], worker_environment(threads)
        )
        peer = str(HERE / "peers" / "torch_step.py")
        limit = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        sides = [Side([peer, str(case), "--mode", mode, "--threads", str(threads)], limit) for mode in modes]
        about = [side.read() for side in (ours, *sides)]
        first_losses = [side.calibrate() for side in (ours, *sides)]
        peaks = []
        deadline = time.monotonic() + seconds
        for number in range(num_rounds):
            peaks.append(ours.ask("peak")["peak_gflops"])
            for side in (ours, *sides):
                side.measure()
            if time.monotonic() > deadline and number >= 2:
                break
        for side in (ours, *sides):
            side.stop()
    return summary(row, threads, ours, dict(zip(modes, sides, strict=True)), about, first_losses, max(peaks))


def summary(
    row: Row, threads: int, ours: Side, sides: dict[str, Side], about: list[dict[str, Any]],
    losses: list[list[float]], peak: float,
) -> dict[str, Any]:  # fmt: skip
    medians = {mode: statistics.median(side.milliseconds()) for mode, side in sides.items()}
    best = min(medians, key=lambda mode: medians[mode])
    our_median = statistics.median(ours.milliseconds())
    differences = [abs(ours - theirs) for other in losses[1:] for ours, theirs in zip(losses[0], other, strict=True)]
    return {
        "shape": [row.layers, row.width],
        "tokens_per_step": row.batch * row.context,
        "threads": threads,
        "baseline": best,
        "baseline_ms": medians[best],
        "ours_ms": our_median,
        "ratio": medians[best] / our_median,
        "baseline_min_ms": min(sides[best].milliseconds()),
        "ours_min_ms": min(ours.milliseconds()),
        "ratio_min": min(sides[best].milliseconds()) / min(ours.milliseconds()),
        "baseline_cpu_ms": min(sides[best].milliseconds("cpu")),
        "ours_cpu_ms": min(ours.milliseconds("cpu")),
        "ratio_cpu": min(sides[best].milliseconds("cpu")) / min(ours.milliseconds("cpu")),
        "peak_share": row.flops / (min(ours.milliseconds()) * 1e-3) / (peak * 1e9 * threads),
        "peak_gflops": peak,
        "loss_diff": max(differences),
        "rounds": len(ours.rounds),
        "blas_core": about[0]["blas_core"],
        "avx512": about[0]["avx512"],
        "cpu": about[0]["cpu"],
        "peer": [one["what"] for one in about[1:]],
    }


def rows(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    chosen = [ROWS[int(index)] for index in arguments.rows.split(",")] if arguments.rows else ROWS
    modes = ["eager", "compile"] if arguments.compile else ["eager"]
    num_rounds, seconds = (7, 3.0) if arguments.quick else (30, 30.0)
    for row in chosen:
        yield run_row(row, arguments.threads, modes, num_rounds, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few rounds per row, under 50 s")
    parser.add_argument("--json", action="store_true", help="one object per row")
    parser.add_argument("--compile", action="store_true", help="also torch.compile; the better one is the baseline")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", help="indices of rows, comma-separated (default all)")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(Row(**json.loads(arguments.serve)), arguments.threads)
        return
    for result in rows(arguments):
        if arguments.json:
            print(json.dumps(result), flush=True)
        else:
            print(
                "({}, {}) {tokens_per_step} tokens/step, {threads} thread(s): {baseline} {baseline_ms:.2f} ms, "
                "ours {ours_ms:.2f} ms, ratio {ratio:.2f} (minima {ratio_min:.2f}, CPU time {ratio_cpu:.2f}), "
                "{peak_share:.0%} of sgemm peak, losses differ by {loss_diff:.1e}, {blas_core}".format(
                    *result["shape"], **result
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
