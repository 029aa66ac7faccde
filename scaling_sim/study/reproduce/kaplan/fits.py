"""The fits that systems share, by name; each is a function of `Data`, made once with its seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scaling_sim.inference import Posterior
    from scaling_sim.runs.table import RunTable
    from scaling_sim.study.reproduce.kaplan.data import Data

MIN_ESS = 400
"""Effective draws of each coordinate: the ends of a 90 % interval then err by .02 in probability."""


def sampled(data: Data, runs: RunTable, law: Any, *, max_steps: int = 4000, min_ess: int = MIN_ESS) -> Posterior:
    """`scaling_sim.fit` with settings that keep the whole reproduction below three minutes."""
    from scaling_sim.inference import fit

    return fit(runs, law, seed=data.seed, min_ess=min_ess, max_steps=max_steps)


def joint(data: Data) -> Posterior:
    """L(N, D), L(N, S_min) and B_crit(L) together: early-stopped runs with dropout, curves, and the batch sweep."""
    from scaling_sim.study.reproduce.kaplan.rows import joint_rows

    return sampled(data, joint_rows(data), "kaplan")


FITS: Mapping[str, Callable[[Data], Posterior]] = MappingProxyType({"kaplan": joint})
"""Every shared fit."""
EARLY = ("kaplan",)
"""Those that are made before the systems, in processes of their own; the longest first."""
