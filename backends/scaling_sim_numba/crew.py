"""Threads, their scratch memory, and the calls into compiled code."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from scaling_sim.engine.cohort import Cohort, Member
from scaling_sim.engine.protocol import Tokens
from scaling_sim_numba.kernels.compiler import compile_for
from scaling_sim_numba.kernels.model import Dropout
from scaling_sim_numba.kernels.product import provide_product
from scaling_sim_numba.kernels.steps import NUM_BUFFERS, TRAIN, Optimiser, member_steps
from scaling_sim_numba.layout import arena_of, offsets_of, sizes_of, update_blocks

Array = NDArray[Any]


class Split:
    """Tokens as little-endian bytes, so that one compilation serves every token width; nothing is copied."""

    def __init__(self, tokens: Tokens) -> None:
        self.num_tokens = tokens.size
        self.token_bytes = tokens.dtype.itemsize
        self.data = np.ascontiguousarray(tokens, dtype=tokens.dtype.newbyteorder("<")).view(np.ndarray).view(np.uint8)
        self.data.flags.writeable = False


@dataclass
class Models:
    """Flat vectors (M, n) and marks (M,) of the live members."""

    members: list[Member]
    params: Array
    adam_m: Array
    adam_v: Array
    diverged: NDArray[np.bool_]

    @classmethod
    def zeros(cls, members: list[Member], num_params: int, real: type) -> Models:
        """All numbers zero, none diverged."""
        vectors: list[Array] = [np.zeros((len(members), num_params), real) for _ in range(3)]
        return cls(members, vectors[0], vectors[1], vectors[2], np.zeros(len(members), np.bool_))

    def rows(self, rows: list[int]) -> Models:
        """These members only, as a copy."""
        return Models(
            [self.members[row] for row in rows],
            self.params[rows],
            self.adam_m[rows],
            self.adam_v[rows],
            self.diverged[rows],
        )


@dataclass
class Work:
    """One call: K batches for each of M members. Results go to ``values_MK`` and, by mode, to the optional arrays."""

    mode: int
    split: Split
    starts_MKB: NDArray[np.int64]
    first_step: int = 0
    lr_MK: NDArray[np.float64] | None = None
    rows_MR: Array | None = None
    """Loss of every row (sequence · T + position) of the batch; wanted when K = 1."""
    totals_Mn: Array | None = None
    """Sum of the gradients of the K batches."""
    values_MK: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.values_MK = np.full(self.starts_MKB.shape[:2], np.nan)


class Scratch:
    """Working memory of one thread; its size does not depend on the batch."""

    def __init__(self, arena_size: int, rows: int, num_params: int, num_blocks: int, real: type) -> None:
        self.arena = aligned(arena_size, real)
        self.tokens = np.zeros(2 * rows, np.int32)
        self.buffers: Array = np.zeros((2, num_params), real)
        self.squares = np.zeros(num_blocks)


class Crew:
    """The threads of one trainer.

    Members that fill every thread run alone on one each, without a single barrier; the M % threads that are left get
    all threads as a team, one member after another. Results do not depend on which of the two it was.
    """

    def __init__(self, cohort: Cohort, real: type, num_threads: int) -> None:
        shape = cohort.shape
        self.num_threads = num_threads
        self._real = real
        self._sizes = sizes_of(shape, cohort.batch_sequences)
        self._offsets = offsets_of(shape)
        self._arena = arena_of(self._sizes)
        self._blocks = np.array(update_blocks(shape), np.int64).reshape(-1, 3)
        self._optimiser = Optimiser(
            float(cohort.beta1), float(cohort.beta2), float(cohort.weight_decay), float(cohort.clip_norm)
        )
        rows = self._sizes.chunk * self._sizes.context
        self._scratch = [
            Scratch(self._arena.total, rows, self._offsets.total, len(self._blocks), real) for _ in range(num_threads)
        ]
        self._team_buffers: Array = np.zeros((NUM_BUFFERS, self._offsets.total), real)  # untouched, it costs no memory
        self._barrier = np.zeros(2, np.int64)
        self._pool = concurrent.futures.ThreadPoolExecutor(num_threads, "scaling-sim") if num_threads > 1 else None

    def compile(self, models: Models, split: Split) -> None:
        """Compile, or load from the cache, before the first step; the types of arguments do not depend on sizes."""
        work = Work(TRAIN, split, np.zeros((1, 1, 1), np.int64))
        arguments = self._arguments(work, models, 0, self._losses(work, 0), 0, 0, 1)
        provide_product(numba.from_dtype(np.dtype(self._real)))
        compile_for(member_steps, tuple(numba.typeof(argument) for argument in arguments))

    def run(self, work: Work, models: Models) -> NDArray[np.float64]:
        """Do the work; returns its ``values_MK``."""
        members, threads = len(models.members), self.num_threads
        if work.starts_MKB.size == 0:
            return work.values_MK
        alone = members - members % threads

        def run_alone(thread: int) -> None:
            for member in range(thread, alone, threads):
                member_steps(*self._arguments(work, models, member, self._losses(work, member), thread, 0, 1))

        def run_as_team(member: int) -> Callable[[int], None]:
            losses = self._losses(work, member)
            return lambda thread: member_steps(*self._arguments(work, models, member, losses, thread, thread, threads))

        if alone:
            self._on_every_thread(run_alone)
        for member in range(alone, members):
            self._on_every_thread(run_as_team(member))
        return work.values_MK

    def _on_every_thread(self, task: Callable[[int], None]) -> None:
        """Run ``task(thread)`` on each thread; wait for all even if interrupted, as compiled code cannot be stopped."""
        if self._pool is None:
            task(0)
            return
        futures = [self._pool.submit(task, thread) for thread in range(self.num_threads)]
        try:
            concurrent.futures.wait(futures)
        finally:
            concurrent.futures.wait(futures)
        for future in futures:
            future.result()

    def _losses(self, work: Work, member: int) -> tuple[Array, Array]:
        """Loss of every row and of every chunk of a batch, shared by a team."""
        batch = work.starts_MKB.shape[2]
        rows = np.zeros(batch * self._sizes.context, self._real) if work.rows_MR is None else work.rows_MR[member]
        return rows, np.zeros(-(-batch // self._sizes.chunk))

    def _arguments(
        self, work: Work, models: Models, member: int, losses: tuple[Array, Array], thread: int, worker: int, team: int
    ) -> tuple[Any, ...]:
        """What `member_steps` takes, in its order."""
        own, training = self._scratch[thread], work.mode == TRAIN
        steps = work.starts_MKB.shape[1]
        squares = own.squares if team == 1 else self._scratch[0].squares
        return (
            work.mode, work.first_step, self._sizes, self._offsets, self._arena, self._blocks,
            work.split.data, work.split.token_bytes, work.starts_MKB[member],
            np.zeros(steps) if work.lr_MK is None else work.lr_MK[member],
            self._optimiser, dropout_of(models.members[member], training),
            models.params[member], models.adam_m[member], models.adam_v[member],
            models.diverged[member : member + 1] if training else np.zeros(1, np.bool_),
            own.buffers if team == 1 else self._team_buffers,
            models.params[member] if work.totals_Mn is None else work.totals_Mn[member],
            own.arena, own.tokens, *losses, squares, self._barrier, worker, team, work.values_MK[member],
        )  # fmt: skip


def dropout_of(member: Member, active: bool) -> Dropout:
    """Dropout as the kernels take it."""
    rate = member.dropout if active else 0.0
    return Dropout(float(rate), round(rate * 2**32), member.seed & 0xFFFFFFFF, (member.seed >> 32) & 0xFFFFFFFF)


def aligned(size: int, real: type) -> Array:
    """Zeros that start on a cache line, so that vector loads do not straddle two."""
    item = np.dtype(real).itemsize
    raw = np.zeros(size * item + 64, np.uint8)
    first = -raw.ctypes.data % 64
    return raw[first : first + size * item].view(real)
