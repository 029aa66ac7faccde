"""Entropy of a synthetic language for a predictor that sees only a window of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scaling_sim.data.synthetic import ARGUMENT_BITS, SyntheticLanguage
from scaling_sim.errors import ConfigError

MAX_HIDDEN_BITS = 5
"""Classes with more contexts than 2^5 behind one visible end are taken as predicting all targets equally."""

MAX_ENDS = 256
"""Visible ends averaged over, evenly spread, where there are more."""


def window_entropy(language: SyntheticLanguage, n_ctx: int) -> float:
    """Mean loss, nats per token, of the best predictor on windows of ``n_ctx`` + 1 tokens cut at random.

    The floor of a trained model, above `SyntheticLanguage.entropy_rate`: a window that begins with an argument hides
    the class and the arguments before it, so the rest of that one segment costs more: which last argument follows, and
    the mutual information of the hidden part and the target. Good to 1e-5 nats for any language (`MAX_ENDS`,
    `MAX_HIDDEN_BITS`).

    Raises
    ------
    ConfigError
        The window is shorter than the longest segment.
    """
    places = int(language.num_arguments.max())
    if n_ctx < places + 2:
        raise ConfigError(f"n_ctx must be at least the longest segment ({places + 2} tokens), got {n_ctx}")
    extra = sum(_extra(language, place) for place in range(places))
    return language.entropy_rate + extra / (language.mean_length * n_ctx)


def _extra(language: SyntheticLanguage, place: int) -> float:
    """Nats lost per segment by windows whose first token is its argument with ``place`` arguments after it."""
    reached = language.num_arguments > place
    bits = np.unique(language.last_bits[reached])
    mass = np.array([_mass(language, reached & (language.last_bits == b)) for b in bits])
    hidden = sum(m * _target_extra(language, place, int(b)) for m, b in zip(mass, bits, strict=True))
    kind = 0.0 if place == 0 else float(-(mass @ np.log(mass / mass.sum())))
    return float(hidden) + kind


def _mass(language: SyntheticLanguage, chosen: NDArray[np.bool_]) -> float:
    return float(language.class_probability[chosen].sum())


def _target_extra(language: SyntheticLanguage, place: int, bits: int) -> float:
    """H(target | visible end) - H(target | context) for segments with this first visible place and last argument."""
    visible = bits + ARGUMENT_BITS * place
    num_ends = min(1 << visible, MAX_ENDS)
    ends = np.arange(num_ends, dtype=np.int64) * ((1 << visible) // num_ends)
    classes = np.flatnonzero((language.num_arguments > place) & (language.last_bits == bits))
    weight = language.class_probability[classes]
    mixture = np.zeros((num_ends, language.config.targets))
    for index, share in zip(classes, weight / weight.sum(), strict=True):
        mixture += share * _mean_prediction(language, int(index), ends, visible)
    return float(-(mixture * np.log(mixture)).sum(axis=1).mean()) - language.target_entropy


def _mean_prediction(
    language: SyntheticLanguage, index: int, ends: NDArray[np.int64], visible: int
) -> NDArray[np.float64]:
    """Target probabilities (n, A) given a class and the low ``visible`` bits of the rank, the others unknown."""
    A = language.config.targets
    hidden_bits = int(language.class_bits[index]) - visible
    if hidden_bits > MAX_HIDDEN_BITS:
        return np.full((len(ends), A), 1 / A)
    ranks = (np.arange(1 << hidden_bits)[:, None] << visible) | ends
    step, offset = language.target_order(np.full(ranks.shape, index), ranks)
    total = np.zeros((len(ends), A))
    rows = np.broadcast_to(np.arange(len(ends)), ranks.shape)
    for order, probability in enumerate(language.target_probability):
        target = (step * np.uint64(order) + offset) % np.uint64(A)
        np.add.at(total, (rows, target.astype(np.int64)), probability)
    return total / (1 << hidden_bits)
