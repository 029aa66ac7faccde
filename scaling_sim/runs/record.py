"""One run as it is stored: what was asked for, its learning curve and how it ended."""

from __future__ import annotations

from typing import Literal

import msgspec

from scaling_sim.config import Config, config_hash
from scaling_sim.engine.cohort import Recipe
from scaling_sim.model.shape import Shape

Purpose = Literal["curve", "final", "data", "batch", "seed", "lr", "shape", "context", "schedule", "fresh"]
"""Why a run is in the sweep: a single-epoch learning curve; a decay branch's final loss; a data-limited, early-stopped
run; a batch size of a batch sweep; a repeated seed; a learning-rate trial; another shape of equal N; another n_ctx;
another learning-rate schedule; one of a pair with and without dropout on data that never repeat."""

Status = Literal["planned", "running", "done", "stopped", "diverged", "failed"]
"""``done``: all steps; ``stopped``: early stopping ended it; the others say what they mean."""


class RunConfig(Config, frozen=True):
    """Everything that determines a run's numbers; its hash is the run's identity.

    Parameters
    ----------
    shape, recipe
        The model and how it is trained.
    corpus : str
        Hash of the corpus (text, tokenizer and split).
    unique_tokens : int
        D: the run sees only the first D tokens of the training split; more steps than that repeat them.
    early_stop : bool
        Stop when the loss on ``stop_split`` no longer falls; the result is its minimum.
    patience : int
        Evaluations without a new minimum before stopping.
    eval_points : int
        Log-spaced evaluations along the run.
    eval_sequences : int
        Windows of the test split per evaluation (other splits get a fixed part of it); give runs that are to be
        compared the same number. 0: the most that keeps evaluation below 12 % of the training FLOPs of this run.
    parent, branch_step
        A decay branch starts from this run's checkpoint after that many steps.
    """

    shape: Shape
    recipe: Recipe
    corpus: str
    unique_tokens: int
    early_stop: bool = False
    patience: int = 3
    eval_points: int = 24
    eval_sequences: int = 0
    stop_split: Literal["validation", "test"] = "validation"
    parent: str | None = None
    branch_step: int = 0

    @property
    def run_id(self) -> str:
        """Hash of the whole configuration, 16 hexadecimal digits."""
        return config_hash("run", self)

    @property
    def tokens(self) -> int:
        """Tokens processed if all steps are made, B·S."""
        return self.recipe.batch_tokens * self.recipe.steps


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True):
    """Measurements after ``step`` updates. Losses in nats per token, errors are standard errors over sequences."""

    step: int
    tokens: int
    lr: float
    train: float
    """Mean training loss of the steps since the point before."""
    losses: dict[str, float]
    """Loss on every evaluated split: validation, test and the held-out distributions."""
    errors: dict[str, float]
    last_position: dict[str, float] = {}
    """Loss of the last position of the context, per split."""
    noise_scale: float | None = None
    """``B_simple = tr(Σ)/|G|²``, tokens (McCandlish et al. 2018), from averages along the run; None if not measured."""
    positions: tuple[float, ...] = ()
    """Mean test loss in each bin of `position_edges`; empty if not measured."""


def position_edges(n_ctx: int) -> tuple[int, ...]:
    """Edges 0, 1, 2, 4, 8, …, n_ctx of the bins of context positions, counted from 1: bin i is (edge i, edge i + 1].

    So the bins are [1], [2], [3, 4], [5..8], …; the last one ends at ``n_ctx``, whether or not that is a power of two.
    Doubling widths, because the loss falls as a power of the position (Kaplan et al. 2020, figures 20 and 21).
    """
    return (0, *(2**i for i in range((n_ctx - 1).bit_length())), n_ctx)


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A run in the store."""

    run_id: str
    config: RunConfig
    purposes: tuple[Purpose, ...] = ()
    status: Status = "planned"
    curve: tuple[CurvePoint, ...] = ()
    backend: str = ""
    device: str = ""
    precision: str = "float32"
    seconds: float = 0.0
    flops: float = 0.0
    """Training FLOPs by the exact count, attention and head included."""
    best: int = -1
    """Index in ``curve`` of the result: the last point, or the minimum of an early-stopped run."""
    message: str = ""
    simulated: bool = False
    versions: dict[str, str] = {}

    @property
    def result(self) -> CurvePoint | None:
        """The point that counts as the run's result, None if there is none yet."""
        return self.curve[self.best] if self.curve else None
