"""A cohort on one card. Within a call nothing waits for the host; a call of `advance` reads the device once.

Suffixes: M members, K updates, n repetitions, B sequences, T positions, P parameters of one member.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cupy
import numpy as np
from numpy.typing import NDArray

from scaling_sim.engine.checks import (
    check_batches,
    check_member_axis,
    check_split_name,
    check_windows,
    kept_rows,
    state_ids,
)
from scaling_sim.engine.cohort import Cohort
from scaling_sim.engine.protocol import State, Tokens
from scaling_sim.engine.reference import standard_error
from scaling_sim.model.init import initial_members
from scaling_sim_cupy.compiler import kernels
from scaling_sim_cupy.dropout import DropoutKeys
from scaling_sim_cupy.engine import KINDS, Batch, Engine, Tables
from scaling_sim_cupy.layout import Layout
from scaling_sim_cupy.optimizer import Schedule
from scaling_sim_cupy.parameters import Array, split_parameters

UPDATES_PER_GRAPH, FEWEST_UPDATES = 8, 64
"""A launch costs the host 5 to 6 µs and an update has three, while those of the smallest models take 30 µs; making a
graph costs 450 µs, so that it pays for calls of at least `FEWEST_UPDATES`."""

POSITIONS_AT_ONCE = 2**24
"""Losses that an evaluation holds at once: 64 MiB."""


class CupyTrainer:
    """A `Trainer` in CuPy; see the protocol for the contract."""

    def __init__(self, cohort: Cohort, splits: Mapping[str, Tokens], device: int, layout: Layout) -> None:
        self.cohort = cohort
        self.layout = layout
        self.device = cupy.cuda.Device(device)
        with self.device:
            self.stream = cupy.cuda.Stream(non_blocking=True)
            self.slots = layout.resident * int(self.device.attributes["MultiProcessorCount"])
        token_type = np.result_type(*(tokens.dtype for tokens in splits.values()))
        dropout = any(member.dropout for member in cohort.members)
        with self.device, self.stream:
            self.splits = {name: cupy.asarray(np.ascontiguousarray(x, token_type)) for name, x in splits.items()}
            self.kernels = kernels(layout, token_type.name, dropout, device)
            self.tables = Tables.of(layout)
        self.load_state(self._initial_state())

    def live(self) -> tuple[int, ...]:
        """Ids of the live members, in the order of every M axis."""
        return tuple(member.id for member in self.members)

    def advance(self, first_step: int, starts: NDArray[np.int64], lr: NDArray[np.float64]) -> NDArray[np.float64]:
        """Losses (K, M) of K updates; see `Trainer.advance`."""
        check_batches(starts, lr, len(self.members), self.cohort)
        with self.device, self.stream:
            batch = self.placed(first_step, starts, lr)
            self.queue(batch, len(lr) if self.members else 0)
            losses_KM = _read(batch.losses_KM)
            if losses_KM.size:
                self.engine.healthy_M[...] = cupy.asarray(np.isfinite(losses_KM[-1]))
        return losses_KM

    def placed(self, first_step: int, starts: NDArray[np.int64], lr: NDArray[np.float64]) -> Batch:
        """Everything that K updates need, on the device."""
        starts_KMB = self._checked_starts("train", starts)
        schedule = Schedule.of(self.cohort, first_step, np.asarray(lr, np.float64))
        return Batch(starts_KMB, schedule, DropoutKeys.of(self.members, [one.dropout for one in self.members]))

    def queue(self, batch: Batch, num_updates: int) -> None:
        """Queue the next updates of ``batch`` and return before they are done.

        Where there are many, a graph of `UPDATES_PER_GRAPH` is launched again and again: the kernels find the number
        of the update on the device.
        """
        num_graphs = num_updates // UPDATES_PER_GRAPH if num_updates >= FEWEST_UPDATES else 0
        if num_graphs:
            self.engine.work_for(batch.starts_KMB.shape[2])
            self.stream.begin_capture()
            self._queue_single(batch, UPDATES_PER_GRAPH)
            graph = self.stream.end_capture()
            for _ in range(num_graphs):
                graph.launch(self.stream)
        self._queue_single(batch, num_updates - num_graphs * UPDATES_PER_GRAPH)

    def _queue_single(self, batch: Batch, num_updates: int) -> None:
        for _ in range(num_updates):
            self.engine.update(self.splits["train"], batch)

    def retire(self, ids: Sequence[int]) -> None:
        """Remove members and give their memory back to the pool; see `Trainer.retire`."""
        rows = kept_rows(self.live(), ids)
        with self.device, self.stream:
            index = cupy.asarray(np.array(rows, np.int64))
            flat = {kind: value[index] for kind, value in self.engine.flat.items()}
            self._set_members([self.live()[row] for row in rows], flat, self.engine.healthy_M[index])

    def evaluate(self, split: str, starts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean loss per position (M, T) and its standard error over sequences (M,); see `Trainer.evaluate`."""
        check_split_name(split, list(self.splits))
        num_members, n_ctx = len(self.members), self.cohort.shape.n_ctx
        starts_MnB = check_member_axis(starts, num_members)
        starts_MS = starts_MnB.reshape(num_members, math.prod(starts_MnB.shape[1:]))
        at_once = max(1, POSITIONS_AT_ONCE // max(1, num_members * n_ctx))
        sum_MT, means = np.zeros((num_members, n_ctx)), []
        with self.device, self.stream:
            placed_MS = self._checked_starts(split, starts_MS)
            for begin in range(0, starts_MS.shape[1] if num_members else 0, at_once):
                part_MS = cupy.ascontiguousarray(placed_MS[:, begin : begin + at_once])
                losses_MST = self.engine.position_losses(self.splits[split], part_MS)
                sum_MT += _read(losses_MST.sum(axis=1, dtype=np.float64))
                means.append(_read(losses_MST.mean(axis=2, dtype=np.float64)))
        errors = standard_error(np.concatenate(means, axis=1)) if means else np.empty(0)
        return sum_MT / max(1, starts_MS.shape[1]), errors

    def gradient_noise(self, starts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """|g_i|² (M, n) and |mean g|² (M,); see `Trainer.gradient_noise`."""
        starts_MnB = check_member_axis(starts, len(self.members))
        if not self.members:
            return np.empty(starts_MnB.shape[:2]), np.empty(0)
        with self.device, self.stream:
            starts_nMB = self._checked_starts("train", starts_MnB.swapaxes(0, 1))
            schedule = Schedule.of(self.cohort, 0, np.zeros(starts_nMB.shape[:2]))
            batch = Batch(starts_nMB, schedule, DropoutKeys.of(self.members, [0.0] * len(self.members)))
            total_MP, squares = cupy.zeros(self.engine.grad_MP.shape, np.float64), []
            for _ in range(len(starts_nMB)):
                self.engine.gradients(self.splits["train"], batch)
                squares.append(self.engine.squares.sum(axis=1))
                total_MP += self.engine.grad_MP
            mean_M = cupy.square(total_MP / len(squares)).sum(axis=1)
            return _read(cupy.stack(squares, axis=1)), _read(mean_M)

    def state(self) -> State:
        """Weights, moments, ids and marks in host memory; see `Trainer.state`."""
        with self.device, self.stream:
            flat = {kind: _read(self.engine.flat[kind]) for kind in KINDS}
            diverged = ~_read(self.engine.healthy_M)
        state: State = {"ids": np.array(self.live(), np.int64), "diverged": diverged}
        for kind, flat_MP in flat.items():
            pieces = split_parameters(flat_MP, self.cohort.shape)
            state.update({f"{kind}.{name}": np.array(piece) for name, piece in pieces.items()})
        return state

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from ``state``; see `Trainer.load_state`."""
        ids = state_ids(self.cohort, state)
        with self.device, self.stream:
            flat = {kind: self._flat(kind, state, len(ids)) for kind in KINDS}
            self._set_members(ids, flat, cupy.asarray(~np.array(state["diverged"], bool)))

    def _initial_state(self) -> State:
        """The cohort's initial weights, moments zero."""
        initial = initial_members(self.cohort.shape, [member.seed for member in self.cohort.members], np.float32)
        state: State = {
            "ids": np.array([member.id for member in self.cohort.members], np.int64),
            "diverged": np.zeros(len(initial), bool),
        }
        for name in self.cohort.shape.parameter_shapes():
            state[f"params.{name}"] = np.stack([one[name] for one in initial])
            state[f"adam_m.{name}"] = state[f"adam_v.{name}"] = np.zeros_like(state[f"params.{name}"])
        return state

    def _set_members(self, ids: Sequence[int], flat: Mapping[str, Array], healthy_M: Array) -> None:
        self.members = [member for member in self.cohort.members if member.id in ids]
        self.engine = Engine(self.cohort, self.layout, self.kernels, self.tables, self.slots, flat, healthy_M)

    def _flat(self, kind: str, state: Mapping[str, NDArray[Any]], num_members: int) -> Array:
        """(M, P) array on the device from the arrays of one kind."""
        shapes = self.cohort.shape.parameter_shapes()
        arrays = [state[f"{kind}.{name}"].reshape(num_members, math.prod(shapes[name])) for name in shapes]
        return cupy.asarray(np.concatenate(arrays, axis=1).astype(np.float32))

    def _checked_starts(self, split: str, starts: NDArray[np.int64]) -> Array:
        check_windows(starts, self.splits[split].size, self.cohort.shape.n_ctx)
        return cupy.asarray(np.ascontiguousarray(starts, np.int64))


def _read(array: Array) -> NDArray[Any]:
    """A copy in host memory; waits for the device."""
    host: NDArray[Any] = cupy.asnumpy(array)
    return host
