"""Runs that could be made next: what each would measure and what it would cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scaling_sim.errors import ConfigError, LawError
from scaling_sim.laws.kaplan import critical_batch, loss_nd
from scaling_sim.laws.registry import get_law
from scaling_sim.predict.overfit import converged_loss, stopping_step
from scaling_sim.predict.source import Array, Fit, columns_of

Kind = Literal["final", "curve", "stopped"]
CURVE_SHARES = (0.03, 0.1, 0.3, 1.0)
"""Shares of a curve's steps at which it counts as measured: its points are correlated, more would count twice."""


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

    def log_losses(self, fit: Fit) -> Array:
        """(n_draws, m) draws of the log losses that this run would measure, without noise."""
        law = getattr(fit, "law", None) or get_law(fit.law_name)
        steps = np.array(CURVE_SHARES) * (self.S or np.nan)
        rows: dict[Kind, dict[str, Any]] = {
            "final": {"N": self.N, "tokens": self.tokens, "D": self.D or self.tokens, "C": self.cost},
            "curve": {"N": self.N, "B": self.B, "S": steps},
            "stopped": {"N": self.N, "D": self.D},
        }
        known = {name: np.atleast_1d(np.float64(x)) for name, x in rows[self.kind].items() if x is not None}
        columns = {name: known[name] for name in known if name in law.columns}
        return np.asarray(np.log(law.loss(columns_of(fit), columns)), dtype=np.float64)


def default_candidates(fit: Fit, budget: float, count: int = 200) -> list[Candidate]:
    """Return about ``count`` runs of the kinds that the law reads, none dearer than ``budget`` FLOP.

    Sizes reach from the least of the runs to where the budget buys one token per parameter, lengths from 1 to
    1,000 tokens per parameter; B is the median of the runs.
    """
    runs = getattr(fit, "runs", None)
    if runs is None:
        raise LawError("published constants come without runs: pass candidates=")
    sizes = np.geomspace(runs.N[runs.N > 0].min(), max(runs.N.max(), np.sqrt(budget / 6)), 16)
    ratios = np.geomspace(1, 1000, max(count // 16, 2))
    if fit.law_name.removesuffix("-floor") in ("kaplan", "kaplan-ns", "kaplan-nd"):
        made = _kaplan_candidates(fit, runs, sizes, ratios)
    else:
        made = [Candidate("final", N, 6 * N * N * r, tokens=N * r) for N in sizes for r in ratios]
    affordable = [c for c in made if c.cost <= budget]
    if not affordable:
        cheapest = min(c.cost for c in made)
        raise ConfigError(f"budget must pay for one run, {cheapest:.3g} FLOP for the cheapest here; got {budget:.3g}")
    return affordable


def _kaplan_candidates(fit: Fit, runs: Any, sizes: Array, ratios: Array) -> list[Candidate]:
    B = float(np.nanmedian(runs.B)) if np.any(np.isfinite(runs.B)) else None
    middle = {name: float(np.median(values)) for name, values in fit.draws.items()}
    made: list[Candidate] = []
    for N in sizes:
        for ratio in ratios[:: 1 if "S_c" not in middle else 2]:
            if "S_c" in middle and B is not None:
                made.append(Candidate("curve", N, 6 * N * N * ratio, tokens=N * ratio, B=B, S=N * ratio / B))
            if "D_c" in middle:
                made.append(Candidate("stopped", N, _stopped_cost(N, N * ratio, B, middle), D=N * ratio))
    return made


def _stopped_cost(N: float, D: float, B: float | None, p: Mapping[str, float]) -> float:
    """FLOP until early stopping by (5.7) at batch B, at least one pass; ten passes where the law has no steps."""
    if "S_c" not in p or B is None:
        return 60 * N * D
    loss = float(loss_nd(N, D, p))
    steps = float(stopping_step(loss, converged_loss(N, p), p)) * (1 + float(critical_batch(loss, p)) / B)
    return 6 * N * max(B * steps, D)
