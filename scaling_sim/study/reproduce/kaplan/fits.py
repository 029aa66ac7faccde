"""The fits that systems share, by name; each is a function of `Data`, made once with its seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from scaling_sim.study.reproduce.kaplan import rows

if TYPE_CHECKING:
    from scaling_sim.inference import Posterior
    from scaling_sim.inference.approximate import ApproximateFit
    from scaling_sim.predict.backtest import Backtest
    from scaling_sim.runs.table import RunTable
    from scaling_sim.study.reproduce.kaplan.data import Data

MIN_ESS = 400
"""Effective draws of each coordinate: the ends of a 90 % interval then err by .011 in probability."""


def sampled(data: Data, runs: RunTable, law: Any, *, max_steps: int = 3000, min_ess: int = MIN_ESS) -> Posterior:
    """`scaling_sim.fit` with settings that keep the whole reproduction below three minutes."""
    from scaling_sim.inference import fit

    return fit(runs, law, seed=data.seed, min_ess=min_ess, max_steps=max_steps)


def joint(data: Data) -> Posterior:
    """L(N, D), L(N, S_min) and B_crit(L) together, with one pair (α_N, N_c)."""
    return sampled(data, rows.joint_rows(data), "kaplan")


def by_steps(data: Data) -> ApproximateFit:
    """The paper's way to the same parameters: separate fits, B_crit(L) from batch sweeps."""
    from scaling_sim.study.reproduce.kaplan.stepwise import stepwise

    return stepwise(data)


def limited(data: Data) -> Posterior:
    """L(N, D) alone, of the data-limited runs with dropout, as in the paper."""
    return sampled(data, rows.limited_rows(data), "kaplan-nd")


def plain(data: Data) -> Posterior:
    """The same of those without dropout."""
    return sampled(data, rows.limited_rows(data, 0.0), "kaplan-nd")


def largest(data: Data) -> Posterior:
    """L(D) of the largest model."""
    return sampled(data, rows.largest_model_rows(data), "power-d")


def sizes(data: Data) -> Posterior:
    """L(N) of finished runs near convergence."""
    from scaling_sim.study.reproduce.kaplan.converged import converged_rows

    return sampled(data, converged_rows(data), "power-n")


def with_floor(data: Data) -> ApproximateFit:
    """The joint system above an entropy floor E, by importance sampling: emcee takes minutes, its τ is 145 steps."""
    from scaling_sim.inference.approximate import approximate_fit

    return approximate_fit(rows.joint_rows(data), "kaplan-floor", num_draws=4000, seed=data.seed)


def held_out(data: Data, law: str = "kaplan", share: float = 0.1) -> Backtest:
    """Forecasts of the top decade of compute of the joint law's rows from those below it, with their discrepancy."""
    from scaling_sim.predict.backtest import backtest

    table = rows.joint_rows(data)
    return backtest(table, law, cuts=[share * float(table.C[~table.stopped].max())])


def held_out_with_floor(data: Data) -> Backtest:
    """The same by the law with an entropy floor."""
    return held_out(data, "kaplan-floor")


FITS: Mapping[str, Callable[[Data], Posterior]] = MappingProxyType(
    {"kaplan": joint, "kaplan-nd": limited, "kaplan-nd-plain": plain, "power-d": largest, "power-n": sizes}
)
"""Every shared posterior."""
SHARED: Mapping[str, Callable[[Data], Any]] = MappingProxyType(
    {
        **FITS,
        "stepwise": by_steps,
        "kaplan-floor": with_floor,
        "held-out": held_out,
        "held-out-floor": held_out_with_floor,
    }
)
"""Everything that is made once: posteriors, and what else takes seconds."""
EARLY = ("stepwise", "kaplan", "held-out", "held-out-floor", "kaplan-nd", "kaplan-nd-plain", "power-d", "kaplan-floor")
"""What is made before the systems, each in a process; the longest first."""
