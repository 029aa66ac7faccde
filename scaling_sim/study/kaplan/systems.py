"""Every system of the experiment as a function from a setting to its runs, in order of priority."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from scaling_sim.engine.cohort import Recipe
from scaling_sim.model.count import num_parameters
from scaling_sim.model.shape import Shape
from scaling_sim.runs.record import RunConfig
from scaling_sim.study.kaplan.config import ExperimentConfig, OtherCorpus
from scaling_sim.study.kaplan.rates import Rates, rule
from scaling_sim.training import Job


@dataclass(frozen=True)
class Text:
    """What runs need to know of a corpus.

    Attributes
    ----------
    hash : str
    num_tokens : int
        Of the training split.
    vocab_size : int
    """

    hash: str
    num_tokens: int
    vocab_size: int


@dataclass(frozen=True)
class Setting:
    """What the runs of a system are made from."""

    config: ExperimentConfig
    text: Text
    rates: Rates

    @property
    def unique_tokens(self) -> int:
        """D of single-epoch runs."""
        return min(self.text.num_tokens, self.config.max_tokens)

    def epoch_steps(self, batch_tokens: int) -> int:
        """Most steps of so many tokens that repeat nothing."""
        return max(1, (self.unique_tokens - 1) // batch_tokens)

    def steps(self, wanted: int) -> int:
        """``wanted`` steps of the family's batch, or those of one epoch."""
        return min(wanted, self.epoch_steps(self.config.batch_tokens))

    def shape(self, shape: Shape) -> Shape:
        """The shape with a vocabulary that holds this text's tokens."""
        wide: Shape = msgspec.structs.replace(shape, vocab_size=max(self.text.vocab_size, 2))
        return wide

    def run(self, shape: Shape, steps: int, lr: float | None = None, **options: Any) -> RunConfig:
        """A run on fresh data; ``options`` are fields of `Recipe` or of `RunConfig`."""
        known = {field.name for field in msgspec.structs.fields(Recipe)}
        recipe = {name: value for name, value in options.items() if name in known}
        other = {name: value for name, value in options.items() if name not in known}
        defaults = {"batch_tokens": self.config.batch_tokens, "warmup_steps": self.config.warmup_steps}
        rate = self.rates(shape) if lr is None else lr
        plan = {
            "unique_tokens": self.unique_tokens,
            "eval_points": self.config.eval_points,
            "eval_sequences": self.config.eval_sequences,
        }
        return RunConfig(
            shape=self.shape(shape),
            recipe=Recipe(
                **{"peak_lr": float(f"{rate:.4g}"), "steps": steps, "seed": self.config.seed, **defaults, **recipe}
            ),
            corpus=self.text.hash,
            **{**plan, **other},
        )


@dataclass(frozen=True)
class System:
    """Runs that belong together.

    Attributes
    ----------
    name : str
    corpus : str
        Key of the corpus: ``english``, ``english-bpe`` or ``synthetic``.
    figures : tuple of str
        Of Kaplan et al. 2020, and what else reads these runs.
    jobs : callable
    """

    name: str
    corpus: str
    figures: tuple[str, ...]
    jobs: Callable[[Setting], list[Job]]


def rate_trials(setting: Setting) -> list[Job]:
    """Learning-rate trials: multiples of the rule, constant after warm-up."""
    trials = setting.config.trials
    return [
        Job(
            setting.run(shape, setting.steps(trials.steps), rule(shape) * multiple, eval_points=trials.eval_points),
            ("lr",),
        )
        for shape in trials.shapes
        for multiple in trials.multiples
    ]


def family(setting: Setting) -> list[Job]:
    """Curves of one epoch, seeds, and decay branches."""
    runs, steps = setting.config.family, setting.steps(setting.config.max_tokens)
    jobs = [job for shape in setting.config.shapes for job in _curve(setting, shape, steps)]
    for shape in runs.seed_shapes:
        seeds = range(setting.config.seed + 1, setting.config.seed + runs.num_seeds)
        jobs += [Job(setting.run(shape, steps, seed=seed), ("curve", "seed")) for seed in seeds]
    for shape in runs.branch_shapes:
        jobs += _branches(setting, setting.run(shape, steps), runs.branch_fractions, runs.decay_fraction)
    return jobs


def _curve(setting: Setting, shape: Shape, steps: int) -> list[Job]:
    return [Job(setting.run(shape, steps), ("curve",))]


def _branches(setting: Setting, main: RunConfig, fractions: Sequence[float], decay: float) -> Iterator[Job]:
    """Linear decays to zero from parts of a constant run, after its warm-up."""
    for start in dict.fromkeys(round(fraction * main.recipe.steps) for fraction in fractions):
        if start < 2 * main.recipe.warmup_steps:
            continue
        length = max(1, round(start * decay))
        recipe = msgspec.structs.replace(main.recipe, steps=start + length, schedule="decay", decay_steps=length)
        config = msgspec.structs.replace(main, recipe=recipe, parent=main.run_id, branch_step=start, eval_points=2)
        yield Job(config, ("final",))


def data(setting: Setting) -> list[Job]:
    """Early-stopped runs on nested subsets with and without dropout, and both on data that never repeat."""
    runs, steps = setting.config.data, setting.steps(setting.config.max_tokens)
    jobs = list(_limited(setting, runs.shapes, runs.unique_tokens, runs.max_tokens, runs.dropout))
    jobs += _limited(setting, runs.plain_shapes, runs.unique_tokens, runs.max_tokens, 0.0)
    for shape in runs.plain_shapes:
        jobs.append(Job(setting.run(shape, steps, dropout=runs.dropout), ("fresh",)))
        jobs.append(Job(setting.run(shape, steps), ("curve", "fresh")))
    return jobs


