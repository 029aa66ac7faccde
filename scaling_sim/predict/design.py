"""Which runs to buy next, so that a target (N* at a budget, a loss, C*) becomes surer.

Linear-Gaussian: over posterior draws the log losses y that a run would measure and the target t are taken as jointly
normal, so that measuring y with noise variance R shrinks Var(t) by cov(t, y)·(Cov(y) + R)⁻¹·cov(y, t), whatever comes
out. Runs are bought greedily until the budget is spent, by variance removed per FLOP and by variance removed; the
better of the two lists is kept (neither alone is safe: many tiny runs, or one that eats the budget).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from scaling_sim.errors import ConfigError
from scaling_sim.predict.allocate import allocate
from scaling_sim.predict.candidates import Candidate, default_candidates
from scaling_sim.predict.quantity import Quantity
from scaling_sim.predict.source import Array, Fit, head

if TYPE_CHECKING:
    import pandas as pd

MAX_RUNS = 40
MAX_COPIES = 3
"""Seeds of one run: more would measure its loss better than the law is right about it."""
DEFAULT_NOISE = 0.01
"""Residual scale of ln loss where the fit does not say."""


@dataclass(frozen=True)
class Purchase:
    """A run to buy, and the posterior sd of the target (in its scale) expected once it and all before it are made."""

    candidate: Candidate
    sd_after: float


@dataclass(frozen=True)
class Design:
    """Runs in the order in which to make them.

    ``sd_before`` and ``sd_after`` are in the target's ``scale``: "log" (relative) or, for a target with infinite draws,
    "normal score of its rank".
    """

    target: str
    scale: str
    purchases: tuple[Purchase, ...]
    sd_before: float
    budget: float
    header: dict[str, Any]

    @property
    def sd_after(self) -> float:
        """Expected posterior sd of the target once all runs are made."""
        return self.purchases[-1].sd_after if self.purchases else self.sd_before

    @property
    def cost(self) -> float:
        """FLOP of all runs."""
        return sum(p.candidate.cost for p in self.purchases)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per different run: how often to make it, kind, N, tokens, D, B, S, cost of all its copies.

        Rows are in the order in which the last copies were bought; ``target_sd_after`` is what is left of the target's
        sd by then.
        """
        import pandas as pd

        last = {p.candidate: place for place, p in enumerate(self.purchases)}
        count = Counter(p.candidate for p in self.purchases)
        rows = [
            {
                "count": count[c],
                "kind": c.kind,
                "N_parameters": c.N,
                "tokens": c.tokens,
                "D_tokens": c.D,
                "B_tokens": c.B,
                "S_steps": c.S,
                "cost_flop": count[c] * c.cost,
                "target_sd_after": self.purchases[last[c]].sd_after,
            }
            for c in sorted(last, key=lambda c: last[c])
        ]
        return pd.DataFrame(rows)

    def to_json(self) -> dict[str, Any]:
        """The runs, their cost in FLOP and the target's sd before and after."""
        table = self.to_dataframe().astype(object)
        return {
            **self.header,
            "target": self.target,
            "scale": self.scale,
            "sd_before": self.sd_before,
            "sd_after": self.sd_after,
            "budget_flop": self.budget,
            "cost_flop": self.cost,
            "num_runs": len(self.purchases),
            "runs": table.where(table.notna(), None).to_dict(orient="records"),
        }

    def _repr_html_(self) -> str:
        return str(self.to_dataframe().to_html(index=False, float_format=lambda x: f"{x:.4g}"))


