"""One cohort on several ranks (torchrun): each computes its share of every batch, gradients and losses are averaged.

Every rank runs the same loop on the same global windows and holds all weights, so states agree and a checkpoint of one
rank resumes anywhere. A sweep never comes here: it runs independent processes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


def num_ranks() -> int:
    """Ranks of the default process group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_shared(batch: int) -> bool:
    """Whether a batch of so many sequences is divided; one that does not divide evenly is computed by every rank."""
    return num_ranks() > 1 and batch % num_ranks() == 0


def share(starts_MB: Tensor) -> Tensor:
    """This rank's sequences of a batch."""
    if not is_shared(starts_MB.shape[1]):
        return starts_MB
    return starts_MB.chunk(num_ranks(), dim=1)[dist.get_rank()]


@torch.no_grad()
def average(*tensors: Tensor) -> None:
    """Mean over ranks, in place."""
    for tensor in tensors:
        dist.all_reduce(tensor)
        tensor /= num_ranks()
