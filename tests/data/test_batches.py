import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_sim.data import Batches, evaluation_starts
from scaling_sim.data import batches as module
from scaling_sim.data.permutation import hash_words, permute, scaled
from scaling_sim.errors import ConfigError, DataError


@st.composite
def batches(draw):
    n_ctx = draw(st.integers(1, 40))
    unique_tokens = draw(st.integers(n_ctx + 1, 4000))
    return Batches(unique_tokens, n_ctx, draw(st.integers(1, 60)), draw(st.integers(0, 2**64 - 1)))


def sequences(batch: Batches, first: int, count: int) -> np.ndarray:
    """Starts of sequences ``first`` … in the numbering through the whole run."""
    step, skip = divmod(first, batch.batch_sequences)
    steps = -(-(skip + count) // batch.batch_sequences)
    return batch.starts(step, steps).ravel()[skip : skip + count]


@settings(max_examples=150, deadline=None)
@given(batches(), st.integers(0, 1000))
def test_every_window_exactly_once_per_epoch(batch, epoch):
    windows = batch.windows_per_epoch
    starts = np.sort(sequences(batch, epoch * windows, windows))
    shift = starts[0]
    assert 0 <= shift < batch.num_shifts
    np.testing.assert_array_equal(starts, shift + batch.n_ctx * np.arange(windows))
    assert starts[-1] + batch.n_ctx + 1 <= batch.unique_tokens


@settings(max_examples=100, deadline=None)
@given(batches(), st.integers(0, 10**9), st.integers(0, 20), st.integers(0, 20))
def test_resuming_anywhere_changes_nothing(batch, first, before, after):
    whole = batch.starts(first, before + after)
    again = Batches(batch.unique_tokens, batch.n_ctx, batch.batch_sequences, batch.seed)
    parts = [again.starts(first + before, after), again.starts(first, before)]
    np.testing.assert_array_equal(whole, np.concatenate(parts[::-1]))
    assert whole.shape == (before + after, batch.batch_sequences)
    assert whole.dtype == np.int64


def plainly(batch: Batches, first_step: int, num_steps: int) -> np.ndarray:
    """`Batches.starts` without blocks and tables, as it was first written: what every stored run has read."""
    first = first_step * batch.batch_sequences
    epoch, place = np.divmod(np.arange(first, first + num_steps * batch.batch_sequences), batch.windows_per_epoch)
    keys, hashed = hash_words(batch.seed, epoch, 1), hash_words(batch.seed, epoch, 2)
    window = permute(place.astype(np.uint64), batch.windows_per_epoch, keys)
    starts = window * np.uint64(batch.n_ctx) + scaled(hashed, batch.num_shifts)
    return starts.astype(np.int64).reshape(num_steps, batch.batch_sequences)


@settings(max_examples=200, deadline=None)
@given(batches(), st.integers(0, 10**9), st.integers(0, 40), st.sampled_from([40, 300, module.BLOCK]))
def test_blocks_and_tables_change_no_start(batch, first, num_steps, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        np.testing.assert_array_equal(batch.starts(first, num_steps), plainly(batch, first, num_steps))


@pytest.mark.parametrize(("unique_tokens", "n_ctx"), [(10**8, 128), (10**8 + 3, 8), (2 * 10**5, 128), (10**12, 1)])
def test_long_calls_give_the_same_starts(unique_tokens, n_ctx):
    batch = Batches(unique_tokens, n_ctx, 64, seed=2**63 + 5)
    first = max(0, 3 * batch.windows_per_epoch // 64 - 700)  # an epoch ends on the way
    np.testing.assert_array_equal(batch.starts(first, 2500), plainly(batch, first, 2500))


@settings(max_examples=100, deadline=None)
@given(batches(), st.integers(0, 10**6))
def test_epoch_of_counts_whole_passes(batch, step):
    seen = step * batch.batch_sequences
    assert batch.epoch_of(step) * batch.windows_per_epoch <= seen < (batch.epoch_of(step) + 1) * batch.windows_per_epoch


def test_windows_use_nearly_all_of_the_data_and_shifts_reach_the_rest():
    batch = Batches(10_000, 64, 31, seed=5)
    assert batch.windows_per_epoch * 64 >= 10_000 - 2 * 64
    seen = np.zeros(10_000, bool)
    starts = sequences(batch, 0, 1000 * batch.windows_per_epoch)
    seen[starts[:, None] + np.arange(1, 65)] = True
    assert seen[1:].all()


def test_a_batch_larger_than_an_epoch_holds_several_passes():
    batch = Batches(101, 10, 22, seed=0)  # 9 windows: two passes and four windows of the third
    assert batch.windows_per_epoch == 9
    _, counts = np.unique(batch.starts(0, 1)[0, :9], return_counts=True)
    assert (counts == 1).all()
    assert len(np.unique(batch.starts(0, 1)[0, 9:18])) == 9
    assert batch.epoch_of(1) == 2


def test_epochs_seeds_and_neighbouring_seeds_differ():
    orders = [tuple(sequences(Batches(10_000, 10, 1, seed), epoch * 999, 20)) for seed in (0, 1, 2) for epoch in (0, 1)]
    assert len(set(orders)) == 6


def test_pinned_numbers_are_the_same_everywhere():
    # Recorded once: every machine and version must read the same windows, or resumed runs would see data twice.
    assert Batches(1000, 16, 4, 7).starts(14, 3).tolist() == PINNED


PINNED = [[663, 887, 839, 903], [535, 562, 18, 482], [578, 2, 882, 418]]


@pytest.mark.statistical
def test_order_is_uniform():
    """Place of window 0 and the pair (place 0, place 1) over 5,000 keys; false alarm 1e-6 each."""
    from scipy import stats

    windows = 12
    firsts = np.array([sequences(Batches(windows * 4 + 4, 4, 1, seed), 0, 2) for seed in range(5000)])
    shift = firsts % 4
    first, second = ((firsts - shift) // 4).T
    assert stats.chisquare(np.bincount(first, minlength=windows)).pvalue > 1e-6
    pairs = np.bincount(first * windows + second, minlength=windows**2).reshape(windows, windows)
    off_diagonal = pairs[~np.eye(windows, dtype=bool)]
    assert pairs.trace() == 0
    assert stats.chisquare(off_diagonal).pvalue > 1e-6
    assert stats.chisquare(np.bincount(shift[:, 0], minlength=4)).pvalue > 1e-6


@pytest.mark.parametrize("unique_tokens", [0, 1, 64])
def test_context_longer_than_the_data(unique_tokens):
    with pytest.raises(DataError, match=f"at least 65 tokens of data, got {unique_tokens}"):
        Batches(unique_tokens, 64, 1, 0)
    with pytest.raises(DataError, match="smaller n_ctx"):
        evaluation_starts(unique_tokens, 64, 1)


def test_one_window_is_enough():
    assert Batches(65, 64, 3, 0).starts(0, 2).tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [((100, 0, 1, 0), "n_ctx"), ((100, 8, 0, 0), "batch"), ((100, 8, 1, -1), "seed"), ((100, 8, 1, 2**64), "seed")],
)
def test_bad_sizes(arguments, word):
    with pytest.raises(ConfigError, match=word):
        Batches(*arguments)


def test_negative_steps():
    with pytest.raises(ConfigError, match="negative"):
        Batches(100, 8, 1, 0).starts(-1, 1)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 100), st.integers(1, 500), st.data())
def test_evaluation_windows_do_not_overlap_and_fit(n_ctx, num_sequences, data):
    num_tokens = data.draw(st.integers(n_ctx + 1, 20_000))
    starts = evaluation_starts(num_tokens, n_ctx, num_sequences)
    assert len(starts) == min(num_sequences, (num_tokens - 1) // n_ctx)
    assert starts[0] == 0
    assert starts[-1] + n_ctx + 1 <= num_tokens
    assert (np.diff(starts) >= n_ctx).all()
    if len(starts) > 2:
        assert np.diff(starts).max() - np.diff(starts).min() <= n_ctx


def test_evaluation_needs_a_sequence():
    with pytest.raises(ConfigError, match="num_sequences"):
        evaluation_starts(100, 8, 0)
