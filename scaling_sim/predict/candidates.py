"""Runs that could be made next: what each would measure, what it would cost, and which of them a user can make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scaling_sim.errors import ConfigError, LawError
from scaling_sim.laws.base import Law
from scaling_sim.laws.kaplan import critical_batch, loss_nd
from scaling_sim.laws.registry import get_law
from scaling_sim.predict.overfit import converged_loss, stopping_step
from scaling_sim.predict.source import Array, Fit, columns_of

Kind = Literal["final", "curve", "stopped"]
CURVE_SHARES = (0.03, 0.1, 0.3, 1.0)
"""Shares of a curve's steps at which it counts as measured: its points are correlated, more would count twice."""
COUNT = 200
"""Runs to choose from."""
SHAPE = 4 / 3
"""Sizes for one number of tokens per parameter."""
RATIOS = (1.0, 1000.0)
"""Tokens per parameter where the runs do not say, and as far as the next runs may go beyond those made."""
WIDER = 4.0
"""Within `RATIOS` the next runs may have this many times fewer or more tokens per parameter, as isoFLOP grids do; and
early-stopped ones this many times fewer unique tokens than any made."""
BATCHES = 10.0
"""Fewest batches of unique tokens for an early-stopped run: with fewer, every step repeats much of the one before."""
OTHER_BATCHES = (1 / 16, 16.0)
"""Of the usual batch, at which every second size has learning curves, too, where the law knows the critical batch: what
it is shows in runs on both sides of it, and C* hangs on it most of all."""
DENSITIES = (1.0, 1.3, 1.7, 2.2, 2.8, 3.6)
"""Of the lattice of sizes and tokens, until enough of it can be paid for."""


@dataclass(frozen=True)
class Candidate:
    """A run that could be made.

    ``final``: a finished run of N on ``tokens``; ``curve``: a one-pass learning curve of N at B tokens for S steps;
    ``stopped``: an early-stopped run of N on D unique tokens. ``cost`` is in FLOP.
    """

    kind: Kind
    N: float
    cost: float
    tokens: float | None = None
    D: float | None = None
    B: float | None = None
    S: float | None = None

    @property
    def steps(self) -> Array:
        """Steps at which a learning curve is read, (m,); NaN of one measurement for other kinds."""
        return np.array(CURVE_SHARES) * (self.S or np.nan) if self.kind == "curve" else np.array([np.nan])

    @property
    def compute(self) -> Array:
        """FLOP paid until each measurement, (m,)."""
        return self.cost * np.array(CURVE_SHARES) if self.kind == "curve" else np.array([self.cost])

    def columns(self, law: Law) -> dict[str, Array]:
        """Columns (m,) of the measurements that a law reads."""
        rows: dict[Kind, dict[str, Any]] = {
            "final": {"N": self.N, "tokens": self.tokens, "D": self.D or self.tokens, "C": self.cost},
            "curve": {"N": self.N, "B": self.B, "S": self.steps},
            "stopped": {"N": self.N, "D": self.D},
        }
        known = {name: np.atleast_1d(np.float64(x)) for name, x in rows[self.kind].items() if x is not None}
        return {name: known[name] for name in known if name in law.columns}

    def log_losses(self, fit: Fit) -> Array:
        """(n_draws, m) draws of the log losses that this run would measure, without noise."""
        law = getattr(fit, "law", None) or get_law(fit.law_name)
        return np.asarray(np.log(law.loss(columns_of(fit), self.columns(law))), dtype=np.float64)


