"""The CPU backend beside plain PyTorch: the same weights, batches and threads, interleaved in one run.

    python benchmarks/bench_numba.py --json            # eager and torch.compile, large vocabularies, a sweep
    python benchmarks/bench_numba.py --quick --json    # the six rows of the table beside eager, under 50 s

prints one object per row: shape, baseline_ms and ours_ms (medians per step), ratio, peak_share, loss_diff, and what
they rest on. Baseline: the better of PyTorch eager and torch.compile, both with fused AdamW.
peak_share: matrix-product FLOPs of a step (causal half of attention) over time, divided by what SciPy's sgemm reaches
on one thread of the same process in the same minute, times threads; blas_core says which kernels that sgemm used.
baseline_peak_share: the same of the baseline. Each side runs in its own process, never at the same time.
The last object of a full run is a sweep: two members, K steps per call, by one thread and by two.
"""

from __future__ import annotations

import argparse
import ctypes
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
    vocab: int = 256

    @property
    def shape(self) -> Shape:
        return Shape(
            n_layer=self.layers, d_model=self.width, n_head=self.heads, n_ctx=self.context, vocab_size=self.vocab
        )

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
LONG_ROWS = (Row(2, 64, 4, vocab=8192), Row(2, 64, 4, vocab=50_304), Row(2, 64, 4, batch=2, context=1024))
SWEEP = Row(2, 64, 4)


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
        **initial_parameters(shape, cohort.members[0].seed),  # type: ignore[arg-type]
    )


def serve(row: Row, threads: int) -> None:
    """Our side: k steps per line read, all in one call; "peak" measures sgemm on one thread."""
    from scaling_sim_numba import NumbaBackend

    tokens, starts = tokens_and_starts(row)
    backend = NumbaBackend(num_threads=threads)
    trainer = backend.start(row.cohort, {"train": tokens})
    print(json.dumps({"what": "ours", "blas_core": blas_core(), **backend.describe()}), flush=True)
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
    """Best GFLOP/s of SciPy's sgemm on this thread (`environment` gives BLAS one thread)."""
    from scipy.linalg.blas import sgemm

    a = np.asfortranarray(np.random.default_rng(0).random((size, size), np.float32))
    best = np.inf
    for _ in range(repetitions):
        start = time.perf_counter()
        sgemm(1.0, a, a)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def blas_core() -> str:
    """Core type that the OpenBLAS behind SciPy chose its kernels for; "unknown" for another BLAS."""
    import scipy.linalg.cython_blas as cython_blas

    library = ctypes.CDLL(cython_blas.__file__)
    for symbol in ("scipy_openblas_get_corename", "scipy_openblas_get_corename64_", "openblas_get_corename"):
        if hasattr(library, symbol):
            getattr(library, symbol).restype = ctypes.c_char_p
            return bytes(getattr(library, symbol)()).decode()
    return "unknown"


def environment(threads: int) -> dict[str, str]:
    """Of our process. Some releases of OpenBLAS take a Zen 4 or 5 for a Haswell, at half of its peak: not here."""
    from scaling_sim_numba.cpu import has_avx512, worker_environment

    core = {"OPENBLAS_CORETYPE": "SkylakeX"} if has_avx512() and "OPENBLAS_CORETYPE" not in os.environ else {}
    return worker_environment(threads) | core


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
        first = self.ask(3)
        seconds = first["wall"] / 3
        if seconds < SLICE_SECONDS:  # the first steps warm up; of long ones, one is a round anyway
            seconds = self.ask(2)["wall"] / 2
        self.steps = max(1, round(SLICE_SECONDS / max(seconds, 1e-5)))
        losses: list[float] = first["losses"]
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
    with tempfile.TemporaryDirectory() as folder:
        case = Path(folder) / "case.npz"
        write_case(row, case)
        ours = Side([__file__, "--serve", json.dumps(row.__dict__), "--threads", str(threads)], environment(threads))
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
        "context": row.context,
        "vocab": row.vocab,
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
        "baseline_peak_share": row.flops / (min(sides[best].milliseconds()) * 1e-3) / (peak * 1e9 * threads),
        "peak_gflops": peak,
        "loss_diff": max(differences),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "rounds": len(ours.rounds),
        "blas_core": about[0]["blas_core"],
        "avx512": about[0]["avx512"],
        "cpu": about[0]["cpu"],
        "peer": [one["what"] for one in about[1:]],
    }


