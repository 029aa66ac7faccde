"""Finds backends by name: ours by import string, others by the entry-point group ``scaling_sim.backends``.

A missing or broken backend is listed with its reason; it never breaks an import.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from scaling_sim.engine.protocol import Backend
from scaling_sim.errors import BackendUnavailable, BackendWarning, ConfigError

ENTRY_POINT_GROUP = "scaling_sim.backends"

OWN_BACKENDS = {
    "numba": "scaling_sim_numba:BACKEND",
    "torch": "scaling_sim_torch:BACKEND",
    "cupy": "scaling_sim_cupy:BACKEND",
    "numpy": "scaling_sim.engine.reference:BACKEND",
}
"""Name → ``module:attribute``, in the order in which they are listed."""


@dataclass(frozen=True)
class BackendInfo:
    """What `backends` says about one backend.

    Attributes
    ----------
    name : str
        What users type.
    available : bool
        Whether it works on this machine.
    reason : str or None
        What is missing and how to get it, if it does not.
    devices : tuple of str
        Devices that it can use here, best first.
    note : str or None
        What limits it here: no GPU and why, cards that differ.
    """

    name: str
    available: bool
    reason: str | None
    devices: tuple[str, ...]
    note: str | None = None


def get_backend(name: str) -> Backend:
    """The backend called ``name``.

    Parameters
    ----------
    name : str
        ``numba``, ``torch``, ``cupy``, ``numpy`` or that of an installed plug-in.

    Raises
    ------
    ConfigError
        No backend of this name; the message lists the known ones.
    BackendUnavailable
        It exists but does not work here; the message says why and what to do.
    """
    loaders = _loaders()
    if name not in loaders:
        raise ConfigError(f"unknown backend {name!r}; known backends: {', '.join(loaders)}")
    backend, reason = _load(name, loaders[name])
    if backend is None or reason is not None:
        raise BackendUnavailable(f"backend {name!r} is not available: {reason}")
    return backend


def backends() -> list[BackendInfo]:
    """Every known backend: what is here, and why the rest is not."""
    return [_describe(name, *_load(name, loader)) for name, loader in _loaders().items()]


def _loaders() -> dict[str, Callable[[], Any]]:
    """How to load each known backend; our own names cannot be taken over by a plug-in."""
    loaders: dict[str, Callable[[], Any]] = {name: _importer(target) for name, target in OWN_BACKENDS.items()}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name in loaders:
            _warn(f"the plug-in backend {point.name!r} ({point.value}) is ignored: the name is taken")
        else:
            loaders[point.name] = _plugin(point)
    return loaders


def _importer(target: str) -> Callable[[], Any]:
    module, attribute = target.split(":")
    return lambda: getattr(importlib.import_module(module), attribute)


def _plugin(point: EntryPoint) -> Callable[[], Any]:
    def load() -> Any:
        try:
            return point.load()
        except Exception as error:
            _warn(f"the plug-in backend {point.name!r} ({point.value}) cannot be loaded: {_said(error)}")
            raise

    return load


def _load(name: str, loader: Callable[[], Any]) -> tuple[Backend | None, str | None]:
    """The backend, if it could be loaded, and why it cannot be used, if so. Never raises: plug-ins are foreign code."""
    try:
        backend = loader()
        if not isinstance(backend, Backend):
            return None, f"{type(backend).__name__} does not follow scaling_sim.engine.protocol.Backend"
        return backend, backend.why_unavailable()
    except Exception as error:
        return None, f"it cannot be loaded: {_said(error)}"


def _describe(name: str, backend: Backend | None, reason: str | None) -> BackendInfo:
    if backend is None or reason is not None:
        return BackendInfo(name, available=False, reason=reason, devices=())
    try:
        tell: Callable[[], str | None] | None = getattr(backend, "note", None)
        return BackendInfo(name, True, None, tuple(backend.devices()), tell() if tell else None)
    except Exception as error:
        return BackendInfo(name, available=False, reason=f"its devices cannot be listed: {_said(error)}", devices=())


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _warn(message: str) -> None:
    warnings.warn(message, BackendWarning, stacklevel=3)
