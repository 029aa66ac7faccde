"""Fitting: a point estimate in a fraction of a second, then a posterior that says whether it converged."""

from typing import Any

_HOME = {
    "fit": "fitting",
    "point_fit": "point",
    "PointFit": "point",
    "Posterior": "posterior",
    "load_fit": "storage",
    "Diagnostics": "diagnostics",
    "Progress": "sampler",
    "leave_one_out": "comparison",
    "LeaveOneOut": "comparison",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: SciPy, emcee and ArviZ load with it, not with the package."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
