"""How fast this backend trains, as measured; the placement of a sweep compares these rows with other backends'."""

from __future__ import annotations

from pathlib import Path

from scaling_sim.engine.throughput import read_measured

MEASURED = read_measured(Path(__file__).with_name("throughput.json"))
"""One H200, whole updates; written by ``--throughput`` of ``benchmarks/bench_torch.py`` and ``bench_cupy.py``."""
