"""Laws by name: ours, those that a user registers, and those of installed packages.

A package makes a law known by an entry point of the group ``scaling_sim.laws``, the law's name = ``module:Class``. A
broken one warns and is left out; it never breaks an import.
"""

from __future__ import annotations

import warnings
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from scaling_sim.errors import ConfigError, LawWarning
from scaling_sim.laws.base import Law

ENTRY_POINT_GROUP = "scaling_sim.laws"

_BUILT_IN = {
    "power-n": "power_n:PowerN",
    "power-n-floor": "power_n:PowerNFloor",
    "power-d": "power_d:PowerD",
    "power-d-floor": "power_d:PowerDFloor",
    "power-c": "power_c:PowerC",
    "power-c-floor": "power_c:PowerCFloor",
    "kaplan-nd": "kaplan_nd:KaplanND",
    "kaplan-nd-floor": "kaplan_nd:KaplanNDFloor",
    "kaplan-ns": "kaplan_ns:KaplanNS",
    "kaplan-ns-floor": "kaplan_ns:KaplanNSFloor",
    "critical-batch": "critical_batch:CriticalBatch",
    "kaplan": "kaplan_joint:KaplanJoint",
    "kaplan-floor": "kaplan_joint:KaplanFloor",
    "chinchilla": "chinchilla:Chinchilla",
    "data-constrained": "data_constrained:DataConstrained",
    "learning-rate": "learning_rate:LearningRate",
    "batch-size": "batch_size:BatchSize",
}
_REGISTERED: dict[str, type[Law]] = {}
_OWN = "; a law of your own is known once its module is imported (--import FILE, import_laws)"


def law_names() -> tuple[str, ...]:
    """Names that `get_law` knows, ours first."""
    _load_installed()
    return (*_BUILT_IN, *_REGISTERED)


def registered_laws() -> dict[str, type[Law]]:
    """The laws that are not ours, by name, as far as they have been imported."""
    return dict(_REGISTERED)


def get_law(name: str | Law, **options: Any) -> Law:
    """The law of this name; a `Law` is returned as it is. ``kaplan`` takes ``shared=False``.

    Raises
    ------
    ConfigError
        The name is unknown, or not one with these options; the message suggests the nearest and lists the valid ones.
    """
    if isinstance(name, Law):
        return name
    cls = _class(name)
    try:
        return cls(**options)
    except TypeError as error:
        raise ConfigError(f"{name} has no such options: {', '.join(options)} ({error})") from error


def _class(name: str) -> type[Law]:
    if name not in _BUILT_IN and name not in _REGISTERED:
        _load_installed()
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name not in _BUILT_IN:
        close = get_close_matches(str(name).lower().replace("_", "-"), law_names(), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"law must be one of {', '.join(law_names())}; got {name!r}{hint or _OWN}")
    module, cls = _BUILT_IN[name].split(":")
    found: type[Law] = getattr(import_module(f"scaling_sim.laws.{module}"), cls)
    return found


def register_law(cls: type[Law]) -> type[Law]:
    """Make a user's law known by its ``name``; works as a class decorator.

    Raises
    ------
    ConfigError
        The name belongs to one of our laws.
    """
    if cls.name in _BUILT_IN:
        raise ConfigError(f"a law's name must not be one of ours ({', '.join(_BUILT_IN)}); got {cls.name!r}")
    _REGISTERED[cls.name] = cls
    return cls


def _load_installed() -> None:
    """Register the laws of installed packages, except those that are registered already."""
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name in _BUILT_IN:
            _warn(point, "is ignored: the name belongs to one of ours")
        elif point.name not in _REGISTERED:
            _load(point)


def _load(point: EntryPoint) -> None:
    """Register the law of one package, or warn. Never raises: packages are foreign code."""
    try:
        cls = point.load()
    except Exception as error:
        _warn(point, f"cannot be loaded: {type(error).__name__}: {error}")
        return
    if isinstance(cls, type) and issubclass(cls, Law) and cls.name == point.name:
        register_law(cls)
    else:
        _warn(point, f"is ignored: it must be a subclass of Law whose name is {point.name!r}")


def _warn(point: EntryPoint, what: str) -> None:
    warnings.warn(f"the installed law {point.name!r} ({point.value}) {what}", LawWarning, stacklevel=4)
