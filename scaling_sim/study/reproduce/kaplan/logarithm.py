"""Figure 23: L(N) as a power law and as a logarithm."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np

from scaling_sim.errors import DataError
from scaling_sim.inference.comparison import LeaveOneOut, leave_one_out
from scaling_sim.laws.base import Array, Centre, Coordinate, Normal, Parameters, stack
from scaling_sim.laws.power_n import PowerN
from scaling_sim.report.figures.canvas import ACCENT, OURS, ReportFigure, band, legend_below, sheet
from scaling_sim.report.figures.curves import exponent_text, span
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.study.reproduce.kaplan.drawing import LOSS, Shades, law_draws, power, size_points
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row
from scaling_sim.study.reproduce.kaplan.fits import sampled
from scaling_sim.study.reproduce.kaplan.rows import CHARACTERS

if TYPE_CHECKING:
    from scaling_sim.inference import Posterior
    from scaling_sim.study.reproduce.kaplan.data import Data


class Logarithm(PowerN):
    """L(N) = a·ln(N_0/N), read from the rows of `power-n` (Kaplan et al. 2020, figure 23: 0.25·ln(7.1e12/N)).

    Coordinates: the log loss at the centre of the data, and the log of a over the loss there.
    """

    name = "logarithm"
    parameters = ("a", "N_0")

    def coordinates(self, centre: Centre) -> tuple[Coordinate, ...]:
        """As of a power law of that exponent at the centre."""
        loss = Coordinate("log_loss", Normal(0.0, 0.5), "log loss at the centre of the data, less the mean log loss")
        return (loss, Coordinate("log_slope", Normal(log(0.1), 1.0), "log of a over the loss at the centre"))

    def formula_parameters(self, u: Array, centre: Centre) -> dict[str, Array]:
        """a, and log N_0."""
        a = np.exp(u[:, 1] + u[:, 0] + centre["log_loss"])
        return {"a": a, "log_N_0": centre["log_N"] + np.exp(-u[:, 1])}

    def from_parameters(self, parameters: Parameters, centre: Centre) -> Array:
        """Coordinates of a and N_0."""
        a, away = np.asarray(parameters["a"]), np.log(parameters["N_0"]) - centre["log_N"]
        return stack(np.log(a * away) - centre["log_loss"], -np.log(away))

    def log_loss(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        """log of a·(log N_0 − log N); −∞ beyond N_0."""
        log_N_0 = parameters["log_N_0"] if "log_N_0" in parameters else np.log(parameters["N_0"])
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(np.maximum(parameters["a"] * (log_N_0 - np.log(columns["N"])), 0.0)))


def logarithm(data: Data) -> Finding:
    """L(N) as a power law and as a logarithm."""
    straight = data.fit("power-n")
    bent = data.once("logarithm", lambda: sampled(data, straight.runs, Logarithm()))
    judged = _judged(straight, bent)
    n = straight.n_used
    rows = [
        Row.of("α_N of the power law", 0.076, straight.draws["alpha_N"], n),
        Row.of(
            "a of L = a·ln(N_0/N)",
            0.25 / CHARACTERS,
            bent.draws["a"],
            n,
            "nats per byte",
            "paper: .25 per token of 4.3 characters",
        ),
        Row.of("N_0", 7.1e12, bent.draws["N_0"], n, "parameters", "another text, in bytes"),
    ]
    if isinstance(judged, LeaveOneOut):
        worse = next(law for law in judged.elpd if law != judged.best)
        gap, error = judged.difference(worse)
        sign = 1.0 if judged.best == "power-n" else -1.0
        between = (sign * gap - 1.645 * error, sign * gap + 1.645 * error)
        rows.append(Row("elpd of the power law over the logarithm", None, sign * gap, between, n, "nats", "PSIS-LOO"))
    return Finding(
        "F23", "A power law against a logarithm", tuple(rows), lambda: _figure(straight, bent), _remark(judged)
    )


def _judged(straight: Posterior, bent: Posterior) -> LeaveOneOut | str:
    try:
        return leave_one_out([straight, bent])
    except DataError as error:
        return str(error)


def _remark(judged: LeaveOneOut | str) -> str:
    said = (
        "Both are fitted to the finished runs near convergence. The paper found the power law better over six decades. "
    )
    if isinstance(judged, str):
        return f"{said}They could not be compared: {judged}."
    worse = next(law for law in judged.elpd if law != judged.best)
    gap, error = judged.difference(worse)
    names = {"power-n": "the power law", "logarithm": "the logarithm"}
    clear = (
        "more than twice its standard error, on few runs of some two decades"
        if gap > 2 * error
        else "within twice its standard error"
    )
    by = f"{gap:.1f} ± {error:.1f} nats, {clear}"
    return f"{said}By leave-one-out {names[judged.best]} predicts our runs better by {by}."


def _figure(straight: Posterior, bent: Posterior) -> ReportFigure:
    titles = ["Within the runs, and a decade beyond", "Relative to the power law"]
    figure, (left, right) = sheet("logarithm", "A power law against a logarithm", titles, height=4.2)
    rows = straight.data.row
    N, loss = straight.runs.N[rows], straight.runs.loss[rows]
    shades = Shades(N)
    x, p, q = span(N, 10.0, 10.0), law_draws(straight), law_draws(bent)
    first, second = power(x, p["N_c"], p["alpha_N"]), q["a"] * np.log(q["N_0"] / x)
    text = exponent_text(r"$\alpha_N$", straight.draws["alpha_N"], "power law")
    middle = band(left, x, first, series="power law", colour=OURS, label=text)[2]
    band(
        left,
        x,
        second,
        series="logarithm",
        colour=ACCENT,
        label=exponent_text("a", bent.draws["a"], "logarithm"),
        dashes="--",
    )
    size_points(left, shades, N, N, loss)
    band(right, x, 100 * (first / middle - 1), series="power law", colour=OURS)
    band(right, x, 100 * (second / middle - 1), series="logarithm", colour=ACCENT, dashes="--")
    at = np.exp(np.interp(np.log(N), np.log(x), np.log(middle)))
    size_points(right, shades, N, N, 100 * (loss / at - 1))
    left.set_ylabel(LOSS)
    right.set_yscale("linear")
    right.set_ylabel("difference from the fitted power law, %")
    log_axes(left)
    log_axes(right, y=False)
    legend_below(left)
    for ax in (left, right):
        ax.set_xlabel("non-embedding parameters N")
    shades.key(figure, [left, right])
    return figure
