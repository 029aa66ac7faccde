"""A whole run: a sweep over the learning rate, then the best of its trials to the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from typing import TypeVar

import numpy as np
from torch import Tensor

from benchmarks.recurrent.models import Spec
from benchmarks.recurrent.plan import Settings, base_rate
from benchmarks.recurrent.trial import Evaluation, Text, Trial
from scaling_sim.datasets.recurrent import RecurrentPoint, RecurrentRun
from scaling_sim.training.evaluation import position_means

CHUNK = 16
"""Updates queued at a time."""

Points = list[tuple[int, Evaluation]]
T = TypeVar("T")
Steps = Generator[tuple[int, Callable[[], bool]], None, T]
"""Work in parts: yields the updates queued since the last time, and a question whether to go on."""


class DivergedError(Exception):
    """The losses of a run are not numbers."""


def train(spec: Spec, text: Text, settings: Settings) -> Steps[RecurrentRun]:
    """Train one model; parts of other runs may be queued in between.

    Raises
    ------
    DivergedError
        All trials of the sweep diverged, or the best one did later.
    """
    trial = Trial(spec, text, settings)
    began = time.perf_counter()
    candidates, sweep_points = [base_rate(spec) * multiple for multiple in settings.multiples], []
    states = []
    for rate in candidates:
        trial.load(trial.initial)
        trial.set_rates(settings.rates(rate))
        sweep_points.append((yield from _advance(trial, 0, settings.sweep_steps)))
        states.append(trial.state())
    yield 0, trial.done()
    found = [_number(points[-1][1].means["validation"]) for points in sweep_points]
    best = int(np.argmin([math.inf if loss is None else loss for loss in found]))
    trial.load(states[best])
    trial.set_rates(settings.rates(candidates[best]))
    points = sweep_points[best] + (yield from _advance(trial, settings.sweep_steps, settings.steps))
    yield 0, trial.done()
    return _run(trial, tuple(zip(candidates, found, strict=True)), best, points, time.perf_counter() - began)


def _advance(trial: Trial, first: int, last: int) -> Steps[Points]:
    """Updates ``first`` + 1 to ``last``, with the evaluations that fall between."""
    points: Points = []
    done = first
    for stop in (step for step in trial.settings.stops if first < step <= last):
        while done < stop:
            num = min(CHUNK, stop - done)
            trial.advance(num)
            done += num
            yield num, trial.nearly_done()
        points.append((stop, trial.evaluate()))
    return points


def _number(loss: Tensor) -> float | None:
    """A loss; None where training diverged."""
    value = float(loss)
    return round(value, 6) if math.isfinite(value) else None


def _run(
    trial: Trial, sweep: tuple[tuple[float, float | None], ...], best: int, points: Points, seconds: float
) -> RecurrentRun:
    spec, settings, last = trial.spec, trial.settings, points[-1][1]
    if _number(last.means["test"]) is None:
        raise DivergedError(f"{spec.name} diverged")
    return RecurrentRun(
        kind=spec.kind,
        layers=spec.layers,
        reuse=spec.reuse,
        d_model=spec.d,
        n_head=spec.n_head,
        n_ctx=spec.n_ctx,
        seed=spec.seed,
        N=spec.N,
        flops_per_token=spec.flops_per_token,
        flops_per_token_exact=spec.exact_flops_per_token(trial.text.corpus.vocab_size),
        peak_lr=sweep[best][0],
        sweep=sweep,
        sweep_steps=settings.sweep_steps,
        steps=settings.steps,
        batch_tokens=settings.batch_tokens,
        warmup_steps=settings.warmup,
        decay_steps=settings.decay,
        curve=tuple(_point(step, step * settings.batch_tokens, found) for step, found in points),
        standard_error=round(float(last.error), 6),
        position_losses=tuple(round(loss, 5) for loss in last.positions_T.tolist()),
        seconds=round(seconds, 2),
        captured=trial.graph is not None,
    )


def _point(step: int, tokens: int, found: Evaluation) -> RecurrentPoint:
    losses = {name: round(float(mean), 6) for name, mean in found.means.items()}
    positions = tuple(round(loss, 5) for loss in position_means(found.positions_T.cpu().numpy()))
    return RecurrentPoint(step=step, tokens=tokens, losses=losses, positions=positions)
