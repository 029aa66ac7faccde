"""Dropout masks of a stacked cohort: Philox4x32-10 in int64 tensors, equal to `scaling_sim.engine.philox`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scaling_sim.engine.cohort import Member
from scaling_sim.engine.philox import KEY_STEPS, MULTIPLIERS, NUM_ROUNDS, WORD, keep_threshold, seed_words


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> Tensor:
    """Four random words per counter on a new last axis, int64 values < 2³².

    Parameters
    ----------
    counter, key : tuples of int64 tensors
        Values < 2³²; their shapes are broadcast against each other.
    """
    c0, c1, c2, c3 = counter
    for round_number in range(NUM_ROUNDS):
        k0, k1 = ((key[i] + round_number * KEY_STEPS[i]) & WORD for i in range(2))
        # The product wraps around in int64; its bits are those of the unsigned one, and `& WORD` undoes the sign.
        product0, product1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((product1 >> 32) & WORD) ^ c1 ^ k0,
            product1 & WORD,
            ((product0 >> 32) & WORD) ^ c3 ^ k1,
            product0 & WORD,
        )
    return torch.stack((c0, c1, c2, c3), dim=-1)  # the rounds have broadcast every word to the full shape


@dataclass(frozen=True)
class DropoutKeys:
    """What a cohort's masks are drawn from: one key, threshold and scale per member, on the device.

    Attributes
    ----------
    low, high, threshold : (M, 1, 1) int64 tensors
        Words of the seed, and the smallest random word that keeps an element.
    scale : (M, 1, 1) tensor in the master dtype
        1/(1 − rate).
    """

    low: Tensor
    high: Tensor
    threshold: Tensor
    scale: Tensor

    @classmethod
    def of(cls, members: Sequence[Member], device: torch.device, dtype: torch.dtype) -> DropoutKeys | None:
        """Keys of ``members``; None if no member drops anything."""
        if not any(member.dropout for member in members):
            return None

        def column(values: list[int] | list[float], kind: torch.dtype) -> Tensor:
            return torch.tensor(values, dtype=kind, device=device)[:, None, None]

        words = [seed_words(member.seed) for member in members]
        return cls(
            low=column([low for low, _ in words], torch.int64),
            high=column([high for _, high in words], torch.int64),
            threshold=column([keep_threshold(member.dropout) for member in members], torch.int64),
            scale=column([1 / (1 - member.dropout) for member in members], dtype),
        )


@dataclass(frozen=True)
class Dropout:
    """The masks of one update; ``update`` is its 1-based number as a 0-d int64 tensor on the device."""

    keys: DropoutKeys
    update: Tensor

    def __call__(self, x_MRD: Tensor, site: int) -> Tensor:
        """``x_MRD`` with each member's share of elements dropped and the rest divided by 1 − rate."""
        return x_MRD * (self.mask(site, x_MRD.shape[1], x_MRD.shape[2]) * self.keys.scale)

    def mask(self, site: int, rows: int, columns: int) -> Tensor:
        """Which elements are kept, (M, rows, columns) bool."""
        device, num_blocks = self.update.device, -(-columns // 4)
        row_R1 = torch.arange(rows, device=device)[:, None]
        block_K = torch.arange(num_blocks, device=device)
        site_word = torch.full((), site, dtype=torch.int64, device=device)
        words = philox4x32((self.update, site_word, row_R1, block_K), (self.keys.low, self.keys.high))
        return words.flatten(start_dim=-2)[..., :columns] >= self.keys.threshold