@dataclass(frozen=True)
class Constraints:
    """What a user can train.

    Attributes
    ----------
    sizes : parameters of the models that can be built; None: from the least trained up to what the budget allows
    largest_run : FLOP of the dearest single run; None: the whole budget
    batch : tokens per step; None: the median of the runs, and for some learning curves a `OTHER_BATCHES` of it
    tokens_per_parameter : least and most; None: those of the runs, and up to `WIDER` times fewer or more
    max_tokens : unique tokens that there are
    min_steps : fewest steps of a run, where the batch is known: a shorter one says nothing of its size. Early-stopped
        runs need `BATCHES` batches of unique tokens, too.
    """

    sizes: Sequence[float] | None = None
    largest_run: float | None = None
    batch: float | None = None
    tokens_per_parameter: tuple[float, float] | None = None
    max_tokens: float | None = None
    min_steps: float = 100.0

    def __post_init__(self) -> None:
        numbers = {"largest_run": self.largest_run, "batch": self.batch, "max_tokens": self.max_tokens}
        numbers |= {"min_steps": self.min_steps}
        numbers |= {f"sizes[{i}]": size for i, size in enumerate(() if self.sizes is None else self.sizes)}
        numbers |= {f"tokens_per_parameter[{i}]": r for i, r in enumerate(self.tokens_per_parameter or ())}
        for name, value in numbers.items():
            if value is not None and not (np.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be positive and finite, got {value}")
        if self.sizes is not None and not len(self.sizes):
            raise ConfigError("sizes must name at least one size, got none")
        low, high = self.tokens_per_parameter or (0, 1)
        if low > high:
            raise ConfigError(f"tokens_per_parameter must be (least, most), got {self.tokens_per_parameter}")


def default_candidates(
    fit: Fit, budget: float, constraints: Constraints | None = None, count: int = COUNT
) -> list[Candidate]:
    """Return about ``count`` runs of the kinds that the law reads, none dearer than ``budget`` FLOP.

    Raises
    ------
    ConfigError
        No such run can be paid for.
    """
    limits = constraints or Constraints()
    if getattr(fit, "runs", None) is None:
        raise LawError("published constants come without runs: pass candidates=")
    most = min(budget, limits.largest_run or np.inf)
    for density in DENSITIES:
        possible = [c for c in _lattice(fit, budget, limits, density * count) if _possible(c, limits)]
        affordable = [c for c in possible if c.cost <= most]
        if len(affordable) >= 0.95 * count:
            break
    if not affordable:
        cheapest = min((c.cost for c in possible), default=np.nan)
        raise ConfigError(f"budget must pay for one run, {cheapest:.3g} FLOP for the cheapest here; got {most:.3g}")
    return affordable


def _lattice(fit: Fit, budget: float, limits: Constraints, count: float) -> list[Candidate]:
    """About ``count`` runs, even in the logarithms of sizes and of tokens per parameter."""
    runs = fit.runs  # type: ignore[attr-defined]
    law = fit.law_name.removesuffix("-floor")
    others = OTHER_BATCHES if law == "kaplan" and limits.batch is None else ()
    count /= 1 + len(others) / 4  # half of the runs are curves, and half of their sizes have these
    sizes = _sizes(runs, budget, limits, max(round(np.sqrt(SHAPE * count)), 2))
    ratios = np.geomspace(*_ratios(runs, limits), max(round(count / len(sizes)), 2))
    if law in ("kaplan", "kaplan-ns", "kaplan-nd"):
        least = 0.0 if limits.tokens_per_parameter is not None else _least_unique(fit) / WIDER
        made = _kaplan_candidates(fit, _batch(runs, limits), others, sizes, ratios)
        return [run for run in made if run.kind != "stopped" or (run.D or 0.0) >= least]
    return [_final(N, _round(N * ratio), limits.batch) for N in sizes for ratio in ratios]


def _possible(run: Candidate, limits: Constraints) -> bool:
    """Whether there are tokens for a run, and steps enough in it."""
    steps = np.inf if run.B is None else run.cost / (6 * run.N * run.B)
    batches = np.inf if run.B is None or run.D is None else run.D / run.B
    enough = steps >= limits.min_steps * (1 - 1e-9) and batches >= BATCHES
    return bool(enough and (run.D or run.tokens or 0.0) <= (limits.max_tokens or np.inf))


def _sizes(runs: Any, budget: float, limits: Constraints, count: int) -> list[float]:
    if limits.sizes is not None:
        return sorted({float(size) for size in limits.sizes})
    least = float(runs.N[runs.N > 0].min())
    return [_round(N) for N in np.geomspace(least, max(float(runs.N.max()), np.sqrt(budget / 6)), count)]


def _round(number: float) -> float:
    """Three digits: nobody builds a model more exactly."""
    return float(f"{number:.3g}")


def _ratios(runs: Any, limits: Constraints) -> tuple[float, float]:
    if limits.tokens_per_parameter is not None:
        return limits.tokens_per_parameter
    tokens = np.where(np.isfinite(runs.tokens), runs.tokens, runs.D)
    with np.errstate(all="ignore"):
        ratio = tokens / runs.N
    ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
    if not len(ratio):
        return RATIOS
    least, most = float(ratio.min()), float(ratio.max())
    return min(least, max(least / WIDER, RATIOS[0])), max(most, min(most * WIDER, RATIOS[1]))


def _least_unique(fit: Fit) -> float:
    """Fewest unique tokens of the early-stopped runs behind a fit; 0 where it has none."""
    runs = fit.runs  # type: ignore[attr-defined]
    data = get_law(getattr(fit, "law", None) or fit.law_name).observe(runs)
    stopped = data.role == "stopped"
    return float(data.columns["D"][stopped].min()) if np.any(stopped) else 0.0


def _batch(runs: Any, limits: Constraints) -> float | None:
    if limits.batch is not None:
        return limits.batch
    return float(np.nanmedian(runs.B)) if np.any(np.isfinite(runs.B)) else None


def _final(N: float, tokens: float, B: float | None) -> Candidate:
    return Candidate("final", N, 6 * N * tokens, tokens=tokens, B=B, S=None if B is None else tokens / B)


def _kaplan_candidates(
    fit: Fit, B: float | None, others: Sequence[float], sizes: Sequence[float], ratios: Array
) -> list[Candidate]:
    """Curves at batch B, for every second size at ``others`` times B as well, and early-stopped runs."""
    middle = {name: float(np.median(values)) for name, values in fit.draws.items()}
    made: list[Candidate] = []
    for place, N in enumerate(sizes):
        for tokens in [_round(N * ratio) for ratio in ratios[:: 1 if "S_c" not in middle else 2]]:
            if "S_c" in middle and B is not None:
                batches = [B * factor for factor in (1.0, *(others if place % 2 == 0 else ()))]
                made += [Candidate("curve", N, 6 * N * tokens, tokens=tokens, B=b, S=tokens / b) for b in batches]
            if "D_c" in middle:
                made.append(Candidate("stopped", N, _stopped_cost(N, tokens, B, middle), D=tokens, B=B))
    return made


def _stopped_cost(N: float, D: float, B: float | None, p: Mapping[str, float]) -> float:
    """FLOP until early stopping by (5.7) at batch B, at least one pass; ten passes where the law has no steps."""
    if "S_c" not in p or B is None:
        return 60 * N * D
    loss = float(loss_nd(N, D, p))
    steps = float(stopping_step(loss, converged_loss(N, p), p)) * (1 + float(critical_batch(loss, p)) / B)
    return 6 * N * max(B * steps, D)
