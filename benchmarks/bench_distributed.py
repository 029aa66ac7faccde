"""One large model on several GPUs: speed, curve and checkpoints beside one GPU.

    python benchmarks/bench_distributed.py --json                 # 1 and 2 GPUs, DDP and FSDP2
    python benchmarks/bench_distributed.py --left 6 --json        # too large for the 6 GiB left on each of two GPUs
    python benchmarks/bench_distributed.py --cpu --json           # the same program with tiny models and gloo

One object per row. ``ddp equal batch per GPU`` and ``ddp equal global batch`` have ``ratio`` = tokens per second over
those of one GPU; ``curve`` rows the largest difference of the losses of 2 × UPDATES updates from those of one GPU,
with a second run on one GPU beside them (``again``: what atomics alone change); ``resumed`` rows that of the second
half, continued by one GPU from the state that two GPUs wrote, and in ``from_two_gpus_nats`` its difference from
theirs. With ``--left`` all memory of two GPUs but so many GiB is taken and the planner chooses: its plan, the peak
beyond what was taken, and the largest difference from one GPU's losses. ``within``: by no more than TOLERANCE. Every
number of GPUs is a group of processes with torchrun's variables; the state travels through a file.
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
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "backends")]

UPDATES = 30
TOLERANCE = 0.03
"""Nats by which a loss of the first 2 × UPDATES may differ between one and two GPUs. Adam's first updates go by the
sign of a gradient, the embedding's is summed by atomics: one GPU differs from itself by up to a third of this."""
CARD = {
    "speed": (24, 1024, 16, 50304, 1024, 48),
    "curve": (12, 768, 12, 50304, 1024, 16),
    "squeezed": (24, 1024, 16, 50304, 1024, 16),
    "updates": 6,
    "rounds": 3,
}
TINY = {"speed": (2, 64, 2, 256, 32, 8), "curve": (2, 64, 2, 256, 32, 8), "updates": 2, "rounds": 1}
Row = tuple[int, int, int, int, int, int]


def cohort_of(row: Row, batch: int) -> Any:
    from scaling_sim.engine.cohort import Cohort, Member
    from scaling_sim.model.shape import Shape

    n_layer, d, heads, vocab, context, _ = row
    shape = Shape(n_layer=n_layer, d_model=d, n_head=heads, n_ctx=context, vocab_size=vocab)
    return Cohort(shape=shape, batch_sequences=batch, members=(Member(id=0, seed=0),))


def tokens_of(row: Row) -> Any:
    """Something to learn: most tokens follow from the one before."""
    import numpy as np

    rng, vocab = np.random.default_rng(0), row[3]
    tokens = np.where(rng.random(2_000_000) < 0.3, rng.integers(0, vocab, 2_000_000), 0)
    return ((np.cumsum(rng.integers(0, 3, 2_000_000)) + tokens) % vocab).astype(np.uint16)


def batches(row: Row, batch: int, num: int) -> tuple[Any, Any]:
    import numpy as np

    rng = np.random.default_rng(1)
    lr = 3e-4 * np.minimum(1, np.arange(1, num + 1) / 5)
    return rng.integers(0, 1_900_000, (num, 1, batch)), lr[:, None]


def start(row: Row, batch: int, device: str, *, sharded: bool = False) -> Any:
    from scaling_sim_torch.compiling import prepare_compilers
    from scaling_sim_torch.fast import FastTrainer
    from scaling_sim_torch.plan import Plan, make_plan
    from scaling_sim_torch.sharded_trainer import ShardedTrainer

    prepare_compilers()
    cohort, compiled = cohort_of(row, batch), device != "cpu"
    kind, plan = FastTrainer, make_plan(cohort, device, "bfloat16")
    if sharded or not compiled:
        kind = ShardedTrainer if sharded else FastTrainer
        plan = Plan("sharded" if sharded else "stacked", "asked for", compiled=compiled)
    return kind(cohort, {"train": tokens_of(row)}, device, "bfloat16", plan)


def timed(row: Row, batch: int, device: str, options: dict[str, Any], *, sharded: bool = False) -> dict[str, float]:
    """Milliseconds of an update on this rank, from the host's clock around whole calls that read losses back."""
    trainer = start(row, batch, device, sharded=sharded)
    starts, lr = batches(row, batch, options["updates"])
    trainer.advance(0, starts[:2], lr[:2])
    seconds = []
    for _ in range(options["rounds"]):
        began = time.perf_counter()
        trainer.advance(2, starts, lr)
        seconds.append(time.perf_counter() - began)
    ms = 1e3 * statistics.median(seconds) / options["updates"]
    return {"ms": round(ms, 3), "tokens_per_second": round(batch * row[4] / ms * 1e3), "gib": memory(device)}


def memory(device: str) -> float:
    import torch

    if device == "cpu":
        return 0.0
    peak = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return round(peak, 2)


