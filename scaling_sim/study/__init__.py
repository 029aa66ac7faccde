"""Studies: sweep, fit, predict, report in one call, which is this package: ``ss.study("laptop", out="study")``."""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scaling_sim.study.result import Study

_HOME = {
    "StudyConfig": "config",
    "read_study": "config",
    "PRESETS": "presets",
    "Study": "result",
    "StudyPlan": "plan",
    "plan_study": "plan",
    "run_study": "pipeline",
    "run_sweep_of_study": "pipeline",
    "load_study": "saved",
    "report_on": "saved",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


class _Callable(types.ModuleType):
    """This package, callable: ``ss.study(...)`` reads as the documentation says, wherever it was imported first."""

    def __call__(self, preset: str, out: str = "study", **options: Any) -> Study:
        """Run a study; see `scaling_sim.study.pipeline.run_study`."""
        from scaling_sim.study.pipeline import run_study

        return run_study(preset, out, **options)


sys.modules[__name__].__class__ = _Callable
