"""The whole experiment without training: a record for every planned run, its losses from a formula and noise.

For writing and testing what reads the experiment before it has been run. Every record says ``simulated=True``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from scaling_sim.data.synthetic import SyntheticLanguage
from scaling_sim.engine.cohort import Recipe
from scaling_sim.model.count import flops_per_token
from scaling_sim.runs.record import CurvePoint, RunConfig, RunRecord, position_edges
from scaling_sim.study.kaplan.config import ExperimentConfig
from scaling_sim.study.kaplan.plan import plan
from scaling_sim.study.kaplan.rates import rates_of, rule
from scaling_sim.study.kaplan.scales import H200
from scaling_sim.study.kaplan.systems import Text
from scaling_sim.study.kaplan.world import Losses, World
from scaling_sim.training import Job
from scaling_sim.training.evaluation import evaluation_steps
from scaling_sim.training.job import merge_jobs

if TYPE_CHECKING:
    from scaling_sim.datasets import Experiment

RUN_NOISE, POINT_NOISE = 0.003, 0.0005
"""Relative standard deviations: of a whole run, and of one evaluation."""
BEST_MULTIPLE = 1.3
"""Best learning rate over the rule."""
DIVERGES_ABOVE = 2.6
"""Learning rates more than this times the best one diverge."""
RATE_CURVATURE, FLOOR_OF_NOISE = 0.03, 0.015
"""Relative excess per squared e-fold of a wrong learning rate, and of a rate that has not fallen to zero."""
HELD_OUT = {"novels": (1.08, 0.08), "dictionary": (1.15, 0.1), "c-code": (1.35, 0.25), "python-code": (1.2, 0.2)}
"""Loss there: factor on the test loss and offset, nats."""
TEXTS = {
    "english": Text("rehearsed-english", 96_000_000, 256),
    "english-bpe": Text("rehearsed-bpe", 26_000_000, 4096),
    "synthetic": Text("rehearsed-synth", 32_600_000, 0),
}
"""Corpora as large as the real ones are expected to be."""


def rehearse(seed: int = 0, config: ExperimentConfig = H200) -> Experiment:
    """An experiment in which nothing was trained, complete with learning-rate trials and a few diverged runs.

    Parameters
    ----------
    seed : int
        Of the noise.
    config : ExperimentConfig
        Which runs; the family of the H200 by default.
    """
    from scaling_sim.datasets import Experiment

    records, facts = rehearsed_records(seed, config)
    return Experiment(records=records, facts=facts)


def rehearsed_records(seed: int, config: ExperimentConfig) -> tuple[tuple[RunRecord, ...], dict[str, Any]]:
    """Records sorted by run id, and the facts that go with them."""
    texts, worlds = _texts(config), _worlds(config)
    by_hash = {text.hash: worlds[key] for key, text in texts.items()}

    def made(jobs: Iterable[Job]) -> list[RunRecord]:
        return [_record(job, by_hash[job.config.corpus], seed) for job in jobs]

    trials = made(plan(config, texts, names=("lr",))[0].jobs)
    jobs = merge_jobs(job for planned in plan(config, texts, rates_of(trials)) for job in planned.jobs)
    records = tuple(sorted(made(jobs), key=lambda record: record.run_id))
    return records, _facts(texts, worlds)


def _texts(config: ExperimentConfig) -> dict[str, Text]:
    language = SyntheticLanguage(config.language.synthetic)
    synthetic = Text(TEXTS["synthetic"].hash, TEXTS["synthetic"].num_tokens, language.vocab_size)
    return {**TEXTS, "synthetic": synthetic}


def _worlds(config: ExperimentConfig) -> dict[str, World]:
    entropy = SyntheticLanguage(config.language.synthetic).entropy_rate
    return {
        "english": World(),
        "english-bpe": World(floor=2.1, scale=3.4, B_star=1.5e6),
        "synthetic": World(floor=entropy, scale=0.5, alpha_N=0.3, N_c=8e3, alpha_D=0.33, position_share=0.2),
    }


def _facts(texts: dict[str, Text], worlds: dict[str, World]) -> dict[str, Any]:
    corpora = {
        text.hash: {
            "key": key,
            "name": f"rehearsal of {key}",
            "tokens": text.num_tokens,
            "vocab_size": text.vocab_size,
            "entropy": worlds[key].floor if key == "synthetic" else None,
            "splits": dict.fromkeys(_splits(text), text.num_tokens // 50),
        }
        for key, text in texts.items()
    }
    return {"corpora": corpora, "date": "", "device": "none: rehearsal", "commit": "", "sittings": []}


def _splits(text: Text) -> tuple[str, ...]:
    return ("validation", "test", *(() if text is TEXTS["synthetic"] or text.vocab_size < 256 else HELD_OUT))


def _record(job: Job, world: World, seed: int) -> RunRecord:
    """The record of one run; its noise depends on ``seed`` and the run alone."""
    config, rng = job.config, np.random.default_rng([seed, int(job.run_id, 16)])
    steps = evaluation_steps(config)
    diverged = config.recipe.peak_lr > DIVERGES_ABOVE * _best_rate(config)
    if diverged:
        steps = steps[: max(1, len(steps) // 4)]
    losses = _losses(config, world, steps.astype(np.float64))
    losses *= np.exp(RUN_NOISE * rng.standard_normal() + POINT_NOISE * rng.standard_normal(len(losses)))
    end, best = _early_stop(config, losses)
    curve = tuple(
        _point(config, world, int(step), float(loss), rng) for step, loss in zip(steps[:end], losses[:end], strict=True)
    )
    flops = curve[-1].tokens * flops_per_token(config.shape, "exact")
    stopped = config.early_stop and end < len(steps)
    return RunRecord(
        run_id=job.run_id,
        config=config,
        purposes=job.purposes,
        status="diverged" if diverged else "stopped" if stopped else "done",
        curve=curve,
        backend="rehearsal",
        device="none",
        seconds=0.3 + flops / 8e13,
        flops=flops,
        best=best if config.early_stop else len(curve) - 1,
        message="simulated divergence" if diverged else "",
        simulated=True,
    )


def _best_rate(config: RunConfig) -> float:
    growth = min(3.0, math.sqrt(config.recipe.batch_tokens / 8192)) if config.shape.n_ctx == 128 else 1.0
    return BEST_MULTIPLE * rule(config.shape) * growth


def _losses(config: RunConfig, world: World, steps: Losses) -> Losses:
    """Test loss at every step, without noise."""
    recipe, shape = config.recipe, config.shape
    useful = np.maximum(steps - 0.7 * np.minimum(recipe.warmup_steps, steps), 0.3 * steps)
    loss = world.curve(shape, useful, recipe.batch_tokens)
    wrong_rate = RATE_CURVATURE * math.log(recipe.peak_lr / _best_rate(config)) ** 2
    extra = wrong_rate + FLOOR_OF_NOISE * _rate_left(recipe, steps) + 0.2 * recipe.dropout
    loss += extra * (loss - world.floor)
    if config.early_stop:
        loss += world.limited(shape, config.unique_tokens, recipe.dropout)
        late = np.log(steps / world.stop_step(shape, config.unique_tokens, recipe.dropout))
        loss += 0.1 * world.scale * np.maximum(late, 0.0) ** 2
    return np.array([world.by_position(one, shape.n_ctx).mean() for one in loss])


def _rate_left(recipe: Recipe, steps: Losses) -> Losses:
    """Learning rate at the end of each step over its peak."""
    from scaling_sim.training.schedule import learning_rates

    rates = learning_rates(recipe, 0, int(steps.max())) / recipe.peak_lr
    left: Losses = rates[steps.astype(np.int64) - 1]
    return left


def _early_stop(config: RunConfig, losses: Losses) -> tuple[int, int]:
    """How many evaluations a run sees, and which of them has the lowest loss."""
    best, end = 0, len(losses)
    for i in range(1, end):
        if losses[i] < losses[best]:
            best = i
        elif config.early_stop and i - best >= config.patience:
            return i + 1, best
    return end, best


def _point(config: RunConfig, world: World, step: int, loss: float, rng: np.random.Generator) -> CurvePoint:
    shape, recipe = config.shape, config.recipe
    positions = world.by_position(loss, shape.n_ctx)
    positions *= loss / positions.mean()
    losses = {"validation": loss * 1.002, "test": loss}
    if shape.vocab_size >= 256:
        losses |= {name: factor * loss + offset for name, (factor, offset) in HELD_OUT.items()}
    edges = position_edges(shape.n_ctx)
    critical = float(world.critical_batch(np.array([loss]))[0])
    return CurvePoint(
        step=step,
        tokens=step * recipe.batch_tokens,
        lr=recipe.peak_lr,
        train=loss * 0.998,
        losses=losses,
        errors={name: 0.01 * value for name, value in losses.items()},
        last_position={name: float(positions[-1] / loss * value) for name, value in losses.items()},
        positions=tuple(float(positions[a:b].mean()) for a, b in itertools.pairwise(edges)),
        noise_scale=0.8 * critical * math.exp(0.1 * rng.standard_normal()),
    )
