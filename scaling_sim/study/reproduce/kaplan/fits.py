"""The fits that systems share, by name; each is a function of `Data`, made once with its seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from scaling_sim.study.reproduce.kaplan import rows

if TYPE_CHECKING:
    from scaling_sim.inference import Posterior
    from scaling_sim.runs.table import RunTable
    from scaling_sim.study.reproduce.kaplan.data import Data

MIN_ESS = 400
"""Effective draws of each coordinate: the ends of a 90 % interval then err by .011 in probability."""


def sampled(data: Data, runs: RunTable, law: Any, *, max_steps: int = 6000, min_ess: int = MIN_ESS) -> Posterior:
    """`scaling_sim.fit` with settings that keep the whole reproduction below three minutes."""
    from scaling_sim.inference import fit

    return fit(runs, law, seed=data.seed, min_ess=min_ess, max_steps=max_steps)


def joint(data: Data) -> Posterior:
    """L(N, D), L(N, S_min) and B_crit(L) together, with one pair (α_N, N_c)."""
    return sampled(data, rows.joint_rows(data), "kaplan")


def joint_floor(data: Data) -> Posterior:
    """The same above an entropy floor E."""
    return sampled(data, rows.joint_rows(data), "kaplan-floor")


def stopped(data: Data) -> Posterior:
    """L(N, D) of the early-stopped runs with dropout alone."""
    return sampled(data, rows.stopped_rows(data), "kaplan-nd")


def largest(data: Data) -> Posterior:
    """L(D) of the largest model."""
    return sampled(data, rows.largest_model_rows(data), "power-d")


def sizes(data: Data) -> Posterior:
    """L(N) of finished runs near convergence."""
    from scaling_sim.study.reproduce.kaplan.converged import converged_rows

    return sampled(data, converged_rows(data), "power-n")


FITS: Mapping[str, Callable[[Data], Posterior]] = MappingProxyType(
    {"kaplan": joint, "kaplan-floor": joint_floor, "kaplan-nd": stopped, "power-d": largest, "power-n": sizes}
)
"""Every shared fit."""
EARLY = ("kaplan", "kaplan-floor")
"""Those that are made before the systems, in processes of their own; the longest first."""