def _limited(
    setting: Setting, shapes: Iterable[Shape], unique: Iterable[int], max_tokens: int, dropout: float
) -> Iterator[Job]:
    stage = setting.config.data
    for shape in shapes:
        limit = min(max_tokens, stage.max_compute / (6 * max(1, num_parameters(shape))))
        most = max(1, int(limit // setting.config.batch_tokens))
        for tokens in unique:
            if tokens > min(setting.text.num_tokens, limit / stage.least_passes):
                continue
            config = setting.run(
                shape,
                most,
                dropout=dropout,
                unique_tokens=tokens,
                early_stop=True,
                patience=stage.patience,
                eval_points=stage.eval_points,
            )
            yield Job(config, ("data",))


def batch(setting: Setting) -> list[Job]:
    """Batch sizes of each size, each at several learning rates."""
    runs, ours = setting.config.batch, setting.config.batch_tokens
    jobs = []
    for shape in runs.shapes:
        for tokens, most in runs.batches:
            middle = setting.rates(shape) * min(runs.most_growth, math.sqrt(tokens / ours))
            steps, warmup = min(most, setting.epoch_steps(tokens)), runs.warmup_steps
            for multiple in runs.multiples:
                run = setting.run(shape, steps, middle * multiple, batch_tokens=tokens, warmup_steps=warmup)
                jobs.append(Job(run, ("curve", "batch")))
    return jobs


def shapes(setting: Setting) -> list[Job]:
    """Other shapes of equal N, and series of depth."""
    runs = setting.config.shape
    steps = setting.steps(runs.steps)
    decay: dict[str, Any] = {"schedule": "decay", "decay_steps": max(1, round(runs.decay_fraction * steps))}
    return [
        Job(setting.run(shape, steps, seed=setting.config.seed + extra, **decay), ("shape",))
        for group in runs.groups
        for shape in group.shapes
        for extra in range(group.num_seeds)
    ]


def context(setting: Setting) -> list[Job]:
    """Curves with a short context, beside the family's."""
    runs, steps = setting.config.context, setting.steps(setting.config.max_tokens)
    short = [msgspec.structs.replace(shape, n_ctx=runs.n_ctx) for shape in runs.shapes]
    return [Job(setting.run(shape, steps), ("context",)) for shape in short]


def schedule(setting: Setting) -> list[Job]:
    """Schedules at one size, and the protocols of Kaplan et al. 2020 and Porian et al. 2024."""
    return [*_schedules(setting), *_protocols(setting)]


def _schedules(setting: Setting) -> Iterator[Job]:
    runs = setting.config.schedule
    steps = setting.steps(runs.steps)
    kinds: tuple[dict[str, Any], ...] = (
        {"schedule": "constant"},
        {"schedule": "decay", "decay_steps": max(1, steps // 5)},
        {"schedule": "decay", "decay_steps": max(1, steps - setting.config.warmup_steps)},
        {"schedule": "cosine"},
        {"schedule": "cosine", "horizon_steps": 2 * steps},
    )
    for kind in kinds:
        for extra in range(runs.num_seeds):
            yield Job(setting.run(runs.shape, steps, seed=setting.config.seed + extra, **kind), ("schedule",))


def _protocols(setting: Setting) -> Iterator[Job]:
    runs = setting.config.schedule
    whole = setting.steps(setting.config.max_tokens)
    for shape in runs.protocol_shapes:
        long = max(1, round(runs.long_warmup * whole))
        yield Job(setting.run(shape, whole, schedule="cosine", warmup_steps=long, horizon_steps=whole), ("schedule",))
        for halvings in range(runs.num_lengths):
            steps = max(2, whole >> halvings)
            warmup = min(max(1, steps // 5), _warmup_of_size(setting, shape))
            yield Job(setting.run(shape, steps, schedule="cosine", warmup_steps=warmup, eval_points=2), ("schedule",))


def _warmup_of_size(setting: Setting, shape: Shape) -> int:
    """As many tokens as the model has parameters (Porian et al. 2024), but no fewer steps than a fifth of ours."""
    steps = round(num_parameters(shape) / setting.config.batch_tokens)
    return max(1, setting.config.warmup_steps // 5, steps)


def bpe(setting: Setting) -> list[Job]:
    """Curves with another tokenizer."""
    return _other(setting, setting.config.bpe)


def synthetic(setting: Setting) -> list[Job]:
    """Curves and data-limited runs on a language of known entropy."""
    return _other(setting, setting.config.synthetic)


def _other(setting: Setting, runs: OtherCorpus) -> list[Job]:
    steps, decay = setting.steps(setting.config.max_tokens), setting.config.family.decay_fraction
    jobs = []
    for shape in runs.shapes:
        jobs += _curve(setting, shape, steps)
        jobs += _branches(setting, setting.run(shape, steps), runs.branch_fractions, decay)
    return jobs + list(_limited(setting, runs.limited_shapes, runs.unique_tokens, runs.max_tokens, 0.0))


SYSTEMS = (
    System("lr", "english", ("learning rates",), rate_trials),
    System(
        "family",
        "english",
        ("F1", "F2", "F4 right", "F8", "F11", "F13", "F14", "F19", "F20", "F23", "T2-T6", "Chinchilla 1-3"),
        family,
    ),
    System("data", "english", ("F4 left", "F9", "F15", "F16"), data),
    System("batch", "english", ("F10", "F18"), batch),
    System("shape", "english", ("F5", "F6", "F24"), shapes),
    System("context", "english", ("F21",), context),
    System("schedule", "english", ("F22", "Porian et al. 2024"), schedule),
    System("bpe", "english-bpe", ("tokenizer",), bpe),
    System("synthetic", "synthetic", ("section 6.3",), synthetic),
)
"""In order of priority: a budget drops from the end."""
