"""A user's own training command for each planned run: a template, filled in and quoted for whoever runs it.

The template is split into words before anything is filled in, so that no value can become another word, an option or a
shell command.
"""

from __future__ import annotations

import shlex
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scaling_sim.errors import ConfigError

FIELDS = ("run", "kind", "N", "tokens", "D", "B", "S", "lr", "seed", "cost_flop", "folder", "log")
"""What a template may name. Numbers that are counts are filled in as integers."""
_COUNTS = ("N", "tokens", "D", "B", "S", "seed")


@dataclass(frozen=True)
class Command:
    """A command with fields in braces: ``python train.py --params {N} --tokens {tokens}``.

    Raises
    ------
    ConfigError
        It is empty, its quotes do not match, or it names a field that does not exist.
    """

    template: str

    def __post_init__(self) -> None:
        if not self._words():
            raise ConfigError("the command is empty; give one such as 'python train.py --params {N} --tokens {tokens}'")
        unknown = sorted(self.fields - set(FIELDS))
        if unknown:
            raise ConfigError(
                f"the command names {', '.join('{' + name + '}' for name in unknown)}; known are "
                f"{', '.join('{' + name + '}' for name in FIELDS)} (write {{{{ and }}}} for braces of your own)"
            )

    @property
    def fields(self) -> set[str]:
        """Names in braces."""
        try:
            parsed = list(string.Formatter().parse(self.template))
        except ValueError as error:
            raise ConfigError(f"the command {self.template!r} is no template: {error}") from error
        if any(spec or conversion for _, name, spec, conversion in parsed if name is not None):
            raise ConfigError(f"fields of a command are bare names such as {{N}}, got {self.template!r}")
        return {name for _, name, _, _ in parsed if name is not None}

    def words(self, values: Mapping[str, Any]) -> list[str]:
        """Words of the command for one run.

        Raises
        ------
        ConfigError
            The run leaves a field open that the command names.
        """
        missing = sorted(name for name in self.fields if values.get(name) is None)
        if missing:
            raise ConfigError(
                f"the command names {', '.join('{' + name + '}' for name in missing)}, which the run "
                f"{values.get('run', '?')} does not have"
            )
        filled = {name: _text(name, values[name]) for name in self.fields}
        return [word.format_map(filled) for word in self._words()]

    def quoted(self, values: Mapping[str, Any]) -> str:
        """The same as one line for a POSIX shell."""
        return shlex.join(self.words(values))

    def _words(self) -> list[str]:
        try:
            return shlex.split(self.template)
        except ValueError as error:
            raise ConfigError(f"the command {self.template!r} cannot be split into words: {error}") from error


def _text(name: str, value: Any) -> str:
    """Counts as integers, other numbers with all their digits."""
    if name in _COUNTS:
        return str(round(float(value)))
    return repr(float(value)) if isinstance(value, float) else str(value)
