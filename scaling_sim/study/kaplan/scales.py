"""The experiment at full scale, for one H200, and a miniature that takes seconds on a CPU."""

from __future__ import annotations

from scaling_sim.data.settings import CorpusConfig
from scaling_sim.data.synthetic import SyntheticConfig
from scaling_sim.model.shape import Shape
from scaling_sim.study.kaplan.config import (
    BatchRuns,
    ContextRuns,
    DataRuns,
    ExperimentConfig,
    FamilyRuns,
    OtherCorpus,
    RateTrials,
    ScheduleRuns,
    ShapeGroup,
    ShapeRuns,
)

CONTEXT = 128
VOCABULARY = 256


def size(n_layer: int, d_model: int, n_head: int, d_ff: int = 0, *, vocab_size: int = VOCABULARY) -> Shape:
    """A byte-level shape of context 128."""
    return Shape(n_layer, d_model, n_head, CONTEXT, vocab_size, d_ff)


FAMILY = (
    size(1, 8, 1), size(1, 16, 1), size(2, 16, 1), size(2, 24, 2), size(2, 32, 2), size(2, 48, 3), size(2, 64, 4),
    size(4, 64, 4), size(4, 96, 3), size(4, 128, 4), size(4, 192, 6), size(6, 256, 8), size(6, 384, 12),
    size(8, 512, 16),
)  # fmt: skip
"""N = 768, 3072, 6144, 13824, 24576, 55296, 98304, 196608, 442368, 786432, 1.77e6, 4.72e6, 1.06e7, 2.52e7."""

LIMITED = (FAMILY[1], FAMILY[2], FAMILY[3], FAMILY[4], FAMILY[6], FAMILY[7], size(8, 64, 4), size(16, 64, 4))
"""N = 3072 to 786432, all narrow enough for the kernels that have dropout."""

EQUAL_SMALL = (
    size(1, 88, 4), size(2, 64, 4), size(3, 52, 4), size(5, 40, 4), size(8, 32, 2), size(14, 24, 2), size(32, 16, 1),
    size(4, 64, 4, 64), size(4, 56, 4, 112), size(4, 44, 4), size(4, 36, 3, 288), size(4, 26, 2, 416),
    size(2, 64, 1), size(2, 64, 2), size(2, 64, 8), size(2, 64, 16),
)  # fmt: skip
"""N = 9.3e4 to 1.04e5: width/depth from 88 to 0.5; d_ff/d_model 1 to 16 with four layers; 1 to 16 heads."""

EQUAL_LARGE = (
    size(1, 256, 8), size(2, 176, 11), size(4, 128, 4), size(8, 88, 4), size(16, 64, 4), size(32, 44, 4),
    size(4, 100, 4, 800), size(4, 72, 4, 1152), size(4, 128, 1), size(4, 128, 16),
)  # fmt: skip
"""N = 7.4e5 to 8.0e5: width/depth from 256 to 1.4; d_ff/d_model 4, 8, 16; 1, 4, 16 heads."""

