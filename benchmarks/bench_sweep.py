"""A sweep of 300 tiny runs on one GPU, end to end, beside the same runs one at a time.

    python benchmarks/bench_sweep.py --json
    python benchmarks/bench_sweep.py --device cpu --backend numba --runs 5 --steps 2 --json    # small, on the CPU

One object per row, every row in a process of its own:

* ``sweep``: `scaling_sim.training.run_sweep` from planned jobs to finished records in the store, with evaluations,
  noise scale, divergence checks and checkpoints; ``cold`` with an empty compile cache, ``warm`` with that of the run
  before, ``auto`` with the backend that the placement chooses. ``seconds`` is the wall time of the call,
  ``process_seconds`` that of the whole process, imports included.
* ``serial``: the same backend, one run at a time: two runs of each shape are made (the second without compilation),
  and ``seconds`` is the first plus all others at the second's time. SCALED, not measured in full.
* ``eager``: plain PyTorch (benchmarks/peers/torch_gpt.py without torch.compile, bfloat16 autocast, fused AdamW, random
  batches) one run at a time, without evaluations: updates of each shape timed for two seconds and SCALED.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "backends"), str(HERE / "peers")]

SHAPES = ((1, 16, 1), (2, 16, 1), (2, 32, 2), (2, 64, 2), (4, 128, 4))
CONTEXT, VOCAB, SEQUENCES = 128, 256, 64
RATES = (0.25, 0.5, 1.0, 2.0, 4.0)


def jobs_of(corpus: Any, num_runs: int, steps: int) -> list[Any]:
    """Equal numbers of runs of each shape: learning rates times seeds, on nested subsets of the data."""
    from scaling_sim.engine.cohort import Recipe
    from scaling_sim.model.shape import Shape
    from scaling_sim.runs.record import RunConfig
    from scaling_sim.training import Job, small_model_learning_rate

    jobs = []
    for i in range(num_runs):
        n_layer, d, heads = SHAPES[i % len(SHAPES)]
        shape, number = (
            Shape(n_layer=n_layer, d_model=d, n_head=heads, n_ctx=CONTEXT, vocab_size=VOCAB),
            i // len(SHAPES),
        )
        recipe = Recipe(
            peak_lr=small_model_learning_rate(shape) * RATES[number % len(RATES)],
            batch_tokens=SEQUENCES * CONTEXT,
            steps=steps,
            warmup_steps=max(1, steps // 20),
            seed=number // len(RATES),
        )
        unique = len(corpus.splits["train"]) // (1 + number % 3)
        config = RunConfig(
            shape=shape, recipe=recipe, corpus=corpus.hash, unique_tokens=unique, eval_points=12, eval_sequences=256
        )
        jobs.append(Job(config, ("lr",)))
    return jobs


def corpus_of(folder: Path) -> Any:
    from scaling_sim.data.corpus import CorpusConfig, load_corpus

    return load_corpus(CorpusConfig(), folder / "corpus")


def sweep(options: Any, folder: Path) -> dict[str, Any]:
    """All runs by one call."""
    from scaling_sim.runs.store import RunStore
    from scaling_sim.training import run_sweep

    corpus = corpus_of(folder)
    jobs = jobs_of(corpus, options.runs, options.steps)
    with tempfile.TemporaryDirectory() as out, RunStore(Path(out)) as store:
        began = time.perf_counter()
        summary = run_sweep(
            jobs, corpus, store, backend=options.backend, device=options.device, checkpoints=Path(out) / "checkpoints",
            workers=options.workers,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        losses = [record.result.losses["test"] for record in store.records() if record.result is not None]
    tokens = options.runs * options.steps * SEQUENCES * CONTEXT
    return {
        "runs": options.runs, "done": summary.done, "diverged": summary.diverged, "failed": summary.failed,
        "seconds": round(seconds, 2), "tokens_per_second": round(tokens / seconds), "placement": summary.placement,
        "messages": list(summary.messages), "best_loss": round(min(losses), 4),
    }  # fmt: skip


def serial(options: Any, folder: Path) -> dict[str, Any]:
    """Two runs of each shape, one call each; all runs at the second's time."""
    from scaling_sim.runs.store import RunStore
    from scaling_sim.training import run_sweep

    corpus = corpus_of(folder)
    jobs = jobs_of(corpus, 2 * len(SHAPES), options.steps)
    seconds = []
    with tempfile.TemporaryDirectory() as out, RunStore(Path(out)) as store:
        for job in jobs:
            began = time.perf_counter()
            run_sweep([job], corpus, store, backend=options.backend, device=options.device, workers=0)
            seconds.append(time.perf_counter() - began)
    first, second = seconds[: len(SHAPES)], seconds[len(SHAPES) :]
    each = options.runs // len(SHAPES)
    total = sum(a + (each - 1) * b for a, b in zip(first, second, strict=True))
    return {
        "runs_measured": len(jobs),
        "first": _rounded(first),
        "second": _rounded(second),
        "seconds": round(total, 1),
    }


