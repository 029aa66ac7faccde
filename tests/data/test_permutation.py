import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_sim.data.permutation import Tables, hash_words, mix64, permute, scaled


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_is_a_permutation(size, key):
    index = np.arange(size, dtype=np.uint64)
    image = permute(index, size, np.full(size, key, np.uint64))
    np.testing.assert_array_equal(np.sort(image), index)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 2**61), st.integers(0, 2**64 - 1))
def test_large_sizes_stay_in_range_without_collisions(size, key):
    index = np.unique(np.linspace(0, size - 1, 1000).astype(np.uint64).clip(0, size - 1))
    image = permute(index, size, np.full(len(index), key, np.uint64))
    assert (image < size).all()
    assert len(np.unique(image)) == len(index)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 10**6), st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5), st.integers(0, 2**32))
def test_tables_give_the_same_images(size, keys, seed):
    rng = np.random.default_rng(seed)
    place, which = rng.integers(0, size, 500), rng.integers(0, len(keys), 500)
    keys = np.array(keys, np.uint64)
    plain = permute(place.astype(np.uint64), size, keys[which])
    np.testing.assert_array_equal(Tables(size, keys).permute(place, which), plain)
    first = permute(place.astype(np.uint64), size, np.broadcast_to(keys[0], place.shape))
    np.testing.assert_array_equal(Tables(size, keys[:1]).permute(place), first)


def test_reads_single_places_like_the_whole():
    keys = np.full(1000, 11, np.uint64)
    whole = permute(np.arange(1000, dtype=np.uint64), 1000, keys)
    single = [int(permute(np.array([i], np.uint64), 1000, keys[:1])[0]) for i in (0, 1, 500, 999)]
    assert single == whole[[0, 1, 500, 999]].tolist()


def test_mix64_is_splitmix64():
    # First outputs of the reference generator with seed 0 are mix64(0), mix64(golden ratio), …
    assert hex(int(mix64(np.zeros(1, np.uint64))[0])) == "0xe220a8397b1dcdaf"
    assert hex(int(mix64(np.array([0x9E3779B97F4A7C15], np.uint64))[0])) == "0x6e789e6aa1b965f4"


def test_scaled_covers_its_range():
    words = hash_words(np.arange(10_000))
    counts = np.bincount(scaled(words, 7).astype(np.int64), minlength=8)
    assert counts[7] == 0
    assert counts[:7].min() > 1200
