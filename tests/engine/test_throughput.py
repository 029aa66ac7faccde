import importlib

import pytest

from scaling_sim.engine.cohort import Cohort, Member
from scaling_sim.engine.reference import ReferenceBackend
from scaling_sim.engine.throughput import Measured, expected_rate, fastest
from scaling_sim.model.shape import Shape


def shape(width: int) -> Shape:
    return Shape(n_layer=2, d_model=width, n_head=1, n_ctx=128, vocab_size=256)


def cohort(width: int, members: int) -> Cohort:
    return Cohort(shape=shape(width), batch_sequences=64, members=tuple(Member(id=i, seed=i) for i in range(members)))


class Timed(ReferenceBackend):
    """The reference, with a table of its own."""

    def __init__(self, name: str, rates: dict[tuple[int, int], float]) -> None:
        self.name = name
        self.rows = [Measured(shape(width), members, 64, "bfloat16", rate) for (width, members), rate in rates.items()]

    def measured(self) -> list[Measured]:
        return self.rows


NARROW = Timed("narrow", {(16, 1): 2e8, (16, 64): 9e8, (64, 1): 5e7, (64, 64): 1.0e8})
WIDE = Timed("wide", {(16, 1): 8e7, (16, 64): 4.5e8, (64, 1): 3e7, (64, 64): 1.2e8})


def test_a_measured_cohort_has_its_measured_rate() -> None:
    for row in NARROW.rows:
        found = expected_rate(NARROW, cohort(row.shape.d_model, row.members), "bfloat16")
        assert found == pytest.approx(row.tokens_per_second, rel=1e-6)


def test_between_the_rows_the_rate_lies_between_theirs() -> None:
    between = expected_rate(NARROW, cohort(32, 64), "bfloat16")
    assert between is not None
    assert 1.0e8 < between < 9e8


def test_nothing_is_expected_of_what_was_not_measured() -> None:
    assert expected_rate(NARROW, cohort(16, 1), "float32") is None
    assert expected_rate(ReferenceBackend(), cohort(16, 1), "bfloat16") is None


def test_the_faster_one_is_taken_by_shape_and_members_and_says_by_how_much() -> None:
    backend, why = fastest([NARROW, WIDE], cohort(16, 64), "bfloat16")
    assert (backend.name, why) == ("narrow", "expected 2× wide")
    assert fastest([NARROW, WIDE], cohort(64, 64), "bfloat16")[0].name == "wide"
    assert fastest([NARROW, WIDE], cohort(64, 1), "bfloat16")[0].name == "narrow"


def test_without_a_table_the_first_is_taken() -> None:
    unmeasured = ReferenceBackend()
    assert fastest([unmeasured, NARROW], cohort(16, 1), "bfloat16") == (unmeasured, "the first that supports it")
    assert fastest([NARROW], cohort(16, 1), "float32") == (NARROW, "")


@pytest.mark.parametrize("name", ["torch", "cupy"])
def test_our_backends_tables_are_usable(name: str) -> None:
    rows = importlib.import_module(f"scaling_sim_{name}.measured").MEASURED
    keys = [(row.shape, row.members, row.batch_sequences, row.precision) for row in rows]
    assert len(set(keys)) == len(keys)
    assert all(1e4 < row.tokens_per_second < 1e10 for row in rows)
    assert {row.members for row in rows} >= {1, 64}
