import math

import pytest

from scaling_sim.errors import ConfigError
from scaling_sim.model import (
    CONVENTIONS,
    FLOP_CONVENTIONS,
    PARAMETER_CONVENTIONS,
    Shape,
    flops_per_token,
    initial_parameters,
    memory_estimate,
    num_parameters,
    table1,
    training_flops,
)


def shape(n_layer: int, d_model: int, **sizes: int) -> Shape:
    return Shape(n_layer=n_layer, d_model=d_model, n_head=1, **({"n_ctx": 1024, "vocab_size": 50257} | sizes))


@pytest.mark.parametrize(
    ("n_layer", "d_model", "expected"),
    [
        (1, 8, 768),
        (2, 128, 393_216),
        (4, 256, 3_145_728),
        (8, 512, 25_165_824),
        (12, 768, 84_934_656),
        (24, 1024, 301_989_888),
        (36, 1280, 707_788_800),
        (48, 1600, 1_474_560_000),
        (6, 4288, 1_323_859_968),
        (207, 768, 1_465_122_816),
    ],
)
def test_sizes_that_label_the_papers_figures(n_layer, d_model, expected):
    assert num_parameters(shape(n_layer, d_model)) == expected


def test_total_of_gpt2_large_is_the_774M_of_figure_20():
    assert num_parameters(shape(36, 1280), "matrices") == 773_428_480  # 773.4M without layer norms
    assert num_parameters(shape(36, 1280), "matrices") - num_parameters(shape(36, 1280)) == (50257 + 1024) * 1280


def test_general_feed_forward_width():
    # Table 1: N = 2 d n_layer (2 d_attn + d_ff)
    assert num_parameters(shape(3, 16, d_ff=40)) == 2 * 16 * 3 * (2 * 16 + 40)


def test_total_counts_every_stored_number():
    small = shape(3, 16, n_ctx=32, vocab_size=256)
    stored = sum(values.size for values in initial_parameters(small, seed=0).values())
    assert num_parameters(small, "total") == stored
    assert stored - num_parameters(small, "matrices") == (4 * 3 + 2) * 16


def test_a_model_without_layers_has_no_parameters_but_embeddings():
    empty = shape(0, 16, n_ctx=32, vocab_size=256)
    assert num_parameters(empty) == 0
    assert flops_per_token(empty, "exact") == 6 * 16 * 256


def test_forward_flops_of_table_1_are_equation_2_2():
    model = shape(24, 1024)
    forward = sum(row.forward_flops for row in table1(model) if not row.embedding)
    assert forward == 2 * num_parameters(model) + 2 * 24 * 1024 * 1024
    assert flops_per_token(model, "6N+attention") == 3 * forward


def test_attention_over_6N_is_the_papers_ratio():
    # section 2.1: context term over 2N is n_ctx / (12 d_model), 10.7 for d_model = 8 (facts on the paper's caveats)
    model = shape(1, 8)
    ratio = flops_per_token(model, "6N+attention") / flops_per_token(model) - 1
    assert ratio == pytest.approx(1024 / (12 * 8))
    assert ratio == pytest.approx(10.7, abs=0.05)


def test_exact_count_of_the_smallest_model_is_4_3_times_6N():
    tiny = shape(1, 8, n_ctx=64, vocab_size=256)
    assert flops_per_token(tiny, "exact") / flops_per_token(tiny, "6N") == pytest.approx(4.3, abs=0.05)
    # by hand: 6·(768 + 256·8) + 6·64·8
    assert flops_per_token(tiny, "exact") == 6 * (768 + 2048) + 6 * 64 * 8


def test_conventions_are_ordered():
    model = shape(4, 64)
    parameters = [num_parameters(model, name) for name in PARAMETER_CONVENTIONS]
    assert parameters == sorted(parameters)
    assert len(set(parameters)) == len(parameters)
    assert min(FLOP_CONVENTIONS, key=lambda name: flops_per_token(model, name)) == "6N"
    assert max(FLOP_CONVENTIONS, key=lambda name: flops_per_token(model, name)) == "full-attention"


def test_kaplans_training_compute():
    # 2.5e5 steps of 2**19 tokens for the 708M model, in PF-days: 6·N·tokens
    tokens = 2.5e5 * 2**19
    assert training_flops(shape(36, 1280), tokens) / 8.64e19 == pytest.approx(6 * 707_788_800 * tokens / 8.64e19)
    assert training_flops(shape(36, 1280), tokens) / 8.64e19 == pytest.approx(6.44, abs=0.01)


@pytest.mark.parametrize("count", [num_parameters, flops_per_token])
def test_unknown_convention_lists_the_known(count):
    with pytest.raises(ConfigError, match=r"'everything'.*known: "):
        count(shape(1, 8), "everything")


def test_every_convention_is_documented():
    for family in CONVENTIONS.values():
        for name, convention in family.items():
            assert convention.name == name
            assert convention.formula
            assert "20" in convention.source  # a year


def test_memory_parts():
    model = shape(2, 32, n_ctx=64, vocab_size=256)
    stored = num_parameters(model, "total")
    estimate = memory_estimate(model, batch_sequences=4, members=3)
    assert estimate.weights == estimate.gradients == 3 * stored * 4
    assert estimate.moments == 2 * 3 * stored * 4
    assert estimate.total == estimate.weights + estimate.gradients + estimate.moments + estimate.activations
    assert memory_estimate(model, 8, 3).activations == 2 * estimate.activations
    assert memory_estimate(model, 4, 3, item_bytes=2).weights == 3 * stored * (2 + 4)
    logits = 3 * 4 * 64 * 256 * 4
    assert estimate.activations > 2 * logits
    assert math.isclose(memory_estimate(model, 4, 6).total, 2 * estimate.total)
