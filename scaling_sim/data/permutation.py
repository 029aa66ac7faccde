"""A keyed permutation of 0..n-1 that can be read at any place without storing it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDS = 8
"""Feistel rounds; 4 already give a pseudorandom permutation for an ideal round function (Luby & Rackoff 1988)."""

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def mix64(x: U64) -> U64:
    """Finaliser of SplitMix64 (Steele, Lea & Flood 2014): a bijection of 64-bit words that scatters every bit."""
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * _MIX1
    x = (x ^ (x >> np.uint64(27))) * _MIX2
    return x ^ (x >> np.uint64(31))


def hash_words(*words: Any) -> U64:
    """One 64-bit hash of several integer words (scalars or arrays that broadcast)."""
    total: U64 = np.zeros(1, np.uint64)
    for word in words:
        total = mix64(total ^ np.atleast_1d(np.asarray(word)).astype(np.uint64))
    return total


def scaled(hashed: U64, size: int) -> U64:
    """Map 64-bit hashes to 0..size-1 by their high 32 bits (bias below size/2³²)."""
    return ((hashed >> np.uint64(32)) * np.uint64(size)) >> np.uint64(32)


def permute(index: U64, size: int, keys: U64) -> U64:
    """Images of ``index`` under keyed permutations of 0..size-1.

    An alternating Feistel network on the rectangle a × b with a = ⌈√size⌉, b = ⌈size/a⌉, which exceeds ``size`` by less
    than a; the few places beyond it are walked along their cycle until they fall inside (Black & Rogaway 2002).

    Parameters
    ----------
    index : (n,) uint64 array
        Places, each below ``size``.
    size : int
        1 ≤ size < 2**62.
    keys : (n,) uint64 array
        The key of each place's permutation.
    """
    a, b = sides(size)
    out = _feistel(index, a, b, keys)
    outside = np.flatnonzero(out >= size)
    while outside.size:
        out[outside] = _feistel(out[outside], a, b, keys[outside])
        outside = outside[out[outside] >= size]
    return out


def sides(size: int) -> tuple[int, int]:
    """Sides a and b of the rectangle on which `permute` works."""
    a = math.isqrt(size - 1) + 1
    return a, -(-size // a)


class Tables:
    """`permute` for many places under few keys, several times as fast.

    A round function sees one half of a place, which has about √size values only. So its values under every key are
    computed once, and a round costs one look-up and one addition per place.

    Parameters
    ----------
    size : int
        1 ≤ size < 2**62; tables take 64·√size bytes per key.
    keys : (E,) uint64 array
    """

    def __init__(self, size: int, keys: U64) -> None:
        self.size, (self.a, self.b) = size, sides(size)
        self._rounds = [self._table(keys, number) for number in range(ROUNDS)]

    def _table(self, keys: U64, number: int) -> I64:
        size, other = (self.b, self.a) if number % 2 else (self.a, self.b)
        values = _round_function(np.arange(other, dtype=np.uint64), size, keys[:, None], number)
        return values.astype(np.int64).reshape(-1)

    def permute(self, place: I64, which: I64 | None = None) -> I64:
        """Images of ``place`` (n,) under the keys of index ``which`` (n,); None: all under the first."""
        out = self._feistel(place, which)
        outside = np.flatnonzero(out >= self.size)
        while outside.size:
            out[outside] = self._feistel(out[outside], None if which is None else which[outside])
            outside = outside[out[outside] >= self.size]
        return out

    def _feistel(self, place: I64, which: I64 | None) -> I64:
        left = place // self.b
        right = place - left * self.b
        rows = (None, None) if which is None else (which * self.b, which * self.a)
        spare, word = np.empty_like(left), np.empty_like(left)
        for number in range(ROUNDS):
            half, other, size = (right, left, self.b) if number % 2 else (left, right, self.a)
            row = rows[number % 2]
            index = other if row is None else np.add(other, row, out=spare)
            half += np.take(self._rounds[number], index, out=word, mode="clip")
            _reduce(half, size, spare)
        left *= self.b
        left += right
        return left


def _reduce(total: I64, size: int, spare: I64) -> None:
    """``total`` mod ``size`` in place, for 0 ≤ total < 2·size: what lies below ``size`` wraps around and loses."""
    np.subtract(total, size, out=spare)
    np.minimum(total.view(np.uint64), spare.view(np.uint64), out=total.view(np.uint64))


def _feistel(index: U64, a: int, b: int, keys: U64) -> U64:
    left, right = index // np.uint64(b), index % np.uint64(b)
    for number in range(0, ROUNDS, 2):
        left = _add(left, right, a, keys, number)
        right = _add(right, left, b, keys, number + 1)
    return left * np.uint64(b) + right


def _add(half: U64, other: U64, size: int, keys: U64, number: int) -> U64:
    """(half + F(other)) mod size: undone by subtracting the same F, so the round is a bijection."""
    total = half + _round_function(other, size, keys, number)
    return total - np.uint64(size) * (total >= np.uint64(size))


def _round_function(other: U64, size: int, keys: U64, number: int) -> U64:
    salt = np.uint64((number + 1) * 0xD1342543DE82EF95 % 2**64)
    word = (keys + salt) ^ (other * _GOLDEN)
    word = (word ^ (word >> np.uint64(32))) * _MIX1
    word = (word ^ (word >> np.uint64(29))) * _MIX2
    return scaled(word, size)
