"""A language whose entropy rate is known exactly and whose learning curves are power laws by construction.

The text is a chain of independent segments. Each names a context and then gives one target token drawn from the
distribution that belongs to that context alone::

    segment = class token, 0..4 argument tokens, target token

Contexts are ranked 1, 2, 3 … and context k has the Zipf-like probability of rank k: the mass beyond rank K falls as
K^-alpha. A class is a run of 2^i ranks of equal probability (two classes per octave, so that the staircase stays within
1 % of the power law), written as its token and the rank inside it: digits of five bits, the last one shorter. So a
common context is one token long and a rare one up to five: an order that varies with frequency, as in real language.
Classes, arguments of each place, last arguments of each size and targets have alphabets of their own, within which all
symbols are equally likely: the grammar is learned from a few thousand tokens and the rest is what contexts say.

Why it is a test of scaling laws. A learner that knows the K most frequent contexts and predicts a uniform target in the
others pays (tail mass beyond K) · (log A - H_target) / (mean length) above the entropy rate: ∝ K^-alpha. One that
counts D tokens has met ∝ D^(1/(1 + alpha)) contexts, and pays ∝ D^-(alpha/(1 + alpha)). Both are pure power laws over a
known floor, so a fitted exponent and entropy can be held against the truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.config import Config
from scaling_sim.data.permutation import U64, hash_words, mix64, scaled
from scaling_sim.errors import ConfigError

ARGUMENT_BITS = 5
ARGUMENT_SYMBOLS = 1 << ARGUMENT_BITS
SINGLE_CONTEXTS = 4
"""Ranks that have a class of their own; classes double in pairs after them."""

CHUNK_SEGMENTS = 2048
"""Segments in one chunk of text, the unit of random access (about 5,200 tokens)."""


class SyntheticConfig(Config, frozen=True):
    """Parameters of a synthetic language.

    Parameters
    ----------
    alpha : float
        Exponent of the excess loss in the number of known contexts, in (0, 2]; alpha/(1 + alpha) is that in tokens.
    octaves : int
        Contexts are ranked up to 4·2^octaves, 0..20. The power law bends near the end: at K contexts by about
        (K / 2^(octaves + 2))^alpha.
    targets : int
        A, size of the target alphabet: a prime, at least 3.
    decay : float
        Ratio of a target's probability to that of the likelier one before it, in (0, 1); sets how much a context tells.
    seed : int
        Key of every context's distribution: another seed is another language of equal entropy.
    """

    alpha: float = 0.5
    octaves: int = 20
    targets: int = 31
    decay: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 2:
            raise ConfigError(f"alpha must lie in (0, 2], got {self.alpha}")
        if not 0 <= self.octaves <= 4 * ARGUMENT_BITS:
            raise ConfigError(f"octaves must lie in 0..{4 * ARGUMENT_BITS}, got {self.octaves}")
        if self.targets < 3 or any(self.targets % divisor == 0 for divisor in range(2, math.isqrt(self.targets) + 1)):
            raise ConfigError(f"targets must be a prime of at least 3, got {self.targets}")
        if not 0 < self.decay < 1:
            raise ConfigError(f"decay must lie strictly between 0 and 1, got {self.decay}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed must lie in 0..2**63 - 1, got {self.seed}")


@dataclass(frozen=True)
class Segments:
    """Segments before they are written as tokens, each (n,)."""

    classes: NDArray[np.int64]
    ranks: NDArray[np.int64]
    """Rank inside the class, from 0."""
    targets: NDArray[np.int64]


class SyntheticLanguage:
    """The language of a `SyntheticConfig`.

    Token ids: classes from 0; then last arguments, by size (2, 4 … 32 symbols); then 32 symbols for each place before
    the last, the nearest to the end first; then targets.
    """

    def __init__(self, config: SyntheticConfig | None = None, **parameters: Any) -> None:
        self.config = SyntheticConfig(**parameters) if config is None else config

    # -- the process ---------------------------------------------------------------------------------------------

    @cached_property
    def class_bits(self) -> NDArray[np.int64]:
        """log2 of the contexts in each class, (J,)."""
        octaves = np.repeat(np.arange(1, self.config.octaves + 1), 2)
        return np.concatenate([np.zeros(SINGLE_CONTEXTS, np.int64), octaves])

    @cached_property
    def class_ends(self) -> NDArray[np.int64]:
        """Contexts in this class and those before it, (J,)."""
        return np.cumsum(1 << self.class_bits)

    @property
    def num_contexts(self) -> int:
        """Contexts in all."""
        return int(self.class_ends[-1])

    @cached_property
    def class_probability(self) -> NDArray[np.float64]:
        """Probability that a segment is of each class, (J,): the power law's mass between its first and last rank."""
        tail = (1.0 + np.concatenate([[0], self.class_ends])) ** -self.config.alpha
        mass = tail[:-1] - tail[1:]
        return np.asarray(mass / mass.sum())

    @cached_property
    def num_arguments(self) -> NDArray[np.int64]:
        """Argument tokens of each class, (J,)."""
        return -(-self.class_bits // ARGUMENT_BITS)

    @cached_property
    def last_bits(self) -> NDArray[np.int64]:
        """log2 of the symbols that the last argument of each class may take, (J,); 0 where there is none."""
        return np.asarray(self.class_bits - ARGUMENT_BITS * np.maximum(self.num_arguments - 1, 0))

    @cached_property
    def target_probability(self) -> NDArray[np.float64]:
        """Probability of a context's likeliest target, of the next … (A,)."""
        weight = self.config.decay ** np.arange(self.config.targets, dtype=np.float64)
        return np.asarray(weight / weight.sum())

    @property
    def num_classes(self) -> int:
        """J, class tokens."""
        return int(self.class_bits.size)

    def first_last_argument(self, bits: NDArray[np.int64]) -> NDArray[np.int64]:
        """Id of the first symbol among last arguments of ``bits`` bits each."""
        return self.num_classes + (1 << bits) - 2

    def first_argument(self, place: int) -> int:
        """Id of the first argument symbol of ``place`` ≥ 1, the number of arguments that follow it."""
        last_symbols = (2 << min(self.config.octaves, ARGUMENT_BITS)) - 2
        return self.num_classes + last_symbols + ARGUMENT_SYMBOLS * (place - 1)

    @property
    def first_target(self) -> int:
        """Id of the first target token."""
        return self.first_argument(max(1, int(self.num_arguments.max())))

    @property
    def vocab_size(self) -> int:
        """Tokens in the alphabet, at most 256 for the default target alphabet."""
        return self.first_target + self.config.targets

    # -- what is known exactly -----------------------------------------------------------------------------------

    @cached_property
    def mean_length(self) -> float:
        """Expected tokens of a segment."""
        return float(self.class_probability @ (2.0 + self.num_arguments))

    @cached_property
    def target_entropy(self) -> float:
        """Entropy of the target given its context, nats; equal for all contexts."""
        return _entropy(self.target_probability)

    @cached_property
    def entropy_rate(self) -> float:
        """H, nats per token: entropy of a segment over its mean length.

        Segments are independent and can be told apart, so by the renewal theorem the rate is
        [H(class) + Σ_c P_c·log(contexts of c) + H_target] / E[length].
        """
        rank = float(self.class_probability @ self.class_bits) * math.log(2)
        return (_entropy(self.class_probability) + rank + self.target_entropy) / self.mean_length

    @property
    def information(self) -> float:
        """Nats that knowing a context saves on its target: log A - H_target."""
        return math.log(self.config.targets) - self.target_entropy

    # -- text ----------------------------------------------------------------------------------------------------

    def target_order(self, classes: NDArray[np.int64], ranks: NDArray[np.int64]) -> tuple[U64, U64]:
        """Step m in 1..A-1 and offset s of each context: its r-th likeliest target is (m·r + s) mod A."""
        context = (classes.astype(np.uint64) << np.uint64(32)) | ranks.astype(np.uint64)
        word = mix64(context ^ hash_words(self.config.seed)[0])
        step = np.uint64(1) + scaled(word, self.config.targets - 1)
        return step, scaled(word << np.uint64(32), self.config.targets)

    def segments(self, count: int, rng: np.random.Generator) -> Segments:
        """``count`` independent segments."""
        classes = _choose(self.class_probability, rng.random(count))
        bits = rng.integers(0, 1 << 32, count, dtype=np.int64)
        ranks = bits & ((1 << self.class_bits[classes]) - 1)
        order = _choose(self.target_probability, rng.random(count)).astype(np.uint64)
        step, offset = self.target_order(classes, ranks)
        targets = (step * order + offset) % np.uint64(self.config.targets)
        return Segments(classes, ranks, targets.astype(np.int64))

    def write(self, segments: Segments) -> NDArray[np.unsignedinteger[Any]]:
        """Token ids of segments, one after another."""
        places = int(self.num_arguments.max())
        dtype = np.uint8 if self.vocab_size <= 256 else np.uint16
        table = np.empty((len(segments.classes), places + 2), dtype)
        table[:, 0] = segments.classes
        present = np.ones(table.shape, bool)
        length, last_bits = self.num_arguments[segments.classes], self.last_bits[segments.classes]
        for place in range(places):  # place 0 is the argument just before the target
            table[:, places - place] = self._argument(segments.ranks, last_bits, place)
            present[:, places - place] = length > place
        table[:, -1] = self.first_target + segments.targets
        return table[present]

    def _argument(self, ranks: NDArray[np.int64], last_bits: NDArray[np.int64], place: int) -> NDArray[np.int64]:
        if place == 0:
            return self.first_last_argument(last_bits) + (ranks & ((1 << last_bits) - 1))
        digit = ranks >> (last_bits + ARGUMENT_BITS * (place - 1))
        return self.first_argument(place) + (digit & (ARGUMENT_SYMBOLS - 1))

    def chunk(self, seed: int, index: int) -> NDArray[np.unsignedinteger[Any]]:
        """The ``index``-th chunk of the text of ``seed``: `CHUNK_SEGMENTS` whole segments, without those before it."""
        return self.write(self.segments(CHUNK_SEGMENTS, _generator(seed, index)))

    def sample(self, num_tokens: int, seed: int) -> NDArray[np.unsignedinteger[Any]]:
        """The first ``num_tokens`` tokens of the text of ``seed``; longer samples begin with the shorter ones."""
        if num_tokens < 0:
            raise ConfigError(f"num_tokens must not be negative, got {num_tokens}")
        parts: list[NDArray[np.unsignedinteger[Any]]] = [np.empty(0, np.uint8)]
        missing, index = num_tokens, 0
        while missing > 0:
            parts.append(self.chunk(seed, index)[:missing])
            missing -= len(parts[-1])
            index += 1
        return np.concatenate(parts)


def _entropy(probability: NDArray[np.float64]) -> float:
    return float(-(probability @ np.log(probability)))


def _choose(probability: NDArray[np.float64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index drawn from ``probability`` for each uniform number, by inversion."""
    bounds = np.cumsum(probability)[:-1]
    return np.searchsorted(bounds, uniform, side="right").astype(np.int64)


def _generator(seed: int, index: int) -> np.random.Generator:
    if not 0 <= seed < 2**64 or index < 0:
        raise ConfigError(f"seed must lie in 0..2**64 - 1 and the chunk must not be negative, got {seed} and {index}")
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))