def group(options: dict[str, Any], size: int, folder: Path) -> dict[str, Any]:
    """What one rank measures."""
    import numpy as np
    import torch

    device = "cpu" if options["cpu"] else "cuda:0"
    if size > 1:
        from scaling_sim_torch.distributed import Ranks

        device = Ranks().device
    speed, row = tuple(options["speed"]), tuple(options["curve"])
    found: dict[str, Any] = {
        "speed": {},
        "losses": {},
        "card": "cpu" if device == "cpu" else torch.cuda.get_device_name(),
    }
    found["speed"][f"{size * speed[5]}"] = timed(speed, size * speed[5], device, options)
    if size > 1:
        found["speed"][f"{speed[5]}"] = timed(speed, speed[5], device, options)
        found["speed"]["sharded"] = timed(speed, size * speed[5], device, options, sharded=True)
    starts, lr = batches(row, row[5], 2 * UPDATES)
    for name in ("ddp", "fsdp") if size > 1 else ("once", "again"):
        trainer = start(row, row[5], device, sharded=name == "fsdp")
        losses = [trainer.advance(0, starts[:UPDATES], lr[:UPDATES])]
        if size > 1:
            state = trainer.state()
            if trainer.leads:
                np.savez(folder / f"{name}.npz", **state)
        losses.append(trainer.advance(UPDATES, starts[UPDATES:], lr[UPDATES:]))
        found["losses"][name] = np.concatenate(losses)[:, 0].tolist()
    for name in ("ddp", "fsdp") if size == 1 else ():
        trainer.load_state(dict(np.load(folder / f"{name}.npz")))
        found["losses"][f"resumed {name}"] = trainer.advance(UPDATES, starts[UPDATES:], lr[UPDATES:])[:, 0].tolist()
    return found


def squeezed(options: dict[str, Any], size: int) -> dict[str, Any]:
    """What the planner makes of a model where two GPUs have `left` GiB each, or one has all its memory."""
    import torch

    from scaling_sim_torch import BACKEND

    device, taken = "cuda:0", 0
    if size > 1:
        device = BACKEND.ranks().device
        taken = max(0, int(torch.cuda.mem_get_info()[0] - options["left"] * 2**30))
    ballast = torch.empty(taken, dtype=torch.uint8, device=device)
    row = tuple(options["squeezed"])
    trainer = BACKEND.start(cohort_of(row, row[5]), {"train": tokens_of(row)}, device, "bfloat16")
    starts, lr = batches(row, row[5], 3 * options["updates"])
    first = trainer.advance(0, starts[: options["updates"]], lr[: options["updates"]])
    began = time.perf_counter()
    rest = trainer.advance(options["updates"], starts[options["updates"] :], lr[options["updates"] :])
    ms = 1e3 * (time.perf_counter() - began) / len(rest)
    gib = (torch.cuda.max_memory_allocated() - ballast.numel()) / 2**30
    losses = [*first[:, 0].tolist(), *rest[:, 0].tolist()]
    return {"plan": str(trainer.plan), "ms": round(ms, 1), "gib": round(gib, 2), "losses": losses}


def launch(options: dict[str, Any], size: int, folder: Path) -> dict[str, Any]:
    """One process per GPU; rank 0's findings."""
    port = str(29500 + os.getpid() % 1000)
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NCCL_NVLS_ENABLE": "0"}
    if size > 1:
        environment["WORLD_SIZE"] = str(size)
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, "--group", json.dumps(options), "--size", str(size), "--folder", str(folder)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(size)
    ]  # fmt: skip
    outputs = [rank.communicate()[0] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        raise SystemExit(f"a rank of {size} failed")
    return json.loads(outputs[0].strip().splitlines()[-1])


def rows_of(options: dict[str, Any], one: dict[str, Any], two: dict[str, Any]) -> list[dict[str, Any]]:
    speed = options["speed"]
    base = one["speed"][str(speed[5])]
    named = {
        "one": base,
        "ddp equal batch per GPU": two["speed"][str(2 * speed[5])],
        "ddp equal global batch": two["speed"][str(speed[5])],
        "fsdp2 equal batch per GPU": two["speed"]["sharded"],
    }
    lines = [
        {"what": what, "shape": speed[:3], "vocab": speed[3], "context": speed[4], "card": one["card"], **measured,
         "ratio": round(measured["tokens_per_second"] / base["tokens_per_second"], 3)}
        for what, measured in named.items()
    ]  # fmt: skip
    truth = one["losses"]["once"]
    for name, losses in {**two["losses"], **one["losses"]}.items():
        part = truth[UPDATES:] if name.startswith("resumed") else truth
        gap = max(abs(a - b) for a, b in zip(losses, part, strict=True))
        what = name if name.startswith("resumed") else f"curve {name}"
        own = two["losses"].get(name.removeprefix("resumed "), losses)[-len(losses) :]
        continued = max(abs(a - b) for a, b in zip(losses, own, strict=True))
        differences = {"largest_difference_nats": gap, "from_two_gpus_nats": continued, "within": gap <= TOLERANCE}
        ends = {"first_loss": losses[0], "last_loss": losses[-1]}
        lines.append({"what": what, "shape": options["curve"][:3], **differences, **ends})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--left", type=float, default=0.0, metavar="GIB", help="take all other memory of two GPUs")
    parser.add_argument("--json", action="store_true", help="one object per row (the only form there is)")
    parser.add_argument("--group", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.group:
        asked = json.loads(given.group)
        found = squeezed(asked, given.size) if asked["left"] else group(asked, given.size, given.folder)
        print(json.dumps(found), flush=True)
        os._exit(0)  # no waiting for each other's destructors
    options = {**(TINY if given.cpu else CARD), "cpu": given.cpu, "left": given.left}
    with tempfile.TemporaryDirectory() as folder:
        two = launch(options, 2, Path(folder))
        one = launch(options, 1, Path(folder))
    if given.left:
        gap = max(abs(a - b) for a, b in zip(two.pop("losses"), one.pop("losses"), strict=True))
        print(json.dumps({"left": given.left, "two": two, "one": one, "largest_difference_nats": gap}))
        return
    for line in rows_of(options, one, two):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
