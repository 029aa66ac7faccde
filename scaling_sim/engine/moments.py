"""What each optimiser remembers between updates, and the arithmetic of Adafactor that all backends share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.engine.cohort import Cohort

MATRICES = ("token_embedding", "position_embedding", "qkv", "attn_out", "mlp_up", "mlp_down")
"""Parameters whose last two axes are a matrix; the others are vectors, of each layer."""
ADAFACTOR_FLOOR = 1e-30
"""ε₁: added to squared gradients."""
ADAFACTOR_CLIP = 1.0
"""d: largest root mean square of one parameter's update, in units of the learning rate."""


def moment_shapes(cohort: Cohort) -> dict[str, dict[str, tuple[int, ...]]]:
    """Kind of moment → parameter → shape of one member's entry.

    AdamW keeps ``adam_m`` and ``adam_v``. Adafactor keeps, for each matrix, the mean squares of its rows and of its
    columns, and for each vector those of its entries: at d_model = 2048 a thousandth of AdamW's.
    """
    shapes = cohort.shape.parameter_shapes()
    if cohort.optimizer == "adamw":
        return {"adam_m": shapes, "adam_v": shapes}
    return {
        "adafactor_row": {name: shapes[name][:-1] for name in MATRICES},
        "adafactor_column": {name: (*shapes[name][:-2], shapes[name][-1]) for name in MATRICES},
        "adafactor_v": {name: shape for name, shape in shapes.items() if name not in MATRICES},
    }


def adafactor_share(update: int | NDArray[np.int64]) -> Any:
    """Weight 1 − β̂₂ₜ = t^−0.8 of the new squares at the 1-based ``update`` (Shazeer and Stern 2018, section 7.2)."""
    return np.asarray(update, np.float64) ** -0.8


def adafactor(
    param: NDArray[Any], grad: NDArray[Any], moments: dict[str, NDArray[Any]], update: int, lr: float, decay: float
) -> None:
    """One Adafactor update of one matrix or vector, in place (Shazeer and Stern 2018, algorithms 4 and 5).

    With s = g² + ε₁, R and C the running means of s over columns and over rows: V̂ = R·Cᵀ/mean(R), u = g/√V̂,
    u ← u/max(1, RMS(u)/d), x ← x − lr·u − lr·decay·x. The learning rate is the one given, not relative to RMS(x), so
    that a recipe means the same for both optimisers; there is no first moment.

    Parameters
    ----------
    param, grad : (o, i) or (d,) array
    moments : dict
        ``row`` (o,) and ``column`` (i,), or ``v`` (d,); updated in place.
    decay : float
        Weight decay.
    """
    share, square = float(adafactor_share(update)), grad**2 + ADAFACTOR_FLOOR
    if "v" in moments:
        estimate = moments["v"]
        estimate += share * (square - estimate)
    else:
        row, column = moments["row"], moments["column"]
        row += share * (square.mean(axis=1) - row)
        column += share * (square.mean(axis=0) - column)
        estimate = np.outer(row, column) / row.mean()
    step = grad / np.sqrt(estimate)
    step /= max(1.0, math.sqrt(np.mean(step**2)) / ADAFACTOR_CLIP)
    param -= lr * step + lr * decay * param
