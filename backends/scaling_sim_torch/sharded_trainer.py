"""A `Trainer` of one sharded model: every rank calls the same methods with the same arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch import distributed as dist

from scaling_sim.engine.checks import check_member_axis, check_split_name, kept_rows, state_ids
from scaling_sim.engine.cohort import Cohort, Precision
from scaling_sim.engine.protocol import State, Tokens
from scaling_sim.engine.reference import standard_error
from scaling_sim.model.init import initial_parameters
from scaling_sim.model.shape import DECAYED
from scaling_sim_torch.distributed import average, gathered, is_shared, own_rows, share
from scaling_sim_torch.dropout import Dropout
from scaling_sim_torch.fast import regrouped
from scaling_sim_torch.gradient import squared_norms
from scaling_sim_torch.optimizer import Schedule, adamw, clip_factors
from scaling_sim_torch.plan import Plan
from scaling_sim_torch.sharded import ShardedModel
from scaling_sim_torch.trainer import TorchTrainer

Piece = tuple[str, int | None]


class ShardedTrainer(TorchTrainer):
    """One member, AdamW, bfloat16 products; weights and moments are this rank's shards.

    Attributes
    ----------
    shards : dict
        (name, layer) → local weight and both moments.
    """

    def __init__(
        self, cohort: Cohort, splits: Mapping[str, Tokens], device: str, precision: Precision, plan: Plan
    ) -> None:
        self.plan = plan
        self.model = ShardedModel(
            cohort.shape, torch.device(device), compiled=plan.compiled, checkpointed=plan.checkpointed
        )
        self.shards: dict[Piece, tuple[Tensor, Tensor, Tensor]] = {}
        super().__init__(cohort, splits, device, precision, deterministic=False)

    def retire(self, ids: Sequence[int]) -> None:
        """Remove the member and free its memory."""
        if len(kept_rows(self.live(), ids)) == 0 and ids:
            self._set_members([])
            self.healthy_M = self.healthy_M[:0]
            self.shards, self.flat = {}, {}
            self.model = self.model.to_empty(device="meta")

    def evaluate(self, split: str, starts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean loss per position (1, T) and its standard error over sequences (1,); see `Trainer.evaluate`."""
        check_split_name(split, list(self.splits))
        starts_MnB = self._checked_starts(split, check_member_axis(starts, len(self.members)))
        starts_nMB, losses = regrouped(starts_MnB, self.cohort.batch_sequences), []
        with torch.no_grad():
            for starts_MB in own_rows(starts_nMB):
                size = max(1, self.cohort.batch_sequences // self.plan.micro_batches)
                for part_Mb in torch.split(starts_MB, size, dim=1):
                    rows_MR = torch.empty(1, part_Mb.numel() * self.cohort.shape.n_ctx, device=self.device)
                    self.model(self._all_windows(split, part_Mb), rows_MR)
                    losses.append(rows_MR.view(-1, self.cohort.shape.n_ctx).double())
        cast(Any, self.model).reshard()  # as a backward pass does: `zero_grad` must find the shards
        losses_ST = gathered(torch.cat(losses)[None], len(starts_nMB))[0].cpu().numpy()
        return losses_ST.mean(axis=0)[None], standard_error(losses_ST.mean(axis=1)[None])

    def gradient_noise(self, starts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """|g_i|² (1, n) and |mean g|² (1,); see `Trainer.gradient_noise`."""
        starts_MnB = self._checked_starts("train", check_member_axis(starts, len(self.members)))
        squares, total = [], [torch.zeros_like(shard[0]) for shard in self.shards.values()]
        for starts_MB in starts_MnB.unbind(1):
            self._backward(starts_MB)
            grads = self._grads()
            squares.append(float(self._square(grads)))
            for one, grad in zip(total, grads, strict=True):
                one += grad
        for one in total:
            one /= starts_MnB.shape[1]
        return np.array([squares]), np.array([float(self._square(total))])

    def state(self) -> State:
        """The whole state on every rank; see `Trainer.state`."""
        state: State = {"ids": np.array(self.live(), np.int64), "diverged": (~self.healthy_M).cpu().numpy()}
        for kind, shapes in self.kinds.items():
            for name, size in shapes.items():
                state[f"{kind}.{name}"] = np.empty((len(self.members), *size), np.float32)
        for name, layer, param in self.model.pieces() if self.members else ():
            for index, kind in enumerate(self.kinds):
                whole = _gathered(self.shards[name, layer][index], param)
                state[f"{kind}.{name}"][(0, layer) if layer is not None else 0] = whole.cpu().numpy()
        return state

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from ``state``, of any number of ranks; see `Trainer.load_state`."""
        self._set_members(state_ids(self.cohort, state))
        self.healthy_M = ~torch.from_numpy(np.array(state["diverged"], bool)).to(self.device)

        def part(kind: str, name: str, layer: int | None) -> NDArray[Any]:
            array: NDArray[Any] = state[f"{kind}.{name}"][0]
            return array if layer is None else array[layer]

        self._place(part)

    def _begin(self) -> None:
        """Initial weights and zeros; the moments never exist in host memory as a whole."""
        self._set_members([member.id for member in self.cohort.members])
        self.healthy_M = torch.ones(1, dtype=torch.bool, device=self.device)
        initial = initial_parameters(self.cohort.shape, self.members[0].seed, np.float32)

        def part(kind: str, name: str, layer: int | None) -> NDArray[Any]:
            array = initial[name] if layer is None else initial[name][layer]
            return array if kind == "params" else np.zeros_like(array)

        self._place(part)

    def _place(self, part: Any) -> None:
        """Fill this rank's shards."""
        for name, layer, param in self.model.pieces():
            local = []
            for kind in self.kinds:
                whole = torch.from_numpy(np.ascontiguousarray(part(kind, name, layer)))
                local.append(_own_part(whole, param).to(self.device, self.dtype))
            weight = _local(param)
            with torch.no_grad():
                weight.copy_(local[0])
            self.shards[name, layer] = (weight, local[1], local[2])

    def _update(self, step: int, starts_MB: Tensor, schedule: Schedule) -> Tensor:
        """One update unless it failed; the loss (1,) before it."""
        loss_M = self._backward(starts_MB)
        grads = self._grads()
        norm_M = self._square(grads).sqrt()[None]
        self.healthy_M &= loss_M.isfinite() & norm_M.isfinite()
        factor_M1 = clip_factors(norm_M, self.cohort.clip_norm).to(self.dtype)[:, None]
        for ((name, _), shard), grad in zip(self.shards.items(), grads, strict=True):
            mask = torch.full((1, 1), float(name in DECAYED), device=self.device) if self.cohort.weight_decay else None
            flat = tuple(one.view(1, -1) for one in shard)
            adamw(
                (flat[0], flat[1], flat[2]), grad.view(1, -1) * factor_M1, self.healthy_M, self.cohort, schedule, step,
                mask,
            )  # fmt: skip
        return torch.where(self.healthy_M, loss_M, torch.nan)

    def _backward(self, starts_MB: Tensor, dropout: Dropout | None = None) -> Tensor:
        """Fill the gradients of the mean loss over all ranks; that loss (1,), float64."""
        self.model.zero_grad(set_to_none=True)
        divided, starts_MB = is_shared(starts_MB.shape[1]), share(starts_MB)
        losses = []
        for part_Mb in starts_MB.chunk(self.plan.micro_batches, dim=1):
            rows_MR = torch.empty(1, part_Mb.numel() * self.cohort.shape.n_ctx, device=self.device)
            scale = 1 / (starts_MB.numel() * self.cohort.shape.n_ctx)
            self.model(self._all_windows("train", part_Mb), rows_MR, scale).backward()
            losses.append(rows_MR)
        loss_M = torch.cat(losses, dim=1).mean(dim=1, dtype=torch.float64)
        vectors = [param.grad for param in self.model.vectors() if param.grad is not None]
        if divided:
            joined = torch.cat([grad.flatten() for grad in vectors])
            average(loss_M, joined)
            for grad, piece in zip(vectors, torch.split(joined, [grad.numel() for grad in vectors]), strict=True):
                grad.copy_(piece.view_as(grad))
        return loss_M

    def _grads(self) -> list[Tensor]:
        """This rank's part of every gradient, in the order of `shards`."""
        return [_local(param.grad) for _, _, param in self.model.pieces() if param.grad is not None]

    def _square(self, grads: Sequence[Tensor]) -> Tensor:
        """Squared norm of a whole gradient, float64."""
        sums = {True: torch.zeros((), dtype=torch.float64, device=self.device)}
        sums[False] = sums[True].clone()
        for (name, _), grad in zip(self.shards, grads, strict=True):
            sums[name.startswith("ln")] += squared_norms([(0, grad)])[0]
        dist.all_reduce(sums[False])
        return sums[False] + sums[True]

    def _all_windows(self, split: str, starts_MB: Tensor) -> Tensor:
        inputs, targets = self._windows(split, starts_MB)
        return torch.cat([inputs, targets[..., -1:]], dim=-1)


def _local(tensor: Any) -> Tensor:
    """This rank's part of a tensor; the tensor itself where every rank has the whole."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor.detach()
    return part.detach()


def _own_part(whole: Tensor, param: Any) -> Tensor:
    """What FSDP2 puts on this rank: the chunk of the first axis."""
    if not hasattr(param, "to_local"):
        return whole
    parts = whole.chunk(dist.get_world_size(), dim=0)
    return parts[dist.get_rank()] if dist.get_rank() < len(parts) else whole[:0]


def _gathered(part: Tensor, param: Any) -> Tensor:
    """The whole of a tensor that is sharded as ``param`` is."""
    if not hasattr(param, "to_local"):
        return part
    from torch.distributed.tensor import DTensor

    whole: Tensor = DTensor.from_local(
        part, param.device_mesh, param.placements, run_check=False, shape=param.shape, stride=param.stride()
    ).full_tensor()
    return whole
