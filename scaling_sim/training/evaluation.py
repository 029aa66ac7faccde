"""When a run is evaluated, on which windows, and what that costs.

A run's evaluations depend on its own configuration only, never on its cohort or sweep. Steps come from one grid
2^(j/q), so that curves of different length share them; windows are fixed, so that the sampling error of a split is
common to all evaluations with the same number of windows and drops out of differences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from scaling_sim.data.batches import evaluation_starts
from scaling_sim.engine.protocol import Tokens
from scaling_sim.runs.record import RunConfig, position_edges

FIRST_POINT = 256
"""Evaluations need not reach back further than to steps / FIRST_POINT."""
EVALUATION_SHARE = 0.12
"""Evaluation and noise measurements together cost at most this share of the training FLOPs (automatic choice)."""
SEQUENCES_RANGE = (32, 1024)
"""Windows of the test split per evaluation: bounds of the automatic choice."""
NOISE_BATCHES = 16
"""Small batches per noise measurement."""
NEEDED_SPLITS = ("train", "validation", "test")
ROW = 16
"""Sequences per evaluated batch."""


def evaluation_steps(config: RunConfig) -> NDArray[np.int64]:
    """Steps after which a run is evaluated, increasing, the last step always among them.

    The last ``eval_points`` of the steps round(2^(j/q)) between the end of warm-up and the end of the run, with the
    finest q = 1, 2, 4, … for which they reach back to twice the warm-up (where curve laws begin to use them), or to
    steps/256. A decay branch is evaluated after its branch step only.
    """
    last, branch, warmup = config.recipe.steps, config.branch_step, config.recipe.warmup_steps
    earliest = max(1, warmup, branch + 1)
    needed = max(earliest, 2 * warmup, -(-last // FIRST_POINT))
    room = config.eval_points - 1
    grid = np.array([], dtype=np.int64)
    for q in (1, 2, 4, 8, 16, 32, 64):
        exponents = np.arange(0, int(q * np.log2(last)) + 2)
        finer = np.unique(np.round(2.0 ** (exponents / q)).astype(np.int64))
        finer = finer[(finer >= earliest) & (finer < last)]
        if np.count_nonzero(finer >= needed) > room:
            break
        grid = finer[max(0, len(finer) - room) :]
    return np.append(grid, last)


def num_test_windows(config: RunConfig, num_splits: int = 5) -> int:
    """Windows of the test split per evaluation: ``eval_sequences``, or the most that `EVALUATION_SHARE` allows."""
    if config.eval_sequences:
        return config.eval_sequences
    low, high = SEQUENCES_RANGE
    num = high
    while num > low and _share(config, num, num_splits) > EVALUATION_SHARE:
        num //= 2
    return num


def evaluation_share(config: RunConfig, num_splits: int = 5, until: int | None = None) -> float:
    """FLOPs of all evaluations and noise measurements as a share of the training FLOPs, of a run or its first steps."""
    return _share(config, num_test_windows(config, num_splits), num_splits, until)


def affordable_sequences(configs: Iterable[RunConfig], num_splits: int = 5, share: float = EVALUATION_SHARE) -> int:
    """The most windows (a power of two in `SEQUENCES_RANGE`) that keep the *sum* over ``configs`` below ``share``.

    Runs that are to be compared with each other should be evaluated on equal windows: give this number to all of them
    as ``eval_sequences``. Tokens weighted by parameters count as cost, so large models decide.
    """
    configs = list(configs)
    weights = np.array([_train_sequences(c) * _relative_cost(c) for c in configs], dtype=np.float64)
    low, high = SEQUENCES_RANGE
    num = high
    while num > low and float(weights @ [_share(c, num, num_splits) for c in configs]) > share * weights.sum():
        num //= 2
    return num


def split_sequences(split: str, num_test: int) -> int:
    """Windows of one split: all for test, half for validation, a quarter for each held-out distribution, at least 8."""
    share = {"test": 1, "validation": 2}.get(split, 4)
    return max(8, num_test // share)


def noise_sequences(num_test: int) -> int:
    """Sequences per noise measurement: a quarter of the test windows, a multiple of `NOISE_BATCHES`, 16 to 256."""
    return int(np.clip(num_test // 4 // NOISE_BATCHES, 1, 16)) * NOISE_BATCHES


def usable_splits(splits: Mapping[str, Tokens], n_ctx: int) -> dict[str, Tokens]:
    """``splits`` without the held-out distributions that hold no whole window of ``n_ctx`` tokens."""
    return {name: tokens for name, tokens in splits.items() if name in NEEDED_SPLITS or len(tokens) > n_ctx}


def evaluation_windows(splits: Mapping[str, Tokens], config: RunConfig) -> dict[str, NDArray[np.int64]]:
    """Fixed windows of every split but ``train``: name → (rows, ≤ 16) starts as `Trainer.evaluate` takes them."""
    names = [name for name in splits if name != "train"]
    num_test = num_test_windows(config, len(names))
    windows = {}
    for name in names:
        starts = evaluation_starts(len(splits[name]), config.shape.n_ctx, split_sequences(name, num_test))
        row = min(ROW, len(starts))
        windows[name] = starts[: len(starts) // row * row].reshape(-1, row)
    return windows


def position_means(mean: NDArray[np.float64]) -> tuple[float, ...]:
    """Mean loss in each bin of `scaling_sim.runs.record.position_edges`, of a mean loss per position (n_ctx,), nats."""
    edges = np.array(position_edges(len(mean)))
    means: list[float] = (np.add.reduceat(mean, edges[:-1]) / np.diff(edges)).tolist()
    return tuple(means)


def _train_sequences(config: RunConfig, until: int | None = None) -> int:
    steps = (config.recipe.steps if until is None else until) - config.branch_step
    return steps * config.recipe.batch_tokens // config.shape.n_ctx


def _share(config: RunConfig, num_test: int, num_splits: int, until: int | None = None) -> float:
    """Forward passes of evaluations (noise counts threefold: it runs backward too) over three per trained sequence."""
    held_out = max(0, num_splits - 2)
    forward = num_test + split_sequences("validation", num_test) + held_out * split_sequences("", num_test)
    forward += 3 * noise_sequences(num_test)
    evaluations = np.count_nonzero(evaluation_steps(config) <= (until or config.recipe.steps))
    return evaluations * forward / (3.0 * _train_sequences(config, until))


def _relative_cost(config: RunConfig) -> float:
    shape = config.shape
    return shape.n_layer * (4.0 * shape.d_model + 2.0 * shape.d_ff + 2.0 * shape.n_ctx) * shape.d_model + (
        shape.d_model * float(shape.vocab_size)
    )
