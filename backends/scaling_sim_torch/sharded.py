"""One model too large for one card: FSDP2 shards weights, gradients and moments over the ranks.

Matrices of a block are gathered in bfloat16 when the block is computed, and freed; their gradients are summed in
float32. Embeddings are gathered in float32, because the head sums their gradient in float32 (`cross_entropy`). Layer
norms are a few vectors: every rank keeps them whole. The mathematics of a block is that of `scaling_sim_torch.stacked`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from scaling_sim.model.shape import Shape
from scaling_sim_torch import stacked
from scaling_sim_torch.cross_entropy import head_gradient, head_losses
from scaling_sim_torch.model import LAYERED

EMBEDDINGS = ("token_embedding", "position_embedding")


class ShardedBlock(nn.Module):
    """One layer; the tensors of `stacked` carry a member axis of length one."""

    def __init__(self, shape: Shape, device: torch.device, compute: Callable[..., Any], checkpointed: bool) -> None:
        super().__init__()
        self.shape, self.compute, self.checkpointed = shape, compute, checkpointed
        sizes = shape.parameter_shapes()
        for name in LAYERED:
            self.register_parameter(name, nn.Parameter(torch.empty(sizes[name][1:], device=device)))

    def forward(self, x_MRD: Tensor, addend_MRD: Tensor) -> tuple[Tensor, Tensor]:
        """The residual stream, and what the feed-forward half adds to it."""
        if self.checkpointed and torch.is_grad_enabled():
            done: tuple[Tensor, Tensor] = checkpoint(self._layer, x_MRD, addend_MRD, use_reentrant=False)
            return done
        return self._layer(x_MRD, addend_MRD)

    def _layer(self, x_MRD: Tensor, addend_MRD: Tensor) -> tuple[Tensor, Tensor]:
        p = {name: getattr(self, name)[None] for name in LAYERED}
        done: tuple[Tensor, Tensor] = self.compute(x_MRD, addend_MRD, p, self.shape.n_head, self.shape.n_ctx, None, 0)
        return done


class ShardedModel(nn.Module):
    """A model of any shape, its parameters sharded over the default process group.

    Parameters
    ----------
    shape : Shape
    device : torch.device
    compiled, checkpointed : bool
        As for `stacked.StackedModel`.
    """

    token_embedding: nn.Parameter
    position_embedding: nn.Parameter
    ln_f_gain: nn.Parameter
    ln_f_bias: nn.Parameter

    def __init__(self, shape: Shape, device: torch.device, *, compiled: bool, checkpointed: bool) -> None:
        super().__init__()
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        self.shape = shape
        sizes = shape.parameter_shapes()
        for name in (*EMBEDDINGS, "ln_f_gain", "ln_f_bias"):
            self.register_parameter(name, nn.Parameter(torch.empty(sizes[name], device=device)))
        compute = torch.compile(stacked._block, dynamic=False) if compiled else stacked._block
        self.final = torch.compile(stacked._final, dynamic=False) if compiled else stacked._final
        mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
        half = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        self.blocks = nn.ModuleList()
        for _ in range(shape.n_layer):
            block = ShardedBlock(shape, device, compute, checkpointed)
            vectors = {param for name, param in block.named_parameters() if name.startswith("ln")}
            fully_shard(block, mesh=mesh, mp_policy=half, ignored_params=vectors)
            self.blocks.append(block)
        whole = MixedPrecisionPolicy(cast_forward_inputs=False)
        fully_shard(self, mesh=mesh, mp_policy=whole, ignored_params=set(self.vectors()))

    def forward(self, windows_MBU: Tensor, losses_MR: Tensor, scale: float = 0.0) -> Tensor:
        """Write the losses (1, B·T); returns their sum times ``scale``, whose gradient is taken."""
        tokens_MBT, targets_MR = windows_MBU[..., :-1], windows_MBU[..., 1:].flatten(1)
        x_MRD = functional.embedding(tokens_MBT[0], self.token_embedding) + self.position_embedding
        x_MRD = x_MRD.flatten(0, 1)[None].to(torch.bfloat16 if self.shape.d_model > stacked.WIDE else torch.float32)
        addend_MRD = torch.zeros((), dtype=x_MRD.dtype, device=x_MRD.device)
        with warnings.catch_warnings():  # nothing here changes a block's output in place
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
            for block in self.blocks:
                x_MRD, addend_MRD = block(x_MRD, addend_MRD)
        y_MRD = self.final(x_MRD, addend_MRD, {"ln_f_gain": self.ln_f_gain[None], "ln_f_bias": self.ln_f_bias[None]})
        if not torch.is_grad_enabled():
            losses_MR.copy_(head_losses(y_MRD, self.token_embedding[None].bfloat16(), targets_MR))
            return losses_MR.sum()
        arguments = (y_MRD, self.token_embedding, targets_MR, losses_MR, scale)
        total: Tensor = _Head.apply(*arguments)  # type: ignore[no-untyped-call]
        return total

    def pieces(self) -> Iterator[tuple[str, int | None, nn.Parameter]]:
        """Canonical name, layer (None for what no layer has) and parameter, in one order on all ranks."""
        for name in (*EMBEDDINGS, "ln_f_gain", "ln_f_bias"):
            yield name, None, getattr(self, name)
        for layer, block in enumerate(self.blocks):
            for name in LAYERED:
                yield name, layer, getattr(block, name)

    def vectors(self) -> list[nn.Parameter]:
        """What every rank keeps whole."""
        return [param for name, _, param in self.pieces() if name.startswith("ln")]


class _Head(torch.autograd.Function):
    """Chunked cross-entropy whose gradients are computed with the losses."""

    @staticmethod
    def forward(
        ctx: Any, y_MRD: Tensor, embedding_VD: Tensor, targets_MR: Tensor, losses_MR: Tensor, scale: float
    ) -> Tensor:
        grad_MVD = torch.zeros_like(embedding_VD)[None]
        half_MVD = embedding_VD.detach()[None].bfloat16()
        grad_y_MRD = head_gradient(y_MRD.detach(), half_MVD, targets_MR, losses_MR, grad_MVD, scale)
        ctx.save_for_backward(grad_y_MRD, grad_MVD[0])
        return losses_MR.sum() * scale

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """The total's own gradient is one."""
        grad_y_MRD, grad_VD = ctx.saved_tensors
        return grad_y_MRD, grad_VD, None, None, None
