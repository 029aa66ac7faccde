import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_sim.data.document import SPLITS, Document, content_hash, order_key, pieces, split_of
from scaling_sim.data.spool import Spool

CONTENTS = st.lists(st.binary(max_size=60), max_size=25)


@given(st.binary(), st.floats(0.01, 0.4), st.floats(0.01, 0.4))
def test_split_depends_on_content_alone(content, validation, test):
    first = split_of(content_hash(content), validation, test)
    assert first == split_of(content_hash(bytes(bytearray(content))), validation, test)
    assert first in SPLITS


def test_pinned_splits_are_the_same_everywhere():
    contents = [f"document {i}".encode() for i in range(12)]
    assert [split_of(content_hash(content), 0.25, 0.25)[0] for content in contents] == list("tttvtttttttt")


def test_shares_of_splits():
    splits = [split_of(content_hash(str(i).encode()), 0.05, 0.05) for i in range(20_000)]
    for name, share in (("train", 0.9), ("validation", 0.05), ("test", 0.05)):
        assert splits.count(name) / 20_000 == pytest.approx(share, abs=5 * np.sqrt(0.05 * 0.95 / 20_000) * 1.4)


def test_order_is_independent_of_split():
    digests = sorted((content_hash(str(i).encode()) for i in range(20_000)), key=order_key)
    is_test = np.array([split_of(digest, 0.3, 0.3) == "test" for digest in digests])
    place = np.arange(20_000)
    assert abs(np.corrcoef(place, is_test)[0, 1]) < 5 / np.sqrt(20_000)


@given(st.binary(max_size=400), st.integers(1, 50))
def test_pieces_give_back_the_whole(content, size):
    parts = list(pieces(content, size))
    assert b"".join(parts) == content
    assert all(0 < len(part) <= size for part in parts)


def test_pieces_end_with_lines():
    text = b"".join(b"line %d\n" % i for i in range(100))
    assert all(part.endswith(b"\n") for part in pieces(text, 64))


@settings(max_examples=60, deadline=None)
@given(CONTENTS, st.randoms(use_true_random=False), st.integers(1, 40))
def test_spool_order_does_not_depend_on_arrival(tmp_path_factory, contents, random, shuffle_bytes):
    shuffled = list(contents)
    random.shuffle(shuffled)
    results = []
    for order in (contents, shuffled):
        spool = Spool(tmp_path_factory.mktemp("spool") / "spool", shuffle_bytes)
        digests = spool.add(Document("", content) for content in order)
        results.append(list(spool.contents(digests)))
        assert spool.size(digests) == sum(map(len, set(contents)))
        assert spool.num_duplicates == len([c for c in contents if c]) - len(set(contents) - {b""})
        spool.close()
    assert results[0] == results[1]
    distinct = sorted(part for content in set(contents) for part in pieces(content, shuffle_bytes))
    assert sorted(results[0]) == distinct
