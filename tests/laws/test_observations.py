from __future__ import annotations

import numpy as np

from scaling_sim.laws import get_law
from tests.inference.support import joint, table


def test_final_laws_never_mix_decayed_and_undecayed() -> None:
    runs = table(N=np.full(6, 1e6), tokens=np.full(6, 1e8), loss=np.arange(3.0, 9.0), decayed=np.arange(6) % 2 == 0)
    data = get_law("chinchilla").observe(runs)
    assert data.row.tolist() == [0, 2, 4]
    assert data.dropped == {"learning rate not decayed: not the loss of a finished run": ("r1", "r3", "r5")}


def test_final_laws_read_the_last_point_of_a_curve() -> None:
    runs = table(
        run=np.array(["a", "a", "b"]), N=np.array([1e6, 1e6, 2e6]), tokens=np.array([2e8, 1e8, 1e8]), loss=np.ones(3)
    )
    data = get_law("power-n").observe(runs)
    assert data.row.tolist() == [0, 2]


def test_models_without_layers_and_diverged_runs_are_counted() -> None:
    runs = table(N=np.array([0, 1e6, 1e6]), tokens=np.full(3, 1e8), loss=np.array([3, np.nan, 3.0]))
    dropped = get_law("chinchilla").observe(runs).dropped
    assert list(dropped.values()) == [("r0",), ("r1",)]
    assert next(iter(dropped)).startswith("N is 0")


def test_single_epoch_laws_leave_out_repeated_data() -> None:
    stopped = np.array([True, False, False])
    runs = table(N=np.full(3, 1e6), tokens=np.full(3, 1e8), loss=np.ones(3), stopped=stopped)
    assert get_law("chinchilla").observe(runs).row.tolist() == [1, 2]
    assert get_law("kaplan-nd").observe(runs).row.tolist() == [0]
    assert get_law("data-constrained").observe(runs).row.tolist() == [0, 1, 2]


def test_the_frontier_has_no_beaten_run() -> None:
    C, loss = np.array([1.0, 2, 3, 4]) * 1e18, np.array([4.0, 3.0, 3.5, 2.0])
    runs = table(N=np.full(4, 1e6), tokens=np.full(4, 1e8), C=C, loss=loss)
    data = get_law("power-c").observe(runs)
    assert data.row.tolist() == [0, 1, 3]


def test_joint_law_gives_every_row_a_role_or_a_reason() -> None:
    runs = joint()
    neither = table(N=np.full(2, 1e6), tokens=np.full(2, 1e8), loss=np.ones(2))
    law = get_law("kaplan")
    data = law.observe(runs)
    assert {role: int((data.role == role).sum()) for role in ("stopped", "curve")} == {"stopped": 15, "curve": 224}
    assert sum(map(len, law.observe(neither).dropped.values())) == 2
    assert len(law.missing(neither)) == 4  # B, S, stopped rows, curve rows


def test_l_of_n_reads_the_longest_runs_of_each_size_and_says_so() -> None:
    N, tokens = np.array([1e6, 1e6, 1e6, 2e6, 2e6, 4e6]), np.array([1e8, 4e8, 4e8, 2e8, 1e8, 1e7])
    data = get_law("power-n").observe(table(N=N, tokens=tokens, loss=np.arange(6) + 2.0))
    assert data.row.tolist() == [1, 2, 3, 5]
    assert data.dropped == {"a shorter run of its N: L(N) is the limit of converged runs": ("r0", "r4")}
    assert any("kaplan estimates the limit" in note for note in data.notes)
    plain = get_law("power-n").observe(table(N=np.geomspace(1e6, 1e9, 6), tokens=tokens, loss=np.arange(6) + 2.0))
    assert (len(plain), plain.dropped, plain.notes) == (6, {}, ())
    unknown = get_law("power-n").observe(table(N=N, tokens=np.full(6, np.nan), loss=np.arange(6) + 2.0))
    assert len(unknown) == 6