DEPTHS = tuple(size(n_layer, d, d // 16) for n_layer in (0, 1, 2, 3, 6) for d in (16, 32, 64))
"""Series of 0, 1, 2, 3 and 6 layers, with and without embeddings."""

TOKENS = 100_000_000
SOME_FRACTIONS = (0.05, 0.2, 0.8)

H200 = ExperimentConfig(
    name="kaplan-h200",
    shapes=FAMILY,
    batch_tokens=8192,
    warmup_steps=100,
    max_tokens=TOKENS,
    trials=RateTrials((FAMILY[1], FAMILY[4], FAMILY[7], FAMILY[9], FAMILY[11]), (0.25, 0.5, 1.0, 2.0, 4.0), 2000),
    family=FamilyRuns(seed_shapes=FAMILY[:8], num_seeds=3, branch_shapes=FAMILY[:12]),
    data=DataRuns(
        shapes=LIMITED,
        plain_shapes=(LIMITED[3], LIMITED[5], LIMITED[7]),
        unique_tokens=(200_000, 450_000, 1_000_000, 2_200_000, 4_800_000, 10_500_000, 23_000_000, 50_000_000),
        max_tokens=200_000_000,
        max_compute=3e14,
    ),
    batch=BatchRuns(
        shapes=(FAMILY[4], FAMILY[9]),
        batches=((1024, 24_000), (4096, 12_000), (16_384, 6000), (65_536, 1500), (262_144, 400)),
    ),
    shape=ShapeRuns((ShapeGroup(EQUAL_SMALL, 2), ShapeGroup(EQUAL_LARGE), ShapeGroup(DEPTHS)), steps=4000),
    context=ContextRuns((FAMILY[2], FAMILY[4], FAMILY[6], FAMILY[7], FAMILY[9]), n_ctx=8),
    schedule=ScheduleRuns(
        shape=FAMILY[6],
        steps=4000,
        num_seeds=4,
        protocol_shapes=(FAMILY[1], FAMILY[2], FAMILY[4], FAMILY[6], FAMILY[7], FAMILY[9]),
        num_lengths=6,
    ),
    bpe=OtherCorpus((FAMILY[4], FAMILY[6], FAMILY[9]), SOME_FRACTIONS),
    synthetic=OtherCorpus(
        (FAMILY[0], FAMILY[1], FAMILY[2], FAMILY[4], FAMILY[6], FAMILY[7], FAMILY[9]),
        SOME_FRACTIONS,
        unique_tokens=(200_000, 800_000, 3_200_000, 12_800_000),
        limited_shapes=(FAMILY[2], FAMILY[4], FAMILY[6], FAMILY[7]),
        max_tokens=80_000_000,
    ),
    language=CorpusConfig(
        source="synthetic", synthetic_tokens=34_000_000, validation_fraction=0.02, test_fraction=0.02
    ),
)
"""N from 768 to 2.5e7, D from 2e5 to 1e8, about twenty minutes of one H200."""


def _tiny(n_layer: int, d_model: int, n_head: int = 1, d_ff: int = 0) -> Shape:
    return Shape(n_layer, d_model, n_head, 16, VOCABULARY, d_ff)


_SMALL = (_tiny(1, 4), _tiny(1, 8), _tiny(2, 8))

TINY = ExperimentConfig(
    name="kaplan-tiny",
    shapes=_SMALL,
    batch_tokens=64,
    warmup_steps=4,
    max_tokens=16_000,
    trials=RateTrials((_SMALL[0], _SMALL[2]), (0.5, 1.0, 2.0), 40),
    family=FamilyRuns(seed_shapes=_SMALL[:1], num_seeds=2, branch_shapes=_SMALL[:2], branch_fractions=(0.4, 0.8)),
    data=DataRuns(_SMALL[1:], _SMALL[2:], (500, 2000), max_tokens=12_000, eval_points=12, patience=2),
    batch=BatchRuns(_SMALL[1:2], ((32, 80), (256, 20)), warmup_steps=2),
    shape=ShapeRuns((ShapeGroup((_tiny(1, 8), _tiny(2, 8, 2))), ShapeGroup((_tiny(0, 8), _tiny(1, 4)))), steps=40),
    context=ContextRuns(_SMALL[1:2], n_ctx=8),
    schedule=ScheduleRuns(_SMALL[1], 40, 2, _SMALL[1:], num_lengths=2),
    bpe=OtherCorpus(_SMALL[:1], (0.8,)),
    synthetic=OtherCorpus(_SMALL[:2], (0.8,), (500,), _SMALL[1:2], max_tokens=6000),
    language=CorpusConfig(
        source="synthetic",
        synthetic=SyntheticConfig(octaves=4),
        synthetic_tokens=120_000,
        validation_fraction=0.2,
        test_fraction=0.2,
    ),
    bpe_vocabulary=300,
    held_out_fraction=0.15,
    eval_points=8,
    eval_sequences=16,
)
"""Every system in seconds on a CPU: what tests run."""
