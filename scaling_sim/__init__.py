"""Train families of small transformers, fit scaling laws with an honest posterior, predict what a larger budget buys.

Every public name is loaded when it is first used, so that ``import scaling_sim`` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "read_runs": "scaling_sim.runs.table",
    "RunTable": "scaling_sim.runs.table",
    "RunStore": "scaling_sim.runs.store",
    "Shape": "scaling_sim.model.shape",
    "Recipe": "scaling_sim.engine.cohort",
    "recipe": "scaling_sim.training",
    "Cohort": "scaling_sim.engine.cohort",
    "Member": "scaling_sim.engine.cohort",
    "backends": "scaling_sim.engine.registry",
    "get_backend": "scaling_sim.engine.registry",
    "Law": "scaling_sim.laws.base",
    "get_law": "scaling_sim.laws",
    "law_names": "scaling_sim.laws",
    "register_law": "scaling_sim.laws",
    "import_laws": "scaling_sim.laws",
    "constants": "scaling_sim.laws.constants",
    "fit": "scaling_sim.inference",
    "load_fit": "scaling_sim.inference",
    "point_fit": "scaling_sim.inference",
    "Posterior": "scaling_sim.inference.posterior",
    "compare": "scaling_sim.predict",
    "compare_methods": "scaling_sim.predict",
    "compare_recipes": "scaling_sim.predict",
    "forecast": "scaling_sim.predict",
    "observe": "scaling_sim.predict",
    "efficiency": "scaling_sim.predict",
    "reached": "scaling_sim.predict.reached",
    "critical_batches": "scaling_sim.predict.critical_batches",
    "noise_scales": "scaling_sim.predict.noise_scales",
    "position_law": "scaling_sim.predict.positions",
    "offsets": "scaling_sim.predict",
    "phase_effect": "scaling_sim.predict.phase",
    "known_sizes": "scaling_sim.predict",
    "allocate": "scaling_sim.predict",
    "buildable": "scaling_sim.predict",
    "compare_definitions": "scaling_sim.predict",
    "convert": "scaling_sim.predict",
    "crossover": "scaling_sim.predict",
    "backtest": "scaling_sim.predict",
    "design": "scaling_sim.predict",
    "Constraints": "scaling_sim.predict",
    "best_size": "scaling_sim.predict",
    "loss_of": "scaling_sim.predict",
    "crossing": "scaling_sim.predict",
    "simulate": "scaling_sim.predict",
    "execute": "scaling_sim.study.external",
    "export_runs": "scaling_sim.study.export_runs",
    "LogFormat": "scaling_sim.study.logs",
    "Study": "scaling_sim.study",
    "StudyConfig": "scaling_sim.study",
    "load_study": "scaling_sim.study",
    "reproduce_kaplan": "scaling_sim.study.reproduce.kaplan",
    "write_report": "scaling_sim.report",
}

_MODULES = {
    "study": "scaling_sim.study",
    "plot": "scaling_sim.report.figures",
    "datasets": "scaling_sim.datasets",
}
"""Modules that are public names themselves; ``study`` can also be called: ``ss.study("laptop")``."""

__all__ = ["__version__", *_MODULES, *_HOME]  # noqa: PLE0604

if TYPE_CHECKING:
    from scaling_sim.engine.cohort import Cohort as Cohort
    from scaling_sim.engine.cohort import Member as Member
    from scaling_sim.engine.cohort import Recipe as Recipe
    from scaling_sim.model.shape import Shape as Shape


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'scaling_sim' has no attribute {name!r}; public names: {', '.join(_HOME)}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_MODULES})
