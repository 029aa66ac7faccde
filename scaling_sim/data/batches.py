"""Which windows a batch holds: a function of seed and step, so that every machine and every resume agrees."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scaling_sim.data.permutation import U64, hash_words, permute, scaled
from scaling_sim.errors import ConfigError, DataError


class Batches:
    """Window starts of every batch of one run, by stateless random access.

    The first ``unique_tokens`` of the training split are cut into non-overlapping windows of ``n_ctx`` tokens (each
    with the token after it, its last target). An epoch goes through all of them once, in an order given by a
    permutation keyed by (seed, epoch); the cut is shifted by a keyed number of tokens per epoch, so that over epochs
    every token is seen at every position. Sequences are numbered through the whole run: a batch that reaches the end of
    an epoch goes on in the next, and one larger than an epoch holds several passes.

    Parameters
    ----------
    unique_tokens : int
        D, at least n_ctx + 1.
    n_ctx : int
        T, tokens per sequence.
    batch_sequences : int
        Sequences per batch, B / T.
    seed : int
        0 ≤ seed < 2**64.

    Raises
    ------
    DataError
        The data hold no whole window.
    ConfigError
        A size below 1 or a seed out of range.
    """

    def __init__(self, unique_tokens: int, n_ctx: int, batch_sequences: int, seed: int) -> None:
        if n_ctx < 1 or batch_sequences < 1:
            raise ConfigError(f"n_ctx and batch_sequences must be at least 1, got {n_ctx} and {batch_sequences}")
        if not 0 <= seed < 2**64:
            raise ConfigError(f"seed must lie in 0..2**64 - 1, got {seed}")
        _check_window(unique_tokens, n_ctx)
        self.unique_tokens = int(unique_tokens)
        self.n_ctx = int(n_ctx)
        self.batch_sequences = int(batch_sequences)
        self.seed = int(seed)

    def __repr__(self) -> str:
        return (
            f"Batches(unique_tokens={self.unique_tokens}, n_ctx={self.n_ctx}, "
            f"batch_sequences={self.batch_sequences}, seed={self.seed})"
        )

    @property
    def windows_per_epoch(self) -> int:
        """Windows that fit whatever the shift: ⌊D/T⌋ - 1, and one if D < 2T."""
        return max(1, self.unique_tokens // self.n_ctx - 1)

    @property
    def num_shifts(self) -> int:
        """Shifts of the cut that leave room for all windows: at least T unless D < 2T, and so many that none of the
        data is out of reach."""
        return self.unique_tokens - self.windows_per_epoch * self.n_ctx

    def epoch_of(self, step: int) -> int:
        """Whole passes over the data before the batch of step ``step`` (counted from 0) begins."""
        return step * self.batch_sequences // self.windows_per_epoch

    def starts(self, first_step: int, num_steps: int) -> NDArray[np.int64]:
        """First token of every sequence, (num_steps, batch_sequences), for steps ``first_step`` onward (from 0)."""
        if first_step < 0 or num_steps < 0:
            raise ConfigError(f"first_step and num_steps must not be negative, got {first_step} and {num_steps}")
        first = first_step * self.batch_sequences
        count = num_steps * self.batch_sequences
        if count == 0:
            return np.zeros((num_steps, self.batch_sequences), np.int64)
        sequence = np.arange(first, first + count, dtype=np.int64)
        epoch, place = np.divmod(sequence, self.windows_per_epoch)
        epochs = np.arange(epoch[0], epoch[-1] + 1)
        number = epoch - epoch[0]
        keys = hash_words(self.seed, epochs, 1)
        shifts = scaled(hash_words(self.seed, epochs, 2), self.num_shifts)
        window: U64 = permute(place.astype(np.uint64), self.windows_per_epoch, keys[number])
        starts: NDArray[np.int64] = (window * np.uint64(self.n_ctx) + shifts[number]).astype(np.int64)
        return starts.reshape(num_steps, self.batch_sequences)


def evaluation_starts(num_tokens: int, n_ctx: int, num_sequences: int) -> NDArray[np.int64]:
    """Starts of at most ``num_sequences`` non-overlapping windows, evenly spread over a split of ``num_tokens``.

    All windows if the split has fewer; the answer's length says how many.

    Raises
    ------
    DataError
        The split holds no whole window.
    ConfigError
        ``num_sequences`` is below 1.
    """
    if num_sequences < 1:
        raise ConfigError(f"num_sequences must be at least 1, got {num_sequences}")
    _check_window(num_tokens, n_ctx)
    available = (num_tokens - 1) // n_ctx
    count = min(available, num_sequences)
    return np.arange(count, dtype=np.int64) * available // count * n_ctx


def _check_window(num_tokens: int, n_ctx: int) -> None:
    if num_tokens < n_ctx + 1:
        raise DataError(
            f"a context of {n_ctx} tokens needs at least {n_ctx + 1} tokens of data, got {num_tokens}; "
            "use more data or a smaller n_ctx"
        )
