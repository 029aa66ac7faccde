"""What verbs are given: tables, fits, constants, options of the form NAME=VALUE."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling_sim.errors import ConfigError, DataError

if TYPE_CHECKING:
    from scaling_sim.inference.posterior import Posterior
    from scaling_sim.laws.constants import ConstantSet


def read_table(source: Path, columns: str | None, where: list[str] | None = None, duplicates: str = "refuse") -> Any:
    """A validated table of runs."""
    from scaling_sim.runs import read_runs

    return read_runs(str(source), columns=columns, where=where or (), duplicates=duplicates)  # type: ignore[arg-type]


def load_posterior(path: Path | None) -> Posterior:
    """A saved fit."""
    import scaling_sim as ss

    if path is None:
        raise ConfigError("give a saved fit (FIT.nc); write one with: scaling-sim fit RUNS --out FIT.nc")
    if not path.is_file():
        raise DataError(f"there is no file {path}; write one with: scaling-sim fit RUNS --out {path}")
    fit: Posterior = ss.load_fit(path)
    return fit


def fit_or_constants(fit_file: Path | None, constants: str | None) -> Posterior | ConstantSet:
    """A saved fit or a published set of constants; exactly one of the two."""
    import scaling_sim as ss

    if (fit_file is None) == (constants is None):
        raise ConfigError("give a saved fit (FIT.nc) or --constants NAME, one of the two")
    chosen: Posterior | ConstantSet = ss.constants(constants) if constants else load_posterior(fit_file)
    return chosen


def told(options: Mapping[str, float | None]) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def as_number(option: str, text: str) -> float:
    """The number that an option holds."""
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{option} must be a number, got {text!r}") from None


def name_values(option: str, texts: list[str]) -> dict[str, str]:
    """NAME=VALUE texts as a mapping."""
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{option} must read NAME=VALUE, got {text!r}")
        pairs[name.strip()] = value.strip()
    return pairs
