"""L(N, tokens) = E + A/N^α + B/tokens^β (Hoffmann et al. 2022, arXiv 2203.15556, approach 3)."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Any

import numpy as np

from scaling_sim.laws.base import Array, Centre, Coordinate, Law, Normal, Parameters, log_of, log_sum_exp, stack


class Chinchilla(Law):
    """L = E + A/N^α + B/tokens^β.

    Coordinates: the log loss at the centre of the data, the log-ratios of the terms A/N^α and B/tokens^β to E there,
    and the log exponents. Closed allocation under C = 6·N·tokens: N = G (C/6)^(β/(α+β)), G = (αA/(βB))^(1/(α+β)).
    """

    name = "chinchilla"
    parameters: tuple[str, ...] = ("E", "A", "alpha", "B", "beta")
    columns: tuple[str, ...] = ("N", "tokens")
    single_epoch = True

    def coordinates(self, centre: Centre) -> tuple[Coordinate, ...]:
        """Each term between 1/70 and 10 times E at the centre, exponents .09 to 1 (90 % of the prior)."""
        return (
            Coordinate("log_loss", Normal(0.0, 0.5), "log loss at the centre of the data, less the mean log loss"),
            Coordinate("log_A_E", Normal(-1.0, 2.0), "log of A/N^α over E at the centre"),
            Coordinate("log_B_E", Normal(-1.0, 2.0), "log of B/tokens^β over E at the centre"),
            Coordinate("log_alpha", Normal(log(0.3), 0.75)),
            Coordinate("log_beta", Normal(log(0.3), 0.75)),
        )

    def formula_parameters(self, u: Array, centre: Centre) -> dict[str, Array]:
        """log E, log A, α, log B, β of the coordinates."""
        log_E = u[:, 0] + centre["log_loss"] - log_sum_exp(np.zeros(len(u)), u[:, 1], u[:, 2])
        alpha, beta = np.exp(u[:, 3]), np.exp(u[:, 4])
        log_A = log_E + u[:, 1] + alpha * centre["log_N"]
        log_B = log_E + u[:, 2] + beta * centre["log_tokens"]
        return {"log_E": log_E, "log_A": log_A, "alpha": alpha, "log_B": log_B, "beta": beta}

    def from_parameters(self, parameters: Parameters, centre: Centre) -> Array:
        """Coordinates of E, A, α, B, β."""
        alpha, beta = np.asarray(parameters["alpha"]), np.asarray(parameters["beta"])
        log_E = np.log(parameters["E"])
        log_A = np.log(parameters["A"]) - alpha * centre["log_N"]
        log_B = np.log(parameters["B"]) - beta * centre["log_tokens"]
        log_loss = log_sum_exp(log_E, log_A, log_B) - centre["log_loss"]
        return stack(log_loss, log_A - log_E, log_B - log_E, np.log(alpha), np.log(beta))

    def log_loss(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        """Log-sum-exp of the three terms."""
        size = log_of(parameters, "A") - parameters["alpha"] * np.log(columns["N"])
        data = log_of(parameters, "B") - parameters["beta"] * np.log(columns["tokens"])
        return log_sum_exp(log_of(parameters, "E"), size, data)

    def limits(self) -> Mapping[str, str]:
        """Both limits at once leave E."""
        return {
            "N → ∞": "L → E + B/tokens^β",
            "tokens → ∞": "L → E + A/N^α",
            "N, tokens → ∞": "L → E, the entropy that this form assigns to the text",
        }
