"""Differences in loss between kinds of models at equal size, with the noise that repeated seeds show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling_sim.datasets.recurrent import RecurrentRun, RecurrentRuns
from scaling_sim.study.reproduce.kaplan.finding import Row

Measure = Callable[[RecurrentRun], float]
"""What is compared, of one run; a logarithm, so that differences are ratios."""
NAMES = {"lstm": "LSTM", "transformer": "transformer", "recurrent": "weight-shared transformer"}
MARGIN = 1.25
"""A standard model of equal size may be read off this factor outside the sizes that were trained."""


@dataclass(frozen=True)
class Noise:
    """Standard deviation of a measure between runs that differ in their seed, and its degrees of freedom."""

    deviation: float
    freedom: int

    @classmethod
    def between_seeds(cls, runs: Iterable[RecurrentRun], measure: Measure) -> Noise:
        """Pooled over all models that were trained from more than one seed."""
        groups = [np.array([measure(run) for run in group]) for group in by_model(runs) if len(group) > 1]
        freedom = sum(len(group) - 1 for group in groups)
        squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
        return cls(float(np.sqrt(squares / freedom)) if freedom else np.nan, freedom)


@dataclass(frozen=True)
class Contrast:
    """A weighted sum over runs, whose weights sum to zero."""

    runs: tuple[RecurrentRun, ...]
    weights: NDArray[np.float64]

    def of(self, measure: Measure) -> float:
        """Σ weight · measure."""
        return float(self.weights @ [measure(run) for run in self.runs])

    def half_width(self, noise: Noise) -> float:
        """Of the 90 % interval: t · σ · √Σw²; NaN without repeated seeds."""
        from scipy.stats import t

        if not noise.freedom:
            return np.nan
        return float(t.ppf(0.95, noise.freedom)) * noise.deviation * float(np.linalg.norm(self.weights))


def log_loss(run: RecurrentRun) -> float:
    """ln of the test loss at the end."""
    return float(np.log(run.loss))


def shortest(runs: Sequence[RecurrentRun]) -> tuple[RecurrentRun, ...]:
    """Those of the shortest context, which most have."""
    return tuple(run for run in runs if run.n_ctx == min(other.n_ctx for other in runs))


def longest(runs: RecurrentRuns) -> tuple[RecurrentRun, ...]:
    """LSTMs and transformers of the longest context, if there is a second one."""
    found = runs.select("lstm", "transformer")
    contexts = {run.n_ctx for run in found}
    return tuple(run for run in found if len(contexts) > 1 and run.n_ctx == max(contexts))


def by_model(runs: Iterable[RecurrentRun]) -> list[list[RecurrentRun]]:
    """Runs grouped by everything but the seed, by N."""
    groups: dict[tuple[object, ...], list[RecurrentRun]] = {}
    for run in runs:
        groups.setdefault((run.N, run.kind, run.layers, run.reuse, run.d_model, run.n_ctx), []).append(run)
    return [groups[key] for key in sorted(groups, key=str)]


def excess(
    runs: Iterable[RecurrentRun], standard: Sequence[RecurrentRun], size: Callable[[RecurrentRun], float]
) -> Contrast:
    """The mean difference to a standard model of size ``size(run)``, interpolated in ln N between the two nearest.

    Every model counts alike, however many seeds it has; models beyond `MARGIN` of the standard sizes do not count. If
    none are left the contrast is empty.
    """
    controls = sorted(by_model(standard), key=lambda group: group[0].N)
    sizes = np.log([group[0].N for group in controls])
    models = [group for group in by_model(runs) if _within(np.log(size(group[0])), sizes)]
    if not models:
        return Contrast((), np.zeros(0))
    shares = np.mean([_shares(np.log(size(group[0])), sizes) for group in models], axis=0)
    weighted = [(run, 1 / len(models) / len(group)) for group in models for run in group]
    weighted += [(run, -share / len(group)) for group, share in zip(controls, shares, strict=True) for run in group]
    used = [(run, weight) for run, weight in weighted if weight]
    return Contrast(tuple(run for run, _ in used), np.array([weight for _, weight in used]))


def _within(size: float, sizes: NDArray[np.float64]) -> bool:
    return len(sizes) > 1 and bool(sizes[0] - np.log(MARGIN) <= size <= sizes[-1] + np.log(MARGIN))


def _shares(size: float, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) of the straight line through the two standard sizes nearest to ``size``, all in ln N; they sum to 1."""
    right = int(np.clip(np.searchsorted(sizes, size), 1, len(sizes) - 1))
    place = (size - sizes[right - 1]) / (sizes[right] - sizes[right - 1])
    shares = np.zeros(len(sizes))
    shares[right - 1 : right + 1] = 1 - place, place
    return shares


def percent_row(quantity: str, contrast: Contrast, measure: Measure, noise: Noise, remark: str) -> Row:
    """A contrast of logarithms as a percentage; NaN if there is nothing to compare."""
    if not contrast.runs:
        return Row(quantity, None, np.nan, None, 0, "%", f"no standard model of that size; {remark}")
    middle, half = contrast.of(measure), contrast.half_width(noise)
    low, high = (100 * float(np.expm1(middle + side * half)) for side in (-1, 1))
    between = None if np.isnan(half) else (low, high)
    return Row(quantity, None, 100 * float(np.expm1(middle)), between, len(contrast.runs), "%", remark)
