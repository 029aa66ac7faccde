"""Which models are trained, how long, and what that is expected to take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.recurrent.models import Spec
from scaling_sim.engine.cohort import Recipe
from scaling_sim.training.schedule import (
    SMALL_MODEL_LR,
    SMALL_MODEL_LR_EXPONENT,
    SMALL_MODEL_LR_RANGE,
    SMALL_MODEL_N,
    learning_rates,
)

GAIN = 1.25
"""Seconds assumed one after another over seconds taken ten at a time, starts included: 33 runs on an H200, 1 / 0.80."""
EVALUATIONS = 1.06
"""Assumed: updates and evaluations over updates alone."""


@dataclass(frozen=True)
class Settings:
    """How every run of one call is trained; lengths in updates."""

    steps: int = 2500
    batch_tokens: int = 8192
    warmup: int = 100
    multiples: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    test_tokens: int = 131_072

    @property
    def decay(self) -> int:
        """Last updates, over which the rate falls to zero."""
        return self.steps // 5

    @property
    def sweep_steps(self) -> int:
        """Of every learning rate that is tried."""
        return self.steps // 8

    def recipe(self, peak_lr: float, seed: int) -> Recipe:
        """Warm-up, constant rate, linear decay to zero at the end; AdamW without weight decay, clipped at 1."""
        return Recipe(
            peak_lr=peak_lr,
            batch_tokens=self.batch_tokens,
            steps=self.steps,
            warmup_steps=self.warmup,
            schedule="decay",
            decay_steps=self.decay,
            seed=seed,
        )

    def rates(self, peak_lr: float) -> NDArray[np.float64]:
        """Learning rate of every update, (steps,)."""
        return learning_rates(self.recipe(peak_lr, 0), 0, self.steps)

    @property
    def updates(self) -> int:
        """Of one run with its sweep; the best trial of the sweep is continued, not repeated."""
        return self.steps + (len(self.multiples) - 1) * self.sweep_steps

    @property
    def stops(self) -> list[int]:
        """Updates before an evaluation: 2^(j/2) from 64; the ends of the sweep, of the constant rate, and of all."""
        grid = {round(2 ** (j / 2)) for j in range(12, 60)}
        grid = {step for step in grid if step < self.steps}
        return sorted(grid | {self.sweep_steps, self.steps - self.decay, self.steps})


def base_rate(spec: Spec) -> float:
    """Lowest of the sweep: the library's rule for small models, over √reuse since a shared weight acts so often.

    In a first sweep from half the rule on, controls chose twice the rule, the highest tried, and LSTMs four times.
    """
    rate = SMALL_MODEL_LR * (spec.N / SMALL_MODEL_N) ** SMALL_MODEL_LR_EXPONENT
    return spec.reuse**-0.5 * float(np.clip(rate, *SMALL_MODEL_LR_RANGE))


CONTROLS = ((48, 3), (96, 6), (192, 6), (384, 12))
"""Width and heads of two-layer transformers; N grows fourfold, so 4 passes through one cost what the next does once."""
LSTM_WIDTHS = {1: (80, 168, 336), 2: (56, 120, 240), 4: (40, 80, 168)}
"""By layers: widths for N of about 5e4, 2e5 and 8e5."""
REUSES = (2, 4, 8)
N_CTX, LONG = 128, 512


def full_plan() -> list[Spec]:
    """All runs, most important first: what does not fit into the time is dropped from the end."""
    plan = [transformer(*size) for size in CONTROLS]
    plan += [transformer(*size, reuse=reuse) for size in CONTROLS[:3] for reuse in REUSES]
    plan += [lstm(layers, widths[i]) for i in range(3) for layers, widths in LSTM_WIDTHS.items()]
    plan += [lstm(2, LSTM_WIDTHS[2][2], n_ctx=LONG), transformer(*CONTROLS[2], n_ctx=LONG)]
    plan += [transformer(*CONTROLS[1], seed=1), lstm(2, LSTM_WIDTHS[2][1], seed=1)]
    plan += [transformer(*CONTROLS[1], reuse=4, seed=1)]
    plan += [lstm(2, LSTM_WIDTHS[2][1], n_ctx=LONG), transformer(*CONTROLS[1], n_ctx=LONG)]
    plan += [lstm(layers, LSTM_WIDTHS[layers][1], seed=1) for layers in (1, 4)]
    return plan + [transformer(*CONTROLS[1], reuse=reuse, seed=1) for reuse in (2, 8)]


def smoke_plan() -> list[Spec]:
    """The same kinds at a size for tests."""
    plan = [transformer(d, 2, n_ctx=32) for d in (8, 16, 32)]
    plan += [lstm(layers, d, n_ctx=32) for layers, d in ((1, 12), (2, 8), (4, 6), (1, 24))]
    plan += [transformer(d, 2, reuse=reuse, n_ctx=32) for d in (8, 16) for reuse in (2, 4)]
    plan += [lstm(1, 24, n_ctx=64), transformer(16, 2, n_ctx=64)]
    return [*plan, transformer(16, 2, n_ctx=32, seed=1)]


SMOKE = Settings(steps=24, batch_tokens=512, warmup=2, test_tokens=4096)


def transformer(d: int, n_head: int, *, reuse: int = 1, n_ctx: int = N_CTX, seed: int = 0) -> Spec:
    """Two layers gone through ``reuse`` times."""
    return Spec("transformer" if reuse == 1 else "recurrent", 2, reuse, d, n_head, n_ctx, seed)


def lstm(layers: int, d: int, *, n_ctx: int = N_CTX, seed: int = 0) -> Spec:
    """An LSTM as wide as its embedding."""
    return Spec("lstm", layers, 1, d, 0, n_ctx, seed)


def update_ms(spec: Spec, batch_tokens: int) -> float:
    """Milliseconds of an update alone on an H200: assumed, from launches and their latency, until it is measured.

    A captured block of a small transformer is some 50 launches; ``torch_h200_2026-11.md`` has 0.78 ms for four compiled
    ones of width 128. cuDNN goes through an LSTM position by position, layers partly overlapping.
    """
    if spec.kind == "lstm":
        return 0.35 + spec.n_ctx / 128 * (1.2 + 0.6 * spec.layers)
    products = 6.0 * spec.N * spec.reuse * batch_tokens / 3e14 * 1e3
    return 0.35 + 0.19 * spec.layers * spec.reuse + products


def alone_seconds(spec: Spec, settings: Settings) -> float:
    """Expected seconds of a run with its sweep if nothing else ran."""
    return settings.updates * update_ms(spec, settings.batch_tokens) * EVALUATIONS / 1e3


def describe(plan: list[Spec], settings: Settings, seconds: float) -> str:
    """What a call would do, one line per run, and how long it is expected to take."""
    lines = [f"{'run':28} {'N':>9} {'FLOP/token':>11} {'ms/update':>9} {'s alone':>8}"]
    for spec in plan:
        alone = alone_seconds(spec, settings)
        ms = update_ms(spec, settings.batch_tokens)
        lines.append(f"{spec.name:28} {spec.N:9,} {spec.flops_per_token:11.3g} {ms:9.2f} {alone:8.1f}")
    alone = sum(alone_seconds(spec, settings) for spec in plan)
    lines.append(
        f"{len(plan)} runs of {settings.updates} updates (sweep included), "
        f"{settings.steps * settings.batch_tokens:.3g} tokens each: {alone:.0f} s one after another, "
        f"about {alone / GAIN:.0f} s side by side (gain {GAIN}, as measured) of at most {seconds:.0f}"
    )
    return "\n".join(lines)
