"""From a study's configuration to the runs of its sweep."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from scaling_sim.engine.cohort import Recipe
from scaling_sim.model.shape import Shape
from scaling_sim.runs.record import RunConfig
from scaling_sim.study.config import StudyConfig
from scaling_sim.training import Job

LearningRate = Callable[[Shape], float]
"""Peak learning rate of a shape at the batch of the study's curves."""


def trial_jobs(config: StudyConfig, corpus: str, num_tokens: int, rule: LearningRate) -> list[Job]:
    """Learning-rate trials: short runs at multiples of the rule."""
    stage, batch = config.learning_rate, config.curves.batch_tokens
    jobs = []
    for size in stage.sizes:
        shape = config.shapes[size]
        for multiple in stage.multiples:
            recipe = _recipe(config, rule(shape) * multiple, batch, min(stage.steps, config.curves.steps))
            jobs.append(Job(_single_epoch(config, shape, recipe, corpus, num_tokens), ("lr",)))
    return jobs


def study_jobs(config: StudyConfig, corpus: str, num_tokens: int, rate: LearningRate) -> list[Job]:
    """Every run of the study but the learning-rate trials.

    Parameters
    ----------
    corpus : str
        Hash of the corpus.
    num_tokens : int
        Tokens in its training split: D of the single-epoch runs.
    rate : callable
        Peak learning rate of a shape.
    """
    jobs = [*_curves(config, corpus, num_tokens, rate), *_batches(config, corpus, num_tokens, rate)]
    return jobs + list(_data(config, corpus, rate))


def _curves(config: StudyConfig, corpus: str, num_tokens: int, rate: LearningRate) -> Iterator[Job]:
    stage = config.curves
    for size, shape in enumerate(config.shapes):
        lr = rate(shape)
        main = _single_epoch(config, shape, _recipe(config, lr, stage.batch_tokens, stage.steps), corpus, num_tokens)
        yield Job(main, ("curve",))
        for start in stage.branch_steps:
            yield Job(_branch(config, main, start), ("final",))
        for extra in range(stage.seeds if size in stage.seed_sizes else 0):
            recipe = _recipe(config, lr, stage.batch_tokens, stage.steps, seed=config.seed + extra + 1)
            yield Job(_single_epoch(config, shape, recipe, corpus, num_tokens), ("curve", "seed"))


def _branch(config: StudyConfig, main: RunConfig, start: int) -> RunConfig:
    """A decay to zero that begins at step ``start`` of ``main``."""
    length = max(1, math.ceil(start * config.curves.decay_fraction))
    recipe = _recipe(config, main.recipe.peak_lr, main.recipe.batch_tokens, start + length, decay_steps=length)
    branch = _single_epoch(config, main.shape, recipe, main.corpus, main.unique_tokens)
    return _with(branch, parent=main.run_id, branch_step=start, eval_points=2)


def _batches(config: StudyConfig, corpus: str, num_tokens: int, rate: LearningRate) -> Iterator[Job]:
    if config.batches is None:
        return
    for size in config.batches.sizes:
        shape = config.shapes[size]
        for batch, steps in config.batches.batches:
            lr = rate(shape) * math.sqrt(batch / config.curves.batch_tokens)
            recipe = _recipe(config, lr, batch, steps)
            yield Job(_single_epoch(config, shape, recipe, corpus, num_tokens), ("curve", "batch"))


def _data(config: StudyConfig, corpus: str, rate: LearningRate) -> Iterator[Job]:
    stage = config.data
    if stage is None:
        return
    for size in stage.sizes:
        shape = config.shapes[size]
        for unique in stage.unique_tokens:
            recipe = _recipe(config, rate(shape), stage.batch_tokens, stage.max_steps, dropout=stage.dropout)
            run = _single_epoch(config, shape, recipe, corpus, unique)
            split = "test" if config.paper_protocol else "validation"
            points = 2 * config.eval_points
            yield Job(
                _with(run, early_stop=True, patience=stage.patience, stop_split=split, eval_points=points), ("data",)
            )


def _recipe(
    config: StudyConfig,
    lr: float,
    batch: int,
    steps: int,
    *,
    seed: int | None = None,
    dropout: float = 0.0,
    decay_steps: int = 0,
) -> Recipe:
    return Recipe(
        peak_lr=float(f"{lr:.4g}"),
        batch_tokens=batch,
        steps=steps,
        warmup_steps=config.curves.warmup_steps,
        schedule="decay" if decay_steps else "constant",
        decay_steps=decay_steps,
        dropout=dropout,
        seed=config.seed if seed is None else seed,
    )


def _single_epoch(config: StudyConfig, shape: Shape, recipe: Recipe, corpus: str, unique: int) -> RunConfig:
    return RunConfig(
        shape=shape,
        recipe=recipe,
        corpus=corpus,
        unique_tokens=unique,
        eval_points=config.eval_points,
        eval_sequences=config.eval_sequences,
    )


def _with(run: RunConfig, **changes: object) -> RunConfig:
    import msgspec

    changed: RunConfig = msgspec.structs.replace(run, **changes)
    return changed
