"""The end of an update of all members: health, clipping and AdamW over flat tensors, on the device throughout."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from scaling_sim.engine.cohort import Cohort
from scaling_sim.model.shape import DECAYED
from scaling_sim_torch.capture import Tables
from scaling_sim_torch.gradient import Gradient, flat, squared_norms
from scaling_sim_torch.layout import parameter_at
from scaling_sim_torch.optimizer import ADAM_EPSILON, Schedule, adamw, clip_factors, decay_mask

BLOCK = 1024
NOTHING, MASKED, ALL = 0, 1, 2
"""What weight decay acts on: none of the parameters of a launch, some, all."""
MAX_SUMS = 4096
"""Partial sums of squares per member: one program adds them up."""


class FlatAdamW:
    """Updates flat (M, P) float32 weights and moments, and the bfloat16 copy of the weights, in place.

    Two launches on a GPU, or one for each piece of a gradient; the same arithmetic in plain operations on the CPU.
    """

    def __init__(self, cohort: Cohort, flat: dict[str, Tensor], half_MP: Tensor, healthy_M: Tensor) -> None:
        self.cohort, self.flat, self.half_MP, self.healthy_M = cohort, flat, half_MP, healthy_M
        self.num_members, self.num_parameters = half_MP.shape
        self.num_blocks = -(-self.num_parameters // BLOCK)
        self.factor_M = torch.empty(self.num_members, device=half_MP.device)
        self.decays = cohort.weight_decay > 0
        num_sums = min(self.num_blocks, MAX_SUMS)
        self.squares = torch.empty(self.num_members, num_sums, dtype=torch.float64, device=half_MP.device)

    def step(self, losses_MR: Tensor, gradient: Gradient, tables: Tables, squares: Tensor | None = None) -> None:
        """Record the mean losses, clip, update the healthy members and go to the next row of ``tables``.

        Parameters
        ----------
        losses_MR : float32 tensor
        gradient : (M, P) float32 tensor or pieces
            The tensor is left as it is on a GPU, clipped in place on the CPU.
        tables : Tables
        squares : (M, n) float64 tensor, optional
            Numbers that add up to Σ g², where they are known.
        """
        if losses_MR.device.type == "cuda":
            self._launch(losses_MR, gradient, tables, self._squares(gradient) if squares is None else squares)
        else:
            self._plain(losses_MR, flat(gradient, self.half_MP), tables)
        tables.step += 1

    def _squares(self, gradient: Gradient) -> Tensor:
        """Numbers (M, n) that add up to Σ g², float64."""
        if not isinstance(gradient, Tensor):
            return squared_norms(gradient)[None]
        from scaling_sim_torch.kernels.adamw import square_sums

        grid = self.squares.shape[1], self.num_members
        square_sums[grid](gradient, self.squares, self.num_parameters, BLOCK=BLOCK)
        return self.squares

    def _launch(self, losses_MR: Tensor, gradient: Gradient, tables: Tables, squares: Tensor) -> None:
        from scaling_sim_torch.kernels.adamw import judge

        judge[(self.num_members,)](
            losses_MR, squares, self.healthy_M.view(torch.uint8), self.factor_M, tables.record, tables.step,
            losses_MR.shape[1], squares.shape[1], self.cohort.clip_norm, BLOCK=1024,
        )  # fmt: skip
        if isinstance(gradient, Tensor):
            self._update(gradient, 0, self.num_parameters, tables, MASKED if self.decays else NOTHING)
            return
        for first, piece in gradient:
            decayed = self.decays and parameter_at(self.cohort.shape, first) in DECAYED
            self._update(piece, first, piece.numel(), tables, ALL if decayed else NOTHING)

    @cached_property
    def decayed_P(self) -> Tensor:
        """1 where weight decay acts, one byte per parameter."""
        mask_1P = decay_mask(self.cohort, self.half_MP.device, torch.uint8)
        assert mask_1P is not None, "nothing decays"
        return mask_1P[0]

    def _update(self, grad: Tensor, first: int, count: int, tables: Tables, decay: int) -> None:
        """AdamW of ``count`` parameters of every member; of all, or of a part of the only one."""
        from scaling_sim_torch.kernels.adamw import update

        part = slice(first, first + count)
        params, half, adam_m, adam_v = (
            one[:, part] for one in (self.flat["params"], self.half_MP, self.flat["adam_m"], self.flat["adam_v"])
        )
        update[(-(-count // BLOCK), self.num_members)](
            params, half, adam_m, adam_v, grad, self.factor_M, self.decayed_P if decay == MASKED else self.factor_M,
            tables.step_size, tables.decay, tables.correction2, tables.step, count, self.num_members,
            1 - self.cohort.beta1, 1 - self.cohort.beta2, ADAM_EPSILON, BLOCK=BLOCK, DECAY=decay,
        )  # fmt: skip

    def _plain(self, losses_MR: Tensor, grad_MP: Tensor, tables: Tables) -> None:
        row = int(tables.step)
        loss_M = losses_MR.mean(dim=1, dtype=torch.float64)
        norm_M = torch.linalg.vector_norm(grad_MP, dim=1, dtype=torch.float64)
        self.healthy_M &= loss_M.isfinite() & norm_M.isfinite()
        grad_MP *= clip_factors(norm_M, self.cohort.clip_norm).float()[:, None]
        schedule = Schedule(tables.update, tables.step_size[..., None], tables.decay[..., None], tables.correction2)
        weights = (self.flat["params"], self.flat["adam_m"], self.flat["adam_v"])
        mask_1P = decay_mask(self.cohort, grad_MP.device, torch.float32)
        adamw(weights, grad_MP, self.healthy_M, self.cohort, schedule, row, mask_1P)
        self.half_MP.copy_(self.flat["params"])
        tables.record[row] = torch.where(self.healthy_M, loss_M, torch.nan)
