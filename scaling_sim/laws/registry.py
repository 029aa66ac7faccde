"""Laws by name: ours, and those that a user registers."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import Any

from scaling_sim.errors import ConfigError
from scaling_sim.laws.base import Law

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


def law_names() -> tuple[str, ...]:
    """Names that `get_law` knows, ours first."""
    return (*_BUILT_IN, *_REGISTERED)


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
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name not in _BUILT_IN:
        close = get_close_matches(str(name).lower().replace("_", "-"), law_names(), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"law must be one of {', '.join(law_names())}; got {name!r}{hint}")
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
