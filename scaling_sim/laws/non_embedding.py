"""What a law of all parameters looks like to a study that leaves the embeddings out (Pearce & Song 2024).

The compute-optimal exponents of Kaplan et al. 2020 (N ∝ C^.73) and of Hoffmann et al. 2022 (N ∝ C^.50) differ mostly by
what they count: a Chinchilla law, seen by non-embedding parameters and 6·N·tokens over Kaplan's range of sizes, has a
local exponent near Kaplan's (arXiv 2406.12907).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.laws.base import Parameters

Array = NDArray[np.float64]

OMEGA = 47491.0
"""Pearce & Song's fit of ω to Chinchilla's configurations (vocabulary 32,000, d_model/n_layer about 39)."""
KAPLAN_COMPUTE = (10**12.95, 10**20.7)
"""FLOP over which Pearce & Song measure exponents: the frontier of Kaplan et al.'s sizes, about 3e3 to 1.7e9."""


def embedding_factor(embedding_rows: float, aspect: float) -> float:
    """Return ω = (n_vocab + n_ctx)·(A/12)^(1/3), with A = d_model/n_layer.

    A transformer of this aspect has N = (12/A)·d_model³ non-embedding parameters and ω·N^(1/3) in its embeddings.
    """
    return float(embedding_rows * (aspect / 12) ** (1 / 3))


def total_parameters(N: Any, omega: float = OMEGA) -> Array:
    """Return N_T = N + ω·N^(1/3), all parameters of a model with N outside its embeddings."""
    return np.asarray(N + omega * np.cbrt(N))


def optimal_compute(N: Any, p: Parameters, omega: float = OMEGA) -> Array:
    """Return the non-embedding compute C = 6·N·tokens, FLOP, for which N non-embedding parameters are the best.

    Minimising E + A/N_T^α + B/tokens^β under C = 6·N·tokens, N_T = N + ω·N^(1/3), gives

    C = 6 N [ (βB/(αA)) N_T^(1+α) / (N + (ω/3) N^(1/3)) ]^(1/β)

    Parameters
    ----------
    N : floats or (n,) array, > 0
    p : natural parameters A, alpha, B, beta of `chinchilla`, whose N is N_T
    """
    slope = N + omega / 3 * np.cbrt(N)  # dN_T/d log N
    log_ratio = np.log(p["beta"] * p["B"] / (p["alpha"] * p["A"]))
    log_tokens = (log_ratio + (1 + p["alpha"]) * np.log(total_parameters(N, omega)) - np.log(slope)) / p["beta"]
    return np.asarray(6 * N * np.exp(log_tokens))


def optimal_loss(N: Any, p: Parameters, omega: float = OMEGA) -> Array:
    """Return the loss, nats per token, of N non-embedding parameters at their `optimal_compute`."""
    tokens = optimal_compute(N, p, omega) / (6 * N)
    return np.asarray(p["E"] + p["A"] * total_parameters(N, omega) ** -p["alpha"] + p["B"] * tokens ** -p["beta"])


def optimal_size(C: Any, p: Parameters, omega: float = OMEGA) -> Array:
    """Return the best number of non-embedding parameters for a non-embedding compute, FLOP: inverts `optimal_compute`.

    Both logarithms grow smoothly together, so that Newton's iteration on the log-log curve converges from anywhere.
    """
    target, x = np.log(C), np.log(np.sqrt(np.asarray(C, dtype=np.float64) / 120))
    for _ in range(50):
        low, here = (np.log(optimal_compute(np.exp(x - step), p, omega)) for step in (1e-4, 0.0))
        x = x + (target - here) / ((here - low) / 1e-4)
    return np.asarray(np.exp(x))


def size_exponent(
    p: Parameters, compute: tuple[float, float] = KAPLAN_COMPUTE, omega: float = OMEGA, points: int = 100
) -> float:
    """Return the slope of log N on log C along the frontier, by least squares over log-spaced compute.

    Pearce & Song: .78 with Besiroglu et al.'s constants, .74 with Hoffmann et al.'s. The slope falls along the way,
    from β/(α/3 + β) to β/(α + β), so that it depends on the range.
    """
    C = np.geomspace(*compute, points)
    return float(np.polyfit(np.log(C), np.log(optimal_size(C, p, omega)), 1)[0])


def loss_exponent(
    p: Parameters, compute: tuple[float, float] = KAPLAN_COMPUTE, omega: float = OMEGA, points: int = 100
) -> float:
    """Return the exponent a of L ∝ C^−a, without an entropy floor, along the frontier over log-spaced compute.

    Pearce & Song: .069 and .066; Kaplan et al. 2020: .057.
    """
    C = np.geomspace(*compute, points)
    return -float(np.polyfit(np.log(C), np.log(optimal_loss(optimal_size(C, p, omega), p, omega)), 1)[0])
