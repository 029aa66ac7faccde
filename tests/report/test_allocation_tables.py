from __future__ import annotations

import numpy as np

from scaling_sim.model.count import num_parameters
from scaling_sim.model.shape import Shape
from scaling_sim.predict import Allocation
from scaling_sim.report.allocation_tables import definitions_table, shape_table
from scaling_sim.report.data import ReportData


def test_shapes_of_every_budget(study: ReportData) -> None:
    table = shape_table(study)
    assert table is not None
    for plan, row in zip(study.allocations[0], table.rows, strict=True):
        _, compute, layers, width, heads, N, penalty, _ = row
        assert compute == plan.compute[0]
        assert num_parameters(Shape(layers, width, heads, 64)) == N  # type: ignore[arg-type]
        assert abs(penalty) < 1e-3  # type: ignore[arg-type]


def test_definitions_of_own_runs(study: ReportData) -> None:
    table = definitions_table(study)
    assert table is not None
    found = study.allocations[0].definitions
    assert not isinstance(found, str)
    assert [row[0] for row in table.rows] == [row.words for row in found.rows.values()]
    assert found.verdict in table.note


def test_tables_need_allocations(study: ReportData) -> None:
    empty = ReportData(title="nothing")
    assert shape_table(empty) is None
    assert definitions_table(empty) is None
    assert isinstance(study.allocations[0], Allocation)
    assert np.isfinite(study.allocations[0].compute).all()
