"""Fabricated records of a small experiment whose law is known: a test's stand-in for measured runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from scaling_sim.datasets import Experiment
from scaling_sim.engine.cohort import Recipe
from scaling_sim.laws import kaplan
from scaling_sim.model.count import num_parameters
from scaling_sim.model.shape import Shape
from scaling_sim.runs.record import CurvePoint, RunConfig, RunRecord

TRUTH = {
    "alpha_N": 0.12, "N_c": 6e7, "alpha_D": 0.16, "D_c": 2e8, "alpha_S": 0.7, "S_c": 300.0, "alpha_B": 0.25,
    "B_star": 4e6,
}  # fmt: skip
SIZES = ((1, 8), (1, 16), (2, 16), (2, 32), (2, 64), (4, 64), (4, 96), (4, 128), (4, 192))
NOISE = 0.004


FACTS: dict[str, Any] = {
    "corpora": {
        "known": {"key": "english", "name": "no text", "tokens": 10**8, "vocab_size": 256}
    },
    "date": "",
    "device": "none",
    "commit": "",
    "sittings": [],
}


def _record(shape: Shape, recipe: Recipe, D: int, points: list[tuple[int, float]], **other: Any) -> RunRecord:
    config = RunConfig(shape, recipe, corpus="known", unique_tokens=D, early_stop=other.pop("early_stop", False))
    curve = tuple(
        CurvePoint(step=s, tokens=s * recipe.batch_tokens, lr=recipe.peak_lr, train=x, losses={"test": x}, errors={})
        for s, x in points
    )
    return RunRecord(run_id=config.run_id, config=config, curve=curve, simulated=True, **other)


def small_experiment(seed: int = 0) -> Experiment:
    """Curves of nine sizes, a batch sweep at two, and a grid of early-stopped runs, 0.4 % noise."""
    rng = np.random.default_rng(seed)
    records: list[RunRecord] = []
    for L, d in SIZES:
        shape = Shape(n_layer=L, d_model=d, n_head=1, n_ctx=128)
        N = num_parameters(shape)
        for batch in (1024, 8192, 65536) if d in (32, 128) else (8192,):
            steps = 100_000_000 // batch if batch < 65536 else 3000
            S = np.unique(np.geomspace(20, steps, 20).astype(int))
            loss = kaplan.solve_loss(N, float(batch), S, TRUTH) * np.exp(
                NOISE * rng.standard_normal() + 0.3 * NOISE * rng.standard_normal(len(S))
            )
            recipe = Recipe(peak_lr=1e-3, batch_tokens=batch, steps=int(S[-1]), warmup_steps=5)
            purposes = ("curve",) if batch == 8192 else ("batch",)
            points = list(zip(S.tolist(), loss.tolist(), strict=True))
            D = steps * batch
            records.append(_record(shape, recipe, D, points, purposes=purposes, status="done", best=-1))
        for D in (200_000, 1_000_000, 5_000_000, 25_000_000):
            recipe = Recipe(peak_lr=1e-3, batch_tokens=8192, steps=20_000, dropout=0.1)
            loss = float(kaplan.loss_nd(N, D, TRUTH)) * np.exp(NOISE * rng.standard_normal())
            points = [(500, 1.1 * loss), (2000, loss), (4000, 1.02 * loss)]
            records.append(
                _record(shape, recipe, D, points, purposes=("data",), status="stopped", best=1, early_stop=True)
            )
    return Experiment(records, FACTS, "fabricated")