def sweep(num_rounds: int) -> dict[str, Any]:
    """Milliseconds per step of two members together, by one thread and by two; minima of interleaved calls."""
    from scaling_sim_numba import NumbaBackend

    tokens, starts_K1B = tokens_and_starts(SWEEP)
    members = tuple(Member(id=i, seed=i) for i in range(2))
    cohort = Cohort(shape=SWEEP.shape, batch_sequences=SWEEP.batch, members=members)
    starts, lr = np.repeat(starts_K1B, 2, axis=1), np.full((NUM_BATCHES, 2), LR)
    trainers = {threads: NumbaBackend(num_threads=threads).start(cohort, {"train": tokens}) for threads in (1, 2)}
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(num_rounds):
        for threads, trainer in trainers.items():
            start = time.perf_counter()
            trainer.advance(len(times[threads]) * NUM_BATCHES, starts, lr)
            times[threads].append((time.perf_counter() - start) * 1e3 / NUM_BATCHES)
    one, two = min(times[1]), min(times[2])
    return {
        "sweep": [SWEEP.layers, SWEEP.width],
        "members": 2,
        "one_thread_ms": one,
        "two_threads_ms": two,
        "ratio": one / two,
        "ratio_of_medians": statistics.median(times[1]) / statistics.median(times[2]),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def results(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    every = [*ROWS, *LONG_ROWS]
    chosen = (
        [every[int(index)] for index in arguments.rows.split(",") if index] if arguments.rows is not None else every
    )
    if arguments.quick:
        chosen = [row for row in chosen if row in ROWS]
    modes = ["eager"] if arguments.quick or arguments.no_compile else ["eager", "compile"]
    num_rounds, seconds = (6, 2.0) if arguments.quick else (30, arguments.seconds)
    for row in chosen:
        yield run_row(row, arguments.threads, modes, num_rounds, seconds)
    if not arguments.quick:
        yield sweep(num_rounds)


TEXT = (
    "({0[0]}, {0[1]}) {tokens_per_step} tokens/step, context {context}, vocabulary {vocab}, {threads} thread(s): "
    "{baseline} {baseline_ms:.2f} ms, ours {ours_ms:.2f} ms, ratio {ratio:.2f} (minima {ratio_min:.2f}, "
    "CPU time {ratio_cpu:.2f}), {peak_share:.0%} of sgemm peak ({blas_core}), the baseline {baseline_peak_share:.0%}, "
    "losses differ by {loss_diff:.1e}{note}"
)
SWEEP_TEXT = "sweep of {members} ({0[0]}, {0[1]}): {one_thread_ms:.2f} ms by one thread, {two_threads_ms:.2f} by two"


def text(result: dict[str, Any]) -> str:
    """One line for people."""
    if "sweep" in result:
        return SWEEP_TEXT.format(result["sweep"], **result)
    note = "" if result["avx512"] == "yes" else "; no AVX-512 here: vectors are half as long as in the published table"
    return TEXT.format(result["shape"], note=note, **result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few rounds of six rows beside eager, under 50 s")
    parser.add_argument("--json", action="store_true", help="one object per row")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30.0, help="time per row of a full run")
    parser.add_argument("--rows", help="indices of rows, comma-separated (default all; empty: only the sweep)")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(Row(**json.loads(arguments.serve)), arguments.threads)
        return
    for result in results(arguments):
        print(json.dumps(result) if arguments.json else text(result), flush=True)


if __name__ == "__main__":
    main()
