"""From a source to the files of a corpus: split, shuffle, tokenize, write."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from scaling_sim.config import config_hash
from scaling_sim.data.document import SPLITS, Document, split_of
from scaling_sim.data.heldout import ENVIRONMENT
from scaling_sim.data.settings import CorpusConfig
from scaling_sim.data.shards import Manifest, Shard, write_array, write_manifest
from scaling_sim.data.source import expand_paths, file_documents, stdlib_documents
from scaling_sim.data.spool import Spool
from scaling_sim.data.synthetic import SyntheticLanguage
from scaling_sim.data.tokenizer import (
    BPETokenizer,
    ByteTokenizer,
    Tokenizer,
    Tokens,
    token_dtype,
    train_bpe,
)
from scaling_sim.errors import DataError

FORMAT = 1
"""Raised whenever equal sources would give other tokens than before."""

MIN_HELD_OUT_TOKENS = 16384
"""Smaller distributions of the environment are left out: their loss would be noise."""

DEFAULT_BPE_VOCABULARY = 1024


CURES = {
    "stdlib": "another source",
    "files": "more documents, a smaller piece_bytes (for text files)",
    "synthetic": "more synthetic_tokens",
}
"""What to do about too few documents, by source."""


class SymbolTokenizer:
    """Takes the bytes of a synthetic language as the token ids that they are; documents have no end."""

    def __init__(self, language: SyntheticLanguage) -> None:
        self.vocab_size = language.vocab_size
        self.identity = f"symbols-{self.vocab_size}"

    def encode(self, content: bytes) -> Tokens:
        """(n,) ids."""
        return np.frombuffer(content, token_dtype(self.vocab_size))


def source_documents(config: CorpusConfig) -> Iterator[Document]:
    """Documents of the source that ``config`` names."""
    if config.source == "stdlib":
        return stdlib_documents()
    if config.source == "files":
        return file_documents(expand_paths(config.paths), config.text_field, config.piece_bytes)
    return _synthetic_documents(config)


def _synthetic_documents(config: CorpusConfig) -> Iterator[Document]:
    language = SyntheticLanguage(config.synthetic)
    written, index = 0, 0
    while written < config.synthetic_tokens:
        chunk = language.chunk(config.synthetic_seed, index)
        yield Document(f"chunk {index}", chunk.tobytes())
        written += len(chunk)
        index += 1


def build_corpus(config: CorpusConfig, folder: Path) -> None:
    """Write every split of the corpus and its manifest into ``folder``.

    Exact duplicates are kept once, so that D counts unique text; a document that is also held out is left out of the
    other splits.

    Raises
    ------
    DataError
        A file cannot be read, the source is empty, or a split would be.
    """
    spool_path = folder / "spool"
    spool = Spool(spool_path, config.shuffle_bytes if config.source != "synthetic" else sys.maxsize)
    try:
        _write_corpus(config, folder, spool)
    finally:
        spool.close()
        spool_path.unlink()


def _write_corpus(config: CorpusConfig, folder: Path, spool: Spool) -> None:
    notes: list[str] = []
    main = spool.add(source_documents(config))
    if not main:
        raise DataError(f"source {config.source!r} holds no text; check {', '.join(config.paths) or 'the source'}")
    duplicates = spool.num_duplicates
    held_out = _held_out(config, spool, notes)
    groups = _split(config, main.difference(*held_out.values())) | held_out
    tokenizer = _tokenizer(config, spool, groups["train"])
    if isinstance(tokenizer, BPETokenizer):
        (folder / "tokenizer.json").write_text(tokenizer.serialized, encoding="utf-8")
    shards: dict[str, Shard] = {}
    for name, digests in groups.items():
        tokens = map(tokenizer.encode, spool.contents(digests))
        shards[name] = write_array(folder, name, tokens, token_dtype(tokenizer.vocab_size))
    if duplicates:
        notes.append(f"{duplicates} exact duplicates left out")
    write_manifest(folder, _manifest(config, tokenizer, groups, shards, notes))


def _manifest(
    config: CorpusConfig,
    tokenizer: Tokenizer,
    groups: dict[str, set[bytes]],
    shards: dict[str, Shard],
    notes: list[str],
) -> Manifest:
    rule = (config.validation_fraction, config.test_fraction)
    content = {name: shard.sha256 for name, shard in shards.items()}
    return Manifest(
        name=config.source,
        hash=config_hash("corpus", FORMAT, tokenizer.identity, rule, content),
        vocab_size=tokenizer.vocab_size,
        tokenizer=tokenizer.identity,
        shards=shards,
        held_out=tuple(name for name in groups if name not in SPLITS),
        documents={name: len(digests) for name, digests in groups.items()},
        notes=tuple(notes),
    )


def _split(config: CorpusConfig, digests: set[bytes]) -> dict[str, set[bytes]]:
    groups: dict[str, set[bytes]] = {name: set() for name in SPLITS}
    for digest in digests:
        groups[split_of(digest, config.validation_fraction, config.test_fraction)].add(digest)
    empty = [name for name, members in groups.items() if not members]
    if empty:
        raise DataError(
            f"every split needs a document, but {len(digests)} documents left none for {', '.join(empty)}; "
            f"give {CURES[config.source]} or larger fractions"
        )
    return groups


def _held_out(config: CorpusConfig, spool: Spool, notes: list[str]) -> dict[str, set[bytes]]:
    groups: dict[str, set[bytes]] = {}
    for name, patterns in config.held_out.items():
        groups[name] = spool.add(file_documents(expand_paths(patterns), config.text_field, config.piece_bytes))
        if not groups[name]:
            raise DataError(f"the held-out distribution {name!r} holds no text; check {', '.join(patterns)}")
    if config.environment_held_out and config.source != "synthetic":
        for name, documents in ENVIRONMENT.items():
            digests = spool.add(documents())
            size = spool.size(digests)
            if size >= MIN_HELD_OUT_TOKENS:
                groups[name] = digests
            else:
                notes.append(f"held-out {name} skipped: {size} bytes here, {MIN_HELD_OUT_TOKENS} needed")
    return groups


def _tokenizer(config: CorpusConfig, spool: Spool, train: set[bytes]) -> Tokenizer:
    if config.source == "synthetic":
        return SymbolTokenizer(SyntheticLanguage(config.synthetic))
    if config.tokenizer == "bytes":
        return ByteTokenizer()
    return train_bpe(spool.contents(train), config.vocab_size or DEFAULT_BPE_VOCABULARY)
