"""The end of an update of all members by Adafactor: health, clipping and weights, on the device throughout."""

from __future__ import annotations

import torch
from torch import Tensor

from scaling_sim.engine.cohort import Cohort
from scaling_sim_torch.capture import Tables
from scaling_sim_torch.gradient import Gradient, flat, squared_norms
from scaling_sim_torch.optimizer import adafactor, clip_factors


class FlatAdafactor:
    """Updates flat float32 weights and factored moments, and the bfloat16 copy of the weights, in place.

    Plain operations, one matrix at a time, so that temporaries are as large as one matrix; they may be captured.
    """

    def __init__(self, cohort: Cohort, flat: dict[str, Tensor], half_MP: Tensor, healthy_M: Tensor) -> None:
        self.cohort, self.flat, self.half_MP, self.healthy_M = cohort, flat, half_MP, healthy_M

    def step(self, losses_MR: Tensor, gradient: Gradient, tables: Tables, squares: Tensor | None = None) -> None:
        """Record the mean losses, clip, update the healthy members and go to the next row of ``tables``."""
        grad_MP = flat(gradient, self.half_MP)
        row = tables.step
        loss_M = losses_MR.mean(dim=1, dtype=torch.float64)
        norm_M = squared_norms(grad_MP).sqrt()
        self.healthy_M &= loss_M.isfinite() & norm_M.isfinite()
        rates = tuple(table.index_select(0, row)[0] for table in (tables.step_size, tables.decay))
        share = tables.correction2.index_select(0, row)
        factor_M = clip_factors(norm_M, self.cohort.clip_norm).float()
        adafactor(self.flat, grad_MP, self.healthy_M, self.cohort, (rates[0], rates[1], share), factor_M)
        self.half_MP.copy_(self.flat["params"])
        tables.record.index_copy_(0, row, torch.where(self.healthy_M, loss_M, torch.nan)[None])
        tables.step += 1
