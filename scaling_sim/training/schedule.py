"""Learning rate of every step, and the rules that give a run its peak learning rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scaling_sim.engine.cohort import Recipe
from scaling_sim.errors import ConfigError
from scaling_sim.model.count import num_parameters
from scaling_sim.model.shape import Shape

KAPLAN_LR_AT_ONE = 0.003239
"""Kaplan et al. 2020, equation (D.1): intercept; the logarithm is natural."""
KAPLAN_LR_SLOPE = 0.0001395
"""Kaplan et al. 2020, equation (D.1): fall per e-fold of N."""

SMALL_MODEL_LR = 0.011
"""Our rule for N ≤ 1e6 (byte-level text, batches of about 2,000 tokens): peak learning rate at `SMALL_MODEL_N`.

Best of four or five rates after 800 updates of 2,048 tokens of the standard library: about 0.03 at N = 768, 0.02 at
6,144, 0.012 at 13,824, 0.01 at 38,400, 0.004 at 98,304; longer runs want somewhat less."""
SMALL_MODEL_N = 1e4
SMALL_MODEL_LR_EXPONENT = -0.4
SMALL_MODEL_LR_RANGE = (1e-3, 3e-2)


def learning_rates(recipe: Recipe, first_step: int, num_steps: int) -> NDArray[np.float64]:
    """Learning rate of updates first_step + 1 .. first_step + num_steps, (num_steps,) float64.

    With k the 1-based number of the update, w = warmup_steps, S = steps::

        warm-up   min(1, k/w), for every schedule
        constant  1
        decay     min(1, (S − k + ½)/decay_steps)
        cosine    ½·(1 + cos(π·(k − w)/(H − w))) for k > w, with H = horizon_steps or S; 0 beyond H

    times ``peak_lr``. The linear decay is taken at the middle of each update: it reaches zero when the run ends, and no
    update is wasted on a rate of exactly zero.

    Parameters
    ----------
    recipe : Recipe
    first_step : int
        Updates done before the first one asked for, ≥ 0.
    num_steps : int
        Updates asked for, ≥ 0.
    """
    k = np.arange(first_step + 1, first_step + num_steps + 1, dtype=np.float64)
    factor = np.minimum(1.0, k / recipe.warmup_steps) if recipe.warmup_steps else np.ones_like(k)
    if recipe.schedule == "decay":
        factor *= np.clip((recipe.steps - k + 0.5) / recipe.decay_steps, 0.0, 1.0)
    elif recipe.schedule == "cosine":
        factor *= _cosine(k, recipe.warmup_steps, recipe.horizon_steps or recipe.steps)
    return recipe.peak_lr * factor


def learning_rate(step: int, recipe: Recipe) -> float:
    """Learning rate of update ``step`` (1-based); see `learning_rates`."""
    return float(learning_rates(recipe, step - 1, 1)[0])


def _cosine(k: NDArray[np.float64], warmup: int, horizon: int) -> NDArray[np.float64]:
    progress = (k - warmup) / max(1, horizon - warmup)
    factor: NDArray[np.float64] = 0.5 * (1.0 + np.cos(np.pi * np.clip(progress, 0.0, 1.0)))
    return factor


def kaplan_learning_rate(N: float) -> float:
    """Peak learning rate 0.003239 − 0.0001395·ln N of Kaplan et al. 2020, equation (D.1); breaks down above N ≈ 1e10.

    Parameters
    ----------
    N : float
        Non-embedding parameters, > 0.

    Raises
    ------
    ConfigError
        The rule gives no positive learning rate for this N.
    """
    rate = KAPLAN_LR_AT_ONE - KAPLAN_LR_SLOPE * float(np.log(N)) if N > 0 else 0.0
    if not rate > 0:
        raise ConfigError(
            f"Kaplan's learning-rate rule (D.1) holds for 0 < N < 1.2e10, got {N:g}; set peak_lr yourself"
        )
    return rate


def small_model_learning_rate(shape: Shape) -> float:
    """Peak learning rate of our own rule for tiny models, 0.011·(N/1e4)^-0.4 within [1e-3, 3e-2].

    A model without layers (N = 0) gets the upper end.
    """
    N = num_parameters(shape)
    low, high = SMALL_MODEL_LR_RANGE
    if N == 0:
        return high
    return float(np.clip(SMALL_MODEL_LR * (N / SMALL_MODEL_N) ** SMALL_MODEL_LR_EXPONENT, low, high))
