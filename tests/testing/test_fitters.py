from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scaling_sim.inference import point_fit
from scaling_sim.runs.table import RunTable
from scaling_sim.testing import CheckFailed, check_fitter


@pytest.mark.parametrize("objective", ["huber", "posterior"])
def test_our_point_fits_pass(objective: Any) -> None:
    made = check_fitter(lambda table: point_fit(table, objective=objective))
    assert made == ("recovery", "repeatable", "permutation", "units")


@pytest.mark.parametrize("law", ["power-n", "kaplan-nd", "kaplan-ns", "kaplan"])
def test_our_point_fits_of_other_laws_pass(law: str) -> None:
    check_fitter(lambda table: point_fit(table, law), law)


def published(table: RunTable) -> dict[str, float]:
    """Always the same answer."""
    return {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28}


def first_rows(table: RunTable) -> Any:
    """Reads the first two thirds of the rows only."""
    rows = np.arange(len(table)) < 2 * len(table) // 3
    return point_fit(table.select(rows, "not read"))


class Restless:
    """Adds a random number to alpha."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def __call__(self, table: RunTable) -> dict[str, float]:
        fit = dict(point_fit(table).parameters)
        return {**fit, "alpha": fit["alpha"] * (1 + 1e-3 * self.rng.standard_normal())}


def raw_units(table: RunTable) -> dict[str, float]:
    """Pulls A towards 400, whatever the unit of N."""
    fit = dict(point_fit(table).parameters)
    if np.ptp(np.log(table.loss / table.extra["expected_loss"])) > 1e-9:
        fit["alpha"] += 1e-3 * np.log(fit["A"] / 400)
    return fit


@pytest.mark.parametrize(
    ("fitter", "check", "message"),
    [
        (published, "recovery", "noise-free losses of chinchilla"),
        (Restless(), "recovery", "missed by|must be found"),
        (lambda table: 3.0, "recovery", "must return E, A, alpha, B, beta by name.*got float"),
        (first_rows, "permutation", "the order of rows must not matter; alpha is"),
        (raw_units, "units", "a change of units must not matter"),
    ],
    ids=["constant", "random", "nothing", "order", "units"],
)
def test_a_broken_fitter_is_caught(fitter: Any, check: str, message: str) -> None:
    with pytest.raises(CheckFailed, match=message) as caught:
        check_fitter(fitter)
    assert caught.value.check == check


def test_a_fitter_that_does_not_repeat_itself_is_caught() -> None:
    with pytest.raises(CheckFailed, match="the same table must give the same fit") as caught:
        check_fitter(Restless(), skip=("recovery",))
    assert caught.value.check == "repeatable"


def test_a_check_that_does_not_exist_cannot_be_skipped() -> None:
    with pytest.raises(ValueError, match=r"skip must name checks .*got recovry"):
        check_fitter(lambda table: point_fit(table), skip=("recovry",))
