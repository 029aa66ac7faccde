"""The CPU backend: independence of threads, sizes beyond the conformance kit's, and what it says about itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaling_sim.engine.cohort import Cohort, Member
from scaling_sim.engine.protocol import Backend, Trainer
from scaling_sim.engine.reference import BACKEND as REFERENCE
from scaling_sim.errors import BackendUnavailable
from scaling_sim.model.shape import Shape
from scaling_sim_numba import BACKEND, NumbaBackend
from scaling_sim_numba.crew import Crew
from scaling_sim_numba.layout import arena_of, sizes_of

pytestmark = pytest.mark.numba

SMALL = Shape(n_layer=2, d_model=16, n_head=2, n_ctx=16, vocab_size=61)


def cohort(shape: Shape, batch: int, members: int = 1, dropout: float = 0.0, **settings: Any) -> Cohort:
    return Cohort(
        shape=shape,
        batch_sequences=batch,
        members=tuple(Member(id=10 + i, seed=i, dropout=dropout * i) for i in range(members)),
        **settings,
    )


def tokens_of(shape: Shape, number: int = 4000, dtype: str = "uint16") -> np.ndarray:
    rng = np.random.default_rng(7)
    return (rng.random(number) ** 2 * shape.vocab_size).astype(dtype)


def batches(which: Cohort, steps: int, number: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(8)
    size = (steps, len(which.members), which.batch_sequences)
    return rng.integers(0, number - which.shape.n_ctx, size), np.full(size[:2], 1e-2)


def everything(which: Cohort, threads: int) -> dict[str, Any]:
    """Training, evaluation, noise and state with so many threads."""
    trainer = NumbaBackend(num_threads=threads).start(which, {"train": tokens_of(which.shape)})
    starts, lr = batches(which, 3)
    out: dict[str, Any] = {"losses": trainer.advance(0, starts, lr)}
    out["mean"], out["error"] = trainer.evaluate("train", starts[:, 0])
    out["small"], out["large"] = trainer.gradient_noise(np.ascontiguousarray(starts.swapaxes(0, 1)))
    return out | trainer.state()


def assert_same_bits(got: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name, value in expected.items():
        assert got[name].tobytes() == value.tobytes(), f"{name} differs"


@pytest.mark.parametrize(("members", "batch"), [(1, 1), (1, 77), (3, 40), (5, 200)])
def test_bits_do_not_depend_on_threads(members: int, batch: int) -> None:
    """Members alone on a thread and in a team; more threads than cores, chunks or members; ragged last chunks."""
    which = cohort(SMALL, batch, members, dropout=0.1, weight_decay=0.1, clip_norm=0.5)
    expected = everything(which, threads=1)
    for threads in (2, 3, 8):
        assert_same_bits(everything(which, threads), expected)


def test_member_alone_has_the_bits_of_a_member_of_a_cohort() -> None:
    which = cohort(SMALL, 5, members=3)
    starts, lr = batches(which, 4)
    splits = {"train": tokens_of(SMALL)}
    together = BACKEND.start(which, splits).advance(0, starts, lr)
    for row, member in enumerate(which.members):
        alone = Cohort(shape=SMALL, batch_sequences=5, members=(member,))
        losses = BACKEND.start(alone, splits).advance(0, starts[:, row : row + 1], lr[:, :1])
        assert losses.tobytes() == together[:, row : row + 1].tobytes()


LONG = [
    (Shape(n_layer=1, d_model=8, n_head=2, n_ctx=160, vocab_size=19), 1),  # two query blocks, probabilities kept
    (Shape(n_layer=1, d_model=8, n_head=1, n_ctx=1024, vocab_size=19), 1),  # eight query blocks
    (Shape(n_layer=4, d_model=16, n_head=16, n_ctx=160, vocab_size=19), 0),  # too many to keep: computed again
]


@pytest.mark.parametrize(("shape", "keep"), LONG)
def test_long_contexts_match_the_reference(shape: Shape, keep: int) -> None:
    which = cohort(shape, batch=3, clip_norm=np.inf)
    assert sizes_of(shape, 3).keep == keep
    assert_same_gradients(which)


VOCABULARIES = [
    (128, 3001, 4, (87, 3001)),  # some rows at a time, with a rest
    (16, 50_257, 4, (64, 4096)),  # some columns at a time, with a rest
    (130, 8192, 2, (130, 1984)),
]


@pytest.mark.parametrize(("context", "vocab", "batch", "held"), VOCABULARIES)
def test_large_vocabularies_match_the_reference(context: int, vocab: int, batch: int, held: tuple[int, int]) -> None:
    """The logits of a batch would be 0.8 to 3.2 million numbers; at most 2¹⁸ are held."""
    shape = Shape(n_layer=1, d_model=4, n_head=1, n_ctx=context, vocab_size=vocab)
    sizes = sizes_of(shape, batch)
    assert (sizes.logit_rows, sizes.vocab_block) == held
    assert sizes.logit_rows * sizes.vocab_block <= 2**18
    assert_same_gradients(cohort(shape, batch=batch, clip_norm=np.inf))


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf])
def test_one_bad_weight_is_seen_in_a_large_vocabulary(bad: float) -> None:
    shape = Shape(n_layer=1, d_model=4, n_head=1, n_ctx=16, vocab_size=50_257)
    trainer = BACKEND.start(cohort(shape, batch=2), {"train": tokens_of(shape)})
    state = trainer.state()
    state["params.token_embedding"][0, -1, 0] = bad  # a token that the batch has not: only its logit can tell
    trainer.load_state(state)
    assert np.isnan(trainer.advance(0, *batches(cohort(shape, batch=2), 1))).all()


def assert_same_gradients(which: Cohort) -> None:
    """The gradient is the first moment of the first update over 1 − β1, without clipping."""
    splits = {"train": tokens_of(which.shape)}
    starts, lr = batches(which, 1)
    ours: Trainer = BACKEND.start(which, splits, precision="float64")
    theirs = REFERENCE.start(which, splits, precision="float64")
    np.testing.assert_allclose(ours.advance(0, starts, lr), theirs.advance(0, starts, lr), rtol=1e-12)
    got, expected = ours.state(), theirs.state()
    for name in which.shape.parameter_shapes():
        gradient = expected[f"adam_m.{name}"]
        np.testing.assert_allclose(got[f"adam_m.{name}"], gradient, rtol=0, atol=1e-11 * np.abs(gradient).max())


@pytest.mark.parametrize("name", ["qkv", "attn_out", "mlp_up", "mlp_down", "token_embedding", "ln_f_gain"])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf])
def test_one_bad_weight_is_seen(name: str, bad: float) -> None:
    """Neither the clamps of our exponential nor fast-math flags may hide a NaN."""
    which = cohort(SMALL, batch=4)
    trainer = BACKEND.start(which, {"train": tokens_of(SMALL)})
    state = trainer.state()
    state[f"params.{name}"].reshape(-1)[0] = bad
    trainer.load_state(state)
    losses = trainer.advance(0, *batches(which, 2))
    assert np.isnan(losses).all()
    after = trainer.state()
    assert after["diverged"].all()
    assert_same_bits({k: after[k] for k in after if k != "diverged"}, {k: state[k] for k in state if k != "diverged"})


def test_token_widths_and_memory_maps_give_the_same_bits(tmp_path: Path) -> None:
    which = cohort(SMALL, batch=3)
    losses = []
    for dtype in ("uint8", "uint16", "uint32"):
        path = tmp_path / f"{dtype}.bin"
        tokens_of(SMALL).astype(dtype).tofile(path)
        mapped = np.memmap(path, dtype=dtype, mode="r")
        losses.append(BACKEND.start(which, {"train": mapped}).advance(0, *batches(which, 2)))
    assert losses[0].tobytes() == losses[1].tobytes() == losses[2].tobytes()


def test_scratch_is_bounded() -> None:
    """At most 4 MB per thread at d = 64, T = 64, gradient buffers included, and independent of the batch."""
    shape = Shape(n_layer=2, d_model=64, n_head=4, n_ctx=64)
    crews = [Crew(cohort(shape, batch), np.float32, num_threads=1) for batch in (4, 4096)]
    sizes = [sum(value.nbytes for value in vars(crew._scratch[0]).values()) for crew in crews]
    assert sizes[0] == sizes[1] <= 4e6
    huge = Shape(n_layer=1, d_model=64, n_head=1, n_ctx=1024, vocab_size=50_304)
    assert arena_of(sizes_of(huge, 4)).total * 4 <= 40e6


def test_worker_environment_touches_nothing() -> None:
    before = dict(os.environ)
    variables = BACKEND.worker_environment(3)
    assert variables["OPENBLAS_NUM_THREADS"] == "1"
    assert variables["NUMBA_NUM_THREADS"] == "3"
    assert dict(os.environ) == before


def test_features_are_those_that_numba_compiles_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from scaling_sim_numba.cpu import has_avx512

    monkeypatch.setattr("numba.config.CPU_FEATURES", "+avx,+avx2,-avx512f")
    assert not has_avx512()
    monkeypatch.setattr("numba.config.CPU_FEATURES", "+avx2,+avx512f")
    assert has_avx512()


def test_prepare_compiles_for_its_precision() -> None:
    from scaling_sim_numba.kernels.steps import member_steps

    BACKEND.prepare("float64")
    prepared = len(member_steps.signatures)
    assert prepared >= 1
    BACKEND.start(cohort(SMALL, 2, members=2), {"train": tokens_of(SMALL)}, precision="float64").advance(
        0, *batches(cohort(SMALL, 2, members=2), 1)
    )
    assert len(member_steps.signatures) == prepared, "other sizes and members must not compile anything"


def test_it_describes_itself() -> None:
    about = NumbaBackend(num_threads=3).describe()
    assert about["backend"] == "numba"
    assert about["threads"] == "3"
    assert {"cpu", "numba", "vector_bits", "avx512"} <= set(about)


def test_it_is_a_backend_and_says_what_it_cannot_do() -> None:
    assert isinstance(BACKEND, Backend)
    which = cohort(SMALL, 2)
    assert "bfloat16" in str(BACKEND.why_unsupported(which, "cpu", "bfloat16"))
    with pytest.raises(BackendUnavailable, match="cuda:0"):
        BACKEND.start(which, {"train": tokens_of(SMALL)}, device="cuda:0")
