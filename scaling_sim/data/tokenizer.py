"""Bytes to token ids: bytes themselves, or byte-pair encoding by Hugging Face ``tokenizers``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import ConfigError

Tokens = NDArray[np.unsignedinteger[Any]]

END = "<|end|>"
"""The end of a document in byte-pair encoding, id 0; the byte tokenizer uses byte 0."""


class Tokenizer(Protocol):
    """Turns documents into token ids; every document ends with id 0."""

    vocab_size: int

    @property
    def identity(self) -> str:
        """Equal for tokenizers that give equal ids."""
        ...

    def encode(self, content: bytes) -> Tokens:
        """Ids of one document, its end included."""
        ...


def token_dtype(vocab_size: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Smallest unsigned type that holds every id."""
    if vocab_size <= 2**8:
        return np.dtype(np.uint8)
    return np.dtype(np.uint16) if vocab_size <= 2**16 else np.dtype(np.uint32)


class ByteTokenizer:
    """Every byte is its own id, so that any content is valid; byte 0 ends a document."""

    vocab_size = 256
    identity = "bytes"

    def encode(self, content: bytes) -> Tokens:
        """The bytes and a 0, (n + 1,) uint8."""
        return np.frombuffer(content + b"\0", np.uint8)


class BPETokenizer:
    """Byte-level byte-pair encoding.

    Content that is not UTF-8 is read with replacement characters: the ids then do not give back the exact bytes.
    """

    def __init__(self, serialized: str) -> None:
        self._tokenizer = _library().Tokenizer.from_str(serialized)
        self._tokenizer.encode_special_tokens = True  # the end marker, spelled out in a text, is text
        self.serialized = serialized
        self.vocab_size = int(self._tokenizer.get_vocab_size())
        self._dtype = token_dtype(self.vocab_size)

    @property
    def identity(self) -> str:
        """Hash of the vocabulary and its merges."""
        return "bpe-" + hashlib.sha256(self.serialized.encode()).hexdigest()[:16]

    def encode(self, content: bytes) -> Tokens:
        """Ids and a 0, uint8, uint16 or uint32 by the size of the vocabulary."""
        ids = self._tokenizer.encode(content.decode("utf-8", errors="replace"), add_special_tokens=False).ids
        return np.array([*ids, 0], self._dtype)


def train_bpe(contents: Iterable[bytes], vocab_size: int) -> BPETokenizer:
    """Byte-pair encoding learned from ``contents`` (the training documents).

    A small text may hold fewer than ``vocab_size`` worthwhile merges; the tokenizer's own ``vocab_size`` says.

    Raises
    ------
    ConfigError
        The library is not installed, or the vocabulary is too small for the 256 bytes and the end of document.
    """
    if vocab_size < 258:
        raise ConfigError(
            f"a BPE vocabulary needs at least 258 entries (256 bytes, the end, a merge), got {vocab_size}"
        )
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(contents), trainer=trainer)
    return BPETokenizer(tokenizer.to_str())


def _texts(contents: Iterable[bytes]) -> Iterator[str]:
    for content in contents:
        yield content.decode("utf-8", errors="replace")


def _library() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError as error:
        raise ConfigError(
            'tokenizer "bpe" needs Hugging Face tokenizers: pip install "scaling-sim[tokenizers]", '
            'or use tokenizer = "bytes"'
        ) from error
    return tokenizers
