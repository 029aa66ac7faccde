"""A cohort on one device as stacked tensors. Within a call nothing waits for the host."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling_sim.engine.checks import (
    check_batches,
    check_member_axis,
    check_split_name,
    check_windows,
    kept_rows,
    state_ids,
)
from scaling_sim.engine.cohort import Cohort, Precision
from scaling_sim.engine.moments import moment_shapes
from scaling_sim.engine.protocol import State, Tokens
from scaling_sim.engine.reference import standard_error
from scaling_sim.model.init import initial_members
from scaling_sim_torch.distributed import agreed, average, is_shared, leads, share
from scaling_sim_torch.dropout import Dropout, DropoutKeys
from scaling_sim_torch.model import position_losses, split_flat
from scaling_sim_torch.optimizer import Schedule, adafactor, adamw, clip_factors, decay_mask
from scaling_sim_torch.out_of_memory import Room

MAX_FUSED_SEQUENCES = 65535
"""The fused bfloat16 attention kernels of CUDA fail beyond (seen with torch 2.11 on an H200; float32 does not)."""


class TorchTrainer:
    """A `Trainer` in PyTorch; see the protocol for the contract."""

    def __init__(
        self, cohort: Cohort, splits: Mapping[str, Tokens], device: str, precision: Precision, *, deterministic: bool
    ) -> None:
        self.cohort = cohort
        self.device = torch.device(device)
        self.dtype = torch.float64 if precision == "float64" else torch.float32
        self.bfloat16 = precision == "bfloat16"
        self.deterministic = deterministic
        self.room, self.room_beside = Room(sys.maxsize), Room(sys.maxsize)
        self.kinds = {"params": cohort.shape.parameter_shapes(), **moment_shapes(cohort)}
        self.splits = {name: _place(tokens, self.device) for name, tokens in splits.items()}
        self.window_T = torch.arange(cohort.shape.n_ctx + 1, device=self.device)
        self.flat: dict[str, Tensor] = {}
        self.healthy_M = torch.empty(0, dtype=torch.bool, device=self.device)
        self._begin()

    @cached_property
    def decay_1P(self) -> Tensor | None:
        """See `decay_mask`."""
        return decay_mask(self.cohort, self.device, self.dtype)

    @property
    def leads(self) -> bool:
        """Whether this process writes files; see `Trainer`."""
        return leads()

    def agree(self, number: int) -> int:
        """Rank 0's number; see `Trainer`."""
        return agreed(int(number), self.device)

    def live(self) -> tuple[int, ...]:
        """Ids of the live members, in the order of every M axis."""
        return tuple(member.id for member in self.members)

    def advance(self, first_step: int, starts: NDArray[np.int64], lr: NDArray[np.float64]) -> NDArray[np.float64]:
        """Losses (K, M) of K updates; see `Trainer.advance`."""
        check_batches(starts, lr, len(self.members), self.cohort)
        starts_KMB = self._checked_starts("train", starts)
        schedule = Schedule.of(self.cohort, first_step, lr, self.device, self.dtype)
        losses_KM = torch.empty(lr.shape, dtype=torch.float64, device=self.device)
        for step in range(len(lr)):
            losses_KM[step] = self._update(step, starts_KMB[step], schedule)
        return losses_KM.cpu().numpy()

    def retire(self, ids: Sequence[int]) -> None:
        """Remove members and free their memory; see `Trainer.retire`."""
        rows = kept_rows(self.live(), ids)
        index = torch.tensor(rows, dtype=torch.int64, device=self.device)
        self._set_members([self.live()[row] for row in rows])
        self.flat = {kind: value[index] for kind, value in self.flat.items()}
        self.healthy_M = self.healthy_M[index]

    def evaluate(self, split: str, starts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean loss per position (M, T) and its standard error over sequences (M,); see `Trainer.evaluate`."""
        check_split_name(split, list(self.splits))
        starts_MnB = self._checked_starts(split, check_member_axis(starts, len(self.members)))
        batches, size = [], starts_MnB.shape[2]
        for starts_MB in starts_MnB.unbind(1):
            losses_MBT = self.room_beside(partial(self._position_losses, split, starts_MB), size)
            batches.append((losses_MBT.double().sum(dim=1), losses_MBT.mean(dim=2, dtype=torch.float64)))
        mean_MT = torch.stack([sums for sums, _ in batches]).sum(dim=0) / (starts_MnB.shape[1] * starts_MnB.shape[2])
        sequences_MS = torch.cat([means for _, means in batches], dim=1)
        return mean_MT.cpu().numpy(), standard_error(sequences_MS.cpu().numpy())

    def gradient_noise(self, starts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """|g_i|² (M, n) and |mean g|² (M,); see `Trainer.gradient_noise`."""
        starts_MnB = self._checked_starts("train", check_member_axis(starts, len(self.members)))
        total_MP = torch.zeros_like(self.flat["params"])
        norms = []
        for starts_MB in starts_MnB.unbind(1):
            _, grad_MP = self._gradients(starts_MB, None, self.room_beside)
            norms.append(_norms(grad_MP).square())
            total_MP += grad_MP
        mean_M = _norms(total_MP / starts_MnB.shape[1]).square()
        return torch.stack(norms, dim=1).cpu().numpy(), mean_M.cpu().numpy()

    def state(self) -> State:
        """Weights, moments, ids and marks in host memory; see `Trainer.state`."""
        state: State = {
            "ids": np.array(self.live(), np.int64),
            "diverged": (~self.healthy_M).cpu().numpy(),
        }
        for kind, shapes in self.kinds.items():
            flat = self.flat[kind].cpu().clone()  # one transfer; never a view of the trainer's own memory
            pieces = split_flat(flat, shapes)
            state.update({f"{kind}.{name}": piece.contiguous().numpy() for name, piece in pieces.items()})
        return state

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from ``state``; see `Trainer.load_state`."""
        self._set_members(state_ids(self.cohort, state))
        self.flat = {kind: self._flat(kind, state) for kind in self.kinds}
        self.healthy_M = ~torch.from_numpy(np.array(state["diverged"], bool)).to(self.device)

    def _begin(self) -> None:
        """Take the initial weights; moments are zero and never exist in host memory."""
        shape, num_members = self.cohort.shape, len(self.cohort.members)
        self._set_members([member.id for member in self.cohort.members])
        initial = initial_members(
            shape, [member.seed for member in self.members], np.float64 if self.dtype == torch.float64 else np.float32
        )
        stacked = {f"params.{name}": np.stack([one[name] for one in initial]) for name in shape.parameter_shapes()}
        self.flat = {"params": self._flat("params", stacked)}
        for kind, shapes in moment_shapes(self.cohort).items():
            length = sum(math.prod(size) for size in shapes.values())
            self.flat[kind] = torch.zeros(num_members, length, dtype=self.dtype, device=self.device)
        self.healthy_M = torch.ones(num_members, dtype=torch.bool, device=self.device)

    def _set_members(self, ids: Sequence[int]) -> None:
        self.members = [member for member in self.cohort.members if member.id in ids]
        self.dropout_keys = DropoutKeys.of(self.members, self.device, self.dtype)

    def _flat(self, kind: str, state: Mapping[str, NDArray[Any]]) -> Tensor:
        """(M, P) tensor on the device from the arrays of one kind."""
        num_members = len(self.members)
        arrays = [state[f"{kind}.{name}"].reshape(num_members, -1) for name in self.kinds[kind]]
        return torch.from_numpy(np.concatenate(arrays, axis=1)).to(self.device, self.dtype)

    def _update(self, step: int, starts_MB: Tensor, schedule: Schedule) -> Tensor:
        """One update of every healthy member; losses (M,) before it, NaN for the others."""
        dropout = None if self.dropout_keys is None else Dropout(self.dropout_keys, schedule.update[step])
        loss_M, grad_MP = self._gradients(starts_MB, dropout, self.room)
        norm_M = _norms(grad_MP)
        self.healthy_M &= loss_M.isfinite() & norm_M.isfinite()
        grad_MP *= clip_factors(norm_M, self.cohort.clip_norm).to(self.dtype)[:, None]
        if self.cohort.optimizer == "adamw":
            flat = (self.flat["params"], self.flat["adam_m"], self.flat["adam_v"])
            adamw(flat, grad_MP, self.healthy_M, self.cohort, schedule, step, self.decay_1P)
        else:
            rates = schedule.step_size[step, :, 0], schedule.decay[step, :, 0], schedule.correction2[step]
            adafactor(self.flat, grad_MP, self.healthy_M, self.cohort, rates)
        return torch.where(self.healthy_M, loss_M, torch.nan)

    def _gradients(self, starts_MB: Tensor, dropout: Dropout | None, room: Room) -> tuple[Tensor, Tensor]:
        """Mean losses (M,) in float64 and their gradients (M, P); over all ranks where several share a batch."""
        divided, starts_MB = is_shared(starts_MB.shape[1]), share(starts_MB)
        size = starts_MB.shape[1] if dropout is None else 1  # masks are numbered within a whole batch
        loss_M, grad_MP = room(partial(self._mean_of_parts, starts_MB, dropout), size)
        if divided:
            average(loss_M, grad_MP)
        return loss_M, grad_MP

    @torch.no_grad()
    def _position_losses(self, split: str, starts_MB: Tensor, parts: int) -> Tensor:
        """Losses (M, B, T), computed in parts of equal size."""
        weights_MP, shape, losses = self.flat["params"], self.cohort.shape, []
        for part_Mb in starts_MB.chunk(parts, dim=1):
            with self._arithmetic(part_Mb.numel()):
                losses.append(position_losses(weights_MP, shape, *self._windows(split, part_Mb)))
        return torch.cat(losses, dim=1)

    def _mean_of_parts(self, starts_MB: Tensor, dropout: Dropout | None, parts: int) -> tuple[Tensor, Tensor]:
        """Mean losses and their gradients, from micro-batches of equal size."""
        first, *others = starts_MB.chunk(parts, dim=1)
        loss_M, grad_MP = self._of_part(first, dropout)
        for part_Mb in others:
            part_loss_M, part_grad_MP = self._of_part(part_Mb, dropout)
            loss_M, grad_MP = loss_M + part_loss_M, grad_MP.add_(part_grad_MP)
        return (loss_M, grad_MP) if parts == 1 else (loss_M / parts, grad_MP.div_(parts))

    def _of_part(self, starts_MB: Tensor, dropout: Dropout | None) -> tuple[Tensor, Tensor]:
        flat_MP = self.flat["params"].detach().requires_grad_()
        with self._arithmetic(starts_MB.numel()):
            losses_MBT = position_losses(flat_MP, self.cohort.shape, *self._windows("train", starts_MB), dropout)
            loss_M = losses_MBT.mean(dim=(1, 2), dtype=torch.float64)
        (grad_MP,) = torch.autograd.grad(loss_M.sum(), flat_MP)
        return loss_M.detach(), grad_MP

    @contextmanager
    def _arithmetic(self, num_sequences: int) -> Iterator[None]:
        """bfloat16 matrix products if asked for; plain attention if bits must repeat or the fused kernels cannot."""
        from torch.nn.attention import SDPBackend, sdpa_kernel

        with ExitStack() as stack:
            if self.bfloat16:
                stack.enter_context(torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False))
            too_many = self.bfloat16 and num_sequences > MAX_FUSED_SEQUENCES
            if self.device.type == "cuda" and (self.deterministic or too_many):
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            yield

    def _checked_starts(self, split: str, starts: NDArray[np.int64]) -> Tensor:
        check_windows(starts, self.splits[split].numel(), self.cohort.shape.n_ctx)
        return torch.from_numpy(np.array(starts, np.int64)).to(self.device)

    def _windows(self, split: str, starts_MB: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets, each (M, B, T), gathered on the device."""
        tokens = self.splits[split]
        windows = tokens[starts_MB[..., None] + self.window_T].long() & ALL_BITS[tokens.dtype]
        return windows[..., :-1], windows[..., 1:]


_SIGNED = {np.dtype(np.uint8): np.uint8, np.dtype(np.uint16): np.int16, np.dtype(np.uint32): np.int32}
"""Types that torch can index, with the bits of ours; the sign is undone after the lookup."""

ALL_BITS = {torch.uint8: 0xFF, torch.int16: 0xFFFF, torch.int32: 0xFFFFFFFF}


def _place(tokens: Tokens, device: torch.device) -> Tensor:
    """A split on the device, with the bits it has on disk."""
    owned = np.array(tokens)  # a copy: torch refuses read-only memory, such as a memmap's
    return torch.from_numpy(owned.view(_SIGNED[owned.dtype])).to(device)


def _norms(grad_MP: Tensor) -> Tensor:
    """Euclidean norm of every member's gradient, accumulated in float64."""
    norm_M: Tensor = torch.linalg.vector_norm(grad_MP, dim=1, dtype=torch.float64)
    return norm_M
