"""Ideal learners of a synthetic language: what power law a perfect experiment would measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_sim.data.synthetic import ARGUMENT_BITS, ARGUMENT_SYMBOLS, Segments, SyntheticLanguage

BACKOFF_STRENGTH = 2.0
"""Weight of the shorter context's prediction, in observations."""


def known_contexts_excess(language: SyntheticLanguage, num_known: ArrayLike) -> NDArray[np.float64]:
    """L - H, nats per token, of a learner that knows the ``num_known`` most frequent contexts, exactly.

    In the others it predicts every target with equal probability, so it loses `SyntheticLanguage.information` there.
    """
    ends = np.concatenate([[0], language.class_ends])
    mass = np.concatenate([[0.0], np.cumsum(language.class_probability)])
    tail = 1.0 - np.interp(np.asarray(num_known, np.float64), ends, mass)
    return np.asarray(tail * language.information / language.mean_length)


@dataclass(frozen=True)
class CountingExcess:
    """L - H of a learner that has counted some text, nats per token, by what it has still to learn."""

    targets: float
    """Which target follows which context: the power law."""
    grammar: float
    """Which class and which arguments follow: a few hundred frequencies, so this part falls as 1/D."""

    @property
    def total(self) -> float:
        """Both."""
        return self.targets + self.grammar


def counting_excess(language: SyntheticLanguage, tokens: NDArray[Any]) -> CountingExcess:
    """L - H of the counting learner that has read ``tokens``, exactly, for the text that it has seen.

    A target is predicted by the Dirichlet posterior mean (n_y + β·q_y) / (n + β) of its full context, backing off to
    q, that of all targets. Classes, the kind of token that follows in a class, and the symbols of each kind are
    Krichevsky-Trofimov estimates, (n_y + 1/2) / (n + A/2). So the learner knows which context matters for what, and
    counts all the rest. The loss is then summed over the language, not over a test text, so it has no sampling error
    of its own.
    """
    segments = parse(language, tokens)
    return CountingExcess(
        targets=_target_excess(language, segments) / language.mean_length,
        grammar=(_class_excess(language, segments) + _symbol_excess(language, segments)) / language.mean_length,
    )


def own_loss(language: SyntheticLanguage, tokens: NDArray[Any]) -> NDArray[np.float64]:
    """-log probability of each token given the whole text before it, (n,) nats, by the generator itself.

    Its mean is the entropy rate but for the noise of the text. A model's loss on some windows, less the mean of this
    over the same targets, measures L - H with far less noise than less `SyntheticLanguage.entropy_rate`. Pieces of
    segments at the ends of the text are NaN.
    """
    starts, segments = _whole_segments(language, tokens)
    loss = np.full(len(tokens), np.nan)
    loss[starts] = -np.log(language.class_probability[segments.classes])
    length = language.num_arguments[segments.classes]
    for place in range(int(language.num_arguments.max())):
        has = length > place
        bits = language.last_bits[segments.classes[has]] if place == 0 else ARGUMENT_BITS
        loss[(starts + length - place)[has]] = bits * np.log(2)
    loss[starts + length + 1] = -np.log(language.target_probability[_target_order(language, segments)])
    return loss


def _target_order(language: SyntheticLanguage, segments: Segments) -> NDArray[np.int64]:
    """How likely each segment's target was in its context: 0 for the likeliest."""
    A = language.config.targets
    step, offset = language.target_order(segments.classes, segments.ranks)
    inverse = np.array([0, *(pow(m, -1, A) for m in range(1, A))])
    return np.asarray(inverse[step.astype(np.int64)] * (segments.targets - offset.astype(np.int64)) % A)


def parse(language: SyntheticLanguage, tokens: NDArray[Any]) -> Segments:
    """Whole segments of a text; pieces of segments at its ends are passed over."""
    return _whole_segments(language, tokens)[1]


