"""A corpus: token arrays of every split, built once from a source and memory-mapped after that."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from scaling_sim.config import config_hash
from scaling_sim.data.build import FORMAT, build_corpus
from scaling_sim.data.document import SPLITS
from scaling_sim.data.settings import CorpusConfig
from scaling_sim.data.shards import build_once, map_arrays, read_manifest
from scaling_sim.data.source import expand_paths
from scaling_sim.data.tokenizer import Tokens, token_dtype
from scaling_sim.errors import DataError


@dataclass(frozen=True, eq=False)
class Corpus:
    """Token arrays by split; cheap to send to another process, which maps the same files.

    The documents of each split are in an order drawn by hash, so the first D tokens of ``train`` are a fair sample of
    it for every D, and a smaller subset lies inside every larger one.
    """

    name: str
    hash: str
    """16 hexadecimal digits: equal if and only if tokenizer, split rule and every token of every split are equal."""
    vocab_size: int
    splits: Mapping[str, Tokens] = field(repr=False)
    """``train``, ``validation``, ``test`` and each held-out distribution: (n,) uint8, uint16 or uint32, read-only."""
    held_out: tuple[str, ...] = ()
    documents: Mapping[str, int] = field(default_factory=dict)
    """Number of documents per split."""
    notes: tuple[str, ...] = ()
    """What was left out, and why."""
    folder: Path | None = None
    """Where its files are; None for arrays in memory, which then travel whole."""

    def __reduce__(self) -> tuple[Callable[..., Corpus], tuple[Any, ...]]:
        if self.folder is not None:
            return open_corpus, (self.folder,)
        splits, documents = dict(self.splits), dict(self.documents)
        return Corpus, (self.name, self.hash, self.vocab_size, splits, self.held_out, documents, self.notes)

    def subset(self, unique_tokens: int) -> Tokens:
        """The first ``unique_tokens`` tokens of the training split.

        Raises
        ------
        DataError
            The split has fewer.
        """
        train = self.splits["train"]
        if not 0 < unique_tokens <= len(train):
            raise DataError(
                f"unique_tokens must lie in 1..{len(train)} (the training split of {self.name}), got {unique_tokens}"
            )
        return train[:unique_tokens]


def load_corpus(config: CorpusConfig, cache: str | Path) -> Corpus:
    """The corpus that ``config`` describes, built into ``cache`` on the first call and memory-mapped.

    A corpus that is in the cache is checked against its checksums and used as it is, also if packages that its held-out
    texts come from have changed since; changed files of ``paths`` or another Python give a new one.

    Raises
    ------
    ConfigError
        The cache cannot be written, or the tokenizer's library is missing.
    DataError
        Unreadable or missing files, no text, or too few documents for every split to have one.
    """
    folder = Path(cache) / f"{config.source}-{config_hash('corpus', FORMAT, config, _fingerprint(config))}"
    build_once(folder, lambda temporary: build_corpus(config, temporary))
    return open_corpus(folder)


def open_corpus(folder: str | Path) -> Corpus:
    """A corpus from the folder in which `load_corpus` put it.

    Raises
    ------
    DataError
        There is none, or a file has another length than its manifest says.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    arrays = map_arrays(folder, manifest, token_dtype(manifest.vocab_size))
    names = (*SPLITS, *manifest.held_out)
    return Corpus(
        name=manifest.name,
        hash=manifest.hash,
        vocab_size=manifest.vocab_size,
        splits=MappingProxyType({name: arrays[name] for name in names}),
        held_out=manifest.held_out,
        documents=MappingProxyType({name: manifest.documents[name] for name in names}),
        notes=manifest.notes,
        folder=folder,
    )


def _fingerprint(config: CorpusConfig) -> list[object]:
    """What outside ``config`` decides its text, cheap to read: the Python version, or the files and their dates."""
    marks: list[object] = [sys.version] if config.source == "stdlib" else []
    patterns = [*config.paths, *(pattern for group in config.held_out.values() for pattern in group)]
    for path in expand_paths(patterns) if patterns or config.source == "files" else ():
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error
        marks.append((str(path.resolve()), status.st_size, status.st_mtime_ns))
    return marks
