"""What a report sets side by side: laws that read the same runs, and ways to find the best size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from scaling_sim.errors import DataError, LawError

if TYPE_CHECKING:
    from scaling_sim.inference.posterior import Posterior
    from scaling_sim.predict import Comparison, Methods


def comparison_of(fits: Mapping[str, Posterior]) -> Comparison | None:
    """The laws that can be judged on the same runs as the first that shares enough of them with another; else None."""
    from scaling_sim.inference.comparison import MIN_UNITS
    from scaling_sim.predict import compare

    units = {law: set(fit.units()) for law, fit in fits.items() if fit.law.response == "loss"}
    for law, own in units.items():
        common, group = own, [law]
        for other, theirs in units.items():
            if other != law and len(common & theirs) >= MIN_UNITS:
                common, group = common & theirs, [*group, other]
        if len(group) > 1:
            try:
                return compare([fits[name] for name in group])
            except DataError:  # tables differ
                return None
    return None


def best_size_methods(fits: Mapping[str, Posterior]) -> Methods | None:
    """Law, isoFLOP minima and envelope for the first law that has a best size; None without one."""
    from scaling_sim.predict import allocate, compare_methods

    for fit in fits.values():
        try:
            allocate(fit, 1e18, backtest=None)
        except LawError:
            continue
        return compare_methods(fit, seed=fit.seed)
    return None
