"""The end of an update of all members: health, clipping and AdamW over flat tensors, on the device throughout."""

from __future__ import annotations

import torch
from torch import Tensor

from scaling_sim.engine.cohort import Cohort
from scaling_sim_torch.capture import Tables
from scaling_sim_torch.optimizer import ADAM_EPSILON, Schedule, adamw, clip_factors, decay_mask

BLOCK = 1024
MAX_SUMS = 4096
"""Partial sums of squares per member: one program adds them up."""


class FlatAdamW:
    """Updates flat (M, P) float32 weights and moments, and the bfloat16 copy of the weights, in place.

    Two launches on a GPU; the same arithmetic in plain operations on the CPU.
    """

    def __init__(self, cohort: Cohort, flat: dict[str, Tensor], half_MP: Tensor, healthy_M: Tensor) -> None:
        self.cohort, self.flat, self.half_MP, self.healthy_M = cohort, flat, half_MP, healthy_M
        self.num_members, self.num_parameters = half_MP.shape
        self.num_blocks = -(-self.num_parameters // BLOCK)
        self.factor_M = torch.empty(self.num_members, device=half_MP.device)
        self.mask_1P = decay_mask(cohort, half_MP.device, torch.float32)
        self.decayed_P = torch.zeros(1, device=half_MP.device) if self.mask_1P is None else self.mask_1P[0]
        num_sums = min(self.num_blocks, MAX_SUMS)
        self.squares = torch.empty(self.num_members, num_sums, dtype=torch.float64, device=half_MP.device)

    def step(self, losses_MR: Tensor, grad_MP: Tensor, tables: Tables, squares: Tensor | None = None) -> None:
        """Record the mean losses, clip, update the healthy members and go to the next row of ``tables``.

        Parameters
        ----------
        losses_MR : float32 tensor
        grad_MP : float32 tensor
            Left as it is on a GPU, clipped in place on the CPU.
        tables : Tables
        squares : (M, n) float64 tensor, optional
            Numbers that add up to Σ g², where they are known.
        """
        if grad_MP.device.type == "cuda":
            self._launch(losses_MR, grad_MP, tables, self._squares(grad_MP) if squares is None else squares)
        else:
            self._plain(losses_MR, grad_MP, tables)
        tables.step += 1

    def _squares(self, grad_MP: Tensor) -> Tensor:
        from scaling_sim_torch.kernels.adamw import square_sums

        grid = self.squares.shape[1], self.num_members
        square_sums[grid](grad_MP, self.squares, self.num_parameters, BLOCK=BLOCK)
        return self.squares

    def _launch(self, losses_MR: Tensor, grad_MP: Tensor, tables: Tables, squares: Tensor) -> None:
        from scaling_sim_torch.kernels.adamw import judge, update

        judge[(self.num_members,)](
            losses_MR, squares, self.healthy_M.view(torch.uint8), self.factor_M, tables.record, tables.step,
            losses_MR.shape[1], squares.shape[1], self.cohort.clip_norm, BLOCK=1024,
        )  # fmt: skip
        update[(self.num_blocks, self.num_members)](
            self.flat["params"], self.half_MP, self.flat["adam_m"], self.flat["adam_v"], grad_MP, self.factor_M,
            self.decayed_P, tables.step_size, tables.decay, tables.correction2, tables.step,
            self.num_parameters, self.num_members, 1 - self.cohort.beta1, 1 - self.cohort.beta2, ADAM_EPSILON,
            BLOCK=BLOCK, DECAY=self.mask_1P is not None,
        )  # fmt: skip

    def _plain(self, losses_MR: Tensor, grad_MP: Tensor, tables: Tables) -> None:
        row = int(tables.step)
        loss_M = losses_MR.mean(dim=1, dtype=torch.float64)
        norm_M = torch.linalg.vector_norm(grad_MP, dim=1, dtype=torch.float64)
        self.healthy_M &= loss_M.isfinite() & norm_M.isfinite()
        grad_MP *= clip_factors(norm_M, self.cohort.clip_norm).float()[:, None]
        schedule = Schedule(tables.update, tables.step_size[..., None], tables.decay[..., None], tables.correction2)
        flat = (self.flat["params"], self.flat["adam_m"], self.flat["adam_v"])
        adamw(flat, grad_MP, self.healthy_M, self.cohort, schedule, row, self.mask_1P)
        self.half_MP.copy_(self.flat["params"])
        tables.record[row] = torch.where(self.healthy_M, loss_M, torch.nan)
