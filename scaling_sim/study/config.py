"""What a study is: the sizes to train, the stages of its sweep, and its budget of time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from scaling_sim.config import Config, read_toml, to_record
from scaling_sim.data import CorpusConfig
from scaling_sim.errors import ConfigError
from scaling_sim.laws import get_law
from scaling_sim.model.shape import Shape
from scaling_sim.study.presets import EXPERIMENTS, PRESETS


def _positive(stage: str, **values: float) -> None:
    """Refuse values that are not positive and finite, by name."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"{stage}.{name} must be positive, got {value:g}")


class CurveStage(Config, frozen=True):
    """Single-epoch runs at constant learning rate, one per size: they feed L(N, S_min).

    ``branch_steps``: from each of these steps a decay branch to zero runs for ``decay_fraction`` of the steps made; its
    last loss is a final loss and feeds Chinchilla's form. ``seeds``: extra seeds at the sizes ``seed_sizes``.
    """

    batch_tokens: int
    steps: int
    warmup_steps: int
    branch_steps: tuple[int, ...] = ()
    decay_fraction: float = 0.25
    seeds: int = 0
    seed_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _positive("curves", batch_tokens=self.batch_tokens, steps=self.steps, decay_fraction=self.decay_fraction)
        wrong = [step for step in self.branch_steps if not 0 < step <= self.steps]
        if wrong:
            raise ConfigError(f"curves.branch_steps must lie in 1..steps ({self.steps}), got {wrong}")
        if self.warmup_steps < 0 or self.seeds < 0:
            raise ConfigError("curves.warmup_steps and curves.seeds must not be negative")


class DataStage(Config, frozen=True):
    """Data-limited runs, stopped early: every size at every D. They feed L(N, D)."""

    sizes: tuple[int, ...]
    unique_tokens: tuple[int, ...]
    batch_tokens: int
    max_steps: int
    dropout: float = 0.0
    patience: int = 3

    def __post_init__(self) -> None:
        _positive("data", batch_tokens=self.batch_tokens, max_steps=self.max_steps, patience=self.patience)
        if not (self.sizes and self.unique_tokens) or min(self.unique_tokens) < 1:
            raise ConfigError("data.sizes and data.unique_tokens must name at least one size and positive amounts")


class BatchStage(Config, frozen=True):
    """Learning curves at other batch sizes, matched in everything else: they identify B_crit(L).

    ``batches`` pairs tokens per step with steps. The learning rate grows with the square root of the batch.
    """

    sizes: tuple[int, ...]
    batches: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        for batch, steps in self.batches:
            _positive("batches", batch_tokens=batch, steps=steps)


class LearningRateStage(Config, frozen=True):
    """Short trials at multiples of the stated rule; the best multiple of each size is used for its other runs.

    An empty ``multiples`` takes the rule as it is. A best multiple at the edge is flagged in the report.
    """

    multiples: tuple[float, ...] = ()
    sizes: tuple[int, ...] = ()
    steps: int = 400

    def __post_init__(self) -> None:
        _positive("learning_rate", steps=self.steps, **{f"multiples[{i}]": m for i, m in enumerate(self.multiples)})


class StudyConfig(Config, frozen=True):
    """One study, as a TOML file states it. Sizes are referred to by their index in ``shapes``, smallest first."""

    name: str
    shapes: tuple[Shape, ...]
    curves: CurveStage
    corpus: CorpusConfig = CorpusConfig()
    data: DataStage | None = None
    batches: BatchStage | None = None
    learning_rate: LearningRateStage = LearningRateStage()
    laws: tuple[str, ...] = ("kaplan", "chinchilla")
    eval_points: int = 20
    eval_sequences: int = 512
    target_pf_days: tuple[float, ...] = (1e-7, 1e-6, 1e-5)
    paper_protocol: bool = False
    minutes: float = 5.0
    backend: str = "auto"
    device: str | None = None
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    workers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.shapes:
            raise ConfigError("a study needs at least one shape")
        _positive("study", minutes=self.minutes, eval_points=self.eval_points, eval_sequences=self.eval_sequences)
        _positive("study", **{f"target_pf_days[{i}]": days for i, days in enumerate(self.target_pf_days)})
        for law in self.laws:
            get_law(law)
        known = range(len(self.shapes))
        for stage, sizes in self._sizes_used().items():
            wrong = [size for size in sizes if size not in known]
            if wrong:
                raise ConfigError(f"{stage} names sizes {wrong}, but shapes are numbered 0 to {len(self.shapes) - 1}")

    def _sizes_used(self) -> dict[str, tuple[int, ...]]:
        return {
            "curves.seed_sizes": self.curves.seed_sizes,
            "data.sizes": self.data.sizes if self.data else (),
            "batches.sizes": self.batches.sizes if self.batches else (),
            "learning_rate.sizes": self.learning_rate.sizes,
        }


def read_study(name: str | Path) -> StudyConfig:
    """The preset called ``name``, or the study described by the TOML file at that path.

    Raises
    ------
    ConfigError
        Neither a preset nor a file, or a file that does not fit; the message lists the presets.
    """
    if str(name) in PRESETS:
        return to_record(PRESETS[str(name)], StudyConfig, origin=f"preset {name}")
    if not Path(name).is_file():
        raise ConfigError(
            f"{name!s} is neither a preset ({', '.join(PRESETS)}) nor a TOML file; the command line also takes "
            f"{', '.join(EXPERIMENTS)}"
        )
    return read_toml(name, StudyConfig)
