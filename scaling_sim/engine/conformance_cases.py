"""The cohorts, tokens and batches of the conformance kit, and the reference's answers to them (computed once)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.engine.cohort import Cohort, Member
from scaling_sim.engine.moments import moment_shapes
from scaling_sim.engine.protocol import State, Tokens, Trainer
from scaling_sim.engine.reference import BACKEND as REFERENCE
from scaling_sim.model.shape import Shape

NUM_TOKENS = 700
PEAK_LR = 0.01


@dataclass(frozen=True)
class Case:
    """One cohort to train, with everything that the core hands to a trainer.

    Attributes
    ----------
    name : str
        Shown when a check fails.
    cohort : Cohort
        Shape, members and optimiser settings.
    token_type : str
        dtype of the splits.
    """

    name: str
    cohort: Cohort
    token_type: str = "uint8"

    def splits(self) -> dict[str, Tokens]:
        """Two splits with something to learn: each token is the previous one plus 0, 1 or 2; read-only as a memmap."""
        return {name: self._tokens(seed) for name, seed in (("train", 1), ("test", 2))}

    def _tokens(self, seed: int) -> Tokens:
        steps = np.random.default_rng(seed).integers(0, 3, NUM_TOKENS)
        tokens = (np.cumsum(steps) % self.cohort.shape.vocab_size).astype(self.token_type)
        tokens.flags.writeable = False
        return tokens

    def starts(self, *leading: int, seed: int = 3) -> NDArray[np.int64]:
        """Window starts of shape (*leading, B)."""
        last = NUM_TOKENS - self.cohort.shape.n_ctx - 1
        shape = (*leading, self.cohort.batch_sequences)
        starts = np.random.default_rng(seed).integers(0, last, shape, endpoint=True)
        starts.flat[0] = last  # the last admissible window must work
        return starts

    def batches(self, num_steps: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """``starts`` (K, M, B) and ``lr`` (K, M) of a run: warm-up over ten steps, another peak for every member."""
        num_members = len(self.cohort.members)
        warmup = np.minimum(1.0, np.arange(1, num_steps + 1) / 10)
        return self.starts(num_steps, num_members), PEAK_LR * np.outer(warmup, 0.5 ** np.arange(num_members))

    def random_state(self, dtype: Any) -> State:
        """Weights far from their initial values, so that no gradient is negligible; moments zero."""
        generator = np.random.default_rng(4)
        num_members = len(self.cohort.members)
        state: State = {
            "ids": np.array([member.id for member in self.cohort.members], np.int64),
            "diverged": np.zeros(num_members, bool),
        }
        for name, shape in self.cohort.shape.parameter_shapes().items():
            noise = 0.3 * generator.standard_normal((num_members, *shape))
            # Through float32 in any case: both sides of a comparison start from the same numbers.
            state[f"params.{name}"] = (noise + name.endswith("gain")).astype(np.float32).astype(dtype)
        for kind, shapes in moment_shapes(self.cohort).items():
            state |= {f"{kind}.{name}": np.zeros((num_members, *shape), dtype) for name, shape in shapes.items()}
        return state


def _members(*dropout: float) -> tuple[Member, ...]:
    """Members whose ids are no row numbers and whose seeds do not fit in 32 bits."""
    return tuple(Member(id=10 + 3 * i, seed=i * (2**33 + 5), dropout=rate) for i, rate in enumerate(dropout))


_SMALL = Shape(n_layer=2, d_model=16, n_head=2, n_ctx=8, vocab_size=17)

PLAIN = Case("plain", Cohort(shape=_SMALL, batch_sequences=4, members=_members(0, 0, 0)))
DROPOUT = Case("dropout", Cohort(shape=_SMALL, batch_sequences=4, members=_members(0.1, 0, 0.4)))
CLIPPED = Case("clipped", Cohort(shape=_SMALL, batch_sequences=4, members=_members(0, 0), clip_norm=0.05, beta2=0.999))
DECAYED = Case("weight decay", Cohort(shape=_SMALL, batch_sequences=2, members=_members(0, 0), weight_decay=2.0))
ADAFACTOR = Case(
    "Adafactor",
    Cohort(shape=_SMALL, batch_sequences=4, members=_members(0.1, 0), weight_decay=0.3, optimizer="adafactor"),
)
NO_LAYERS = Case(
    "no layers",
    Cohort(
        shape=Shape(n_layer=0, d_model=8, n_head=2, n_ctx=5, vocab_size=17), batch_sequences=3, members=_members(0, 0.2)
    ),
)
NARROW_FF = Case(
    "three heads, d_ff ≠ 4·d_model, 16-bit tokens",
    Cohort(
        shape=Shape(n_layer=1, d_model=12, n_head=3, n_ctx=6, vocab_size=300, d_ff=20),
        batch_sequences=3,
        members=_members(0, 0),
        beta1=0.8,
    ),
    token_type="uint16",
)
ODD_SIZES = Case(
    "odd sizes, one member, one sequence, 32-bit tokens",
    Cohort(
        shape=Shape(n_layer=3, d_model=7, n_head=1, n_ctx=9, vocab_size=13), batch_sequences=1, members=_members(0.25)
    ),
    token_type="uint32",
)
CASES = (PLAIN, DROPOUT, CLIPPED, DECAYED, ADAFACTOR, NO_LAYERS, NARROW_FF, ODD_SIZES)


def reference_trainer(case: Case) -> Trainer:
    """A fresh float64 trainer of the reference."""
    return REFERENCE.start(case.cohort, case.splits(), precision="float64")


@lru_cache
def reference_losses(case: Case, num_steps: int) -> NDArray[np.float64]:
    """Loss curve (K, M) of the float64 reference."""
    return reference_trainer(case).advance(0, *case.batches(num_steps))


@lru_cache
def reference_update(case: Case, first_step: int) -> State:
    """State of the float64 reference one update after `Case.random_state`."""
    trainer = reference_trainer(case)
    trainer.load_state(case.random_state(np.float64))
    trainer.advance(first_step, *case.batches(1))
    return trainer.state()