def eager(options: Any, folder: Path) -> dict[str, Any]:
    """Plain PyTorch, one model at a time."""
    import torch
    from torch_gpt import GPT

    device = options.device or "cuda"
    rates = []
    for n_layer, d, heads in SHAPES:
        model = GPT(n_layer, d, heads, VOCAB, CONTEXT).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=device == "cuda")
        corpus = torch.randint(VOCAB, (2_000_000,), device=device)
        window = torch.arange(CONTEXT + 1, device=device)
        made, began = 0, 0.0
        while began == 0.0 or time.perf_counter() - began < 2.0:
            starts = torch.randint(1_900_000, (SEQUENCES, 1), device=device)
            batch = corpus[starts + window]
            with torch.autocast(device.split(":")[0], torch.bfloat16):
                loss = model(batch[:, :-1], batch[:, 1:])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            made += 1
            if began == 0.0 and made == 5:
                loss.item()
                made, began = 0, time.perf_counter()
        loss.item()
        rates.append(made / (time.perf_counter() - began))
    each = options.runs // len(SHAPES)
    tokens = [round(rate * SEQUENCES * CONTEXT / 1e6, 2) for rate in rates]
    return {
        "million_tokens_per_second": tokens,
        "seconds": round(sum(each * options.steps / rate for rate in rates), 1),
    }


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 2) for value in values]


def launch(what: str, name: str, given: argparse.Namespace, folder: Path, **changes: Any) -> dict[str, Any]:
    """One row in a process of its own."""
    options = {**vars(given), **changes}
    environment = {**os.environ, "SCALING_SIM_CACHE": str(folder / "cache"), "CUPY_CACHE_DIR": str(folder / "cupy")}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--row", what, "--options", json.dumps(options), "--folder", str(folder)],
        stdout=subprocess.PIPE, text=True, env=environment, check=False,
    )  # fmt: skip
    found = json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else {"error": done.returncode}
    return {
        "row": name,
        "backend": options["backend"],
        "process_seconds": round(time.perf_counter() - began, 1),
        **found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object per row (the only form there is)")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--device")
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--options", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        options = argparse.Namespace(**json.loads(given.options))
        print(json.dumps({"sweep": sweep, "serial": serial, "eager": eager}[given.row](options, given.folder)))
        return
    for name in ("row", "options", "folder"):
        delattr(given, name)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        rows = [launch("sweep", "sweep, cold", given, place), launch("sweep", "sweep, warm", given, place)]
        print(*(json.dumps(row) for row in rows), sep="\n", flush=True)
        others = (
            ("serial", "serial (scaled)", {}),
            ("eager", "eager PyTorch (scaled)", {}),
            ("sweep", "sweep, auto", {"backend": "auto"}),
            ("sweep", "sweep, warm, 3 workers", {"workers": 3}),
        )
        for what, name, changes in others:
            rows.append(launch(what, name, given, place, **changes))
            if what != "sweep" and "seconds" in rows[-1] and "seconds" in rows[1]:
                rows[-1]["ratio"] = round(rows[-1]["seconds"] / rows[1]["seconds"], 2)
            print(json.dumps(rows[-1]), flush=True)


if __name__ == "__main__":
    main()