def design(
    fit: Fit,
    target: Quantity | None = None,
    *,
    budget: float,
    compute: float | None = None,
    candidates: Sequence[Candidate] | None = None,
    noise: float | None = None,
) -> Design:
    """Return the runs within ``budget`` that shrink the posterior of a target the most.

    Parameters
    ----------
    fit : Posterior
    target : Quantity, optional
        Draws of what is to become surer, from a prediction by the same fit: ``allocate(fit, 1e22).N``,
        ``forecast(fit, N=1e9, tokens=2e10).law_loss``, ``crossover(fit).C``.
    budget : float
        FLOP to spend on the next runs.
    compute : float, optional
        In place of ``target``: N* at this compute, FLOP.
    candidates : sequence of Candidate, optional
        Default: about 200 runs of the kinds that the law reads.
    noise : float, optional
        Sd of ln loss of one measurement; default: the fit's.
    """
    if (target is None) == (compute is None):
        raise ConfigError("design needs a target (draws of a prediction) or compute= (N* at that compute), one of them")
    if not (np.isfinite(budget) and budget > 0):
        raise ConfigError(f"budget must be positive and finite, got {budget}")
    chosen = allocate(fit, compute, backtest=None).N if target is None else target
    draws, scale = _on_normal_scale(chosen.draws)
    if len(draws) != len(next(iter(fit.draws.values()))):
        raise ConfigError("the target must come from this fit: it has another number of draws")
    pool = list(default_candidates(fit, budget) if candidates is None else candidates)
    sd = _noise(fit) if noise is None else noise
    losses = [c.log_losses(fit) for c in pool]
    lists = [_greedy(draws, losses, pool, sd, budget, power) for power in (1.0, 0.0)]
    bought = min(lists, key=lambda runs: runs[-1].sd_after if runs else np.inf)
    name = chosen.name if compute is None else f"N at {compute:g} FLOP"
    return Design(name, scale, bought, float(np.std(draws)), budget, head(fit))


def _on_normal_scale(draws: Array) -> tuple[Array, str]:
    """Log draws; with infinite ones, normal scores of mid-ranks, which know only the order."""
    if np.all(np.isfinite(draws)) and np.all(draws > 0):
        return np.log(draws), "log"
    from scipy.stats import norm, rankdata

    return np.asarray(norm.ppf((rankdata(draws) - 0.5) / len(draws))), "normal score of its rank"


def _noise(fit: Fit) -> float:
    scales = [float(np.median(v)) for name, v in getattr(fit, "noise", {}).items() if name.startswith("sigma")]
    return float(np.median(scales)) if scales else DEFAULT_NOISE


def _greedy(
    target: Array, losses: list[Array], pool: list[Candidate], noise: float, budget: float, power: float
) -> tuple[Purchase, ...]:
    """Buy the run that removes most variance per cost^power, update the joint covariance, repeat."""
    ends = np.cumsum([1, *(y.shape[1] for y in losses)])
    blocks = [np.arange(a, b) for a, b in pairwise(ends)]
    covariance = np.cov(np.column_stack([target, *losses]), rowvar=False)
    bought: list[Purchase] = []
    left, copies = budget, np.zeros(len(pool), dtype=np.int64)
    while len(bought) < MAX_RUNS:
        gains = [
            _gain(covariance, block, noise) / c.cost**power if c.cost <= left and made < MAX_COPIES else -np.inf
            for block, c, made in zip(blocks, pool, copies, strict=True)
        ]
        best = int(np.argmax(gains))
        if not gains[best] > 0:
            break
        covariance = _measured(covariance, blocks[best], noise)
        left -= pool[best].cost
        copies[best] += 1
        bought.append(Purchase(pool[best], float(np.sqrt(max(covariance[0, 0], 0.0)))))
    return tuple(bought)


def _gain(covariance: Array, block: Any, noise: float) -> float:
    """Variance of the target (index 0) that measuring a block removes."""
    with_noise = covariance[np.ix_(block, block)] + noise**2 * np.eye(len(block))
    return float(covariance[0, block] @ np.linalg.solve(with_noise, covariance[block, 0]))


def _measured(covariance: Array, block: Any, noise: float) -> Array:
    """Joint covariance once a block was measured."""
    with_noise = covariance[np.ix_(block, block)] + noise**2 * np.eye(len(block))
    return np.asarray(covariance - covariance[:, block] @ np.linalg.solve(with_noise, covariance[block, :]))
