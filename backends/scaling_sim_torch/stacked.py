"""Any shape, one member or many: compiled blocks, the fastest attention there is, and the loss in chunks.

The same code serves cohorts that the hand-written kernels do not cover (wide models, long contexts, dropout) and single
models of a billion parameters. Weights are bfloat16 copies of the float32 master, layer norms stay float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from scaling_sim.model.shape import Shape
from scaling_sim_torch.cross_entropy import head_gradient, head_losses
from scaling_sim_torch.dropout import Dropout
from scaling_sim_torch.gradient import Pieces
from scaling_sim_torch.layout import offsets
from scaling_sim_torch.model import LAYERED, LN_EPSILON, split_flat, split_parameters
from scaling_sim_torch.products import feed_forward, gelu, is_tried, product

Block = Callable[..., tuple[Tensor, Tensor]]
Put = Callable[[Any, Tensor], object]

WIDE = 256
"""d_model above which the residual stream is bfloat16; below, float32 costs little and errors weigh more."""


class _Ends(NamedTuple):
    """Of the graph of a micro-batch: its inputs, its output and the gradient with respect to that."""

    leaves: list[dict[str, Tensor]]
    x_MRD: Tensor
    y_MRD: Tensor
    grad_y_MRD: Tensor


class StackedModel:
    """Loss and gradient of M stacked models of any shape; activations belong to one micro-batch at a time.

    Parameters
    ----------
    shape : Shape
    num_members : int
    compiled, checkpointed : bool
        Compile the blocks; keep only their inputs and compute the rest again.
    """

    def __init__(
        self, shape: Shape, num_members: int, device: torch.device, *, compiled: bool = True, checkpointed: bool = False
    ) -> None:
        self.shape, self.num_members, self.device = shape, num_members, device
        self.checkpointed = checkpointed
        self.block: Block = torch.compile(_block, dynamic=False) if compiled else _block
        self.final: Callable[..., Tensor] = torch.compile(_final, dynamic=False) if compiled else _final

    def losses(self, master: Tensor, half: Tensor, windows_MBU: Tensor) -> Tensor:
        """Loss of every position, (M, B·T) float32, no dropout."""
        with torch.no_grad(), self._attention():
            leaves = self._leaves(master, half)
            y_MRD = self._trunk(self._embedded(master, windows_MBU[..., :-1]), leaves, None)
            embedding_MVD = split_parameters(half, self.shape)["token_embedding"]
            return head_losses(y_MRD, embedding_MVD, windows_MBU[..., 1:].flatten(1))

    def gradient(
        self, master: Tensor, half: Tensor, windows_MBU: Tensor, losses_MR: Tensor, grad_MP: Tensor,
        dropout: Dropout | None = None, *, micro_batches: int = 1,
    ) -> None:  # fmt: skip
        """Write the losses (M, B·T) and the gradient (M, P) of their mean, summed over equal parts of the batch."""
        grads = split_parameters(grad_MP, self.shape)
        grads["token_embedding"].zero_()
        parts = windows_MBU.chunk(micro_batches, dim=1)
        rows = losses_MR.chunk(micro_batches, dim=1)
        put: Put = Tensor.copy_
        for part_MbU, losses_Mr in zip(parts, rows, strict=True):
            part_losses = torch.empty_like(losses_Mr, memory_format=torch.contiguous_format)
            ends = self._forward(master, half, part_MbU, part_losses, grads, 1 / losses_MR.shape[1], dropout)
            with self._attention():
                inputs = [ends.x_MRD, *self._deliver(ends.leaves, grads, put)]
                torch.autograd.backward(ends.y_MRD, ends.grad_y_MRD, inputs=inputs)
            assert ends.x_MRD.grad is not None
            positions_MTD = grads["position_embedding"]
            self._embedding_gradient(grad_MP, positions_MTD, part_MbU[..., :-1], ends.x_MRD.grad, put)
            losses_Mr.copy_(part_losses)
            put = Tensor.add_

    def pieces(
        self, master: Tensor, half: Tensor, windows_1BU: Tensor, losses_1R: Tensor, dropout: Dropout | None = None
    ) -> Pieces:
        """Write the losses (1, B·T) of one model; the gradient of their mean as its products give it.

        Matrices stay bfloat16 as they come, in memory of their own; embeddings and vectors are float32.
        """
        shape, at = self.shape, offsets(self.shape)[0]
        numbers = (shape.vocab_size + shape.n_ctx) * shape.d_model
        embeddings_1E = torch.zeros(1, numbers, dtype=master.dtype, device=self.device)
        names = ("token_embedding", "position_embedding")
        grads = split_flat(embeddings_1E, {name: shape.parameter_shapes()[name] for name in names})
        ends = self._forward(master, half, windows_1BU, losses_1R, grads, 1 / losses_1R.shape[1], dropout)
        names_and_layers = [(name, layer) for layer, leaf in enumerate(ends.leaves) for name in leaf]
        values = [value for leaf in ends.leaves for value in leaf.values()]
        with self._attention():
            grad_x_1RD, *found = torch.autograd.grad(ends.y_MRD, [ends.x_MRD, *values], ends.grad_y_MRD)
        positions_1TD = grads["position_embedding"]
        self._embedding_gradient(embeddings_1E, positions_1TD, windows_1BU[..., :-1], grad_x_1RD, Tensor.copy_)
        pieces = [(0, embeddings_1E[0])]
        for (name, layer), grad in zip(names_and_layers, found, strict=True):
            first = at[name] + (layer * grad.numel() if layer < shape.n_layer else 0)
            pieces.append((first, grad.flatten()))
        return pieces

    def _forward(
        self, master: Tensor, half: Tensor, windows_MBU: Tensor, losses_MR: Tensor, grads: dict[str, Tensor],
        scale: float, dropout: Dropout | None,
    ) -> _Ends:  # fmt: skip
        """Losses of one micro-batch, both ends of its graph, and the head's part of the token embedding's gradient."""
        leaves = self._leaves(master, half, requires_grad=True)
        x_MRD = self._embedded(master, windows_MBU[..., :-1]).requires_grad_()
        with self._attention():
            y_MRD = self._trunk(x_MRD, leaves, dropout)
        embedding_MVD = split_parameters(half, self.shape)["token_embedding"]
        targets_MR, grad_MVD = windows_MBU[..., 1:].flatten(1), grads["token_embedding"]
        grad_y_MRD = head_gradient(y_MRD.detach(), embedding_MVD, targets_MR, losses_MR, grad_MVD, scale)
        return _Ends(leaves, x_MRD, y_MRD, grad_y_MRD)

    def _deliver(self, leaves: list[dict[str, Tensor]], grads: dict[str, Tensor], put: Put) -> Iterator[Tensor]:
        """The leaves; each will ``put`` its gradient into its place as soon as it has it, and forget it."""
        for layer, leaf in enumerate(leaves):
            for name, value in leaf.items():
                place = grads[name] if layer == self.shape.n_layer else grads[name][:, layer]

                def deliver(leaf: Any, place: Tensor = place) -> None:
                    put(place, leaf.grad)
                    leaf.grad = None

                value.register_post_accumulate_grad_hook(deliver)  # type: ignore[no-untyped-call]
                yield value

    def _leaves(self, master: Tensor, half: Tensor, *, requires_grad: bool = False) -> list[dict[str, Tensor]]:
        """Parameters of each layer, and of the final layer norm last: matrices bfloat16, vectors float32."""
        wide, narrow = split_parameters(master, self.shape), split_parameters(half, self.shape)
        layers = [
            {name: (wide if name.startswith("ln") else narrow)[name][:, layer] for name in LAYERED}
            for layer in range(self.shape.n_layer)
        ]
        layers.append({name: wide[name] for name in ("ln_f_gain", "ln_f_bias")})
        return [{n: value.detach().requires_grad_(requires_grad) for n, value in leaf.items()} for leaf in layers]

    def _embedded(self, master: Tensor, tokens_MBT: Tensor) -> Tensor:
        """Token plus position embedding, (M, R, D) in the type of the residual stream, cut from the graph."""
        x_MBTD = functional.embedding(self._table_rows(tokens_MBT), master.view(-1, self.shape.d_model))
        x_MBTD = x_MBTD + split_parameters(master, self.shape)["position_embedding"][:, None]
        return x_MBTD.flatten(1, 2).to(torch.bfloat16 if self.shape.d_model > WIDE else master.dtype)

    def _embedding_gradient(
        self, flat: Tensor, positions_MTD: Tensor, tokens_MBT: Tensor, grad_x_MRD: Tensor, put: Put
    ) -> None:
        """The input's part: added to the tables in ``flat``, ``put`` into the position embedding's."""
        wide_MRD = grad_x_MRD.to(flat.dtype)
        flat.view(-1, self.shape.d_model).index_add_(0, self._table_rows(tokens_MBT).flatten(), wide_MRD.flatten(0, 1))
        num_members, batch, context = tokens_MBT.shape
        put(positions_MTD, grad_x_MRD.view(num_members, batch, context, -1).sum(dim=1, dtype=flat.dtype))

    def _table_rows(self, tokens_MBT: Tensor) -> Tensor:
        """Rows of the members' flat parameters, read as (·, D), that embed the tokens: the table stands first.

        Of a single member they are rows of whatever begins with its table.
        """
        rows_per_member = offsets(self.shape)[1] // self.shape.d_model
        return tokens_MBT + torch.arange(len(tokens_MBT), device=self.device)[:, None, None] * rows_per_member

    def _trunk(self, x_MRD: Tensor, leaves: list[dict[str, Tensor]], dropout: Dropout | None) -> Tensor:
        """Output of the final layer norm. A block hands on its stream and its last addend, so the sum fuses."""
        if dropout is not None:
            x_MRD = dropout(x_MRD, 0).to(x_MRD.dtype)
        addend_MRD = torch.zeros((), dtype=x_MRD.dtype, device=x_MRD.device)
        for layer, leaf in enumerate(leaves[:-1]):
            arguments = (x_MRD, addend_MRD, leaf, self.shape.n_head, self.shape.n_ctx, dropout, layer)
            if self.checkpointed and x_MRD.requires_grad:
                x_MRD, addend_MRD = checkpoint(self.block, *arguments, use_reentrant=False)
            else:
                x_MRD, addend_MRD = self.block(*arguments)
        return self.final(x_MRD, addend_MRD, leaves[-1])

    @contextmanager
    def _attention(self) -> Iterator[None]:
        """cuDNN's attention first where it is the fastest, then the others."""
        from torch.nn.attention import SDPBackend, sdpa_kernel

        order = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
        if self.shape.n_ctx >= 512 and self.shape.d_head >= 64:
            order.insert(0, SDPBackend.CUDNN_ATTENTION)
        with sdpa_kernel(order, set_priority=True) if self.device.type == "cuda" else nullcontext():
            yield


