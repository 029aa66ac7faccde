"""The synthetic language: its entropy is what it says, and ideal learners see clean power laws."""

import numpy as np
import pytest

from scaling_sim.data import SyntheticConfig, SyntheticLanguage, window_entropy
from scaling_sim.data.ideal import counting_excess, known_contexts_excess, own_loss, parse
from scaling_sim.errors import ConfigError

LANGUAGE = SyntheticLanguage()


def straightness(x, excess) -> tuple[float, float]:
    """Slope in log-log, and the largest relative departure from the fitted power law."""
    x, y = np.log(x), np.log(excess)
    fit = np.polyfit(x, y, 1)
    return float(fit[0]), float(np.abs(y - np.polyval(fit, x)).max())


# -- acceptance: the reason for this language --------------------------------------------------------------------


@pytest.mark.parametrize("lowest", [10, 30, 100])
def test_known_contexts_give_a_power_law_over_two_decades(lowest):
    known = np.geomspace(lowest, 100 * lowest, 41)
    slope, residual = straightness(known, known_contexts_excess(LANGUAGE, known))
    assert residual < 0.03
    assert slope == pytest.approx(-0.5, abs=0.015)


@pytest.fixture(scope="module")
def counted():
    """Excess of the counting learner at D from 3e4 to 1e7, on one text."""
    tokens = LANGUAGE.sample(10_000_000, seed=3)
    sizes = np.geomspace(1e5, 1e7, 9).astype(int)
    return sizes, [counting_excess(LANGUAGE, tokens[:size]) for size in sizes]


def test_counting_gives_a_power_law_over_two_decades(counted):
    sizes, excess = counted
    slope, residual = straightness(sizes, [e.total for e in excess])
    assert residual < 0.03
    assert slope == pytest.approx(-1 / 3, abs=0.02)  # alpha / (1 + alpha)
    slope, residual = straightness(sizes, [e.targets for e in excess])
    assert residual < 0.02
    assert slope == pytest.approx(-1 / 3, abs=0.01)


def test_grammar_is_soon_learned(counted):
    sizes, excess = counted
    slope, _ = straightness(sizes, [e.grammar for e in excess])
    assert slope == pytest.approx(-1, abs=0.15)
    assert excess[4].grammar < 0.02 * excess[4].targets  # D = 1e6


def test_acceptance_refuses_a_language_with_too_few_contexts():
    small = SyntheticLanguage(octaves=10)  # 4096 contexts: nothing is left to learn beyond
    known = np.geomspace(30, 3000, 41)
    assert straightness(known, known_contexts_excess(small, known))[1] > 0.1


# -- entropy -----------------------------------------------------------------------------------------------------


def segment_loss(language, segments):
    """-log probability of each whole segment under the generator, written out from its definition."""
    order = np.argsort(np.argsort(-language.target_probability))
    step, offset = language.target_order(segments.classes, segments.ranks)
    A = language.config.targets
    inverse = np.array([0] + [pow(m, -1, A) for m in range(1, A)])
    place = (inverse[step.astype(int)] * (segments.targets - offset.astype(int))) % A
    return -(
        np.log(language.class_probability[segments.classes])
        - language.class_bits[segments.classes] * np.log(2)
        + np.log(language.target_probability[order[place]])
    )


@pytest.mark.statistical
@pytest.mark.parametrize("parameters", [{}, {"alpha": 0.3, "targets": 17, "decay": 0.8}, {"octaves": 3, "seed": 5}])
def test_entropy_rate_is_the_empirical_cross_entropy_of_the_generator(parameters):
    """Ratio estimator over 1.5e6 tokens; five standard errors, about 1e-3 nats, false alarm 6e-7."""
    language = SyntheticLanguage(**parameters)
    segments = parse(language, language.sample(1_500_000, seed=11))
    loss, length = segment_loss(language, segments), 2 + language.num_arguments[segments.classes]
    rate = loss.sum() / length.sum()
    error = np.std(loss - rate * length) / np.sqrt(len(loss)) / length.mean()
    assert error < 2e-3
    assert abs(rate - language.entropy_rate) < 5 * error


