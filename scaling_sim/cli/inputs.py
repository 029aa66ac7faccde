"""What verbs are given: tables, fits, constants, options of the form NAME=VALUE."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling_sim.errors import ConfigError, DataError

if TYPE_CHECKING:
    from scaling_sim.inference.posterior import Posterior
    from scaling_sim.laws.base import Law
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
    if str(path) == "-":
        return _piped_posterior()
    if not path.is_file():
        raise DataError(f"there is no file {path}; write one with: scaling-sim fit RUNS --out {path}")
    fit: Posterior = ss.load_fit(path)
    return fit


def _piped_posterior() -> Posterior:
    """A saved fit from stdin, as ``fit RUNS --out -`` writes it."""
    import scaling_sim as ss

    content = sys.stdin.buffer.read()
    if not content:
        raise DataError("there is no fit on stdin; write one with: scaling-sim fit RUNS --out - | …")
    with tempfile.TemporaryDirectory(prefix="scaling-sim-") as folder:
        path = Path(folder) / "stdin.nc"
        path.write_bytes(content)
        fit: Posterior = ss.load_fit(path)
    return fit


def one_from_stdin(*sources: Path | None) -> None:
    """Refuse a second ``-``: stdin can be read once."""
    if [str(source) for source in sources].count("-") > 1:
        raise ConfigError("stdin is read once: give - for one of the inputs, and files for the others")


def fit_or_constants(fit_file: Path | None, constants: str | None) -> Posterior | ConstantSet:
    """A saved fit or a published set of constants; exactly one of the two."""
    import scaling_sim as ss

    if (fit_file is None) == (constants is None):
        raise ConfigError("give a saved fit (FIT.nc) or --constants NAME, one of the two")
    chosen: Posterior | ConstantSet = ss.constants(constants) if constants else load_posterior(fit_file)
    return chosen


def told(options: Mapping[str, Any]) -> dict[str, Any]:
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


def laws_of(names: list[str], options: dict[str, Any]) -> list[Law]:
    """The laws to compare, each with those of the options that it has; an option that none has is an error."""
    import scaling_sim as ss

    has = {name: options_of(ss.get_law(name)) for name in names}
    unknown = [option for option in options if not any(option in own for own in has.values())]
    if unknown:
        listed = ", ".join(sorted(set().union(*has.values()))) or "none"
        raise ConfigError(f"none of the laws {', '.join(names)} has the option {unknown[0]!r}; their options: {listed}")
    return [ss.get_law(name, **{key: options[key] for key in own if key in options}) for name, own in has.items()]


def law_options(pairs: list[str]) -> dict[str, Any]:
    """``shared=false`` and the like, with true, false and numbers read as such."""
    split = [pair.partition("=") for pair in pairs]
    wrong = [name for name, equals, value in split if not (name.strip() and equals and value.strip())]
    if wrong:
        raise ConfigError(f"--option must read NAME=VALUE, such as source=sweep or shared=false; got {wrong[0]!r}")
    return {name.strip().replace("-", "_"): _literal(value.strip()) for name, _, value in split}


def _literal(text: str) -> Any:
    try:
        return {"true": True, "false": False}.get(text.lower(), text) if text[:1].isalpha() else float(text)
    except ValueError:
        return text


def options_of(law: Law) -> dict[str, Any]:
    """Keyword arguments of a law with their defaults."""
    from inspect import signature

    return {name: p.default for name, p in signature(type(law)).parameters.items() if p.default is not p.empty}
