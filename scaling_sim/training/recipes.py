"""Recipes by name: complete ways of training one shape, each with its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from scaling_sim.engine.cohort import Recipe
from scaling_sim.errors import ConfigError
from scaling_sim.model.count import num_parameters
from scaling_sim.model.shape import Shape
from scaling_sim.training.schedule import kaplan_learning_rate, small_model_learning_rate


def recipe(name: str, shape: Shape, **changes: Any) -> Recipe:
    """The recipe called ``name`` for a shape, with some of its fields changed.

    Parameters
    ----------
    name : str
        ``constant``: warm-up, then constant rate by our rule for tiny models; feeds the laws of learning curves.
        ``decay``: the same with a linear decay to zero over the last fifth; feeds laws of final losses.
        ``kaplan-2020``: Kaplan et al. 2020, section 2.2: 2.5e5 steps of 2^19 tokens, 3000 of warm-up, then a cosine
        to zero at that *fixed* horizon however short the run, peak rate by (D.1).
    shape : Shape
    changes
        Fields of `Recipe` to replace, ``steps`` above all.

    Raises
    ------
    ConfigError
        No such recipe, or changes that a recipe cannot have.
    """
    if name not in RECIPES:
        raise ConfigError(f"no recipe is called {name!r}; there are: {', '.join(RECIPES)}")
    unknown = sorted(set(changes) - {field.name for field in msgspec.structs.fields(Recipe)})
    if unknown:
        raise ConfigError(f"a recipe has no field {', '.join(unknown)}")
    return RECIPES[name](shape, changes)


def _constant(shape: Shape, changes: Mapping[str, Any]) -> Recipe:
    fields = {"peak_lr": small_model_learning_rate(shape), "batch_tokens": 32 * shape.n_ctx, "steps": 2400}
    return Recipe(**{**fields, "warmup_steps": 40, **changes})


def _decay(shape: Shape, changes: Mapping[str, Any]) -> Recipe:
    steps = int(changes.get("steps", 2400))
    return _constant(shape, {"schedule": "decay", "decay_steps": max(1, steps // 5), "steps": steps, **changes})


def _kaplan(shape: Shape, changes: Mapping[str, Any]) -> Recipe:
    fields = {"peak_lr": kaplan_learning_rate(num_parameters(shape)), "batch_tokens": 2**19, "steps": 250_000}
    cosine = {"warmup_steps": 3000, "schedule": "cosine", "horizon_steps": 250_000}
    return Recipe(**{**fields, **cosine, **changes})


RECIPES: Mapping[str, Callable[[Shape, Mapping[str, Any]], Recipe]] = MappingProxyType(
    {"constant": _constant, "decay": _decay, "kaplan-2020": _kaplan}
)
"""Every recipe by name."""
