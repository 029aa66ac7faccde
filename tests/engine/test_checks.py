"""What every backend refuses, and how the refusal reads."""

import numpy as np
import pytest

from scaling_sim.engine import checks
from scaling_sim.engine.conformance_cases import PLAIN
from scaling_sim.engine.reference import BACKEND
from scaling_sim.errors import BackendUnavailable, ConfigError, DataError

IDS = [member.id for member in PLAIN.cohort.members]


def start(device="cpu", precision="float32", **splits):
    checks.check_start(BACKEND, PLAIN.cohort, splits or PLAIN.splits(), device, precision)


def test_good_start():
    start()


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.zeros((5, 20), np.uint8), "1-D uint8, uint16 or uint32 array, got 2-D uint8"),
        (np.zeros(50, np.int64), "got 1-D int64"),
        (np.zeros(8, np.uint8), r"longer than n_ctx \(8 tokens\), got 8"),
        (np.full(50, 17, np.uint8), r"below vocab_size \(17\), got 17"),
    ],
)
def test_bad_split(tokens, message):
    with pytest.raises(DataError, match=f"split 'train'.*{message}|of split 'train'.*{message}"):
        start(train=tokens)


def test_missing_train_split():
    with pytest.raises(DataError, match=r"must contain 'train', got \['test'\]"):
        start(test=PLAIN.splits()["test"])


def test_unsupported_combination_gives_the_backends_reason():
    with pytest.raises(BackendUnavailable, match=r"backend 'numpy': .*'cpu' only, got device 'cuda'"):
        start(device="cuda")
    with pytest.raises(BackendUnavailable, match="got precision 'bfloat16'"):
        start(precision="bfloat16")


@pytest.mark.parametrize("bad", [-1, 92, 10**12])
def test_windows_outside(bad):
    with pytest.raises(DataError, match=rf"must lie in 0\.\.91 \(100 tokens, n_ctx 8\), got {bad}"):
        checks.check_windows(np.array([[0, 91], [bad, 5]]), 100, 8)


def test_windows_inside_and_none():
    checks.check_windows(np.array([[0, 91]]), 100, 8)
    checks.check_windows(np.empty((0, 3, 4), np.int64), 100, 8)


def test_windows_must_be_integers():
    with pytest.raises(DataError, match="integers, got float64"):
        checks.check_windows(np.array([1.0]), 100, 8)


def test_shapes_of_a_batch():
    with pytest.raises(DataError, match=r"\(2, 3, 4\), got \(2, 3, 5\)"):
        checks.check_batches(np.zeros((2, 3, 5), np.int64), np.zeros((2, 3)), 3, PLAIN.cohort)
    with pytest.raises(DataError, match=r"lr must be .*\(2, 3\), got \(2, 1\)"):
        checks.check_batches(np.zeros((2, 3, 4), np.int64), np.zeros((2, 1)), 3, PLAIN.cohort)


def test_member_axis():
    assert checks.check_member_axis(np.zeros((5, 4), np.int64), 3).shape == (3, 5, 4)
    with pytest.raises(DataError, match="live members = 3"):
        checks.check_member_axis(np.zeros((2, 5, 4), np.int64), 3)


def test_kept_rows():
    assert checks.kept_rows([10, 13, 16], [13]) == [0, 2]
    with pytest.raises(ConfigError, match=r"cannot retire \[11\]: live members are \[10, 13, 16\]"):
        checks.kept_rows([10, 13, 16], [11, 10])


def test_state_that_does_not_fit():
    state = PLAIN.random_state(np.float32)
    assert checks.state_ids(PLAIN.cohort, state) == tuple(IDS)
    with pytest.raises(DataError, match=r"lacks adam_m\.qkv"):
        checks.state_ids(PLAIN.cohort, {name: value for name, value in state.items() if name != "adam_m.qkv"})
    with pytest.raises(DataError, match=r"in its order \[10, 13, 16\], got \[16, 13, 10\]"):
        checks.state_ids(PLAIN.cohort, state | {"ids": state["ids"][::-1]})
    with pytest.raises(DataError, match=r"params\.qkv of the state must have shape \(3, 2, 48, 16\)"):
        checks.state_ids(PLAIN.cohort, state | {"params.qkv": state["params.qkv"][:, :, :3]})


def test_unknown_split_lists_the_known_ones():
    with pytest.raises(ConfigError, match="unknown split 'tset'; this trainer holds test, train"):
        checks.check_split_name("tset", ["train", "test"])
