"""Times the hand-written kernels one by one, for any tiles: where `scaling_sim_torch.tiling.MEASURED` comes from.

    python benchmarks/tune_torch.py                                                   # the present tiles
    python benchmarks/tune_torch.py --width 128 --kernel mlp_back --tiles '[[32, 128, 4, 3], [64, 64, 8, 4]]'

prints one object per kernel and tile: microseconds of a launch for 64 members and for one, each with 64 sequences of
128 tokens, by replays of a CUDA graph that holds nothing else. A tile: rows, block, warps, stages, registers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "backends")]

if TYPE_CHECKING:
    from scaling_sim_torch.fused import FusedModel
    from scaling_sim_torch.tiling import Launch

HEADS = {16: 1, 32: 2, 64: 2, 128: 4}
BATCH, CONTEXT, VOCABULARY = 64, 128, 256
LAUNCHES = {64: 4, 1: 20}
"""Of a graph, by the number of members."""
KERNELS = {
    "attention": "attention_forward", "attention_back": "attention_backward", "mlp": "mlp_forward",
    "mlp_gradients": "mlp_gradients", "mlp_back": "mlp_backward", "projection": "projection_backward",
    "head": "head_forward", "embedding": "embedding_gradient", "weights": "attention_gradients",
}  # fmt: skip
"""The kernel that each field of a `Tiling` lays out."""


def prepared(width: int, members: int) -> tuple[FusedModel, Any, Any]:
    """A model of one layer that has read a batch, with weights and their bfloat16 copy."""
    import torch

    from scaling_sim.model.init import initial_parameters
    from scaling_sim.model.shape import Shape
    from scaling_sim_torch.fused import FusedModel

    device = torch.device("cuda")
    shape = Shape(n_layer=1, d_model=width, n_head=HEADS[width], n_ctx=CONTEXT, vocab_size=VOCABULARY)
    initial = initial_parameters(shape, 0, "float32")
    weights = torch.cat([torch.from_numpy(value).flatten() for value in initial.values()]).to(device)
    weights = weights.expand(members, -1).contiguous()
    model = FusedModel(shape, members, BATCH, device)
    corpus = torch.randint(0, VOCABULARY, (100_000,), device=device).to(torch.uint8)
    starts = torch.randint(0, 90_000, (1, members, BATCH), device=device)
    model.read(starts, torch.zeros(1, dtype=torch.int64, device=device), corpus, 0xFF, weights)
    half = weights.bfloat16()
    model.gradient(weights, half)
    return model, weights, half


@contextmanager
def only(kernel: str) -> Iterator[None]:
    """Launch no other kernel of Triton's meanwhile."""
    from triton.runtime.jit import JITFunction

    launch = JITFunction.__getitem__

    def chosen(self: Any, grid: Any) -> Any:
        return launch(self, grid) if self.fn.__name__ == kernel else lambda *_, **__: None

    JITFunction.__getitem__ = chosen
    try:
        yield
    finally:
        JITFunction.__getitem__ = launch


def microseconds(model: FusedModel, weights: Any, half: Any, launches: int) -> float:
    """Of one launch; median of five replays."""
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    graph, times = torch.cuda.CUDAGraph(), []
    with torch.cuda.stream(stream):
        model.gradient(weights, half)
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(launches):
                model.gradient(weights, half)
    for _ in range(6):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        graph.replay()
        last.record()
        torch.cuda.synchronize()
        times.append(first.elapsed_time(last) / launches * 1e3)
    return round(statistics.median(times[1:]), 2)


def report(width: int, kinds: list[str], tiles: list[Launch] | None) -> None:
    """Print the times of all kernels and tiles of one width; what does not compile says why."""
    models = {members: prepared(width, members) for members in LAUNCHES}
    present = models[1][0].tiling
    for kind in kinds:
        for launch in tiles or [getattr(present, kind)]:
            line: dict[str, Any] = {"width": width, "kernel": KERNELS[kind], "tile": [*vars(launch).values()]}
            try:
                for members, (model, weights, half) in models.items():
                    model.tiling = replace(present, **{kind: launch})
                    with only(KERNELS[kind]):
                        line[f"us_{members}"] = microseconds(model, weights, half, LAUNCHES[members])
            except Exception as error:
                line["error"] = f"{type(error).__name__}: {str(error)[:100]}"
            print(json.dumps(line), flush=True)


def main() -> None:
    from scaling_sim_torch.tiling import Launch, Tiling

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, choices=HEADS)
    parser.add_argument("--kernel", choices=[field.name for field in fields(Tiling)])
    parser.add_argument("--tiles", help="JSON list of tiles")
    options = parser.parse_args()
    kinds = [options.kernel] if options.kernel else list(KERNELS)
    tiles = [Launch(*tile) for tile in json.loads(options.tiles)] if options.tiles else None
    for width in [options.width] if options.width else HEADS:
        report(width, kinds, tiles)


if __name__ == "__main__":
    main()
