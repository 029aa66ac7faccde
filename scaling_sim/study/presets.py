"""Presets: complete studies under a name, in the same words as a TOML file."""

from __future__ import annotations

from typing import Any


def _shape(n_layer: int, d_model: int, n_head: int) -> dict[str, int]:
    return {"n_layer": n_layer, "d_model": d_model, "n_head": n_head, "n_ctx": 64, "vocab_size": 256}


LAPTOP: dict[str, Any] = {
    "name": "laptop",
    # N = 768, 2400, 6144, 13824, 38400, 98304: two decades, factors of about 2.6.
    "shapes": [
        _shape(1, 8, 1),
        _shape(2, 10, 1),
        _shape(2, 16, 2),
        _shape(2, 24, 3),
        _shape(2, 40, 5),
        _shape(2, 64, 4),
    ],
    "curves": {
        "batch_tokens": 2048,
        "steps": 3400,
        "warmup_steps": 40,
        "branch_steps": [100, 240, 580, 1400, 3400],
        "decay_fraction": 0.25,
        "seeds": 2,
        "seed_sizes": [1, 2],
    },
    "data": {
        "sizes": [2, 3, 4],
        "unique_tokens": [4096, 8192, 16384, 32768, 65536, 131072],
        "batch_tokens": 2048,
        "max_steps": 4000,
    },
    "batches": {"sizes": [1, 2], "batches": [[512, 2400], [8192, 400], [32768, 120]]},
    "minutes": 5.0,
}
"""Six sizes on two CPU cores in about five minutes: the main job on the embedded default."""

PRESETS: dict[str, dict[str, Any]] = {"laptop": LAPTOP}

EXPERIMENTS = ("kaplan-h200", "kaplan-tiny")
"""Names of experiments, which are no presets: `scaling_sim.study.kaplan` makes their runs, and nothing is fitted."""
