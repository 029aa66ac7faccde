"""The fast paths of one device: bfloat16 arithmetic, float32 master weights, updates replayed from CUDA graphs."""

from __future__ import annotations

import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cache, partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling_sim.engine.checks import check_batches, check_member_axis, check_split_name
from scaling_sim.engine.cohort import Cohort, Precision
from scaling_sim.engine.protocol import Tokens
from scaling_sim.engine.reference import standard_error
from scaling_sim.errors import BackendWarning
from scaling_sim_torch.capture import Replays, Tables
from scaling_sim_torch.distributed import average, gathered, is_shared, num_ranks, own_rows, own_size, share, summed
from scaling_sim_torch.dropout import Dropout
from scaling_sim_torch.flat_adafactor import FlatAdafactor
from scaling_sim_torch.flat_adamw import FlatAdamW
from scaling_sim_torch.fused import FusedModel
from scaling_sim_torch.gradient import Gradient, add, squared_norms
from scaling_sim_torch.memory import by_pieces
from scaling_sim_torch.out_of_memory import Room, release_memory
from scaling_sim_torch.plan import Plan, stacked_plan
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


class FastTrainer(TorchTrainer):
    """Tables on the device, replays, and losses read back once per call; how an update is made is its path's matter.

    Attributes
    ----------
    path : FastPath
        As planned; the compiled one from when the kernels' work space no longer fits.
    room, room_beside : Room
        Sequences of each member that updates compute at a time, and evaluations and gradient noise.
    """

    replays: tuple[Tables, Replays] | None
    half_MP: Tensor

    def __init__(
        self, cohort: Cohort, splits: Mapping[str, Tokens], device: str, precision: Precision, plan: Plan
    ) -> None:
        self.plan = plan
        self.path: FastPath = FusedPath(self) if plan.path == "fused" else StackedPath(self)
        super().__init__(cohort, splits, device, precision, deterministic=False)
        sequences = max(1, own_size(cohort.batch_sequences) // plan.micro_batches)
        self.room, self.room_beside = Room(sequences), Room(sequences)

    @on_own_card
    def advance(self, first_step: int, starts: NDArray[np.int64], lr: NDArray[np.float64]) -> NDArray[np.float64]:
        """Losses (K, M) of K updates; see `Trainer.advance`."""
        check_batches(starts, lr, len(self.members), self.cohort)
        starts_KMB = self._checked_starts("train", starts)
        if lr.size == 0:
            return np.empty(lr.shape)
        tables, replays = self.replays or self._where_there_is_room(self._prepared, for_updates=True)
        self.replays = tables, replays
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
        starts_nMB = regrouped(starts_MnB, self.cohort.batch_sequences)
        sum_MT, means_MS = self._where_there_is_room(lambda path: self._sums(path, split, own_rows(starts_nMB)))
        mean_MT = summed(sum_MT, len(starts_nMB)) / starts_MnB[0].numel()
        return mean_MT.cpu().numpy(), standard_error(gathered(means_MS, len(starts_nMB)).cpu().numpy())

    @on_own_card
    def gradient_noise(self, starts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """|g_i|² (M, n) and |mean g|² (M,); see `Trainer.gradient_noise`."""
        starts_MnB = self._checked_starts("train", check_member_axis(starts, len(self.members)))
        starts_nMB = starts_MnB.transpose(0, 1).contiguous()
        squares_Mn, total_MP = self._where_there_is_room(lambda path: self._norms_and_sum(path, own_rows(starts_nMB)))
        mean_MP = summed(total_MP, len(starts_nMB)).div_(len(starts_nMB))
        squares_Mn = gathered(squares_Mn, len(starts_nMB))
        return squares_Mn.cpu().numpy(), squared_norms(mean_MP).cpu().numpy()

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

    def corpus(self, split: str) -> tuple[Tensor, int]:
        """Tokens of a split on the device, and the bits that are theirs."""
        tokens = self.splits[split]
        return tokens, ALL_BITS[tokens.dtype]

    def optimizer(self) -> FlatAdamW | FlatAdafactor:
        """For the present tensors."""
        kind = FlatAdamW if self.cohort.optimizer == "adamw" else FlatAdafactor
        return kind(self.cohort, self.flat, self.half_MP, self.healthy_M)

    def _begin(self) -> None:
        super()._begin()
        self._placed()

    def _placed(self) -> None:
        """Whatever refers to the old tensors is gone."""
        self.half_MP = self.flat["params"].bfloat16()
        self.replays = None

    def _prepared(self, path: FastPath) -> tuple[Tables, Replays]:
        tables = Tables(len(self.members), self.cohort.batch_sequences, self.device)
        return tables, Replays(path.update_of(tables), self.device, capture=self.plan.capture)

    def _sums(self, path: FastPath, split: str, starts_nMB: Tensor) -> tuple[Tensor, Tensor]:
        """Losses summed over sequences (M, T), and the mean of each sequence (M, n·B)."""
        sums, means = [], []
        for losses_MR in path.batch_losses(split, starts_nMB):
            losses_MBT = losses_MR.view(len(self.members), -1, self.cohort.shape.n_ctx).double()
            sums.append(losses_MBT.sum(dim=1))
            means.append(losses_MBT.mean(dim=2))
        return torch.stack(sums).sum(dim=0), torch.cat(means, dim=1)

    def _norms_and_sum(self, path: FastPath, starts_nMB: Tensor) -> tuple[Tensor, Tensor]:
        """Squared norms (M, n) of the batches' gradients, and their sum (M, P)."""
        total_MP, squares = torch.zeros_like(self.flat["params"]), []
        for gradient in path.batch_gradients(starts_nMB):
            squares.append(squared_norms(gradient))
            add(total_MP, gradient)
            del gradient  # pieces are memory of their own, which the next ones need
        return torch.stack(squares, dim=1), total_MP

    def _where_there_is_room(self, compute: Callable[[FastPath], R], *, for_updates: bool = False) -> R:
        """``compute`` of the trainer's path, which changes no weights.

        Where memory runs out, again without the work space of updates, which is made anew for the next one; and at
        last on the compiled path, which can cut batches: once, or from now on if it is ``for_updates``.
        """
        try:
            return compute(self.path)
        except torch.OutOfMemoryError:
            if self.replays is None and isinstance(self.path, StackedPath):
                raise
        if self.replays is not None:
            self.replays = None
            release_memory()
            _warn("without the work space of updates, which the next one makes anew")
            return self._where_there_is_room(compute, for_updates=for_updates)
        path = StackedPath(self)
        if for_updates:
            self.plan, self.path = stacked_plan(self.cohort, "the kernels' work space did not fit", None), path
        release_memory()
        _warn("on the compiled path")
        return compute(path)


def _warn(how: str) -> None:
    warnings.warn(f"out of memory; going on {how}", BackendWarning, stacklevel=5)


class FastPath(ABC):
    """How a `FastTrainer` computes: losses and gradients of batches, and whole updates.

    It knows its trainer weakly, so that a trainer that nobody uses gives back its memory at once.
    """

    def __init__(self, trainer: FastTrainer) -> None:
        self.trainer: FastTrainer = weakref.proxy(trainer)

    @abstractmethod
    def update_of(self, tables: Tables) -> Callable[[], None]:
        """One update that takes its arguments from the next row of ``tables``."""

    @abstractmethod
    def batch_losses(self, split: str, starts_nMB: Tensor) -> Iterator[Tensor]:
        """Losses (M, R) of each batch, no dropout; valid until the next one."""

    @abstractmethod
    def batch_gradients(self, starts_nMB: Tensor) -> Iterator[Gradient]:
        """Gradient of each batch's mean loss, no dropout; valid until the next one."""


class FusedPath(FastPath):
    """Hand-written kernels; see `scaling_sim_torch.fused`."""

    def update_of(self, tables: Tables) -> Callable[[], None]:
        """See `FastPath.update_of`."""
        trainer = self.trainer
        model, optimizer = self._model(trainer.cohort.batch_sequences, gradient=True), trainer.optimizer()
        flat, half = trainer.flat, trainer.half_MP

        def update() -> None:
            model.read(tables.starts, tables.step, *trainer.corpus("train"), flat["params"])
            losses_MR, grad_MP, squares = model.gradient(flat["params"], half)
            optimizer.step(losses_MR, grad_MP, tables, squares)

        return update

    def batch_losses(self, split: str, starts_nMB: Tensor) -> Iterator[Tensor]:
        """See `FastPath.batch_losses`."""
        trainer, model = self.trainer, self._model(starts_nMB.shape[2], gradient=False)
        for step in torch.arange(len(starts_nMB), device=trainer.device):
            model.read(starts_nMB, step, *trainer.corpus(split), trainer.flat["params"])
            yield model.losses(trainer.flat["params"], trainer.half_MP)

    def batch_gradients(self, starts_nMB: Tensor) -> Iterator[Gradient]:
        """See `FastPath.batch_gradients`."""
        trainer, model = self.trainer, self._model(starts_nMB.shape[2], gradient=True)
        for step in torch.arange(len(starts_nMB), device=trainer.device):
            model.read(starts_nMB, step, *trainer.corpus("train"), trainer.flat["params"])
            yield model.gradient(trainer.flat["params"], trainer.half_MP)[1]

    def _model(self, batch: int, *, gradient: bool) -> FusedModel:
        trainer = self.trainer
        return FusedModel(trainer.cohort.shape, len(trainer.members), batch, trainer.device, gradient=gradient)


class StackedPath(FastPath):
    """Any shape: compiled blocks and the loss in chunks; see `scaling_sim_torch.stacked`."""

    def update_of(self, tables: Tables) -> Callable[[], None]:
        """See `FastPath.update_of`."""
        trainer, model, optimizer = self.trainer, self._model(), self.trainer.optimizer()
        batch, dropout_keys = trainer.cohort.batch_sequences, trainer.dropout_keys
        losses_MR, shared = self._losses(own_size(batch)), is_shared(batch)
        gradient, room = self._gradients(model, losses_MR, flat=shared), trainer.room

        def update() -> None:
            starts_MB = tables.starts.index_select(0, tables.step)[0]
            update_number = tables.update.index_select(0, tables.step)[0]
            dropout = None if dropout_keys is None else Dropout(dropout_keys, update_number)
            windows_MBU = self._windows("train", share(starts_MB))
            # Masks are numbered within a whole batch.
            size = windows_MBU.shape[1] if dropout is None else 1
            found = room(partial(gradient, windows_MBU, dropout), size)
            if shared:
                assert isinstance(found, Tensor), "ranks average flat gradients"
                average(losses_MR, found)
            optimizer.step(losses_MR, found, tables)

        return update

    def batch_losses(self, split: str, starts_nMB: Tensor) -> Iterator[Tensor]:
        """See `FastPath.batch_losses`."""
        trainer, model = self.trainer, self._model()

        def compute(starts_MB: Tensor, parts: int) -> Tensor:
            windows = (self._windows(split, part_Mb) for part_Mb in starts_MB.chunk(parts, dim=1))
            return torch.cat([model.losses(trainer.flat["params"], trainer.half_MP, part) for part in windows], dim=1)

        for starts_MB in starts_nMB:
            yield trainer.room_beside(partial(compute, starts_MB), starts_MB.shape[1])

    def batch_gradients(self, starts_nMB: Tensor) -> Iterator[Gradient]:
        """See `FastPath.batch_gradients`."""
        gradient, room = self._gradients(self._model(), self._losses(starts_nMB.shape[2])), self.trainer.room_beside
        for starts_MB in starts_nMB:
            yield room(partial(gradient, self._windows("train", starts_MB), None), starts_MB.shape[1])

    def _gradients(
        self, model: StackedModel, losses_MR: Tensor, *, flat: bool = False
    ) -> Callable[[Tensor, Dropout | None, int], Gradient]:
        """A function of windows, dropout and parts: losses into ``losses_MR``, and the gradient of their mean.

        Of a wide model's whole batch it comes in pieces unless it must be ``flat``; else in memory that is made once.
        """
        cohort, params_MP, half_MP = self.trainer.cohort, self.trainer.flat["params"], self.trainer.half_MP
        in_pieces = not flat and by_pieces(cohort.shape, len(params_MP), cohort.optimizer)
        whole = cache(lambda: torch.empty_like(params_MP))

        def gradient(windows_MBU: Tensor, dropout: Dropout | None, parts: int) -> Gradient:
            if in_pieces and parts == 1:
                return model.pieces(params_MP, half_MP, windows_MBU, losses_MR, dropout)
            model.gradient(params_MP, half_MP, windows_MBU, losses_MR, whole(), dropout, micro_batches=parts)
            return whole()

        return gradient

    def _losses(self, sequences: int) -> Tensor:
        """Where losses (M, R) will stand."""
        trainer = self.trainer
        return torch.empty(len(trainer.members), sequences * trainer.cohort.shape.n_ctx, device=trainer.device)

    def _model(self) -> StackedModel:
        trainer, plan = self.trainer, self.trainer.plan
        return StackedModel(
            trainer.cohort.shape, len(trainer.members), trainer.device, compiled=plan.compiled,
            checkpointed=plan.checkpointed,
        )  # fmt: skip

    def _windows(self, split: str, starts_MB: Tensor) -> Tensor:
        """Windows (M, B, T + 1): inputs and the last target."""
        tokens, bits = self.trainer.corpus(split)
        return tokens[starts_MB[..., None] + self.trainer.window_T].long() & bits


def regrouped(starts_MnB: Tensor, most: int) -> Tensor:
    """The same windows in fewer, equal batches (n, M, B): up to ``most`` sequences each (or as many as they had),
    divisible among ranks."""
    num_members, rows, sequences = starts_MnB.shape
    total, ranks = rows * sequences, num_ranks()
    sizes = [size for size in range(1, max(most, sequences) + 1) if total % size == 0]
    size = max((size for size in sizes if total // size % ranks == 0), default=sizes[-1])
    return starts_MnB.reshape(num_members, total // size, size).transpose(0, 1).contiguous()
