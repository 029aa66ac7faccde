"""Which windows a batch holds: a function of seed and step, so that every machine and every resume agrees."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scaling_sim.data.permutation import I64, U64, Tables, hash_words, permute, scaled, sides
from scaling_sim.errors import ConfigError, DataError

BLOCK = 2**16
"""Sequences computed at a time: what they need stays in the processor's cache."""


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
        starts = np.empty(num_steps * self.batch_sequences, np.int64)
        tables: tuple[range, Tables] | None = None
        for low in range(0, len(starts), BLOCK):
            block = starts[low : low + BLOCK]
            epochs = self._epochs(first + low, len(block))
            if len(epochs) * sum(sides(self.windows_per_epoch)) > len(starts):
                self._fill(block, first + low, epochs, None)
                continue
            if tables is None or tables[0] != epochs:
                tables = epochs, Tables(self.windows_per_epoch, self._keys(epochs))
            self._fill(block, first + low, epochs, tables[1])
        return starts.reshape(num_steps, self.batch_sequences)

    def _epochs(self, first: int, count: int) -> range:
        """Passes over the data to which sequences ``first`` … belong."""
        return range(first // self.windows_per_epoch, (first + count - 1) // self.windows_per_epoch + 1)

    def _keys(self, epochs: range) -> U64:
        return hash_words(self.seed, np.arange(epochs.start, epochs.stop), 1)

    def _fill(self, block: I64, first: int, epochs: range, tables: Tables | None) -> None:
        """Write the starts of sequences ``first`` … into ``block``; tables and the direct way give the same."""
        place = np.arange(len(block)) + (first - epochs.start * self.windows_per_epoch)
        which = None
        if len(epochs) > 1:
            which = place // self.windows_per_epoch
            place -= which * self.windows_per_epoch
        if tables is not None:
            window = tables.permute(place, which)
        else:
            keys = self._keys(epochs)
            keys = np.broadcast_to(keys, block.shape) if which is None else keys[which]
            window = permute(place.astype(np.uint64), self.windows_per_epoch, keys).astype(np.int64)
        shifts = scaled(hash_words(self.seed, np.arange(epochs.start, epochs.stop), 2), self.num_shifts)
        np.multiply(window, self.n_ctx, out=block)
        block += shifts.astype(np.int64)[0 if which is None else which]


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
