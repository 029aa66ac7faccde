"""Chinchilla's form with repeated data (Muennighoff et al. 2023, arXiv 2305.16264)."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Any

import numpy as np

from scaling_sim.laws.base import Array, Centre, Coordinate, Normal, Parameters, log_of, log_sum_exp
from scaling_sim.laws.chinchilla import Chinchilla
from scaling_sim.runs.table import RunTable


class DataConstrained(Chinchilla):
    """L = E + A/N'^α + B/D'^β, in which repeated tokens and excess parameters count for less.

    D' = D + D·R_D (1 − e^(−r/R_D)), r = tokens/D − 1 repetitions of D unique tokens;
    N' = U + U·R_N (1 − e^(−q/R_N)), U = min(N, G (G D)^(β/α)) the size for which D tokens are optimal,
    q = N/U − 1, G = (αA/(βB))^(1/(α+β)).
    Damage by very many repetitions is not modelled. While every token is fresh and N ≤ G (G D)^(β/α) it is
    `chinchilla`, and the closed allocation of that holds; its N is the U of its tokens.
    """

    name = "data-constrained"
    parameters = (*Chinchilla.parameters, "R_D", "R_N")
    columns = ("N", "D", "tokens")
    single_epoch = False

    def coordinates(self, centre: Centre) -> tuple[Coordinate, ...]:
        """Chinchilla's, with log R_D and log R_N: .8 to 120 repetitions (90 % of the prior)."""
        more = (Coordinate("log_R_D", Normal(log(10.0), 1.5)), Coordinate("log_R_N", Normal(log(10.0), 1.5)))
        return (*super().coordinates(centre), *more)

    def formula_parameters(self, u: Array, centre: Centre) -> dict[str, Array]:
        """Chinchilla's parameters and the two constants of repetition."""
        return super().formula_parameters(u[:, :5], centre) | {"R_D": np.exp(u[:, 5]), "R_N": np.exp(u[:, 6])}

    def from_parameters(self, parameters: Parameters, centre: Centre) -> Array:
        """Coordinates of the seven parameters."""
        first = super().from_parameters(parameters, centre)
        more = [np.broadcast_to(np.log(parameters[name]), len(first)) for name in ("R_D", "R_N")]
        return np.column_stack([first, *more])

    def log_loss(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        """Chinchilla's form of N' and D'."""
        log_N, log_D = effective_size(parameters, columns), effective_data(parameters, columns)
        size = log_of(parameters, "A") - parameters["alpha"] * log_N
        data = log_of(parameters, "B") - parameters["beta"] * log_D
        return log_sum_exp(log_of(parameters, "E"), size, data)

    def missing(self, runs: RunTable) -> tuple[str, ...]:
        """Needs runs that repeat their data: without them it is `chinchilla`."""
        repeated = np.any(runs.tokens > 1.01 * runs.D)
        return (
            *super().missing(runs),
            *(
                ()
                if repeated
                else ("rows whose data repeat (tokens > D), without which R_D and R_N are not identified",)
            ),
        )

    def limits(self) -> Mapping[str, str]:
        """Repetition is worth a bounded number of fresh tokens."""
        return {"tokens → ∞ at fixed D": "D' → (1 + R_D)·D", "tokens ≤ D": "Chinchilla's form, if N ≤ U"}


def effective_data(parameters: Parameters, columns: Mapping[str, Any]) -> Array:
    """log D': unique tokens and what their repetitions are worth."""
    unique = np.minimum(columns["D"], columns["tokens"])
    return np.asarray(np.log(unique) + _worth(columns["tokens"] / unique - 1.0, parameters["R_D"]))


def effective_size(parameters: Parameters, columns: Mapping[str, Any]) -> Array:
    """log N': parameters that the unique tokens can feed and what the excess is worth."""
    alpha, beta = parameters["alpha"], parameters["beta"]
    log_G = (np.log(alpha / beta) + log_of(parameters, "A") - log_of(parameters, "B")) / (alpha + beta)
    log_unique = np.log(np.minimum(columns["D"], columns["tokens"]))
    log_U = np.minimum(np.log(columns["N"]), log_G + beta / alpha * (log_G + log_unique))
    excess = np.expm1(np.minimum(np.log(columns["N"]) - log_U, 600.0))
    return np.asarray(log_U + _worth(excess, parameters["R_N"]))


def _worth(repetitions: Any, constant: Any) -> Any:
    """log(1 + R (1 − e^(−r/R)))."""
    return np.log1p(-constant * np.expm1(-repetitions / constant))
