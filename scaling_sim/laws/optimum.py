"""Laws of the best hyper-parameter, x = scale · N^a · tokens^b: the common part of `learning-rate` and `batch-size`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scaling_sim.errors import ConfigError, LawError
from scaling_sim.laws.base import Array, Centre, Coordinate, Law, Normal, Parameters, log_of, stack
from scaling_sim.laws.bowls import Bowl, bowls
from scaling_sim.laws.observations import Observations
from scaling_sim.runs.table import RunTable

WINDOW = 0.02
"""Losses within this of a cell's lowest, relative, tell its optimum: less of them is noise, more is not a cubic."""


class OptimumLaw(Law):
    """x = scale · N^exponent_N · tokens^exponent_tokens, x the best value of one hyper-parameter.

    Each (N, tokens) of a sweep gives one observation, the minimum of a surface through its lowest losses with its
    standard error (`scaling_sim.laws.bowls`); their errors about the law are Student-t. Exponents may have either sign.
    ``tokens`` are tokens processed: how long a run is sets its best learning rate, not how much of its text is new.

    Parameters
    ----------
    window : float
        Losses within this share of a cell's lowest are read.
    """

    variable: str
    """Which hyper-parameter: "lr" or "B"."""
    columns = ("N", "tokens")
    single_epoch = True

    def __init__(self, window: float = WINDOW) -> None:
        if not 0 < window < 1:
            raise ConfigError(f"window, a share of the lowest loss, must lie strictly between 0 and 1, got {window}")
        self.window = window
        self.parameters = (f"{self.variable}_scale", "exponent_N", "exponent_tokens")
        self.response = f"best_{self.variable}"

    def options(self) -> dict[str, Any]:
        """The window, where it was chosen."""
        return {} if self.window == WINDOW else {"window": self.window}

    @property
    def decreasing(self) -> tuple[str, ...]:
        """None: published exponents disagree even in their sign."""
        return ()

    def coordinates(self, centre: Centre) -> tuple[Coordinate, ...]:
        """The optimum at the centre within a factor of 5 of the mean, exponents −.8 to .8 (90 % of the prior)."""
        meaning = f"log of the best {self.variable} at the centre of the cells, less its mean"
        return (
            Coordinate(f"log_{self.response}", Normal(0.0, 1.0), meaning),
            Coordinate("exponent_N", Normal(0.0, 0.5)),
            Coordinate("exponent_tokens", Normal(0.0, 0.5)),
        )

    def formula_parameters(self, u: Array, centre: Centre) -> dict[str, Array]:
        """Log scale and exponents of the coordinates."""
        at_one = u[:, 0] + centre[f"log_{self.response}"] - u[:, 1] * centre["log_N"] - u[:, 2] * centre["log_tokens"]
        return {f"log_{self.variable}_scale": at_one, "exponent_N": u[:, 1], "exponent_tokens": u[:, 2]}

    def from_parameters(self, parameters: Parameters, centre: Centre) -> Array:
        """Coordinates of scale and exponents."""
        middle = {name: np.exp(centre[f"log_{name}"]) for name in self.columns}
        at_centre = self.log_response(parameters, middle) - centre[f"log_{self.response}"]
        return stack(at_centre, parameters["exponent_N"], parameters["exponent_tokens"])

    def loss(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        """Not given by this law, which predicts a hyper-parameter."""
        raise LawError(
            f"{self.name} predicts the best {self.variable}, not the loss; fit chinchilla or kaplan for that"
        )

    def log_response(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        """log x = log scale + a log N + b log tokens."""
        powers = [parameters[f"exponent_{name}"] * np.log(columns[name]) for name in self.columns]
        return np.asarray(log_of(parameters, f"{self.variable}_scale") + powers[0] + powers[1])

    def predict(self, parameters: Parameters, N: Any, tokens: Any) -> Array:
        """The best learning rate, or batch in tokens, of N parameters trained on this many tokens."""
        return np.asarray(np.exp(self.log_response(parameters, {"N": N, "tokens": tokens})))

    def missing(self, runs: RunTable) -> tuple[str, ...]:
        """Needs cells of equal N and tokens with at least three values of the hyper-parameter about its best."""
        if bowls(runs, self.variable, self.window)[0]:
            return ()
        what = "learning rates (a column lr)" if self.variable == "lr" else "batches"
        return (f"a sweep of {what}: finished runs of equal N and tokens with three values or more about the best",)

    def observe(self, runs: RunTable) -> Observations:
        """One derived point per cell, its row −1; rows that tell none are left out with the reason."""
        found, reason = bowls(runs, self.variable, self.window)
        best = np.array([bowl.best[self.variable] for bowl in found])
        other = {name for bowl in found for name in bowl.best if name != self.variable}
        jointly = f"jointly with the best {', '.join(other)}" if other else "at the one value given of all else"
        note = f"best {self.variable} of {len(found)} cells (N, tokens), {jointly}, from losses within "
        return Observations(
            columns={name: np.array([getattr(bowl, name) for bowl in found]) for name in self.columns},
            response=best,
            error=best * np.array([bowl.error[self.variable] for bowl in found]),
            role=np.full(len(found), "cell"),
            run=np.array([f"N={bowl.N:.4g}, tokens={bowl.tokens:.4g}" for bowl in found], dtype=np.str_),
            row=np.full(len(found), -1, dtype=np.int64),
            dropped={why: runs.row_names(reason == why) for why in dict.fromkeys(reason[reason != ""])},
            notes=(f"{note}{self.window:.2g} of the lowest", *self._sensitivity(runs)),
        )

    def _sensitivity(self, runs: RunTable) -> tuple[str, ...]:
        """A note on how far the exponents hang on the window, which no interval of the fit contains."""
        windows = (self.window / 2, self.window, 1.5 * self.window)
        found = {window: _exponents(bowls(runs, self.variable, window)[0], self.variable) for window in windows}
        told = [f"{a:.2f} and {b:.2f} within {window:.2g}" for window, (a, b) in found.items() if np.isfinite(a)]
        where = "the exponents of N and tokens hang on how far up the losses are read, which their intervals leave out"
        return (f"{where}: {', '.join(told)} (weighted least squares)",) if len(told) > 1 else ()


def _exponents(found: Sequence[Bowl], variable: str) -> tuple[float, float]:
    """Exponents of N and tokens by weighted least squares through the optima of cells; NaN of too few of them."""
    columns = np.log([[np.e, bowl.N, bowl.tokens] for bowl in found]).reshape(-1, 3)
    if np.linalg.matrix_rank(columns) < 3:
        return np.nan, np.nan
    weight = 1 / np.array([bowl.error[variable] for bowl in found])
    best = np.log([bowl.best[variable] for bowl in found])
    _, a, b = np.linalg.lstsq(columns * weight[:, None], best * weight, rcond=None)[0]
    return float(a), float(b)