def _block(
    x_MRD: Tensor, addend_MRD: Tensor, p: dict[str, Tensor], n_head: int, n_ctx: int, dropout: Dropout | None,
    layer: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One layer: the residual stream after attention, and what the feed-forward half adds to it."""
    x_MRD = x_MRD + addend_MRD
    qkv_MRU = _wide_linear(_layer_norm(x_MRD, p["ln1_gain"], p["ln1_bias"]), p["qkv"])
    mixed_MRD = _attention(qkv_MRU, n_head, n_ctx)
    addend_MRD = _linear(mixed_MRD, p["attn_out"])
    if dropout is not None:
        addend_MRD = dropout(addend_MRD, 1 + 2 * layer).to(addend_MRD.dtype)
    x_MRD = x_MRD + addend_MRD
    addend_MRD = _feed_forward(_layer_norm(x_MRD, p["ln2_gain"], p["ln2_bias"]), p["mlp_up"], p["mlp_down"])
    if dropout is not None:
        addend_MRD = dropout(addend_MRD, 2 + 2 * layer).to(addend_MRD.dtype)
    return x_MRD, addend_MRD


def _again(compute: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
    """Compiled code keeps the arguments and computes the result again in the backward pass.

    For GELU that saves a fifth of the memory.
    """
    if not torch.compiler.is_compiling():
        return compute(*arguments)
    result: Tensor = checkpoint(compute, *arguments, use_reentrant=False, preserve_rng_state=False)
    return result


def _final(x_MRD: Tensor, addend_MRD: Tensor, p: dict[str, Tensor]) -> Tensor:
    return _layer_norm(x_MRD + addend_MRD, p["ln_f_gain"], p["ln_f_bias"])


def _attention(qkv_MRU: Tensor, n_head: int, n_ctx: int) -> Tensor:
    """Causal attention over all sequences of all members at once, (M, R, D)."""
    num_members, num_rows, triple = qkv_MRU.shape
    d_model = triple // 3
    heads = qkv_MRU.view(num_members * num_rows // n_ctx, n_ctx, 3, n_head, d_model // n_head)
    q_BHTC, k_BHTC, v_BHTC = heads.permute(2, 0, 3, 1, 4).unbind(0)
    mixed_BHTC = functional.scaled_dot_product_attention(q_BHTC, k_BHTC, v_BHTC, is_causal=True)
    return mixed_BHTC.transpose(1, 2).reshape(num_members, num_rows, d_model)


def _linear(x_MRi: Tensor, weight_Moi: Tensor) -> Tensor:
    """x·Wᵀ for every member, in the type of the weights."""
    x_MRi = x_MRi.to(weight_Moi.dtype)
    if len(weight_Moi) == 1:
        return torch.mm(x_MRi[0], weight_Moi[0].t())[None]
    return torch.bmm(x_MRi, weight_Moi.transpose(1, 2))


def _wide_linear(x_MRi: Tensor, weight_Moi: Tensor) -> Tensor:
    """x·Wᵀ whose result is much wider than ``x``: of one wide model by the fastest algorithm."""
    if is_tried(weight_Moi):
        y_Ro: Tensor = product(x_MRi[0].to(weight_Moi.dtype), weight_Moi[0], True)
        return y_Ro[None]
    return _linear(x_MRi, weight_Moi)


def _feed_forward(x_MRD: Tensor, up_MFD: Tensor, down_MDF: Tensor) -> Tensor:
    """GELU(x·upᵀ)·downᵀ; its backward pass computes GELU again."""
    if is_tried(up_MFD):
        y_RD: Tensor = feed_forward(x_MRD[0].to(up_MFD.dtype), up_MFD[0], down_MDF[0])[0]
        return y_RD[None]
    return _linear(_again(gelu, _linear(x_MRD, up_MFD)), down_MDF)


def _layer_norm(x_MRD: Tensor, gain_MD: Tensor, bias_MD: Tensor) -> Tensor:
    """In float32, rounded to bfloat16 for the product that follows."""
    normal_MRD = functional.layer_norm(x_MRD.to(gain_MD.dtype), x_MRD.shape[-1:], eps=LN_EPSILON)
    return (normal_MRD * gain_MD[:, None] + bias_MD[:, None]).bfloat16()
