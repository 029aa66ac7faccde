"""Laws in a user's own module or file: importing it registers them."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from scaling_sim.errors import ConfigError
from scaling_sim.laws.base import Law
from scaling_sim.laws.registry import registered_laws

_ASKED_AS: dict[str, str] = {}
"""Module → the text by which it was asked for."""


def import_laws(module: str) -> tuple[str, ...]:
    """Import a module, or a file, that registers laws.

    Parameters
    ----------
    module : str
        A module's name (``my_laws``, ``my_package.laws``; the current folder counts) or the path of a ``.py`` file.

    Returns
    -------
    tuple of str
        Names of the laws that it registers.

    Raises
    ------
    ConfigError
        It cannot be imported, or registers no law.
    """
    path = Path(module)
    name = _import_file(path).__name__ if path.suffix == ".py" else _import_named(module).__name__
    found = tuple(law for law, cls in registered_laws().items() if f"{cls.__module__}.".startswith(f"{name}."))
    if not found:
        raise ConfigError(f"{module} registers no law: put @scaling_sim.register_law before its class")
    _ASKED_AS.update({registered_laws()[law].__module__: module for law in found})
    return found


def origin(law: Law) -> str | None:
    """What `import_laws` must be given for this law; None if it is ours, or of a script that nothing can import."""
    name = type(law).__module__
    if name.startswith("scaling_sim.laws.") or name == "__main__":
        return None
    return _ASKED_AS.get(name, name)


def _import_named(name: str) -> ModuleType:
    _search(Path())
    try:
        return import_module(name)
    except Exception as error:
        raise _failure(name, error) from error


def _import_file(path: Path) -> ModuleType:
    """The file as a module named after it, by which worker processes find it."""
    name, file = path.stem, str(path.resolve())
    if not path.is_file():
        raise ConfigError(f"laws are imported from a module or a .py file, and there is no file {path}")
    if not name.replace("-", "_").isidentifier() or _home_of(name) not in (None, file):
        raise ConfigError(
            f"{path} cannot be imported as the module {name!r}: another has this name, or none may; rename the file"
        )
    if name in sys.modules:
        return sys.modules[name]
    _search(path.parent)
    spec = spec_from_file_location(name, file)
    assert spec is not None  # it ends in .py
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _failure(str(path), error) from error
    return module


def _home_of(name: str) -> str | None:
    """File of the module that has this name now, loaded or not; a built-in one has its name."""
    if name in sys.modules:
        return getattr(sys.modules[name], "__file__", None) or name
    spec = find_spec(name)
    return None if spec is None else spec.origin or name


def _search(folder: Path) -> None:
    """Let modules of a folder be found, after all others; worker processes take over the list."""
    if str(folder.resolve()) not in sys.path:
        sys.path.append(str(folder.resolve()))


def _failure(module: str, error: Exception) -> ConfigError:
    return ConfigError(f"{module} cannot be imported: {type(error).__name__}: {error}")
