from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scaling_sim.laws import get_law
from scaling_sim.runs.table import FLAGS, NUMBERS, RunTable, read_runs
from scaling_sim.testing import law_coordinates, law_parameters, permuted, rescaled, run_tables, sweeps
from scaling_sim.testing.tables import representative_table

few = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@few
@given(table=run_tables(repeats=True))
def test_any_table_survives_its_csv(tmp_path: Path, table: RunTable) -> None:
    table.to_csv(tmp_path / "runs.csv")
    back = read_runs(tmp_path / "runs.csv")
    for name in ("run", *NUMBERS, *FLAGS):
        np.testing.assert_array_equal(getattr(back, name), getattr(table, name))
    assert back.data_hash == table.data_hash


@few
@given(table=run_tables(min_rows=2), data=st.data())
def test_selected_and_dropped_rows_make_up_the_table(table: RunTable, data: st.DataObject) -> None:
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(table), max_size=len(table))))
    kept = table.select(mask, "not drawn")
    assert sorted([*kept.run.tolist(), *kept.dropped.get("not drawn", ())]) == table.run.tolist()
    assert len(kept) == mask.sum()


@few
@given(table=run_tables())
def test_derived_columns_do_not_depend_on_what_was_given(table: RunTable) -> None:
    given_tokens = {"N": table.N, "tokens": table.tokens, "loss": table.loss, "seed": np.arange(len(table))}
    given_compute = {"N": table.N, "C": table.C, "loss": table.loss, "seed": np.arange(len(table))}
    first, second = read_runs(given_tokens), read_runs(given_compute)
    np.testing.assert_allclose(second.tokens, first.tokens, rtol=1e-14)
    np.testing.assert_allclose(second.C, first.C, rtol=1e-14)


@few
@given(parameters=law_parameters("chinchilla"))
def test_parameters_are_finite_and_of_the_law(parameters: dict[str, float]) -> None:
    assert tuple(parameters) == get_law("chinchilla").parameters
    assert all(np.isfinite(list(parameters.values())))


@few
@given(u=law_coordinates("kaplan", num_draws=3))
def test_coordinates_have_one_row_per_draw(u: np.ndarray) -> None:
    assert u.shape == (3, 8)


@few
@given(sweep=sweeps("kaplan-nd", max_noise=0.01, max_diverged=0.3))
def test_sweeps_lie_near_their_truth(sweep: tuple[dict[str, float], RunTable]) -> None:
    parameters, table = sweep
    law = get_law("kaplan-nd")
    expected = law.loss(parameters, {"N": table.N, "D": table.D})
    assert table.extra["expected_loss"] == pytest.approx(expected, rel=1e-9)
    assert len(table) + table.num_dropped == 49


def test_changes_that_must_not_matter() -> None:
    table = representative_table()
    moved = permuted(table, seed=3)
    assert sorted(moved.loss.tolist()) == sorted(table.loss.tolist())
    assert moved.loss.tolist() != table.loss.tolist()
    units = rescaled(table, N=1e3, tokens=1e-6, loss=2.0)
    known = np.isfinite(table.B)
    assert pytest.approx(6 * units.N * units.tokens) == units.C
    assert units.tokens[known] == pytest.approx((units.B * units.S)[known])
    assert units.loss == pytest.approx(2 * table.loss)


def test_hypothesis_is_loaded_by_strategies_alone() -> None:
    code = (
        "import sys, scaling_sim.testing as t; t.check_law('chinchilla'); assert 'hypothesis' not in sys.modules\n"
        "sys.modules['hypothesis'] = None\n"
        "try: t.run_tables()\nexcept t.CheckFailed: pass\nexcept Exception as error: print(error)"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'scaling-sim[test]'" in seen.stdout
