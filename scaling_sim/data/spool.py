"""Documents on disk while a corpus is built, so that memory holds only their hashes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from scaling_sim.data.document import Document, content_hash, order_key, pieces


class Piece(NamedTuple):
    """Where a piece of a document lies in the spool, after the key that gives its place in the order."""

    key: bytes
    offset: int
    length: int


class Spool:
    """Distinct documents in one temporary file, read back piece by piece in an order drawn by hash.

    Documents are known by the hash of their content, so the same set of documents gives the same order whatever order
    they came in.

    Parameters
    ----------
    path : Path
        Of the temporary file; its owner removes it.
    shuffle_bytes : int
        Length of the pieces.
    """

    def __init__(self, path: Path, shuffle_bytes: int) -> None:
        self._file: IO[bytes] = path.open("w+b")
        self._end = 0
        self._shuffle_bytes = shuffle_bytes
        self._pieces: dict[bytes, list[Piece]] = {}
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
        if digest in self._pieces:
            self.num_duplicates += 1
            return
        self._file.seek(self._end)
        self._file.write(content)
        places = self._pieces[digest] = []
        for number, piece in enumerate(pieces(content, self._shuffle_bytes)):
            # Keyed by document and number: keyed by its own content, boilerplate that repeats would come in one lump.
            places.append(Piece(order_key(content_hash(digest + number.to_bytes(8, "little"))), self._end, len(piece)))
            self._end += len(piece)

    def size(self, digests: Iterable[bytes]) -> int:
        """Bytes of these documents."""
        return sum(piece.length for digest in digests for piece in self._pieces[digest])

    def contents(self, digests: Iterable[bytes]) -> Iterator[bytes]:
        """Pieces of these documents in shuffled order."""
        chosen = [(piece.key, digest, piece) for digest in digests for piece in self._pieces[digest]]
        for _, _, piece in sorted(chosen):
            self._file.seek(piece.offset)
            yield self._file.read(piece.length)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
