"""A cohort on one card. Within a call nothing waits for the host; a call of `advance` reads the device once.

Suffixes: M members, K updates, n repetitions, B sequences, T positions, P parameters of one member, S all sequences.
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
from scaling_sim.engine.cohort import Cohort, Precision
from scaling_sim.engine.protocol import State, Tokens
from scaling_sim.engine.reference import standard_error
from scaling_sim.model.init import initial_parameters
from scaling_sim_cupy.dropout import Dropout, DropoutKeys
from scaling_sim_cupy.model import loss_and_gradients, position_losses
from scaling_sim_cupy.optimizer import Schedule, adamw, clip_factors, decay_mask, norms
from scaling_sim_cupy.parameters import Array, split_parameters

KINDS = ("params", "adam_m", "adam_v")


class CupyTrainer:
    """A `Trainer` in CuPy; see the protocol for the contract."""

    def __init__(self, cohort: Cohort, splits: Mapping[str, Tokens], device: int, precision: Precision) -> None:
        self.cohort = cohort
        self.dtype: np.dtype[np.floating[Any]] = np.dtype(precision)
        self.device = cupy.cuda.Device(device)
        self.flat: dict[str, Array] = {}
        self.healthy_M: Array = None
        with self.device:
            self.splits = {name: cupy.asarray(np.ascontiguousarray(tokens)) for name, tokens in splits.items()}
            self.window_T = cupy.arange(cohort.shape.n_ctx + 1)
            self.decay_1P = decay_mask(cohort, self.dtype)
        self.load_state(self._initial_state())

    def live(self) -> tuple[int, ...]:
        """Ids of the live members, in the order of every M axis."""
        return tuple(member.id for member in self.members)

    def advance(self, first_step: int, starts: NDArray[np.int64], lr: NDArray[np.float64]) -> NDArray[np.float64]:
        """Losses (K, M) of K updates; see `Trainer.advance`."""
        check_batches(starts, lr, len(self.members), self.cohort)
        with self.device:
            starts_KMB = self._checked_starts("train", starts)
            schedule = Schedule.of(self.cohort, first_step, np.asarray(lr, np.float64), self.dtype)
            losses_KM = cupy.empty(lr.shape, np.float64)
            if self.members:
                for step in range(len(lr)):
                    losses_KM[step] = self.update(step, starts_KMB[step], schedule)
            return _read(losses_KM)

    def update(self, step: int, starts_MB: Array, schedule: Schedule) -> Array:
        """One update of every healthy member; losses (M,) before it, NaN for the others. Never waits for the host."""
        dropout = None if self.dropout_keys is None else Dropout(self.dropout_keys, schedule.update[step])
        loss_M, grad_MP = self._gradients(starts_MB, dropout)
        norm_M = norms(grad_MP)
        self.healthy_M &= cupy.isfinite(loss_M) & cupy.isfinite(norm_M)
        grad_MP *= clip_factors(norm_M, self.cohort.clip_norm).astype(self.dtype)[:, None]
        flat = (self.flat["params"], self.flat["adam_m"], self.flat["adam_v"])
        adamw(flat, grad_MP, self.healthy_M, self.cohort, schedule, step, self.decay_1P)
        return cupy.where(self.healthy_M, loss_M, np.nan)

    def retire(self, ids: Sequence[int]) -> None:
        """Remove members and give their memory back to the pool; see `Trainer.retire`."""
        rows = kept_rows(self.live(), ids)
        with self.device:
            self._set_members([self.live()[row] for row in rows])
            index = cupy.asarray(np.array(rows, np.int64))
            self.flat = {kind: value[index] for kind, value in self.flat.items()}
            self.healthy_M = self.healthy_M[index]

    def evaluate(self, split: str, starts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean loss per position (M, T) and its standard error over sequences (M,); see `Trainer.evaluate`."""
        check_split_name(split, list(self.splits))
        with self.device:
            starts_MnB = self._checked_starts(split, check_member_axis(starts, len(self.members)))
            sums, means = [], []
            for index in range(starts_MnB.shape[1]):
                windows = self._windows(split, starts_MnB[:, index])
                losses_MBT = position_losses(self.flat["params"], self.cohort.shape, *windows)
                sums.append(losses_MBT.sum(axis=1, dtype=np.float64))
                means.append(losses_MBT.mean(axis=2, dtype=np.float64))
            mean_MT = cupy.stack(sums).sum(axis=0) / math.prod(starts_MnB.shape[1:])
            return _read(mean_MT), standard_error(_read(cupy.concatenate(means, axis=1)))

    def gradient_noise(self, starts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """|g_i|² (M, n) and |mean g|² (M,); see `Trainer.gradient_noise`."""
        with self.device:
            starts_MnB = self._checked_starts("train", check_member_axis(starts, len(self.members)))
            num_batches = starts_MnB.shape[1]
            total_MP, squares = cupy.zeros_like(self.flat["params"]), []
            for index in range(num_batches):
                _, grad_MP = self._gradients(starts_MnB[:, index], None)
                squares.append(cupy.square(norms(grad_MP)))
                total_MP += grad_MP
            return _read(cupy.stack(squares, axis=1)), _read(cupy.square(norms(total_MP / num_batches)))

    def state(self) -> State:
        """Weights, moments, ids and marks in host memory; see `Trainer.state`."""
        with self.device:
            flat = {kind: _read(self.flat[kind]) for kind in KINDS}
            diverged = ~_read(self.healthy_M)
        state: State = {"ids": np.array(self.live(), np.int64), "diverged": diverged}
        for kind, flat_MP in flat.items():
            pieces = split_parameters(flat_MP, self.cohort.shape)
            state.update({f"{kind}.{name}": np.array(piece) for name, piece in pieces.items()})
        return state

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from ``state``; see `Trainer.load_state`."""
        ids = state_ids(self.cohort, state)
        with self.device:
            self._set_members(ids)
            self.flat = {kind: self._flat(kind, state) for kind in KINDS}
            self.healthy_M = cupy.asarray(~np.array(state["diverged"], bool))

    def _initial_state(self) -> State:
        """The cohort's initial weights, moments zero."""
        initial = [initial_parameters(self.cohort.shape, member.seed, self.dtype) for member in self.cohort.members]
        state: State = {
            "ids": np.array([member.id for member in self.cohort.members], np.int64),
            "diverged": np.zeros(len(initial), bool),
        }
        for name in self.cohort.shape.parameter_shapes():
            state[f"params.{name}"] = np.stack([one[name] for one in initial])
            state[f"adam_m.{name}"] = state[f"adam_v.{name}"] = np.zeros_like(state[f"params.{name}"])
        return state

    def _set_members(self, ids: Sequence[int]) -> None:
        self.members = [member for member in self.cohort.members if member.id in ids]
        self.dropout_keys = DropoutKeys.of(self.members, self.dtype)

    def _flat(self, kind: str, state: Mapping[str, NDArray[Any]]) -> Array:
        """(M, P) array on the device from the arrays of one kind."""
        shapes = self.cohort.shape.parameter_shapes()
        arrays = [state[f"{kind}.{name}"].reshape(len(self.members), math.prod(shapes[name])) for name in shapes]
        return cupy.asarray(np.concatenate(arrays, axis=1)).astype(self.dtype)

    def _gradients(self, starts_MB: Array, dropout: Dropout | None) -> tuple[Array, Array]:
        windows = self._windows("train", starts_MB)
        return loss_and_gradients(self.flat["params"], self.cohort.shape, *windows, dropout)

    def _checked_starts(self, split: str, starts: NDArray[np.int64]) -> Array:
        check_windows(starts, self.splits[split].size, self.cohort.shape.n_ctx)
        return cupy.asarray(np.ascontiguousarray(starts, np.int64))

    def _windows(self, split: str, starts_MB: Array) -> tuple[Array, Array]:
        """Inputs and targets, each (M, B, T) int64, gathered on the device."""
        windows_MBT = self.splits[split][starts_MB[..., None] + self.window_T].astype(np.int64)
        return windows_MBT[..., :-1], windows_MBT[..., 1:]


def _read(array: Array) -> NDArray[Any]:
    """A copy in host memory; waits for the device."""
    host: NDArray[Any] = cupy.asnumpy(array)
    return host
