"""Closed forms of Kaplan et al. 2020, Appendix B: the optimum, stopping early or late, models of the wrong size.

All take scalars or arrays. S and C are S_min and C_min here, as the appendix says; compute in FLOP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def compute_exponent(alpha_N: Any, alpha_S: Any, alpha_B: Any) -> Any:
    """Return αC^min = 1/(1/αS + 1/αB + 1/αN) (B.7)."""
    return 1 / (1 / alpha_S + 1 / alpha_B + 1 / alpha_N)


def log_compute_scale(p: Mapping[str, Any]) -> Any:
    """Return ln C_c, C_c in FLOP (B.8): 6·N_c·B*·S_c·(1 + αN/αS)^(1/αS + 1/αN)·(αS/αN)^(1/αS)."""
    a_N, a_S = p["alpha_N"], p["alpha_S"]
    growth = np.log1p(a_N / a_S) * (1 / a_S + 1 / a_N) + np.log(a_S / a_N) / a_S
    return np.log(6.0) + np.log(p["N_c"]) + np.log(p["B_star"]) + np.log(p["S_c"]) + growth


def compute_scale(p: Mapping[str, Any]) -> Any:
    """Return C_c in FLOP (B.8)."""
    return np.exp(log_compute_scale(p))


def optimal_loss(C_min: ArrayLike, p: Mapping[str, Any]) -> Any:
    """Return L(C_min) = (C_c/C_min)^αC in nats per token (B.6)."""
    a_C = compute_exponent(p["alpha_N"], p["alpha_S"], p["alpha_B"])
    return np.exp(a_C * (log_compute_scale(p) - np.log(C_min)))


def log_optimal_size(log_C_min: Any, p: Mapping[str, Any]) -> Any:
    """Return ln N(C_min) (B.9), N = N_c·(C_min/C_c)^(αC/αN)·(1 + αN/αS)^(1/αN)."""
    a_N = p["alpha_N"]
    a_C = compute_exponent(a_N, p["alpha_S"], p["alpha_B"])
    return np.log(p["N_c"]) + a_C / a_N * (log_C_min - log_compute_scale(p)) + np.log1p(a_N / p["alpha_S"]) / a_N


def optimal_size(C_min: ArrayLike, p: Mapping[str, Any]) -> Any:
    """Return N(C_min) (B.9)."""
    return np.exp(log_optimal_size(np.log(C_min), p))


def optimal_steps(C_min: ArrayLike, p: Mapping[str, Any]) -> Any:
    """Return S_min(C_min) (B.10): C_c/(6·N_c·B*)·(1 + αN/αS)^(-1/αN)·(C_min/C_c)^(αC/αS)."""
    a_N, a_S = p["alpha_N"], p["alpha_S"]
    log_scale = log_compute_scale(p)
    front = log_scale - np.log(6.0) - np.log(p["N_c"]) - np.log(p["B_star"]) - np.log1p(a_N / a_S) / a_N
    return np.exp(front + compute_exponent(a_N, a_S, p["alpha_B"]) / a_S * (np.log(C_min) - log_scale))


def size_ratio(f: ArrayLike, f_other: ArrayLike, alpha_N: Any) -> Any:
    """Return N_f/N_f' (B.12) of models that stop at 1 + f and 1 + f' times their converged loss, at equal loss."""
    return ((1 + np.asarray(f)) / (1 + np.asarray(f_other))) ** (1 / alpha_N)


def step_ratio(f: ArrayLike, f_other: ArrayLike, alpha_S: Any) -> Any:
    """Return S_f/S_f' (B.13) at equal loss."""
    return ((1 + 1 / np.asarray(f)) / (1 + 1 / np.asarray(f_other))) ** (1 / alpha_S)


def compute_ratio(f: ArrayLike, f_other: ArrayLike, alpha_N: Any, alpha_S: Any) -> Any:
    """Return C_f/C_f' (B.14), the product of (B.12) and (B.13): the batch is the same at equal loss."""
    return size_ratio(f, f_other, alpha_N) * step_ratio(f, f_other, alpha_S)


def compute_needed(N: ArrayLike, loss: ArrayLike, p: Mapping[str, Any]) -> Any:
    """Return C_min in FLOP at which N parameters reach ``loss`` (B.15); ∞ if they never do."""
    N, loss = np.asarray(N, dtype=np.float64), np.asarray(loss, dtype=np.float64)
    gap = loss - (p["N_c"] / N) ** p["alpha_N"]
    batch = p["B_star"] * loss ** (-1 / p["alpha_B"])
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = p["S_c"] * np.where(gap > 0, gap, 0.0) ** (-1 / p["alpha_S"])
    return 6 * N * batch * steps


def step_penalty(relative_size: ArrayLike, alpha_N: Any, alpha_S: Any) -> Any:
    """Return S/S_eff (B.17) of a model ``relative_size`` = N/N_eff times the efficient one, at equal loss.

    ∞ at and below the pole N/N_eff = (1 + αN/αS)^(-1/αN), where no training reaches the loss.
    """
    size = np.asarray(relative_size, dtype=np.float64)
    bracket = 1 + (alpha_S / alpha_N) * (1 - size ** (-alpha_N))
    with np.errstate(divide="ignore"):
        return np.where(bracket > 0, bracket, 0.0) ** (-1 / alpha_S)


def compute_penalty(relative_size: ArrayLike, alpha_N: Any, alpha_S: Any) -> Any:
    """Return C/C_eff (B.16): N/N_eff times `step_penalty`."""
    return np.asarray(relative_size, dtype=np.float64) * step_penalty(relative_size, alpha_N, alpha_S)


def smallest_size(alpha_N: Any, alpha_S: Any) -> Any:
    """Return the pole of (B.16): the least N/N_eff that can reach the efficient model's loss at all."""
    return (1 + alpha_N / alpha_S) ** (-1 / alpha_N)
