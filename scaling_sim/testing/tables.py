"""Tables of runs for checks: one with every kind of row, and changes that must not matter."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from scaling_sim.laws.constants import constants
from scaling_sim.predict.layout import Grid, Sweep, Tuning, log_spaced
from scaling_sim.predict.noise import Noise
from scaling_sim.predict.simulate import simulate
from scaling_sim.runs.table import FLAGS, NUMBERS, RunTable, concat


def representative_table(seed: int = 0, noise: float = 0.005) -> RunTable:
    """Simulated runs with every column and every kind of row that a law may need.

    Learning curves, batch sweeps, repeated seeds and early-stopped runs of Kaplan's constants, decayed final losses
    with and without repeated data of Muennighoff's, and a sweep of learning rate and batch about Step Law's best.
    """
    curves = Sweep(
        N=log_spaced(1e5, 1e9, 5),
        points=8,
        batch_N=(1e6, 1e8),
        data_N=log_spaced(1e6, 1e9, 3),
        data_D=log_spaced(2e7, 2e10, 4),
    )
    finals = Grid(N=log_spaced(5e7, 5e9, 4), tokens=log_spaced(1e9, 3e11, 5), epochs=(1.0, 8.0))
    quiet = Noise(noise, nu=np.inf)
    tuned = simulate(constants("step-law-learning-rate"), Tuning(), noise=Noise(noise / 4, nu=np.inf), seed=seed + 2)
    plain = [
        simulate(constants("kaplan-table5"), curves, noise=quiet, seed=seed),
        simulate(constants("muennighoff"), finals, noise=quiet, seed=seed + 1),
    ]
    return concat([*map(_without_lr, plain), tuned], source="representative runs")


def _without_lr(table: RunTable) -> RunTable:
    """A table with a column ``lr`` of which nothing is known."""
    return dataclasses.replace(table, extra={**table.extra, "lr": np.full(len(table), np.nan)})


def permuted(table: RunTable, seed: int = 0) -> RunTable:
    """The same rows in another order."""
    order = np.random.default_rng(seed).permutation(len(table))
    columns = {name: getattr(table, name)[order] for name in ("run", *NUMBERS, *FLAGS)}
    extra = {name: values[order] for name, values in table.extra.items()}
    return dataclasses.replace(table, **columns, extra=extra, data_hash="")


def rescaled(table: RunTable, *, N: float = 1.0, tokens: float = 1.0, loss: float = 1.0) -> RunTable:
    """The same runs in other units: N, tokens (with D and B) and losses times a factor, C = 6·N·tokens kept."""
    changes: dict[str, Any] = {
        "N": table.N * N,
        "tokens": table.tokens * tokens,
        "D": table.D * tokens,
        "B": table.B * tokens,
        "C": table.C * (N * tokens),
        "loss": table.loss * loss,
        "loss_error": table.loss_error * loss,
    }
    return dataclasses.replace(table, **changes, data_hash="")
