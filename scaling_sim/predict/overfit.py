"""Overfitting of early-stopped runs: δL(N, D), the data that keep it small, when to stop (Kaplan et al. 2020, sec. 4).

Parameters are mappings of floats or (n, 1) columns that broadcast against N and D.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

THRESHOLD = 0.02
"""Relative overfitting within the scatter of seeds (section 4.2)."""


def converged_loss(N: Any, p: Mapping[str, Any]) -> Any:
    """Return L(N, ∞) = E + (N_c/N)^αN, nats per token (1.1)."""
    return p.get("E", 0.0) + (p["N_c"] / N) ** p["alpha_N"]


def overfitting(N: Any, D: Any, p: Mapping[str, Any]) -> Any:
    """Return δL = L(N, D)/L(N, ∞) − 1 (4.3), which depends on N^(αN/αD)/D only.

    δL = [(1 + (N/N_c)^(αN/αD)·D_c/D)^αD − 1]·(N_c/N)^αN/L(N, ∞); the last factor is 1 without an entropy floor.
    """
    load = (N / p["N_c"]) ** (p["alpha_N"] / p["alpha_D"]) * p["D_c"] / D
    reducible = (p["N_c"] / N) ** p["alpha_N"]
    return np.expm1(p["alpha_D"] * np.log1p(load)) * reducible / converged_loss(N, p)


def data_needed(N: Any, p: Mapping[str, Any], threshold: float = THRESHOLD) -> Any:
    """Return the unique tokens D at which δL equals ``threshold`` (4.4; Table 2 gives 5.5e3·N^0.738 for 0.02).

    +∞ where a draw's N_c is too small for a float.
    """
    above = p["E"] / (p["N_c"] / N) ** p["alpha_N"] if "E" in p else 0.0  # the floor over the reducible loss
    load = np.expm1(np.log1p(threshold * (1 + above)) / p["alpha_D"])
    with np.errstate(divide="ignore", over="ignore"):
        return p["D_c"] / load * (N / p["N_c"]) ** (p["alpha_N"] / p["alpha_D"])


def stopping_step(loss: Any, converged: Any, p: Mapping[str, Any]) -> Any:
    """Return the least early-stopping step (5.7) at B ≫ B_crit: S_c·[L(N, D) − L(N, ∞)]^(-1/αS)."""
    with np.errstate(divide="ignore"):
        return p["S_c"] * np.maximum(loss - converged, 0.0) ** (-1 / p["alpha_S"])
