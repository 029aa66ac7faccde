"""What is trained: a recipe, a member of a cohort, and a cohort of equal shape, context and batch."""

from __future__ import annotations

from typing import Literal

from scaling_sim.config import Config
from scaling_sim.errors import ConfigError
from scaling_sim.model.shape import Shape

Precision = Literal["float64", "float32", "bfloat16"]
Optimizer = Literal["adamw", "adafactor"]


class Recipe(Config, frozen=True):
    """How one model is trained.

    Parameters
    ----------
    peak_lr : float
        Learning rate after warm-up, > 0.
    batch_tokens : int
        B in tokens per step; a multiple of the shape's ``n_ctx``.
    steps : int
        S, parameter updates, ≥ 1 (the last update is numbered ``steps``).
    warmup_steps : int
        Linear warm-up from peak_lr / warmup_steps at the first update.
    schedule : str
        ``constant``; ``decay``: constant, then linear to zero over the last ``decay_steps``; ``cosine``: to zero at
        ``horizon_steps`` (the paper's fixed horizon; 0 means ``steps``).
    dropout : float
        Rate on the embedding and on residual outputs, in [0, 1).
    seed : int
        Of initial weights, batch order and dropout, ≥ 0.
    optimizer : str
        ``adamw``, or ``adafactor`` (no first moment, factored second ones: for models whose moments would not fit;
        Kaplan et al. 2020, section 2.2, used it above 1e9 parameters).
    """

    peak_lr: float
    batch_tokens: int
    steps: int
    warmup_steps: int = 0
    schedule: Literal["constant", "decay", "cosine"] = "constant"
    decay_steps: int = 0
    horizon_steps: int = 0
    dropout: float = 0.0
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    clip_norm: float = 1.0
    seed: int = 0
    optimizer: Optimizer = "adamw"

    def __post_init__(self) -> None:
        if not self.peak_lr > 0:
            raise ConfigError(f"peak_lr must be positive, got {self.peak_lr}")
        if self.steps < 1 or self.batch_tokens < 1:
            raise ConfigError(f"steps and batch_tokens must be at least 1, got {self.steps} and {self.batch_tokens}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must lie in [0, 1), got {self.dropout}")
        if min(self.warmup_steps, self.decay_steps, self.horizon_steps, self.seed) < 0:
            raise ConfigError("warmup_steps, decay_steps, horizon_steps and seed must not be negative")
        if self.schedule == "decay" and not 0 < self.decay_steps <= self.steps:
            raise ConfigError(f"decay_steps must lie in 1..steps ({self.steps}), got {self.decay_steps}")
        if not self.clip_norm > 0:
            raise ConfigError(f"clip_norm must be positive, got {self.clip_norm}; use inf to switch clipping off")


class Member(Config, frozen=True):
    """One run inside a cohort.

    Parameters
    ----------
    id : int
        Unique in its cohort; `Trainer.retire` and the state refer to it.
    seed : int
        Key of initial weights and of dropout masks.
    dropout : float
        Rate in [0, 1).
    """

    id: int
    seed: int
    dropout: float = 0.0


class Cohort(Config, frozen=True):
    """Members of equal shape, context and batch that one trainer advances together.

    The learning rate of every step and the windows of every batch are handed to the trainer by the core; the cohort
    fixes what cannot change during a run.
    """

    shape: Shape
    batch_sequences: int
    members: tuple[Member, ...]
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    clip_norm: float = 1.0
    optimizer: Optimizer = "adamw"

    def __post_init__(self) -> None:
        if self.batch_sequences < 1:
            raise ConfigError(f"batch_sequences must be at least 1, got {self.batch_sequences}")
        ids = [member.id for member in self.members]
        if not ids or len(set(ids)) != len(ids):
            raise ConfigError(f"a cohort needs members with different ids, got {ids}")
