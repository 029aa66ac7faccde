"""Does the loss on another text depend on anything but the loss on the training distribution?

Kaplan et al. (2020, section 3.2.2, Fig. 8) find that it does not: models of all sizes, converged or at any time of
their training, lie on one curve. Here that is a number: what a decade of tokens changes at equal in-distribution loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import DataError
from scaling_sim.predict.offsets import PREFIX
from scaling_sim.predict.quantity import Quantity
from scaling_sim.runs.table import RunTable

Array = NDArray[np.float64]

MIN_RUNS = 4
NUM_DRAWS = 2000


@dataclass(frozen=True)
class Phase:
    """ln L' = quadratic in ln L + γ·log10(tokens).

    Attributes
    ----------
    split : the other text
    effect : γ, change of ln L' per decade of tokens at equal loss on the training distribution; 0 if that says all
    scatter : rms of what remains
    num_runs : int
    """

    split: str
    effect: Quantity
    scatter: float
    num_runs: int


def phase_effect(runs: RunTable, split: str, *, num_draws: int = NUM_DRAWS, seed: int = 0) -> Phase:
    """γ of one other text, from all rows; the uncertainty by resampling whole runs.

    A run at a given loss is either small and long trained or large and young, so γ ≠ 0 says that size or phase matter
    beyond the loss.

    Raises
    ------
    DataError
        Fewer than four runs carry both losses, or tokens follow from the loss.
    """
    name = PREFIX + split
    if name not in runs.extra:
        raise DataError(f"no run carries the loss on {split!r}: there is no column {name}")
    other = np.asarray(runs.extra[name], dtype=np.float64)
    use = np.isfinite(other) & (other > 0) & np.isfinite(runs.loss) & (runs.tokens > 0)
    names, run = np.unique(runs.run[use], return_inverse=True)
    if len(names) < MIN_RUNS:
        raise DataError(f"the effect of the phase of training needs {MIN_RUNS} runs with losses on {split}")
    x = np.log(runs.loss[use])
    x = x - x.mean()
    design = np.stack([np.ones_like(x), x, x**2, np.log10(runs.tokens[use])], axis=1)
    target = np.log(other[use])
    grams = np.stack([design[run == k].T @ design[run == k] for k in range(len(names))])
    rights = np.stack([design[run == k].T @ target[run == k] for k in range(len(names))])
    weights = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), num_draws)
    gram, right = np.tensordot(weights, grams, 1), weights @ rights
    kept = np.linalg.cond(gram) < 1e12
    if kept.mean() < 0.9:
        raise DataError(
            "the effect of the phase cannot be told from that of the loss: runs of several sizes are needed"
        )
    draws = np.linalg.solve(gram[kept], right[kept][..., None])[:, -1, 0]
    residual = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
    return Phase(split, Quantity("phase", draws, "ln_loss_per_decade"), float(np.std(residual)), len(names))
