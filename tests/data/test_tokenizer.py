import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling_sim.data.tokenizer import BPETokenizer, ByteTokenizer, token_dtype, train_bpe
from scaling_sim.errors import ConfigError

TEXT = [b"the cat sat on the mat. the dog sat on the log.\n" * 20, "caf\u00e9 na\u00efve".encode()]


@given(st.binary())
def test_bytes_are_their_own_ids(content):
    ids = ByteTokenizer().encode(content)
    assert ids.dtype == np.uint8
    assert ids[:-1].tobytes() == content
    assert ids[-1] == 0


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(256, np.uint8), (257, np.uint16), (65536, np.uint16), (65537, np.uint32)]
)
def test_smallest_dtype(vocab_size, dtype):
    assert token_dtype(vocab_size) == dtype


def test_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"scaling-sim\[tokenizers\]"):
        train_bpe(TEXT, 300)


def test_vocabulary_too_small():
    with pytest.raises(ConfigError, match=r"at least 258 entries.*got 256"):
        train_bpe(TEXT, 256)


@pytest.mark.tokenizers
def test_bpe_compresses_gives_back_text_and_ends_with_zero():
    pytest.importorskip("tokenizers")
    bpe = train_bpe(TEXT, 270)
    assert bpe.vocab_size == 270
    ids = bpe.encode(TEXT[0])
    assert ids.dtype == np.uint16
    assert ids[-1] == 0
    assert (ids[:-1] != 0).all()
    assert len(ids) < len(TEXT[0]) / 2
    assert bpe._tokenizer.decode(ids[:-1].tolist()).encode() == TEXT[0]
    again = BPETokenizer(bpe.serialized)
    assert again.identity == bpe.identity
    np.testing.assert_array_equal(again.encode(TEXT[1]), bpe.encode(TEXT[1]))
    assert train_bpe(TEXT, 265).identity != bpe.identity


@pytest.mark.tokenizers
def test_bpe_takes_bytes_that_are_not_utf8_and_the_end_marker_as_text():
    pytest.importorskip("tokenizers")
    bpe = train_bpe(TEXT, 300)
    assert len(bpe.encode(b"\xff\xfe")) > 1
    assert (bpe.encode(b"a <|end|> b")[:-1] != 0).all()
