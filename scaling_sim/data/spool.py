"""Documents on disk while a corpus is built, so that memory holds only their hashes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from scaling_sim.data.document import Document, content_hash, order_key

Place = tuple[int, int]
"""Offset and length in the spool, bytes."""


class Spool:
    """Distinct documents in one temporary file, read back in the order of their hashes."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("w+b")
        self._end = 0
        self.places: dict[bytes, Place] = {}
        self.num_duplicates = 0

    def add(self, documents: Iterable[Document]) -> set[bytes]:
        """Store what is new, drop what is empty, and return the hashes of all that came."""
        digests: set[bytes] = set()
        for document in documents:
            if document.content:
                digest = content_hash(document.content)
                digests.add(digest)
                self._store(digest, document.content)
        return digests

    def _store(self, digest: bytes, content: bytes) -> None:
        if digest in self.places:
            self.num_duplicates += 1
            return
        self._file.seek(self._end)
        self._file.write(content)
        self.places[digest] = (self._end, len(content))
        self._end += len(content)

    def contents(self, digests: Iterable[bytes]) -> Iterator[bytes]:
        """Contents of ``digests`` in shuffled order, the same whatever order they came in."""
        for digest in sorted(digests, key=order_key):
            offset, length = self.places[digest]
            self._file.seek(offset)
            yield self._file.read(length)

    def close(self) -> None:
        """Close the file; its owner removes it."""
        self._file.close()
