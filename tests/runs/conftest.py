from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from scaling_sim.engine.cohort import Recipe
from scaling_sim.model.shape import Shape
from scaling_sim.runs.record import CurvePoint, RunConfig, RunRecord


@pytest.fixture
def shape() -> Shape:
    return Shape(n_layer=2, d_model=16, n_head=2, n_ctx=32)


@pytest.fixture
def make_record(shape: Shape) -> Callable[..., RunRecord]:
    """A finished run with points after 1, 10, 20, 50 and 100 steps of 1024 tokens; keywords change it."""

    def make(seed: int = 0, losses: tuple[float, ...] = (5.5, 4.0, 3.0, 2.5, 2.0), **changes: Any) -> RunRecord:
        recipe_changes = {key: changes.pop(key) for key in list(changes) if key in Recipe.__struct_fields__}
        config_changes = {key: changes.pop(key) for key in list(changes) if key in RunConfig.__struct_fields__}
        recipe = Recipe(
            **{"peak_lr": 1e-3, "batch_tokens": 1024, "steps": 100, "warmup_steps": 5, "seed": seed, **recipe_changes}
        )
        config = RunConfig(
            **{"shape": shape, "recipe": recipe, "corpus": "0" * 16, "unique_tokens": 10**6, **config_changes}
        )
        points = tuple(
            CurvePoint(
                step=step,
                tokens=step * 1024,
                lr=1e-3,
                train=loss + 0.01,
                losses={"test": loss, "validation": loss + 0.1},
                errors={"test": 0.01, "validation": 0.02},
            )
            for step, loss in zip((1, 10, 20, 50, 100), losses)
        )
        fields = {"run_id": config.run_id, "config": config, "status": "done", "purposes": ("curve",), "curve": points}
        return RunRecord(**{**fields, **changes})

    return make