def test_own_loss_of_tokens_adds_up_to_that_of_segments():
    tokens = LANGUAGE.sample(50_000, seed=4)
    loss, segments = own_loss(LANGUAGE, tokens), parse(LANGUAGE, tokens)
    known = np.flatnonzero(np.isfinite(loss))
    assert known[0] == 0
    assert len(known) == (2 + LANGUAGE.num_arguments[segments.classes]).sum()
    assert loss[known].sum() == pytest.approx(segment_loss(LANGUAGE, segments).sum(), rel=1e-12)
    window = own_loss(LANGUAGE, tokens[3:1003])  # from the middle of a segment on
    np.testing.assert_array_equal(window[20:990], loss[23:993])


@pytest.mark.statistical
def test_text_has_the_probabilities_that_the_entropy_assumes():
    """Classes, ranks inside a class, targets of the commonest context: chi-square, false alarm 1e-6 each."""
    from scipy import stats

    segments = parse(LANGUAGE, LANGUAGE.sample(1_000_000, seed=2))
    count = len(segments.classes)
    classes = np.bincount(segments.classes, minlength=LANGUAGE.num_classes)
    assert stats.chisquare(classes, LANGUAGE.class_probability * count).pvalue > 1e-6
    ranks = np.bincount(segments.ranks[segments.classes == 12], minlength=32)
    assert LANGUAGE.class_bits[12] == 5
    assert stats.chisquare(ranks).pvalue > 1e-6
    own = segments.targets[segments.classes == 0]
    step, offset = LANGUAGE.target_order(np.zeros(1, np.int64), np.zeros(1, np.int64))
    likely = (int(step[0]) * np.arange(31) + int(offset[0])) % 31
    seen = np.bincount(own, minlength=31)[likely]
    common = LANGUAGE.target_probability * len(own) > 10
    assert (
        stats.chisquare(seen[common], seen[common].sum() * _normalised(LANGUAGE.target_probability[common])).pvalue
        > 1e-6
    )


def _normalised(weight):
    return weight / weight.sum()


def test_knowing_everything_reaches_the_entropy():
    assert known_contexts_excess(LANGUAGE, LANGUAGE.num_contexts) == pytest.approx(0, abs=1e-12)
    assert known_contexts_excess(LANGUAGE, 0) == pytest.approx(LANGUAGE.information / LANGUAGE.mean_length)


def test_frequencies_of_contexts_are_zipfs():
    """The mass beyond rank K is ((K + 1)^-alpha - (M + 1)^-alpha) over its value at 0, at the end of every class."""
    ends = LANGUAGE.class_ends
    end = (LANGUAGE.num_contexts + 1.0) ** -0.5
    expected = ((ends + 1.0) ** -0.5 - end) / (1 - end)
    np.testing.assert_allclose(1 - np.cumsum(LANGUAGE.class_probability), expected, atol=1e-12)


def test_window_entropy_is_what_the_best_predictor_pays():
    """Against the exact posterior of the window's first segment, by enumeration of a small language.

    Nothing is sampled: every start hidden before a window and every rest visible in it is summed over.
    """
    language = SyntheticLanguage(octaves=7, targets=7, decay=0.4)
    known, extra_per_window = window_entropy(language, 32), _window_excess_by_enumeration(language)
    assert known - language.entropy_rate == pytest.approx(extra_per_window / 32, rel=1e-9)
    assert known > language.entropy_rate
    assert window_entropy(language, 64) - language.entropy_rate == pytest.approx((known - language.entropy_rate) / 2)


def _window_excess_by_enumeration(language) -> float:
    """Sum over hidden starts and visible rests of P · [log P(rest | whole past) - log P(rest | first token)]."""
    joint: dict[tuple[int, ...], float] = {}
    entropy_given_past = 0.0
    for index, probability in enumerate(language.class_probability):
        for rank in range(1 << language.class_bits[index]):
            mass = probability / (1 << language.class_bits[index]) / language.mean_length
            rows = [language.write(_segment(index, rank, target)) for target in range(language.config.targets)]
            step, offset = language.target_order(np.array([index]), np.array([rank]))
            likely = (int(step[0]) * np.arange(len(rows)) + int(offset[0])) % len(rows)
            for begin in range(1, len(rows[0]) - 1):
                for order, target in enumerate(likely):
                    end = tuple(int(token) for token in rows[target][begin:])
                    joint[end] = joint.get(end, 0.0) + mass * language.target_probability[order]
                rest_bits = sum(np.log(32) for _ in range(begin + 1, len(rows[0]) - 2))
                if begin < len(rows[0]) - 2:
                    rest_bits += language.last_bits[index] * np.log(2)
                entropy_given_past += mass * (rest_bits + language.target_entropy)
    first: dict[int, float] = {}
    for end, mass in joint.items():
        first[end[0]] = first.get(end[0], 0.0) + mass
    return -sum(mass * np.log(mass / first[end[0]]) for end, mass in joint.items()) - entropy_given_past


