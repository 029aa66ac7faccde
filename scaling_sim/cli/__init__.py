"""The command line: one verb per thing that the Python API does, results on stdout, progress on stderr.

Exit codes: 0 fine, 1 unexpected, 2 usage, 3 a posterior did not converge, 4 bad data, 130 interrupted (resumable).
"""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module

from scaling_sim.cli.app import app
from scaling_sim.cli.output import say, stubborn_interrupt, warn
from scaling_sim.cli.wording import in_options
from scaling_sim.errors import ConfigError, ScalingSimError

for _verbs in ("studies", "fits", "forecasts", "plans", "reports"):  # in the order of --help
    import_module(f"scaling_sim.cli.{_verbs}")


def main() -> None:
    """Entry point: turns errors into one line on stderr and an exit code."""
    warnings.showwarning = warn
    try:
        with stubborn_interrupt():
            app()
    except ScalingSimError as error:
        say(f"error: {in_options(str(error)) if isinstance(error, ConfigError) else error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
