"""Properties that every scaling law must have, as one call: `check_law`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from scaling_sim.laws import get_law
from scaling_sim.laws.base import Law
from scaling_sim.laws.observations import Observations
from scaling_sim.testing.failure import CheckFailed
from scaling_sim.testing.tables import representative_table

Array = NDArray[np.float64]

COLUMNS = ("N", "D", "tokens", "C", "B", "S", "loss")
UNITS = (("N",), ("D", "tokens", "B"), ("C",), ("S",), ("loss",))
"""Columns that are measured in one unit, so that a change of units changes them together."""
TINY = 1e-9
"""Relative: differences of log losses below it are rounding."""


@dataclass(frozen=True)
class _Subject:
    """A law, data for it and draws of its parameters."""

    law: Law
    data: Observations
    u: Array
    decreasing: tuple[str, ...]

    @cached_property
    def centre(self) -> dict[str, float]:
        return self.law.centre(self.data)

    @cached_property
    def parameters(self) -> dict[str, Array]:
        return self.law.to_parameters(self.u, self.centre)

    @cached_property
    def log_response(self) -> Array:
        """(n_draws, n_rows)."""
        return self.predict(self.parameters, self.data.columns)

    def predict(self, parameters: Mapping[str, Array], columns: Mapping[str, Array]) -> Array:
        """Log responses (n_draws, n_rows)."""
        column_vectors = {name: np.asarray(values)[:, None] for name, values in parameters.items()}
        return self.law.log_response(column_vectors, columns)


def check_law(
    law: str | Law | type[Law],
    *,
    decreasing: Sequence[str] | None = None,
    skip: Sequence[str] = (),
    num_draws: int = 32,
    seed: int = 0,
) -> tuple[str, ...]:
    """Check that a law is what fits, predictions and reports rely on.

    Parameters are drawn within two standard deviations of their priors, around the centre of `representative_table`.

    Parameters
    ----------
    law : Law, subclass of Law without arguments, or name
    decreasing : sequence of str
        Columns in which the response must not rise; by default the law's own ``decreasing``.
    skip : sequence of str
        Names of checks left out, on purpose.
    num_draws, seed : int

    Returns
    -------
    tuple of str
        Names of the checks made: names, priors, shapes, finite, round-trip, permutation, rows, broadcast, monotone,
        limits, units.

    Raises
    ------
    CheckFailed
        The first property that does not hold.
    """
    subject = _subject(law() if isinstance(law, type) else get_law(law), decreasing, num_draws, seed)
    unknown = set(skip) - set(_CHECKS)
    if unknown:
        raise ValueError(f"skip must name checks ({', '.join(_CHECKS)}), got {', '.join(sorted(unknown))}")
    made = [name for name in _CHECKS if name not in skip]
    for name in made:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            problem = _CHECKS[name](subject)
        if problem:
            raise CheckFailed(name, f"{subject.law.name}: {problem}")
    return tuple(made)


def _subject(law: Law, decreasing: Sequence[str] | None, num_draws: int, seed: int) -> _Subject:
    table = representative_table(seed)
    missing = law.missing(table)
    if missing:
        raise CheckFailed("names", f"{law.name} asks for {', '.join(missing)}, but runs have {', '.join(COLUMNS)}")
    data = law.observe(table)
    priors = [coordinate.prior for coordinate in law.coordinates(law.centre(data))]
    spread = np.random.default_rng(seed).uniform(-2, 2, (num_draws, len(priors)))
    u = np.array([prior.mean for prior in priors]) + spread * np.array([prior.sd for prior in priors])
    falls = tuple(law.decreasing if decreasing is None else decreasing)
    subject = _Subject(law, data, u, falls)
    finite = np.all([np.isfinite(values) for values in subject.parameters.values()], axis=0)
    if finite.mean() < 0.5:
        raise CheckFailed("priors", f"{law.name}: over half of the prior gives parameters that are not finite numbers")
    return _Subject(law, data, u[finite], falls)


def _names(subject: _Subject) -> str:
    law = subject.law
    if not law.name or len(set(law.parameters)) != len(law.parameters) or not law.parameters:
        return f"a law needs a name and distinct parameters, got {law.name!r} and {law.parameters}"
    strange = [name for name in law.columns if name not in COLUMNS]
    if strange:
        return f"columns must be among {', '.join(COLUMNS)}, got {', '.join(strange)}"
    if set(subject.parameters) != set(law.parameters):
        return f"to_parameters must give {', '.join(law.parameters)}; it gives {', '.join(subject.parameters)}"
    return ""


def _priors(subject: _Subject) -> str:
    coordinates = subject.law.coordinates(subject.centre)
    if len({coordinate.name for coordinate in coordinates}) != len(coordinates):
        return "coordinates need distinct names"
    bad = [c.name for c in coordinates if not (np.isfinite(c.prior.mean) and 0 < c.prior.sd < np.inf)]
    return f"priors need a finite mean and a positive sd: {', '.join(bad)}" if bad else ""


def _shapes(subject: _Subject) -> str:
    n, rows = len(subject.u), len(subject.data)
    wrong = [name for name, values in subject.parameters.items() if np.shape(values) != (n,)]
    if wrong:
        return f"to_parameters must give one value per draw ({n}); not so {', '.join(wrong)}"
    if subject.log_response.shape != (n, rows):
        return (
            f"parameters (n_draws, 1) and columns (n_rows,) must give ({n}, {rows}), got {subject.log_response.shape}; "
            "use arithmetic that broadcasts"
        )
    return ""


def _finite(subject: _Subject) -> str:
    bad = ~np.isfinite(subject.log_response)
    return f"{bad.mean():.0%} of the responses are not positive finite numbers within the prior" if bad.any() else ""


def _round_trip(subject: _Subject) -> str:
    back = np.asarray(subject.law.from_parameters(subject.parameters, subject.centre))
    if back.shape != subject.u.shape:
        return f"from_parameters must give {subject.u.shape}, got {back.shape}"
    error = np.abs(back - subject.u).max(axis=0)
    if not np.all(error < 1e-6):
        worst = int(np.argmax(np.nan_to_num(error, nan=np.inf)))
        name = subject.law.coordinates(subject.centre)[worst].name
        return f"from_parameters must undo to_parameters; {name} comes back {error[worst]:.2g} away"
    return ""


def _permutation(subject: _Subject) -> str:
    order = np.random.default_rng(1).permutation(len(subject.data))
    columns = {name: values[order] for name, values in subject.data.columns.items()}
    return _differ(
        subject.predict(subject.parameters, columns),
        subject.log_response[:, order],
        "a row's response must not depend on the other rows or on their order",
    )


def _rows(subject: _Subject) -> str:
    """Each row alone, and all but the first: what mixes rows symmetrically passes a permutation."""
    columns, rows = subject.data.columns, len(subject.data)
    for part in (*(slice(i, i + 1) for i in range(rows)), slice(1, rows)):
        got = subject.predict(subject.parameters, {name: values[part] for name, values in columns.items()})
        expected = subject.log_response[:, part]
        if got.shape != expected.shape:
            return f"{expected.shape[1]} of {rows} rows must give {expected.shape}, got {got.shape}"
        problem = _differ(got, expected, "a row's response must be the same without the other rows")
        if problem:
            return problem
    return ""


def _broadcast(subject: _Subject) -> str:
    for i in (0, len(subject.u) - 1):
        single = {name: float(values[i]) for name, values in subject.parameters.items()}
        alone = np.asarray(subject.law.log_response(single, subject.data.columns))
        if alone.shape != (len(subject.data),):
            return f"scalar parameters must give one response per row ({len(subject.data)}), got shape {alone.shape}"
        problem = _differ(alone, subject.log_response[i], "a draw's response must not depend on the other draws")
        if problem:
            return problem
    return ""


def _monotone(subject: _Subject) -> str:
    for name in subject.decreasing:
        for factor in (1.01, 3.0):
            more = {**subject.data.columns, name: subject.data.columns[name] * factor}
            rise = subject.predict(subject.parameters, more) - subject.log_response
            if not np.all(rise <= TINY):
                return (
                    f"the response must not rise with {name}; {factor:g} times as much changes its log by up to "
                    f"{np.nanmax(rise):+.2g} (if that is meant, pass decreasing=)"
                )
    return ""


def _limits(subject: _Subject) -> str:
    for name in subject.decreasing:
        far = {**subject.data.columns, name: np.full(len(subject.data), 1e40)}
        response = subject.predict(subject.parameters, far)
        if np.isnan(response).any() or np.any(response > subject.log_response + TINY):
            return f"with {name} → ∞ (1e40) the response must approach a limit below its value, not NaN or a larger one"
    return ""


def _units(subject: _Subject) -> str:
    """Coordinates are centred: in other units the same coordinates must give the same responses."""
    for group in UNITS:
        for factor in (0.5, 2.0) if group == ("loss",) else (1e-9, 1e9):  # losses are in nats, bits or per byte
            columns = {
                name: values * (factor if name in group else 1.0) for name, values in subject.data.columns.items()
            }
            response = subject.data.response * (factor if subject.law.response in group else 1.0)
            problem = _same_in(subject, replace(subject.data, columns=columns, response=response), group, factor)
            if problem:
                return problem
    return ""


def _same_in(subject: _Subject, data: Observations, group: tuple[str, ...], factor: float) -> str:
    parameters = subject.law.to_parameters(subject.u, subject.law.centre(data))
    shift = np.log(factor) if subject.law.response in group else 0.0
    got = subject.predict(parameters, data.columns) - shift
    finite = np.all([np.isfinite(values) & (np.abs(values) > 1e-290) for values in parameters.values()], axis=0)
    why = (
        f"{' and '.join(group)} times {factor:g} must change nothing at equal coordinates; centre amplitudes on the "
        "data (to_parameters gets the centre for that)"
    )
    return _differ(got[finite], subject.log_response[finite], why, 1e-6)


def _differ(got: Array, expected: Array, why: str, tolerance: float = TINY) -> str:
    difference = np.abs(got - expected)
    if np.all(difference <= tolerance):
        return ""
    return f"{why}; log responses differ by {np.nanmax(difference, initial=0.0):.2g}"


_CHECKS: dict[str, Callable[[_Subject], str]] = {
    "names": _names,
    "priors": _priors,
    "shapes": _shapes,
    "finite": _finite,
    "round-trip": _round_trip,
    "permutation": _permutation,
    "rows": _rows,
    "broadcast": _broadcast,
    "monotone": _monotone,
    "limits": _limits,
    "units": _units,
}
