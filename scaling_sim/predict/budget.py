"""Budgets: FLOP, PF-days, GPU-hours or money, all turned into the FLOP that are paid."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_sim.errors import ConfigError
from scaling_sim.laws.constants import PF_DAY


def budget_flops(
    compute: ArrayLike | None = None,
    *,
    pf_days: ArrayLike | None = None,
    gpu_hours: ArrayLike | None = None,
    money: ArrayLike | None = None,
    flops_per_second: float | None = None,
    utilisation: float = 1.0,
    price_per_gpu_hour: float | None = None,
) -> NDArray[np.float64]:
    """Return the compute paid, in FLOP, with the shape of the budget given.

    Parameters
    ----------
    compute, pf_days, gpu_hours, money
        Exactly one of them: FLOP; PF-days (8.64e19 FLOP); GPU-hours; money in any currency.
    flops_per_second : float
        FLOP/s that one GPU sustains, or its peak with ``utilisation``; needed for ``gpu_hours`` and ``money``.
    utilisation : float
        Share of ``flops_per_second`` that training reaches, in (0, 1].
    price_per_gpu_hour : float
        In the currency of ``money``; needed for ``money``.

    Raises
    ------
    ConfigError
        If not exactly one budget is given, if what it needs is missing, or if it is not positive and finite.
    """
    given = {"compute": compute, "pf_days": pf_days, "gpu_hours": gpu_hours, "money": money}
    chosen = [name for name, value in given.items() if value is not None]
    if len(chosen) != 1:
        raise ConfigError(f"exactly one of {', '.join(given)} must be given, got {', '.join(chosen) or 'none'}")
    name = chosen[0]
    value = np.asarray(given[name], dtype=np.float64)
    if not np.all(np.isfinite(value) & (value > 0)):
        raise ConfigError(f"{name} must be positive and finite, got {value}")
    if name == "compute":
        return value
    if name == "pf_days":
        return value * PF_DAY
    if name == "money":
        value = value / _needed("price_per_gpu_hour", price_per_gpu_hour, name)
    rate = _needed("flops_per_second", flops_per_second, name) * _needed("utilisation", utilisation, name, most=1.0)
    return value * 3600.0 * rate


def _needed(name: str, value: float | None, budget: str, most: float = np.inf) -> float:
    if value is None:
        raise ConfigError(f"a budget in {budget} needs {name}=, which depends on your machine")
    if not 0 < value <= most:
        bound = f" and at most {most:g}" if np.isfinite(most) else ""
        raise ConfigError(f"{name} must be above 0{bound}, got {value}")
    return float(value)
