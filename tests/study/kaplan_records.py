"""Fabricated records of a small experiment whose law is known: a test's stand-in for measured runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.datasets import Experiment
from scaling_sim.engine.cohort import Recipe
from scaling_sim.laws import kaplan
from scaling_sim.model.count import num_parameters
from scaling_sim.model.shape import Shape
from scaling_sim.runs.record import CurvePoint, RunConfig, RunRecord

Array = NDArray[np.float64]

TRUTH = {
    "alpha_N": 0.12, "N_c": 6e7, "alpha_D": 0.16, "D_c": 2e8, "alpha_S": 0.7, "S_c": 300.0, "alpha_B": 0.25,
    "B_star": 2e5,
}  # fmt: skip
SHAPES = tuple(
    Shape(n_layer=n_layer, d_model=d, n_head=1, n_ctx=128)
    for n_layer, d in ((1, 8), (2, 16), (2, 24), (2, 32), (2, 64), (4, 64), (4, 96), (4, 128), (4, 192))
)
SWEPT, PAIRED = (SHAPES[3], SHAPES[7]), (SHAPES[2], SHAPES[4], SHAPES[6])
BATCH, EPOCH = 8192, 100_000_000
RUN_NOISE, POINT_NOISE = 0.003, 0.001
DROPOUT_COST = 0.02
"""Share of the loss by which runs with dropout do worse, on repeated and on fresh data."""
FACTS: dict[str, Any] = {
    "corpora": {"known": {"key": "english", "name": "no text", "tokens": EPOCH, "vocab_size": 256}},
    "device": "none",
}


def small_experiment(seed: int = 0) -> Experiment:
    """Curves of nine sizes, a batch sweep at two, early-stopped runs, and pairs with and without dropout."""
    return Experiment(_records(np.random.default_rng(seed)), FACTS, "fabricated")


def _records(rng: np.random.Generator) -> Iterator[RunRecord]:
    for shape in SHAPES:
        yield _curve(rng, shape, BATCH, ("curve", "fresh") if shape in PAIRED else ("curve",))
        for D in (400_000, 1_000_000, 2_500_000, 6_000_000, 15_000_000):
            yield _stopped(rng, shape, D, 0.1)
            if shape in PAIRED:
                yield _stopped(rng, shape, D, 0.0)
    for shape in SWEPT:
        for batch in (1024, 32_768, 131_072):
            yield _curve(rng, shape, batch, ("curve", "batch"))
    for shape in PAIRED:
        yield _curve(rng, shape, BATCH, ("fresh",), dropout=0.1)


def _curve(
    rng: np.random.Generator, shape: Shape, batch: int, purposes: tuple[str, ...], dropout: float = 0.0
) -> RunRecord:
    """One epoch at constant rate, by (1.6) with (5.4)."""
    steps = np.unique(np.geomspace(40, EPOCH // batch, 24).astype(int))
    loss = kaplan.solve_loss(num_parameters(shape), float(batch), steps, TRUTH)
    loss *= 1 + (DROPOUT_COST if dropout else 0.0)
    recipe = Recipe(peak_lr=1e-3, batch_tokens=batch, steps=int(steps[-1]), warmup_steps=5, dropout=dropout)
    return _record(RunConfig(shape, recipe, "known", EPOCH), steps, _noisy(rng, loss), purposes, "done", -1)


def _stopped(rng: np.random.Generator, shape: Shape, D: int, dropout: float) -> RunRecord:
    """A run whose loss rises again after its minimum, by (1.5)."""
    least = kaplan.loss_nd(num_parameters(shape), D, TRUTH) * (1 + (DROPOUT_COST if dropout else 0.0))
    loss = _noisy(rng, np.array([1.1, 1.0, 1.03]) * least)
    recipe = Recipe(peak_lr=1e-3, batch_tokens=BATCH, steps=20_000, dropout=dropout)
    config = RunConfig(shape, recipe, "known", D, early_stop=True)
    return _record(config, np.array([500, 2000, 4000]), loss, ("data",), "stopped", 1)


def _noisy(rng: np.random.Generator, loss: Array) -> Array:
    return loss * np.exp(RUN_NOISE * rng.standard_normal() + POINT_NOISE * rng.standard_normal(len(loss)))


def _record(config: RunConfig, steps: Array, losses: Array, purposes: Any, status: Any, best: int) -> RunRecord:
    batch = config.recipe.batch_tokens
    curve = tuple(
        CurvePoint(step=s, tokens=s * batch, lr=1e-3, train=x, losses={"test": x}, errors={})
        for s, x in zip(steps.tolist(), losses.tolist(), strict=True)
    )
    return RunRecord(
        run_id=config.run_id,
        config=config,
        curve=curve,
        purposes=purposes,
        status=status,
        best=best if best >= 0 else len(curve) - 1,
        simulated=True,
    )
