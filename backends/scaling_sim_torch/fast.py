"""The fast paths of one device: bfloat16 arithmetic, float32 master weights, updates replayed from CUDA graphs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling_sim.engine.checks import check_batches, check_member_axis, check_split_name
from scaling_sim.engine.cohort import Cohort, Precision
from scaling_sim.engine.protocol import Tokens
from scaling_sim.engine.reference import standard_error
from scaling_sim_torch.capture import Replays, Tables
from scaling_sim_torch.distributed import average, gathered, is_shared, num_ranks, own_rows, share, summed
from scaling_sim_torch.dropout import Dropout
from scaling_sim_torch.flat_adafactor import FlatAdafactor
from scaling_sim_torch.flat_adamw import FlatAdamW
from scaling_sim_torch.fused import FusedModel
from scaling_sim_torch.out_of_memory import in_parts
from scaling_sim_torch.plan import Plan
from scaling_sim_torch.stacked import StackedModel
from scaling_sim_torch.trainer import ALL_BITS, TorchTrainer

P = ParamSpec("P")
R = TypeVar("R")


def on_own_card(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """A trainer's method with its card as the current one: graphs, streams and Triton's launches belong to that."""

    @wraps(method)
    def call(self: Any, /, *given: P.args, **named: P.kwargs) -> R:
        with torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext():
            return method(self, *given, **named)

    return call


class FastTrainer(TorchTrainer, ABC):
    """What both fast paths share: tables on the device, replays, and losses read back once per call."""

    replays: tuple[Tables, Replays] | None
    half_MP: Tensor

    def __init__(
        self, cohort: Cohort, splits: Mapping[str, Tokens], device: str, precision: Precision, plan: Plan
    ) -> None:
        self.plan = plan
        super().__init__(cohort, splits, device, precision, deterministic=False)

    @on_own_card
    def advance(self, first_step: int, starts: NDArray[np.int64], lr: NDArray[np.float64]) -> NDArray[np.float64]:
        """Losses (K, M) of K updates; see `Trainer.advance`."""
        check_batches(starts, lr, len(self.members), self.cohort)
        starts_KMB = self._checked_starts("train", starts)
        if lr.size == 0:
            return np.empty(lr.shape)
        if self.replays is None:
            tables = Tables(len(self.members), self.cohort.batch_sequences, self.device)
            self.replays = tables, Replays(self._update_of(tables), self.device, capture=self.plan.capture)
        tables, replays = self.replays
        losses = []
        for first in range(0, len(lr), tables.rows):
            part = slice(first, min(first + tables.rows, len(lr)))
            tables.fill(self.cohort, first_step + first, starts_KMB[part], lr[part])
            replays.run(part.stop - first)
            losses.append(tables.record[: part.stop - first].cpu().numpy())
        return np.concatenate(losses)

    @on_own_card
    def evaluate(self, split: str, starts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean loss per position (M, T) and its standard error over sequences (M,); see `Trainer.evaluate`."""
        check_split_name(split, list(self.splits))
        starts_MnB = self._checked_starts(split, check_member_axis(starts, len(self.members)))
        starts_nMB, sums, means = regrouped(starts_MnB, self.cohort.batch_sequences), [], []
        for losses_MR in self._batch_losses(split, own_rows(starts_nMB)):
            losses_MBT = losses_MR.view(len(self.members), -1, self.cohort.shape.n_ctx).double()
            sums.append(losses_MBT.sum(dim=1))
            means.append(losses_MBT.mean(dim=2))
        mean_MT = summed(torch.stack(sums).sum(dim=0), len(starts_nMB)) / starts_MnB[0].numel()
        means_MS = gathered(torch.cat(means, dim=1), len(starts_nMB))
        return mean_MT.cpu().numpy(), standard_error(means_MS.cpu().numpy())

    @on_own_card
    def gradient_noise(self, starts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """|g_i|² (M, n) and |mean g|² (M,); see `Trainer.gradient_noise`."""
        starts_MnB = self._checked_starts("train", check_member_axis(starts, len(self.members)))
        starts_nMB = starts_MnB.transpose(0, 1).contiguous()
        total_MP, squares = torch.zeros_like(self.flat["params"]), []
        for grad_MP in self._batch_gradients(own_rows(starts_nMB)):
            squares.append(torch.linalg.vector_norm(grad_MP, dim=1, dtype=torch.float64).square())
            total_MP += grad_MP
        mean_MP = summed(total_MP, len(starts_nMB)) / len(starts_nMB)
        mean_M = torch.linalg.vector_norm(mean_MP, dim=1, dtype=torch.float64).square()
        return gathered(torch.stack(squares, dim=1), len(starts_nMB)).cpu().numpy(), mean_M.cpu().numpy()

    @on_own_card
    def retire(self, ids: Sequence[int]) -> None:
        """Remove members; the next chunk is captured anew without them."""
        super().retire(ids)
        self._placed()

    @on_own_card
    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from ``state``; see `Trainer.load_state`."""
        super().load_state(state)
        self._placed()

    def _placed(self) -> None:
        """Whatever refers to the old tensors is gone."""
        self.half_MP = self.flat["params"].bfloat16()
        self.replays = None

    def _optimizer(self) -> FlatAdamW | FlatAdafactor:
        kind = FlatAdamW if self.cohort.optimizer == "adamw" else FlatAdafactor
        return kind(self.cohort, self.flat, self.half_MP, self.healthy_M)

    def _corpus(self, split: str) -> tuple[Tensor, int]:
        tokens = self.splits[split]
        return tokens, ALL_BITS[tokens.dtype]

    @abstractmethod
    def _update_of(self, tables: Tables) -> Callable[[], None]:
        """One update that takes its arguments from the next row of ``tables``."""

    @abstractmethod
    def _batch_losses(self, split: str, starts_nMB: Tensor) -> Iterator[Tensor]:
        """Losses (M, R) of each batch, no dropout; valid until the next one."""

    @abstractmethod
    def _batch_gradients(self, starts_nMB: Tensor) -> Iterator[Tensor]:
        """Gradient (M, P) of each batch's mean loss, no dropout; valid until the next one."""


def regrouped(starts_MnB: Tensor, most: int) -> Tensor:
    """The same windows in fewer, equal batches (n, M, B): at most ``most`` sequences each, divisible among ranks."""
    num_members, rows, sequences = starts_MnB.shape
    total, ranks = rows * sequences, num_ranks()
    sizes = [size for size in range(1, max(most, sequences) + 1) if total % size == 0]
    size = max((size for size in sizes if total // size % ranks == 0), default=sizes[-1])
    return starts_MnB.reshape(num_members, total // size, size).transpose(0, 1).contiguous()


class FusedTrainer(FastTrainer):
    """Updates made of hand-written kernels; see `scaling_sim_torch.fused`."""

    def _update_of(self, tables: Tables) -> Callable[[], None]:
        model, optimizer = self._model(self.cohort.batch_sequences, gradient=True), self._optimizer()

        def update() -> None:
            model.read(tables.starts, tables.step, *self._corpus("train"), self.flat["params"])
            losses_MR, grad_MP, squares = model.gradient(self.flat["params"], self.half_MP)
            optimizer.step(losses_MR, grad_MP, tables, squares)

        return update

    def _model(self, batch: int, *, gradient: bool) -> FusedModel:
        return FusedModel(self.cohort.shape, len(self.members), batch, self.device, gradient=gradient)

    def _batch_losses(self, split: str, starts_nMB: Tensor) -> Iterator[Tensor]:
        model = self._model(starts_nMB.shape[2], gradient=False)
        for step in torch.arange(len(starts_nMB), device=self.device):
            model.read(starts_nMB, step, *self._corpus(split), self.flat["params"])
            yield model.losses(self.flat["params"], self.half_MP)

    def _batch_gradients(self, starts_nMB: Tensor) -> Iterator[Tensor]:
        model = self._model(starts_nMB.shape[2], gradient=True)
        for step in torch.arange(len(starts_nMB), device=self.device):
            model.read(starts_nMB, step, *self._corpus("train"), self.flat["params"])
            yield model.gradient(self.flat["params"], self.half_MP)[1]


class StackedTrainer(FastTrainer):
    """Updates of any shape: compiled blocks and the loss in chunks; see `scaling_sim_torch.stacked`."""

    def _update_of(self, tables: Tables) -> Callable[[], None]:
        model, optimizer = self._model(), self._optimizer()
        batch = self.cohort.batch_sequences
        rows = batch // (num_ranks() if is_shared(batch) else 1) * self.cohort.shape.n_ctx
        losses_MR = torch.empty(len(self.members), rows, device=self.device)
        grad_MP = torch.empty_like(self.flat["params"])

        def update() -> None:
            starts_MB = tables.starts.index_select(0, tables.step)[0]
            update_number = tables.update.index_select(0, tables.step)[0]
            dropout = None if self.dropout_keys is None else Dropout(self.dropout_keys, update_number)
            windows_MBU = self._all_windows("train", share(starts_MB))
            self._gradient(model, windows_MBU, losses_MR, grad_MP, dropout)
            if is_shared(batch):
                average(losses_MR, grad_MP)
            optimizer.step(losses_MR, grad_MP, tables)

        return update

    def _gradient(
        self, model: StackedModel, windows_MBU: Tensor, losses_MR: Tensor, grad_MP: Tensor,
        dropout: Dropout | None = None,
    ) -> None:  # fmt: skip
        """Losses and gradient of a batch; where memory runs out, again in smaller micro-batches."""

        def compute(parts: int) -> None:
            model.micro_batches = parts
            model.gradient(self.flat["params"], self.half_MP, windows_MBU, losses_MR, grad_MP, dropout)

        parts = model.micro_batches
        in_parts(compute, parts, parts if dropout is not None else windows_MBU.shape[1])

    def _model(self, *, micro_batches: int | None = None) -> StackedModel:
        plan = self.plan
        return StackedModel(
            self.cohort.shape, len(self.members), self.device, micro_batches=micro_batches or plan.micro_batches,
            compiled=plan.compiled, checkpointed=plan.checkpointed,
        )  # fmt: skip

    def _batch_losses(self, split: str, starts_nMB: Tensor) -> Iterator[Tensor]:
        model = self._model()
        for starts_MB in starts_nMB:
            parts = starts_MB.split(max(1, self.cohort.batch_sequences // self.plan.micro_batches), dim=1)
            windows = (self._all_windows(split, part) for part in parts)
            yield torch.cat([model.losses(self.flat["params"], self.half_MP, part) for part in windows], dim=1)

    def _batch_gradients(self, starts_nMB: Tensor) -> Iterator[Tensor]:
        size, room = starts_nMB.shape[2], max(1, self.cohort.batch_sequences // self.plan.micro_batches)
        parts = next(n for n in range(1, size + 1) if size % n == 0 and size <= n * room)
        model, grad_MP = self._model(micro_batches=parts), torch.empty_like(self.flat["params"])
        losses_MR = torch.empty(len(self.members), starts_nMB.shape[2] * self.cohort.shape.n_ctx, device=self.device)
        for starts_MB in starts_nMB:
            windows_MBU = self._all_windows("train", starts_MB)
            self._gradient(model, windows_MBU, losses_MR, grad_MP)
            yield grad_MP

    def _all_windows(self, split: str, starts_MB: Tensor) -> Tensor:
        """Windows (M, B, T + 1): inputs and the last target."""
        tokens, bits = self._corpus(split)
        return tokens[starts_MB[..., None] + self.window_T].long() & bits
