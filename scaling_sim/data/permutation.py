"""A keyed permutation of 0..n-1 that can be read at any place without storing it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDS = 8
"""Feistel rounds; 4 already give a pseudorandom permutation for an ideal round function (Luby & Rackoff 1988)."""

U64 = NDArray[np.uint64]

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
    a = math.isqrt(size - 1) + 1
    b = -(-size // a)
    out = _feistel(index, a, b, keys)
    outside = np.flatnonzero(out >= size)
    while outside.size:
        out[outside] = _feistel(out[outside], a, b, keys[outside])
        outside = outside[out[outside] >= size]
    return out


def _feistel(index: U64, a: int, b: int, keys: U64) -> U64:
    left, right = index // np.uint64(b), index % np.uint64(b)
    for number in range(0, ROUNDS, 2):
        left = _add(left, right, a, keys, number)
        right = _add(right, left, b, keys, number + 1)
    return left * np.uint64(b) + right


def _add(half: U64, other: U64, size: int, keys: U64, number: int) -> U64:
    """(half + F(other)) mod size: undone by subtracting the same F, so the round is a bijection."""
    salt = np.uint64((number + 1) * 0xD1342543DE82EF95 % 2**64)
    word = (keys + salt) ^ (other * _GOLDEN)
    word = (word ^ (word >> np.uint64(32))) * _MIX1
    word = (word ^ (word >> np.uint64(29))) * _MIX2
    total = half + scaled(word, size)
    return total - np.uint64(size) * (total >= np.uint64(size))
