"""What every prediction starts from: parameter draws, of a posterior or of a published set of constants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import LawError
from scaling_sim.laws.constants import ConstantSet

Array = NDArray[np.float64]


@runtime_checkable
class Fit(Protocol):
    """A posterior or a constant set: a law's name and draws of its natural parameters, each an (n,) array."""

    @property
    def law_name(self) -> str:
        """Name of the law that the parameters belong to."""

    @property
    def draws(self) -> Mapping[str, Array]:
        """Draws of each natural parameter, (n,) arrays of equal length."""


def columns_of(fit: Fit) -> dict[str, Array]:
    """Return the draws as (n, 1) columns, which broadcast against (k,) rows."""
    return {name: np.asarray(values, dtype=np.float64).reshape(-1, 1) for name, values in fit.draws.items()}


def converged(fit: Fit) -> bool | None:
    """Whether the posterior met the convergence rule; None for published constants, which nothing sampled."""
    state: bool | None = getattr(fit, "converged", None)
    return state


def source_of(fit: Fit) -> str:
    """Where the parameters come from, in a few words, for tables and JSON."""
    if isinstance(fit, ConstantSet):
        return f"{fit.name}: {fit.source}"
    runs = getattr(fit, "runs", None)
    return str(getattr(runs, "source", "") or "posterior")


def compute_range(fit: Fit) -> tuple[float, float] | None:
    """Least and largest compute (FLOP, paid) of the runs behind ``fit``; None if unknown."""
    runs = getattr(fit, "runs", None)
    if runs is None:
        return getattr(fit, "compute_range", None)
    compute = np.asarray(runs.C, dtype=np.float64)
    compute = compute[np.isfinite(compute) & (compute > 0)]
    return (float(compute.min()), float(compute.max())) if compute.size else None


def head(fit: Fit) -> dict[str, Any]:
    """Fields that open every JSON answer: law, source, convergence, whether the runs were simulated."""
    runs = getattr(fit, "runs", None)
    return {
        "law": fit.law_name,
        "source": source_of(fit),
        "converged": converged(fit),
        "simulated": bool(getattr(runs, "simulated", False)),
        "num_draws": len(next(iter(fit.draws.values()))),
    }


def require(fit: Fit, laws: tuple[str, ...], what: str, why: str) -> None:
    """Raise `LawError` unless the fit's law is one of ``laws``."""
    if fit.law_name not in laws:
        raise LawError(f"{what} needs a fit of {' or '.join(laws)}, got {fit.law_name!r}: {why}")
