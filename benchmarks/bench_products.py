"""The wide products of a layer: PyTorch's choice among cuBLASLt's algorithms, and ours by trial.

    python benchmarks/bench_products.py --json

One object per model and product, microseconds of a launch: ``torch`` (``torch.mm``, and GELU compiled where there is
one) and ``ours`` (`scaling_sim_torch.products`), which take turns of a quarter of a second each, because a card at its
power limit is the slower the warmer it is; medians of five turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "backends")]

MODELS = ((65536, 768), (49152, 1024), (32768, 2048))
"""Rows and width of the large models of `bench_torch`."""
CHUNK, VOCABULARY = 2560, 50304
"""Rows of a chunk of logits, and its columns."""
TURNS, SECONDS = 5, 0.25


def products(rows: int, width: int) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Name → (PyTorch's, ours)."""
    import torch

    from scaling_sim_torch import cublaslt
    from scaling_sim_torch.products import gelu, product

    def random(*size: int) -> torch.Tensor:
        return torch.randn(*size, device="cuda").mul_(size[-1] ** -0.5).bfloat16()

    compiled = torch.compile(gelu, dynamic=False)
    x, up, down, qkv = random(rows, width), random(4 * width, width), random(width, 4 * width), random(3 * width, width)
    wide, few, table = random(rows, 4 * width), random(CHUNK, width), random(VOCABULARY, width)
    return {
        "up": (lambda: torch.mm(x, up.t()), lambda: product(x, up, True)),
        "up and GELU": (
            lambda: compiled(torch.mm(x, up.t())),
            lambda: cublaslt.product(x, up, transposed=True, beside=True),
        ),
        "gradient through down": (lambda: torch.mm(x, down), lambda: product(x, down, False)),
        "queries, keys, values": (lambda: torch.mm(x, qkv.t()), lambda: product(x, qkv, True)),
        # These two are left to PyTorch: there is nothing to gain.
        "down": (lambda: torch.mm(wide, down.t()), lambda: product(wide, down, True)),
        "gradient through up": (lambda: torch.mm(wide, up), lambda: product(wide, up, False)),
        "logits": (lambda: torch.mm(few, table.t()), lambda: product(few, table, True)),
    }


def turn(run: Callable[[], Any]) -> float:
    """Microseconds of a launch after a quarter of the turn."""
    import torch

    run()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(5):
        run()
    torch.cuda.synchronize()
    count = max(5, int(SECONDS * 5 / (time.perf_counter() - began)))
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(count // 4):
        run()
    first.record()
    for _ in range(count):
        run()
    last.record()
    torch.cuda.synchronize()
    return 1e3 * first.elapsed_time(last) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object per row (the only form there is)")
    parser.parse_args()
    for rows, width in MODELS:
        for name, sides in products(rows, width).items():
            times = [[turn(side) for side in sides] for _ in range(TURNS)]
            torch_us, ours_us = (statistics.median(side) for side in zip(*times, strict=True))
            line = {"rows": rows, "width": width, "product": name, "torch_us": round(torch_us, 1)}
            print(json.dumps({**line, "ours_us": round(ours_us, 1), "ratio": round(torch_us / ours_us, 3)}), flush=True)


if __name__ == "__main__":
    main()
