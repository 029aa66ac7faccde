"""Philox against the known answers of Random123, and the statistics of a dropout mask."""

import numpy as np
import pytest

from scaling_sim.engine.philox import dropout_mask, philox4x32

KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers(counter, key, answer):
    k0, k1 = words(key)
    result = philox4x32(np.array(words(counter), np.uint64), (k0, k1))
    assert result.tolist() == words(answer)


def test_vectorised_over_counters():
    counters = np.array([words(counter) for counter, _, _ in KNOWN_ANSWERS], np.uint64)
    together = philox4x32(counters, (7, 9))
    assert np.array_equal(together, [philox4x32(counter, (7, 9)) for counter in counters])


def test_mask_reads_words_in_the_order_of_the_contract():
    seed, step, site, row, column, rate = (3 << 32) + 5, 11, 2, 4, 6, 0.3
    word = philox4x32(np.array([step, site, row, column // 4], np.uint64), (5, 3))[column % 4]
    mask = dropout_mask(seed, step, site, rows=5, columns=7, rate=rate)
    assert mask.shape == (5, 7)
    assert mask[row, column] == (word >= round(rate * 2**32))


def test_rate_zero_keeps_everything():
    assert dropout_mask(0, 1, 0, 3, 5, 0.0).all()


def test_share_kept_and_independence_of_counters():
    rows, columns, rate = 500, 200, 0.1
    mask = dropout_mask(1, 1, 0, rows, columns, rate)
    standard_error = np.sqrt(rate * (1 - rate) / mask.size)
    assert abs(mask.mean() - (1 - rate)) < 5 * standard_error  # false alarm 6e-7
    for other in (dropout_mask(2, 1, 0, rows, columns, rate), dropout_mask(1, 2, 0, rows, columns, rate)):
        agreement = (mask == other).mean()
        expected = rate**2 + (1 - rate) ** 2
        assert abs(agreement - expected) < 5 * np.sqrt(expected * (1 - expected) / mask.size)
