"""Where overfitting can no longer be avoided in one pass over the data, long before the crossover (Kaplan et al. 2020).

Keeping δL below a threshold wants D ∝ N^(αN/αD) ∝ C^0.54 (6.6); compute-efficient training reads D(C_min) ∝ C^0.27.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling_sim.laws.constants import PF_DAY, constants
from scaling_sim.predict.overfit import THRESHOLD, data_needed
from scaling_sim.predict.powerlaws import PowerLaws
from scaling_sim.predict.quantity import Quantity
from scaling_sim.predict.source import Array

Draws = Mapping[str, Array]
OWN = "the fit's own (4.3)"
PRINTED = "the paper's 5e3·N^0.74 (4.4)"
LARGEST = 1e45
"""FLOP; tension beyond counts as none."""


@dataclass(frozen=True)
class Tension:
    """The least C_min from which ``rule`` wants more data than one pass has; +∞ in a draw where it never does."""

    C: Quantity
    N: Quantity
    rule: str
    threshold: float

    @property
    def pf_days(self) -> Quantity:
        """C_min in PF-days."""
        return Quantity("C", self.C.draws / PF_DAY, "pf_days")

    def to_json(self) -> dict[str, Any]:
        """C_min in PF-days and FLOP, N in parameters."""
        return {
            "rule": self.rule,
            "threshold": self.threshold,
            "C_pf_days": self.pf_days.to_json(),
            "C_flop": self.C.to_json(),
            "N_parameters": self.N.to_json(),
        }


def own_tension(lines: PowerLaws, draws: Draws, threshold: float) -> Tension | None:
    """By the draw's own (4.3) for δL ≤ ``threshold``; None for published frontiers, which print no N_c of (1.5)."""
    if "N_c" not in draws:
        return None
    return _tension(lines, lambda log_N: np.log(data_needed(np.exp(log_N), draws, threshold)), OWN, threshold)


def printed_tension(lines: PowerLaws) -> Tension:
    """By (4.4) as printed, D ≥ 5e3·N^0.74, whose threshold is 2 % (Table 2 gives 5.5e3)."""
    p = constants("kaplan-table6").values
    return _tension(
        lines, lambda log_N: np.log(p["overfit_coefficient"]) + p["overfit_exponent"] * log_N, PRINTED, THRESHOLD
    )


def _tension(lines: PowerLaws, log_needed: Callable[[Array], Any], rule: str, threshold: float) -> Tension:
    """First C_min at which the data needed exceed D(C_min), by bisection over ln C."""
    low, high = np.zeros_like(lines.N.at), np.full_like(lines.N.at, np.log(LARGEST))
    never = log_needed(lines.N(high)) < lines.D(high)
    for _ in range(70):
        middle = (low + high) / 2
        tense = log_needed(lines.N(middle)) >= lines.D(middle)
        low, high = np.where(tense, low, middle), np.where(tense, middle, high)
    log_C = np.where(never, np.inf, high)
    C, N = np.exp(log_C), np.exp(lines.N(log_C))
    return Tension(Quantity("C", C, "flop"), Quantity("N", N, "parameters"), rule, threshold)
