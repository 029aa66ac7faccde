"""What the experiment consists of: sizes, tokens, batches and schedules of every system, in one record per system.

Every number that decides how long a system takes stands here, so that the same code runs the whole experiment on one
GPU (`scaling_sim.study.kaplan.scales.H200`) and a miniature of it on a CPU (`scaling_sim.study.kaplan.scales.TINY`).
"""

from __future__ import annotations

import math

from scaling_sim.config import Config
from scaling_sim.data.settings import CorpusConfig
from scaling_sim.errors import ConfigError
from scaling_sim.model.shape import Shape


class RateTrials(Config, frozen=True):
    """Short runs at multiples of the learning-rate rule, at some sizes of the family."""

    shapes: tuple[Shape, ...]
    multiples: tuple[float, ...]
    steps: int
    eval_points: int = 5


class FamilyRuns(Config, frozen=True):
    """Curves of one epoch at constant rate for the whole family, repeated seeds, and decay branches.

    A branch leaves at each of ``branch_fractions`` of the epoch and decays to zero within ``decay_fraction`` of the
    steps made, so a start at 0.8 with a quarter of decay ends with the epoch.
    """

    seed_shapes: tuple[Shape, ...]
    num_seeds: int
    branch_shapes: tuple[Shape, ...]
    branch_fractions: tuple[float, ...] = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8)
    decay_fraction: float = 0.25


class DataRuns(Config, frozen=True):
    """Data-limited runs that stop early: with dropout at ``shapes``, without at ``plain_shapes``.

    A run ends after ``max_tokens``, or after 6·N·tokens = ``max_compute``, even if nothing has stopped it; its record
    says so. Data that could not be seen ``least_passes`` times by then are left out: no run would overfit them. Both
    kinds are also run on fresh data for one epoch at ``plain_shapes``.
    """

    shapes: tuple[Shape, ...]
    plain_shapes: tuple[Shape, ...]
    unique_tokens: tuple[int, ...]
    max_tokens: int
    max_compute: float = math.inf
    least_passes: int = 4
    dropout: float = 0.1
    eval_points: int = 40
    patience: int = 3


class BatchRuns(Config, frozen=True):
    """Batch sizes in tokens with the most steps of each, at three learning rates.

    The middle rate is the family's times √(batch/family batch), at most ``most_growth``, and for the other two times
    each of ``multiples``.
    """

    shapes: tuple[Shape, ...]
    batches: tuple[tuple[int, int], ...]
    multiples: tuple[float, ...] = (0.5, 1.0, 2.0)
    most_growth: float = 3.0
    warmup_steps: int = 40


class ShapeGroup(Config, frozen=True):
    """Shapes that are compared with each other."""

    shapes: tuple[Shape, ...]
    num_seeds: int = 1


class ShapeRuns(Config, frozen=True):
    """Runs of equal length whose rate decays over the last ``decay_fraction``."""

    groups: tuple[ShapeGroup, ...]
    steps: int
    decay_fraction: float = 0.2


class ContextRuns(Config, frozen=True):
    """The family's curve again with a shorter context."""

    shapes: tuple[Shape, ...]
    n_ctx: int


class ScheduleRuns(Config, frozen=True):
    """Schedules at one size (``steps``, ``num_seeds``), and two protocols of compute-optimal sizes.

    The protocols: one cosine run of ``protocol_shapes`` to the end of the epoch after ``long_warmup`` of it, to be cut
    early (Kaplan et al. 2020, section 2.2); and cosine runs whose length is matched, from the epoch down in halves
    ``num_lengths`` times, with a warm-up of about N tokens (Porian et al. 2024).
    """

    shape: Shape
    steps: int
    num_seeds: int
    protocol_shapes: tuple[Shape, ...]
    num_lengths: int
    long_warmup: float = 0.1


class OtherCorpus(Config, frozen=True):
    """Curves with decay branches at ``shapes``, and data-limited runs where ``unique_tokens`` are named."""

    shapes: tuple[Shape, ...]
    branch_fractions: tuple[float, ...]
    unique_tokens: tuple[int, ...] = ()
    limited_shapes: tuple[Shape, ...] = ()
    max_tokens: int = 0


class ExperimentConfig(Config, frozen=True):
    """The experiment: a family of shapes, smallest first, and what is done with it."""

    name: str
    shapes: tuple[Shape, ...]
    batch_tokens: int
    warmup_steps: int
    max_tokens: int
    """D of single-epoch runs is the training split, at most this."""
    trials: RateTrials
    family: FamilyRuns
    data: DataRuns
    batch: BatchRuns
    shape: ShapeRuns
    context: ContextRuns
    schedule: ScheduleRuns
    bpe: OtherCorpus
    synthetic: OtherCorpus
    language: CorpusConfig
    """The synthetic corpus."""
    bpe_vocabulary: int = 4096
    held_out_fraction: float = 0.02
    """Of the documents, for validation and for test each."""
    eval_points: int = 32
    eval_sequences: int = 1024
    """Windows of the test split; the same for all runs, so that any two can be compared."""
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = [shape for shape in self.shapes if self.batch_tokens % shape.n_ctx]
        if not self.shapes or wrong:
            raise ConfigError("the experiment needs shapes whose n_ctx divides batch_tokens")
        if self.language.source != "synthetic":
            raise ConfigError(f"language must be a synthetic corpus, got source = {self.language.source!r}")
