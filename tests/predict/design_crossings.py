"""Truths with a known C*, by which designs for the crossover are judged: buy runs, measure them, fit again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import DataError
from scaling_sim.laws import get_law
from scaling_sim.predict.candidates import Candidate, default_candidates
from scaling_sim.predict.crossover import crossover
from scaling_sim.predict.design import design
from scaling_sim.predict.targets import crossing
from scaling_sim.runs.table import RunTable, concat
from tests.predict.resampling import resampled
from tests.predict.support import Draws, table
from tests.predict.test_crossover_coverage import ERRORS, sweep, truth

Array = NDArray[np.float64]

BUDGET, MAX_RUNS, REPETITIONS = 1e20, 8, 2


def squared_errors(seed: int) -> dict[str, float] | None:
    """Of 1/ln C*, continuous through C* = ∞, by way of buying; None where the sweep or an answer is refused."""
    parameters, runs = truth(seed), sweep(seed)
    right = _inverse(Draws("kaplan", {name: np.array([value]) for name, value in parameters.items()}))
    try:
        fit = replace(resampled(runs, "kaplan", seed).fit, noise=_noise())
        bought = [
            purchase.candidate for purchase in design(fit, crossing(), budget=BUDGET, max_runs=MAX_RUNS).purchases
        ]
        pool, found = default_candidates(fit, BUDGET), {"design": 0.0, "random": 0.0}
        for number in range(10 * seed, 10 * seed + REPETITIONS):
            for way, chosen in (("design", bought), ("random", at_random(pool, number))):
                more = [measured(chosen, parameters, number)] if chosen else []
                after = resampled(concat([runs, *more]), "kaplan", seed).fit
                found[way] += (_inverse(after) - right) ** 2 / REPETITIONS
    except DataError:
        return None
    return found


def at_random(pool: list[Candidate], seed: int) -> list[Candidate]:
    """As many runs as a design may have, in random order while they fit into the budget, nine tenths of it used."""
    rng, chosen = np.random.default_rng([seed, 6]), list[Candidate]()
    while sum(run.cost for run in chosen) < 0.9 * BUDGET:
        chosen = []
        for place in rng.permutation(len(pool)).tolist():
            if len(chosen) < MAX_RUNS and pool[place].cost <= BUDGET - sum(run.cost for run in chosen):
                chosen.append(pool[place])
    return chosen


def measured(bought: list[Candidate], parameters: dict[str, float], seed: int) -> RunTable:
    """What these runs measure where the law has these parameters."""
    rng, law = np.random.default_rng([seed, 5]), get_law("kaplan")
    rows: list[dict[str, Any]] = []
    for number, run in enumerate(bought):
        losses = np.exp(np.ravel(np.log(law.loss(parameters, run.columns(law)))) + _errors(run, rng))
        curve = run.kind == "curve"
        for S, loss in zip(run.steps.tolist(), losses.tolist(), strict=True):
            tokens = (run.B or 0.0) * S if curve else np.nan
            one = {"run": f"new{number}", "N": run.N, "B": run.B, "S": S, "loss": loss, "tokens": tokens}
            rows.append(one | {"D": tokens if curve else run.D, "curve": curve, "stopped": not curve})
    return table(**{name: np.array([row[name] for row in rows]) for name in rows[0]})


def _errors(run: Candidate, rng: np.random.Generator) -> Array:
    """Errors of the log losses of one run, as `Noise` has them."""
    m = len(run.steps)
    away = np.abs(np.subtract.outer(np.log(run.steps), np.log(run.steps))) if m > 1 else np.zeros((1, 1))
    shared = np.exp(-away / ERRORS.ell) if m > 1 else 0.0
    normal = np.linalg.cholesky(ERRORS.sigma**2 * (np.eye(m) + shared)) @ rng.standard_normal(m)
    return np.asarray(normal / np.sqrt(rng.chisquare(ERRORS.nu) / ERRORS.nu))


def _noise() -> dict[str, Array]:
    """The true scales, which a fit would know to a few per cent."""
    scales = {"sigma": ERRORS.sigma, "tau": ERRORS.sigma, "ell": ERRORS.ell, "nu": ERRORS.nu}
    return {name: np.array([float(value)]) for name, value in scales.items()}


def _inverse(fit: Draws) -> float:
    return float(np.median(1 / np.log(crossover(fit, backtest=None).C.draws)))
