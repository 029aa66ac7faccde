"""Ideal learners of a synthetic language: what power law a perfect experiment would measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_sim.data.synthetic import ARGUMENT_BITS, ARGUMENT_SYMBOLS, Segments, SyntheticLanguage

BACKOFF_STRENGTH = 1.0
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
    """Which class and which arguments follow: a few thousand frequencies, so this part falls almost as 1/D."""

    @property
    def total(self) -> float:
        """Both."""
        return self.targets + self.grammar


def counting_excess(language: SyntheticLanguage, tokens: NDArray[Any]) -> CountingExcess:
    """L - H of the counting learner that has read ``tokens``, exactly, for the text that it has seen.

    Every prediction is the Dirichlet posterior mean (n_y + β·q_y) / (n + β) that backs off from the full context to a
    shorter one: from a context's targets to all targets, from the argument of a class and place to any argument of
    that place; the shortest are Krichevsky-Trofimov estimates. The loss is then summed over the language, not over a
    test text, so it has no sampling error of its own.
    """
    segments = parse(language, tokens)
    return CountingExcess(
        targets=_target_excess(language, segments) / language.mean_length,
        grammar=(_class_excess(language, segments) + _argument_excess(language, segments)) / language.mean_length,
    )


def parse(language: SyntheticLanguage, tokens: NDArray[Any]) -> Segments:
    """Whole segments of a text; pieces of segments at its ends are passed over."""
    starts = np.flatnonzero(tokens < language.num_classes)
    length = language.num_arguments[tokens[starts]]
    whole = starts + length + 1 < len(tokens)
    starts, length = starts[whole], length[whole]
    ranks = np.zeros(len(starts), np.int64)
    for place in range(int(language.num_arguments.max())):
        has = length > place
        symbol = tokens[(starts + length - place)[has]].astype(np.int64) - language.num_classes
        ranks[has] |= (symbol - ARGUMENT_SYMBOLS * place) << (ARGUMENT_BITS * place)
    targets = tokens[starts + length + 1].astype(np.int64) - language.first_target
    return Segments(tokens[starts].astype(np.int64), ranks, targets)


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
    J = language.num_classes
    counts = np.bincount(segments.classes, minlength=J)
    predicted = _posterior_mean(counts, np.full(J, 1 / J), J / 2)
    return float(language.class_probability @ np.log(language.class_probability / predicted))


def _argument_excess(language: SyntheticLanguage, segments: Segments) -> float:
    """Expected extra nats per segment on its arguments, which are uniform over the symbols of their range."""
    J, R = language.num_classes, ARGUMENT_SYMBOLS
    excess = 0.0
    for place in range(int(language.num_arguments.max())):
        has = language.num_arguments[segments.classes] > place
        digit = (segments.ranks[has] >> (ARGUMENT_BITS * place)) & (R - 1)
        counts = np.bincount(segments.classes[has] * R + digit, minlength=J * R).reshape(J, R)
        shorter = _posterior_mean(counts.sum(0), np.full(R, 1 / R), R / 2)
        predicted = _posterior_mean(counts, shorter, BACKOFF_STRENGTH)
        size = 1 << np.clip(language.class_bits - ARGUMENT_BITS * place, 0, ARGUMENT_BITS)
        truth = (np.arange(R) < size[:, None]) / size[:, None]
        weight = language.class_probability * (language.num_arguments > place)
        excess += float(weight @ (-(truth * np.log(predicted)).sum(1) - np.log(size)))
    return excess


def _posterior_mean(counts: NDArray[Any], shorter: NDArray[np.float64], strength: float) -> NDArray[np.float64]:
    """(n_y + β·q_y) / (n + β) along the last axis."""
    return np.asarray((counts + strength * shorter) / (counts.sum(-1, keepdims=True) + strength))
