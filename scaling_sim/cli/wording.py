"""Errors of the library in the words of the command line: ``pf_days=`` is ``--pf-days`` to who typed a verb."""

from __future__ import annotations

import re
import sys
from inspect import signature

from scaling_sim.cli.app import app

OTHER_NAMES = {"batch_tokens": "run_batch", "max_N": "max_n"}
"""Keywords of the library → parameters of a verb, where the two differ."""


def in_options(message: str) -> str:
    """Name the options of the verb that was typed where a message names the keywords behind them.

    A bare word is left alone unless it has an underscore or an equals sign after it, and so cannot be English.
    """
    options = _options(sys.argv[1] if len(sys.argv) > 1 else "")

    def name(found: re.Match[str]) -> str:
        word, equals, value = found.groups()
        option = options.get(OTHER_NAMES.get(word, word))
        if option is None or not (equals or "_" in word):
            return found.group()
        return f"{option} {value}" if value else option

    return re.sub(r"(?<![\w.'\"-])([A-Za-z]\w*)(=?)((?<==)(?:'[^']*'|[\w.+-]*\w))?", name, message)


def _options(verb: str) -> dict[str, str]:
    """Parameter → option of a verb; empty for a verb that there is not."""
    for command in app.registered_commands:
        if command.callback is not None and command.callback.__name__ == verb:
            return {name: f"--{name.replace('_', '-')}" for name in signature(command.callback).parameters}
    return {}
