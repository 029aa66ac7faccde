"""Properties that every fitter of a scaling law must have, as one call: `check_fitter`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from scaling_sim.laws import get_law
from scaling_sim.laws.base import Law
from scaling_sim.predict.simulate import simulate
from scaling_sim.runs.table import RunTable
from scaling_sim.testing.calibration import calibrate
from scaling_sim.testing.failure import CheckFailed
from scaling_sim.testing.tables import permuted, rescaled

FitFunction = Callable[..., Any]

_CHECKS = ("recovery", "repeatable", "permutation", "units")

_TRUTHS: Mapping[str, Sequence[Mapping[str, float]]] = {
    "chinchilla": ({}, {"alpha": 0.5, "beta": 0.25}, {"alpha": 0.2, "beta": 0.6}),
}
"""Exponents to recover; other parameters are published ones (see `simulate`)."""


def check_fitter(
    fit_function: FitFunction,
    law: str | Law = "chinchilla",
    *,
    truths: Sequence[Mapping[str, float]] | None = None,
    tolerance: float = 1e-4,
    skip: Sequence[str] = (),
    num_data_sets: int = 0,
    processes: int | None = None,
    seed: int = 0,
) -> tuple[str, ...]:
    """Check that a fitter finds the truth, does not care about units or the order of rows, and is calibrated.

    Parameters
    ----------
    fit_function : callable
        Takes a `RunTable`; returns natural parameters by name, or an object with them as ``parameters`` or ``point``.
        For the calibration it must give draws as well, see `scaling_sim.testing.calibrate`.
    law : str or Law
    truths : sequence of mappings
        Parameters to recover, see `scaling_sim.predict.simulate`.
    tolerance : float
        Relative, on exponents and on predicted losses.
    skip : sequence of str
        Names of checks left out.
    num_data_sets : int
        Sweeps for the calibration; 0 leaves it out. 200 show an interval that is 20 % too narrow.
    processes : int
        Over which the calibration is spread.

    Returns
    -------
    tuple of str
        Names of the checks made: recovery, repeatable, permutation, units and, if asked for, calibration.

    Raises
    ------
    CheckFailed
        The first property that does not hold.
    """
    form = get_law(law)
    given = _TRUTHS.get(form.name, ({},)) if truths is None else truths
    unknown = set(skip) - set(_CHECKS)
    if unknown:
        raise ValueError(f"skip must name checks ({', '.join(_CHECKS)}), got {', '.join(sorted(unknown))}")
    made = tuple(name for name in _CHECKS if name not in skip)
    if "recovery" in made:
        for truth in given:
            _recovery(fit_function, form, truth, tolerance)
    noisy = simulate(dict(given[0]), law=form, noise=0.01, seed=seed)
    usual = _parameters(fit_function(noisy), form)
    changes: dict[str, tuple[RunTable, str]] = {
        "repeatable": (noisy, "the same table must give the same fit; pass a seed to whatever is random"),
        "permutation": (permuted(noisy, seed), "the order of rows must not matter"),
        "units": (
            rescaled(noisy, N=1e3, tokens=1e-3, loss=1.1),
            "a change of units must not matter; fit logarithms, centred on the data",
        ),
    }
    for check, (table, why) in changes.items():
        if check in made:
            _same_exponents(check, form, usual, _parameters(fit_function(table), form), tolerance, why)
    if not num_data_sets:
        return made
    found = calibrate(fit_function, form, num_data_sets=num_data_sets, seed=seed, processes=processes)
    if not found.passed:
        raise CheckFailed("calibration", found.verdict)
    return (*made, "calibration")


def _recovery(fit_function: FitFunction, law: Law, truth: Mapping[str, float], tolerance: float) -> None:
    """Noise-free losses must be reproduced, and exponents found."""
    table = simulate(dict(truth), law=law, noise=0.0)
    found = _parameters(fit_function(table), law)
    data = law.observe(table)
    error = np.abs(np.log(data.response) - law.log_response(found, data.columns))
    if not np.all(error <= tolerance):
        raise CheckFailed(
            "recovery", f"noise-free losses of {law.name} {dict(truth)} are missed by up to {np.max(error):.2g}"
        )
    wanted = {name: value for name, value in truth.items() if name in law.exponents}
    _same_exponents("recovery", law, wanted, found, 100 * tolerance, "the exponents of noise-free losses must be found")


def _same_exponents(
    check: str,
    law: Law,
    expected: Mapping[str, float],
    found: Mapping[str, float],
    tolerance: float,
    why: str,
) -> None:
    for name in law.exponents:
        if name in expected and not abs(found[name] - expected[name]) <= tolerance * abs(expected[name]):
            raise CheckFailed(check, f"{why}; {name} is {found[name]:.6g} instead of {expected[name]:.6g}")


def _parameters(result: Any, law: Law) -> dict[str, float]:
    for source in (result, getattr(result, "parameters", None), getattr(result, "point", None)):
        if isinstance(source, Mapping) and set(law.parameters) <= set(source):
            return {name: float(source[name]) for name in law.parameters}
    raise CheckFailed(
        "recovery",
        f"a fitter must return {', '.join(law.parameters)} by name, or an object with them as parameters or point; "
        f"got {type(result).__name__}",
    )
