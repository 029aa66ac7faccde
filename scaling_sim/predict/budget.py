"""Budgets: FLOP, PF-days, GPU-hours or money, all turned into the FLOP that are paid."""

from __future__ import annotations

from collections.abc import Iterable

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
    deadline_flops: float | None = None,
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
    deadline_flops : float
        FLOP that a machine can compute before a deadline: the budget where no other is given, else its upper bound. ∞
        where the machine is not known.

    Raises
    ------
    ConfigError
        If not exactly one budget is given, if what it needs is missing, or if it is not positive and finite.
    """
    given = {"compute": compute, "pf_days": pf_days, "gpu_hours": gpu_hours, "money": money}
    chosen = [name for name, value in given.items() if value is not None]
    if deadline_flops is not None and not chosen:
        if not np.isfinite(deadline_flops):
            raise ConfigError("hours= alone is a budget only with num_gpus= and flops_per_second=")
        return np.asarray(deadline_flops, dtype=np.float64)
    if len(chosen) != 1:
        alone = "; without one, hours= with num_gpus= and flops_per_second= is a budget" if not chosen else ""
        raise ConfigError(f"exactly one of {_listed(given)} must be given, got {_listed(chosen) or 'none'}{alone}")
    name = chosen[0]
    value = np.asarray(given[name], dtype=np.float64)
    if not np.all(np.isfinite(value) & (value > 0)):
        raise ConfigError(f"{name} must be positive and finite, got {value}")
    most = np.inf if deadline_flops is None else deadline_flops
    return np.minimum(value * _flops_each(name, flops_per_second, utilisation, price_per_gpu_hour), most)


def idle_settings(
    *,
    spends: str,
    flops_per_second: float | None,
    utilisation: float,
    price_per_gpu_hour: float | None,
    hours: float | None,
    num_gpus: float | None,
    step_seconds: float | None,
    gpu_memory: float | None,
    counts_bytes: bool,
) -> str:
    """Settings that change nothing beside the others, and what each would need, in words; empty if all are used.

    ``spends`` names the budget given, "" for a deadline alone; ``counts_bytes`` if bytes per parameter were given.
    """
    speed, timed = flops_per_second is not None, hours is not None or num_gpus is not None
    idle = {
        "utilisation without flops_per_second": utilisation != 1.0 and not speed,
        "flops_per_second without num_gpus or hours": speed and not timed and spends in ("compute", "pf_days"),
        "price_per_gpu_hour without money": price_per_gpu_hour is not None and spends != "money",
        "hours without flops_per_second or step_seconds": hours is not None and not speed and step_seconds is None,
        "num_gpus without flops_per_second or gpu_memory": num_gpus is not None and not speed and gpu_memory is None,
        "bytes_per_parameter without gpu_memory": counts_bytes and gpu_memory is None,
    }
    return "; ".join(words for words, spare in idle.items() if spare)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"{name}=" for name in names)


def sustained(flops_per_second: float | None, utilisation: float) -> float | None:
    """FLOP/s that one GPU sustains; None if unknown."""
    if flops_per_second is None:
        return None
    return _needed("flops_per_second", flops_per_second, "") * _needed("utilisation", utilisation, "", most=1.0)


def _flops_each(
    name: str, flops_per_second: float | None, utilisation: float, price_per_gpu_hour: float | None
) -> float:
    """FLOP for one unit of a budget."""
    if name == "compute":
        return 1.0
    if name == "pf_days":
        return PF_DAY
    rate = _needed("flops_per_second", flops_per_second, name) * _needed("utilisation", utilisation, name, most=1.0)
    return 3600.0 * rate / (_needed("price_per_gpu_hour", price_per_gpu_hour, name) if name == "money" else 1.0)


def _needed(name: str, value: float | None, budget: str, most: float = np.inf) -> float:
    if value is None:
        raise ConfigError(f"a budget in {budget} needs {name}=, which depends on your machine")
    if not 0 < value <= most:
        bound = f" and at most {most:g}" if np.isfinite(most) else ""
        raise ConfigError(f"{name} must be above 0{bound}, got {value}")
    return float(value)