def _whole_segments(language: SyntheticLanguage, tokens: NDArray[Any]) -> tuple[NDArray[np.int64], Segments]:
    starts = np.flatnonzero(tokens < language.num_classes)
    length = language.num_arguments[tokens[starts]]
    whole = starts + length + 1 < len(tokens)
    starts, length = starts[whole], length[whole]
    ranks = np.zeros(len(starts), np.int64)
    last_bits = language.last_bits[tokens[starts]]
    for place in range(int(language.num_arguments.max())):
        has = np.flatnonzero(length > place)
        symbol = tokens[(starts + length - place)[has]].astype(np.int64)
        if place == 0:
            ranks[has] = symbol - language.first_last_argument(last_bits[has])
        else:
            digit = symbol - language.first_argument(place)
            ranks[has] |= digit << (last_bits[has] + ARGUMENT_BITS * (place - 1))
    targets = tokens[starts + length + 1].astype(np.int64) - language.first_target
    return starts, Segments(tokens[starts].astype(np.int64), ranks, targets)


def _target_excess(language: SyntheticLanguage, segments: Segments) -> float:
    """Expected extra nats per segment on its target token."""
    A = language.config.targets
    contexts, inverse = np.unique(segments.classes << 32 | segments.ranks, return_inverse=True)
    counts = np.bincount(inverse * A + segments.targets, minlength=len(contexts) * A).reshape(-1, A)
    shorter = _posterior_mean(counts.sum(0), np.full(A, 1 / A), A / 2)
    predicted = _posterior_mean(counts, shorter, BACKOFF_STRENGTH)
    classes, ranks = contexts >> 32, contexts & 0xFFFFFFFF
    order = (np.arange(A)[None, :]).astype(np.uint64)
    step, offset = language.target_order(classes, ranks)
    truth = ((step[:, None] * order + offset[:, None]) % np.uint64(A)).astype(np.int64)
    loss = -(np.log(np.take_along_axis(predicted, truth, axis=1)) @ language.target_probability)
    weight = language.class_probability[classes] / (1 << language.class_bits[classes])
    unseen_loss = -np.log(shorter).mean()  # the mean over contexts whose likeliest target may be any
    return float(weight @ loss + (1 - weight.sum()) * unseen_loss - language.target_entropy)


def _class_excess(language: SyntheticLanguage, segments: Segments) -> float:
    """Expected extra nats per segment on its class and on the kinds of token that follow in it.

    The kind is certain once known: after n segments of a class, a KT estimate over ``kinds`` gives it
    (n + 1/2) / (n + kinds/2).
    """
    J = language.num_classes
    counts = np.bincount(segments.classes, minlength=J)
    predicted = _posterior_mean(counts, np.full(J, 1 / J), J / 2)
    loss = np.log(language.class_probability / predicted)
    last_kinds = min(language.config.octaves, ARGUMENT_BITS)
    kinds = 1 + last_kinds + max(0, int(language.num_arguments.max()) - 1)
    loss += np.log((counts + kinds / 2) / (counts + 0.5))
    loss += np.where(language.num_arguments > 1, np.log((counts + last_kinds / 2) / (counts + 0.5)), 0.0)
    return float(language.class_probability @ loss)


def _symbol_excess(language: SyntheticLanguage, segments: Segments) -> float:
    """Expected extra nats per segment on which symbol of its kind each argument is; all are equally likely."""
    excess = 0.0
    last_bits = language.last_bits[segments.classes]
    for bits in range(1, min(language.config.octaves, ARGUMENT_BITS) + 1):
        seen = segments.ranks[last_bits == bits] & ((1 << bits) - 1)
        rate = language.class_probability[language.last_bits == bits].sum()
        excess += float(rate) * _uniform_excess(seen, 1 << bits)
    for place in range(1, int(language.num_arguments.max())):
        has = language.num_arguments[segments.classes] > place
        digit = segments.ranks[has] >> (last_bits[has] + ARGUMENT_BITS * (place - 1))
        rate = language.class_probability[language.num_arguments > place].sum()
        excess += float(rate) * _uniform_excess(digit & (ARGUMENT_SYMBOLS - 1), ARGUMENT_SYMBOLS)
    return excess


def _uniform_excess(seen: NDArray[np.int64], size: int) -> float:
    """KL divergence from the uniform distribution of ``size`` symbols to the KT estimate from ``seen``."""
    predicted = _posterior_mean(np.bincount(seen, minlength=size), np.full(size, 1 / size), size / 2)
    return float(-np.log(size * predicted).mean())


def _posterior_mean(counts: NDArray[Any], shorter: NDArray[np.float64], strength: float) -> NDArray[np.float64]:
    """(n_y + β·q_y) / (n + β) along the last axis."""
    return np.asarray((counts + strength * shorter) / (counts.sum(-1, keepdims=True) + strength))