def _segment(index, rank, target):
    from scaling_sim.data.synthetic import Segments

    return Segments(np.array([index]), np.array([rank]), np.array([target]))


def test_windows_must_hold_a_segment():
    with pytest.raises(ConfigError, match=r"longest segment \(6 tokens\), got 5"):
        window_entropy(LANGUAGE, 5)


# -- text --------------------------------------------------------------------------------------------------------


def test_fits_the_byte_vocabulary_and_uses_every_token():
    tokens = LANGUAGE.sample(1_000_000, seed=0)
    assert LANGUAGE.vocab_size == 233
    assert tokens.dtype == np.uint8
    assert tokens.max() < LANGUAGE.vocab_size
    assert len(np.unique(tokens)) == LANGUAGE.vocab_size


def test_parsing_gives_back_what_was_written():
    segments = LANGUAGE.segments(20_000, np.random.default_rng(0))
    parsed = parse(LANGUAGE, LANGUAGE.write(segments))
    for name in ("classes", "ranks", "targets"):
        np.testing.assert_array_equal(getattr(parsed, name), getattr(segments, name))


def test_samples_are_prefixes_and_chunks_can_be_read_alone():
    text = LANGUAGE.sample(100_000, seed=9)
    np.testing.assert_array_equal(LANGUAGE.sample(40_000, seed=9), text[:40_000])
    before = len(LANGUAGE.chunk(9, 0)) + len(LANGUAGE.chunk(9, 1))
    third = LANGUAGE.chunk(9, 2)
    np.testing.assert_array_equal(text[before : before + len(third)], third)
    assert not np.array_equal(LANGUAGE.sample(1000, seed=10), text[:1000])
    assert len(LANGUAGE.sample(0, seed=1)) == 0


def test_another_seed_is_another_language_of_equal_entropy():
    other = SyntheticLanguage(SyntheticConfig(seed=1))
    assert other.entropy_rate == LANGUAGE.entropy_rate
    ranks = np.arange(1000)
    mine, theirs = (language.target_order(np.full(1000, 30), ranks) for language in (LANGUAGE, other))
    assert np.mean(mine[1] == theirs[1]) < 0.1


def test_contexts_are_unrelated_to_each_other():
    step, offset = LANGUAGE.target_order(np.full(20_000, 40), np.arange(20_000))
    assert set(np.unique(step)) == set(range(1, 31))
    counts = np.bincount(offset.astype(int), minlength=31)
    assert counts.min() > 20_000 / 31 * 0.8
    assert abs(np.corrcoef(step.astype(float), offset.astype(float))[0, 1]) < 5 / np.sqrt(20_000)


def test_pinned_text_is_the_same_everywhere():
    assert LANGUAGE.sample(20, seed=0).tolist() == PINNED


PINNED = [0, 231, 0, 211, 0, 231, 4, 45, 229, 3, 225, 0, 231, 16, 129, 47, 218, 24, 163, 116]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alpha": 0.0}, "alpha"),
        ({"octaves": 21}, r"octaves must lie in 0\.\.20"),
        ({"targets": 32}, "prime"),
        ({"decay": 1.0}, "decay"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ConfigError, match=message):
        SyntheticLanguage(**parameters)


def test_bad_samples():
    with pytest.raises(ConfigError, match="num_tokens"):
        LANGUAGE.sample(-1, seed=0)
    with pytest.raises(ConfigError, match="seed"):
        LANGUAGE.sample(10, seed=-1)


def test_the_smallest_language_has_single_contexts_only():
    language = SyntheticLanguage(octaves=0)
    assert language.num_contexts == 4
    assert language.mean_length == pytest.approx(2)
    assert len(parse(language, language.sample(1001, seed=0)).targets) == 500
    assert language.vocab_size == 4 + 31
