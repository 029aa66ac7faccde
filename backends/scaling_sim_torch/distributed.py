"""One cohort on several ranks (torchrun): each computes its share of every batch, gradients and losses are averaged.

Every rank runs the same loop on the same global windows. With DDP each holds all weights, with FSDP2
(`scaling_sim_torch.sharded`) its part of them; the state is the same, so a checkpoint resumes on any number of ranks. A
sweep of small runs never comes here: it runs independent processes.
"""

from __future__ import annotations

import gc
import os
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist

PATIENCE = timedelta(hours=12)
"""How long a rank waits for the others: rank 0 also reads corpora and fits laws."""


class Ranks:
    """The processes that torchrun started, joined in one group (gloo for host memory, NCCL for cards)."""

    def __init__(self) -> None:
        local = int(os.environ.get("LOCAL_RANK", os.environ["RANK"]))
        cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
        self.device = f"cuda:{local % cards}" if cards else "cpu"
        if cards:
            torch.cuda.set_device(self.device)
        if not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if cards else "gloo", timeout=PATIENCE)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def share(self, message: bytes) -> bytes:
        """Rank 0's message, on every rank; waits for all of them."""
        length = torch.tensor([len(message)])
        dist.broadcast(length, 0)
        content = torch.empty(int(length), dtype=torch.uint8)
        if self.rank == 0:
            content.copy_(torch.frombuffer(bytearray(message), dtype=torch.uint8) if message else content)
        dist.broadcast(content, 0)
        return content.numpy().tobytes()

    def leave(self) -> None:
        """Part when all have come here; a process that ends while its group lives may be aborted.

        The group lives as long as something refers to it, such as a trainer that was sharded.
        """
        dist.all_reduce(torch.zeros(1))
        gc.collect()
        dist.destroy_process_group()


def num_ranks() -> int:
    """Ranks of the default process group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def leads() -> bool:
    """Whether this process is the one that writes files."""
    return num_ranks() == 1 or dist.get_rank() == 0


def agreed(number: int, device: torch.device) -> int:
    """Rank 0's number, on every rank."""
    if num_ranks() == 1:
        return number
    shared = torch.tensor([number], device=device)
    dist.broadcast(shared, 0)
    return int(shared)


def least(number: float, device: torch.device) -> float:
    """The smallest of all ranks' numbers, on every rank: of free bytes, whose plans must be one."""
    if num_ranks() == 1:
        return number
    shared = torch.tensor([number], dtype=torch.float64, device=device)
    dist.all_reduce(shared, dist.ReduceOp.MIN)
    return float(shared)


def is_shared(batch: int) -> bool:
    """Whether a batch of so many sequences is divided; one that does not divide evenly is computed by every rank."""
    return num_ranks() > 1 and batch % num_ranks() == 0


def own_size(batch: int) -> int:
    """Sequences of a batch that this rank computes."""
    return batch // num_ranks() if is_shared(batch) else batch


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


def own_rows(rows: Tensor) -> Tensor:
    """This rank's part of the first axis; all of it where it does not divide evenly."""
    return rows.chunk(num_ranks())[dist.get_rank()] if is_shared(len(rows)) else rows


def summed(tensor: Tensor, num_rows: int) -> Tensor:
    """Sum over ranks of what each found in its `own_rows` of ``num_rows``, in place."""
    if is_shared(num_rows):
        dist.all_reduce(tensor)
    return tensor


def gathered(tensor: Tensor, num_rows: int) -> Tensor:
    """What the ranks found in their `own_rows` of ``num_rows``, along the second axis, in order."""
    if not is_shared(num_rows):
        return tensor
    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(num_ranks())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts, dim=1)
