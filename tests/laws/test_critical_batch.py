from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from scaling_sim.errors import ConfigError, DesignError
from scaling_sim.inference import point_fit
from scaling_sim.inference.design import prepare
from scaling_sim.laws import get_law, kaplan
from scaling_sim.runs.table import RunTable
from tests.inference.support import KAPLAN, chinchilla, joint


def with_noise_scale(factor: float = 10.0) -> RunTable:
    """A noiseless joint study whose gradient noise scale is ``factor`` times the critical batch, on every row."""
    runs = joint(noise=False, points=40)
    scale = factor * kaplan.critical_batch(runs.loss, KAPLAN)
    return dataclasses.replace(runs, extra={"noise_scale": scale})


def at_loss_5(runs: RunTable, **options: str) -> float:
    """Fitted over true critical batch at a loss of 5."""
    law = get_law("critical-batch", **options)
    found = point_fit(runs, law)
    return float(law.predict(found.parameters, 5.0) / kaplan.critical_batch(5.0, KAPLAN))  # type: ignore[attr-defined]


def test_batch_sweeps_come_before_the_noise_scale() -> None:
    runs = with_noise_scale()
    assert at_loss_5(runs) == pytest.approx(1, rel=0.1)
    assert at_loss_5(runs, source="sweep") == at_loss_5(runs)
    assert at_loss_5(runs, source="noise-scale") == pytest.approx(10, rel=1e-3)


def test_the_source_is_said() -> None:
    law, runs = get_law("critical-batch"), with_noise_scale()
    sweep, scale = law.observe(runs), get_law("critical-batch", source="noise-scale").observe(runs)
    assert "matched batch sweeps" in sweep.notes[0]
    assert "noise scale" not in sweep.notes[0]
    assert "was not measured: the gradient noise scale" in scale.notes[0]
    assert "not independent" in scale.notes[0]
    assert len(scale) == runs.curve.sum() < len(runs)
    assert sum(map(len, scale.dropped.values())) == (~runs.curve).sum()
    sizes = runs.N[runs.curve & (runs.B == 512)]
    assert sum(map(len, sweep.dropped.values())) == (~(runs.curve & np.isin(runs.N, sizes))).sum()
    without = runs.select(~runs.curve | (runs.B == 4096), "other batches")
    assert law.observe(without).notes == scale.notes


def test_measured_critical_batches_come_first() -> None:
    runs = with_noise_scale()
    runs = dataclasses.replace(runs, extra={**runs.extra, "B_crit": 3 * kaplan.critical_batch(runs.loss, KAPLAN)})
    assert at_loss_5(runs) == pytest.approx(3, rel=1e-3)


def test_an_unknown_source_and_a_missing_one_are_named() -> None:
    with pytest.raises(ConfigError, match="must be one of auto, measured, sweep, noise-scale, got 'noise'"):
        get_law("critical-batch", source="noise")
    with pytest.raises(DesignError, match="curve rows with a column noise_scale"):
        prepare(chinchilla(0.3, 0.3), get_law("critical-batch", source="noise-scale"))
    assert get_law("critical-batch", **get_law("critical-batch", source="sweep").options()).options() == {
        "source": "sweep"
    }


def test_seeds_of_one_batch_are_averaged() -> None:
    """Two seeds whose log losses lie ±5 % from the truth: their mean is the truth, the lower of them is not."""
    runs = joint(noise=False, points=40)
    up, down = (
        dataclasses.replace(
            runs,
            run=np.char.add(runs.run, suffix),
            loss=np.where(runs.B == 4096, runs.loss, runs.loss * factor),
            data_hash="",
        )
        for suffix, factor in (("+", 1.05), ("-", 1 / 1.05))
    )
    from scaling_sim.runs.table import concat

    assert at_loss_5(concat([up, down])) == pytest.approx(at_loss_5(runs), rel=1e-6)
