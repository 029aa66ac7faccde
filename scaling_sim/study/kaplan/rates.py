"""The learning rate of every size: a rule, corrected by trials at a few sizes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from scaling_sim.model.count import num_parameters
from scaling_sim.model.shape import Shape
from scaling_sim.runs.record import RunRecord
from scaling_sim.training.schedule import SMALL_MODEL_LR, SMALL_MODEL_LR_EXPONENT, SMALL_MODEL_N

MOST_RATE = 3e-2
"""The rule's largest value, for N below 800."""
RATE_WITHOUT_LAYERS = 1e-2
"""Of models with N = 0, of which the rule says nothing."""


def rule(shape: Shape) -> float:
    """0.011·(N/1e4)^-0.4, at most 0.03: our rule for tiny models without its lower end, for sizes above 1e6."""
    N = num_parameters(shape)
    return min(MOST_RATE, SMALL_MODEL_LR * (N / SMALL_MODEL_N) ** SMALL_MODEL_LR_EXPONENT) if N else RATE_WITHOUT_LAYERS


@dataclass(frozen=True)
class Rates:
    """Learning rate of a shape: `rule` times a multiple, interpolated linearly in logarithms between the sizes tried.

    Attributes
    ----------
    multiples : mapping
        N → best multiple of the rule; outside the sizes tried that of the nearest one.
    flags : tuple of str
        Sizes whose best multiple lies on the edge of what was tried.
    """

    multiples: Mapping[int, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()

    def __call__(self, shape: Shape) -> float:
        """Peak learning rate at the family's batch."""
        if not self.multiples:
            return rule(shape)
        sizes = sorted(self.multiples)
        logs = [math.log(self.multiples[N]) for N in sizes]
        return rule(shape) * math.exp(np.interp(math.log(max(1, num_parameters(shape))), np.log(sizes), logs))


def rates_of(trials: Iterable[RunRecord]) -> Rates:
    """Rates from finished trials: per size the minimum of a parabola in ln(rate) through the best and its neighbours.

    Trials that diverged or have no loss count as infinitely bad; a size without a finite loss is left out.
    """
    losses: dict[Shape, dict[float, float]] = {}
    for record in trials:
        point = record.result
        finite = record.status == "done" and point is not None and math.isfinite(point.losses["validation"])
        rate = record.config.recipe.peak_lr
        losses.setdefault(record.config.shape, {})[rate] = point.losses["validation"] if finite and point else math.inf
    multiples, flags = {}, []
    for shape, by_rate in losses.items():
        if not any(map(math.isfinite, by_rate.values())):
            continue
        best, on_edge = _minimum(by_rate)
        multiples[num_parameters(shape)] = best / rule(shape)
        if on_edge:
            flags.append(
                f"The best learning rate of N = {num_parameters(shape):,} lies on the edge of its trials ({best:.3g}); "
                "a better one may lie beyond."
            )
    return Rates(multiples, tuple(flags))


def _minimum(losses: Mapping[float, float]) -> tuple[float, bool]:
    """Rate of the lowest loss, refined between its neighbours, and whether it is the lowest or highest one tried."""
    rates = sorted(losses)
    i = min(range(len(rates)), key=lambda k: losses[rates[k]])
    if i in (0, len(rates) - 1):
        return rates[i], len(rates) > 1
    around = [(math.log(rates[k]), losses[rates[k]]) for k in (i - 1, i, i + 1)]
    if not all(math.isfinite(loss) for _, loss in around):
        return rates[i], False
    x, y = np.array(around).T
    curvature, slope, _ = np.polyfit(x - x[1], y, 2)
    return float(np.exp(x[1] - slope / (2 * curvature))) if curvature > 0 else rates[i], False
