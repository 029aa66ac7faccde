"""A document, and what its content alone decides: its split and its place in the order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

SPLITS = ("train", "validation", "test")
"""Splits that every corpus has."""


@dataclass(frozen=True)
class Document:
    """A piece of text that is never divided between splits.

    ``name`` is for messages only: nothing else depends on it.
    """

    name: str
    content: bytes


def content_hash(content: bytes) -> bytes:
    """16 bytes that identify the content; the first half decides the split, the second the order."""
    return hashlib.blake2b(content, digest_size=16).digest()


def split_of(digest: bytes, validation_fraction: float, test_fraction: float) -> str:
    """Split of the document with this content hash.

    A document's split depends on its own bytes and the two fractions: not on other documents, their order, or the
    machine; equal documents share a split.
    """
    place = int.from_bytes(digest[:8], "little") / 2.0**64
    if place < test_fraction:
        return "test"
    return "validation" if place < test_fraction + validation_fraction else "train"


def order_key(digest: bytes) -> bytes:
    """Sort key that shuffles documents independently of their split, so that a prefix is a fair sample."""
    return digest[8:] + digest[:8]


def pieces(content: bytes, size: int) -> Iterator[bytes]:
    """Cut ``content`` into pieces of at most ``size`` bytes, at the end of a line where their last half has one."""
    begin = 0
    while begin < len(content):
        end = min(begin + size, len(content))
        if end < len(content):
            line_end = content.rfind(b"\n", begin + size // 2, end)
            end = end if line_end < 0 else line_end + 1
        yield content[begin:end]
        begin = end
