"""Live members on the device, and one update of all of them as three kernels. Nothing here waits for the host.

Suffixes: M members, K updates, B sequences, P parameters of one member, G CTAs of one member.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import cupy
import numpy as np

from scaling_sim.engine.cohort import Cohort
from scaling_sim_cupy.compiler import Kernels, num_blocks
from scaling_sim_cupy.dropout import DropoutKeys
from scaling_sim_cupy.layout import Layout
from scaling_sim_cupy.limits import MOST_CTAS
from scaling_sim_cupy.optimizer import Schedule
from scaling_sim_cupy.parameters import Array

KINDS = ("params", "adam_m", "adam_v")

SEQUENCES_PER_CTA = 4
"""At least, where there is a choice: gradient sums of every CTA are read again."""


def members_at_once(num_members: int, num_sequences: int) -> int:
    """How many members one launch computes, all launches about equal.

    So many that each can be split into CTAs of `SEQUENCES_PER_CTA` and there are no more than `MOST_CTAS` of them: a
    member has many CTAs then, few members run at a time, and their weights and sums stay in the second-level cache.
    """
    most = max(1, MOST_CTAS // max(1, num_sequences // SEQUENCES_PER_CTA))
    num_launches = -(-num_members // most)
    return -(-num_members // num_launches)


def ctas_per_member(num_members: int, num_sequences: int, slots: int) -> int:
    """G: into how many CTAs a member's sequences are split.

    The CTAs of all members run in waves of ``slots``; a G with the fewest sequences in a row is chosen. Of equals, the
    largest that leaves a CTA `SEQUENCES_PER_CTA`: CTAs of one member are neighbours, so that the more there are, the
    fewer members run at a time, and their weights stay in the second-level cache. Each CTA has buffers of its own, so
    that there are at most `MOST_CTAS`.
    """

    def in_a_row(num_ctas: int) -> int:
        return math.ceil(num_members * num_ctas / slots) * math.ceil(num_sequences / num_ctas)

    most = max(1, min(num_sequences, MOST_CTAS // num_members))
    fewest = min(map(in_a_row, range(1, most + 1)))
    equals = [number for number in range(1, most + 1) if in_a_row(number) == fewest]
    return max((one for one in equals if one * SEQUENCES_PER_CTA <= num_sequences), default=equals[0])


@dataclass(frozen=True)
class Tables:
    """Where parameters stand in packed arrays, (P,) int32 each, on the device; see `Layout`."""

    result: Array
    forward: Array
    backward: Array

    @classmethod
    def of(cls, layout: Layout) -> Tables:
        """Placed on the current device."""
        return cls(cupy.asarray(layout.result_positions()), *map(cupy.asarray, layout.operand_positions()))


class Batch:
    """K updates that are ready to be queued: windows, schedule, and where their losses will stand."""

    def __init__(self, starts_KMB: Array, schedule: Schedule, keys: DropoutKeys) -> None:
        self.starts_KMB = starts_KMB
        self.schedule = schedule
        self.keys = keys
        self.step = cupy.zeros(1, np.int32)
        self.losses_KM = cupy.full(starts_KMB.shape[:2], np.nan, np.float64)


@dataclass(frozen=True)
class Work:
    """What the CTAs of an update write.

    Attributes
    ----------
    at_once, num_ctas : int
        Members of one launch, and G.
    results : (at_once, G, packed results) float32
        Gradient sums; each launch's are reduced before the next.
    losses : (M, G) float64
        Loss sums.
    kept : (at_once, G, bytes) uint8
        Activations for the backward pass.
    """

    at_once: int
    num_ctas: int
    results: Array
    losses: Array
    kept: Array

    @classmethod
    def of(cls, layout: Layout, num_members: int, num_sequences: int, slots: int) -> Work:
        """Placed on the current device."""
        at_once = members_at_once(num_members, num_sequences)
        num_ctas = ctas_per_member(at_once, num_sequences, slots)
        results = cupy.empty((at_once, num_ctas, layout.results_size), np.float32)
        kept = cupy.empty((at_once, num_ctas, layout.kept_bytes), np.uint8)
        return cls(at_once, num_ctas, results, cupy.empty((num_members, num_ctas), np.float64), kept)


class Engine:
    """Weights, moments and buffers of the live members of a cohort."""

    def __init__(
        self, cohort: Cohort, layout: Layout, kernels: Kernels, tables: Tables, slots: int,
        flat: Mapping[str, Array], healthy_M: Array,
    ) -> None:  # fmt: skip
        self.cohort, self.layout, self.kernels, self.tables, self.slots = cohort, layout, kernels, tables, slots
        self.flat = dict(flat)
        self.healthy_M = healthy_M
        self.num_members = len(healthy_M)
        operand = np.float32 if layout.exact else np.uint16
        self.packed_MP = cupy.zeros((self.num_members, layout.packed_size), operand)
        self.grad_MP = cupy.empty_like(self.flat["params"])
        self.squares = cupy.zeros((self.num_members, num_blocks(layout)), np.float64)
        self._work: dict[int, Work] = {}
        if self.num_members:
            arguments = (self.flat["params"], self.packed_MP, tables.forward, tables.backward)
            self.kernels.parameters("pack", self.num_members, arguments)

    def work_for(self, num_sequences: int) -> Work:
        """Memory for updates of so many sequences; that of the last batch size is held.

        None may be taken while a graph is captured: ask before.
        """
        if num_sequences not in self._work:
            self._work = {num_sequences: Work.of(self.layout, self.num_members, num_sequences, self.slots)}
        return self._work[num_sequences]

    def gradients(self, tokens: Array, batch: Batch) -> None:
        """Queue losses and gradients of the batch's next update; moves its ``step`` on."""
        work = self.work_for(batch.starts_KMB.shape[2])
        for first in range(0, self.num_members, work.at_once):
            self._gradients_of(first, min(first + work.at_once, self.num_members), tokens, batch, work)

    def _gradients_of(self, first: int, end: int, tokens: Array, batch: Batch, work: Work) -> None:
        """Queue what one launch computes: the members from ``first`` up to ``end``."""

        def rows(array: Array) -> Array:
            return array if end - first == self.num_members else array[first:end]

        keys, num_sequences = batch.keys, batch.starts_KMB.shape[2]
        starts = batch.starts_KMB if first == 0 else batch.starts_KMB[0, first:]
        self.kernels.sequences(
            "train", work.num_ctas, end - first,
            (
                tokens, starts, batch.step, np.int32(self.num_members), np.int32(num_sequences),
                rows(self.flat["params"]), rows(self.packed_MP), work.results, rows(work.losses), work.kept,
                batch.schedule.update, rows(keys.low), rows(keys.high), rows(keys.threshold), rows(keys.scale),
            ),
        )  # fmt: skip
        self.kernels.parameters(
            "reduce_gradients", end - first,
            (
                work.results, np.int32(work.num_ctas), self.tables.result, rows(self.grad_MP), rows(self.squares),
                batch.step, np.int32(end == self.num_members),
            ),
        )  # fmt: skip

    def update(self, tokens: Array, batch: Batch) -> None:
        """Queue the batch's next update of every healthy member."""
        self.gradients(tokens, batch)
        num_sequences, cohort, schedule = batch.starts_KMB.shape[2], self.cohort, batch.schedule
        work = self.work_for(num_sequences)
        self.kernels.parameters(
            "adamw", self.num_members,
            (
                *(self.flat[kind] for kind in KINDS), self.packed_MP, self.grad_MP, self.squares, work.losses,
                np.int32(work.num_ctas), np.float64(num_sequences * self.layout.shape.n_ctx), batch.step,
                self.healthy_M, batch.losses_KM, schedule.step_size, schedule.decay, schedule.correction2,
                self.tables.forward, self.tables.backward, np.float64(cohort.clip_norm), np.float32(cohort.beta1),
                np.float32(1 - cohort.beta1), np.float32(cohort.beta2), np.float32(1 - cohort.beta2),
            ),
        )  # fmt: skip

    def position_losses(self, tokens: Array, starts_MB: Array) -> Array:
        """(M, B, T) nats, float32, without dropout."""
        num_sequences = starts_MB.shape[1]
        losses = cupy.empty((*starts_MB.shape, self.layout.shape.n_ctx), np.float32)
        num_ctas = min(num_sequences, -(-self.slots // self.num_members))
        arguments = (tokens, starts_MB, np.int32(num_sequences), self.flat["params"], self.packed_MP, losses)
        self.kernels.sequences("evaluate", num_ctas, self.num_members, arguments)
        return losses
