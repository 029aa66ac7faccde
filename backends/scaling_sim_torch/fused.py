"""Small models by hand-written kernels: loss and gradient of a whole cohort in 5 + 6·n_layer launches.

Activations that one kernel hands to the next are bfloat16, the residual stream and its gradient float32; attention
weights and logits never reach device memory. See `scaling_sim_torch.kernels` for the conventions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scaling_sim.model.shape import Shape
from scaling_sim_torch.layout import offsets
from scaling_sim_torch.tiling import MAX_CONTEXT, MAX_WIDTH, Tiling, padded

MAX_ONE_HOT = 1024
"""Largest vocabulary whose embedding gradient is summed by one-hot products, in a fixed order."""
MAX_PARTIAL = 2**24
"""Numbers kept in partial weight gradients beyond which rows are not split further."""


def why_not_fused(shape: Shape) -> str | None:
    """None if the kernels can train this shape, else the first reason."""
    if shape.n_layer == 0:
        return "it has no layers"
    if shape.d_model > MAX_WIDTH:
        return f"d_model {shape.d_model} is above {MAX_WIDTH}"
    if shape.n_ctx > MAX_CONTEXT:
        return f"n_ctx {shape.n_ctx} is above {MAX_CONTEXT}"
    return None


class FusedModel:
    """Work space and launches for M members of one shape and batch.

    Parameters
    ----------
    shape : Shape
    num_members, batch : int
        M, and B sequences per member.
    device : torch.device
    gradient : bool
        Whether `gradient` will be called; False keeps only what the losses need.
    """

    def __init__(
        self,
        shape: Shape,
        num_members: int,
        batch: int,
        device: torch.device,
        *,
        gradient: bool = True,
        tiling: Tiling | None = None,
    ) -> None:
        self.shape, self.num_members, self.batch = shape, num_members, batch
        self.tiling = tiling or Tiling.of(shape)
        self.at, self.num_parameters = offsets(shape)
        self.num_rows = batch * shape.n_ctx
        self.sizes = {"D": shape.d_model, "D_PAD": padded(shape.d_model)}
        self.context = {"T": shape.n_ctx, "T_PAD": padded(shape.n_ctx)}
        self.head_width = {"H": shape.n_head, "C": shape.d_head, "C_PAD": padded(shape.d_head)}
        num_tiles = -(-self.num_rows // 64)
        self.num_sums = max(1, min(2048 // num_members, num_tiles))
        self.num_splits = self._weight_splits()
        self._allocate(device, gradient)

    def read(self, starts: Tensor, step: Tensor, corpus: Tensor, bits: int, master: Tensor) -> None:
        """Gather the batch in row ``step`` (a tensor on the device) of ``starts`` (K, M, B) and embed it."""
        from scaling_sim_torch.kernels.embedding import embed

        num_sequences = self.num_members * self.batch
        embed[(num_sequences,)](
            starts, step, corpus, self.tokens, self.targets, self.stream[0], master, self.num_parameters,
            num_sequences, self.batch, self.shape.vocab_size, BITS=bits, **self.sizes, **self.context, num_warps=4,
        )  # fmt: skip

    def losses(self, master: Tensor, half: Tensor) -> Tensor:
        """Loss of every position, (M, R) float32, of the batch that was read."""
        for layer in range(self.shape.n_layer):
            self._layer_forward(layer, master, half)
        self._head(master, half, gradient=False)
        return self.row_losses

    def gradient(self, master: Tensor, half: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Losses (M, R), gradient (M, P) of their mean, and Σ g² by blocks (M, blocks), all overwritten next time."""
        for layer in range(self.shape.n_layer):
            self._layer_forward(layer, master, half)
        self._head(master, half, gradient=True)
        for layer in reversed(range(self.shape.n_layer)):
            self._layer_backward(layer, master, half)
        self._embedding_gradient(half)
        self._combine()
        return self.row_losses, self.grad, self.squares

    def _weight_splits(self) -> int:
        """Parts of a member's rows whose weight gradients are summed apart, to fill the device."""
        room = MAX_PARTIAL // (self.num_members * self.num_parameters)
        return max(1, min(264 // self.num_members, room, self.num_rows // 128, 64))

    def _allocate(self, device: torch.device, gradient: bool) -> None:
        shape, rows, members = self.shape, self.num_members * self.num_rows, self.num_members

        def empty(*size: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
            return torch.empty(size, dtype=dtype, device=device)

        f32, d = torch.float32, shape.d_model
        self.tokens, self.targets = empty(rows, dtype=torch.int32), empty(rows, dtype=torch.int32)
        self.row_losses = empty(members, self.num_rows, dtype=f32)
        depth = shape.n_layer if gradient else 1
        self.stream = [empty(rows, d, dtype=f32) for _ in range(depth + 1)]
        self.mid = [empty(rows, d, dtype=f32) for _ in range(depth)]
        self.mixed = [empty(rows, d) for _ in range(depth)]
        num_vectors = 4 * shape.n_layer + 2
        if not gradient:
            self.log_sums = self.normed_head = self.grad_x = self.grad_half = self.sums = self.row_losses
            return
        self.log_sums = empty(rows, dtype=f32)
        self.grad_x, self.grad_half, self.grad_mid = empty(rows, d, dtype=f32), empty(rows, d), empty(rows, d)
        self.normed, self.normed1, self.grad_qkv = empty(rows, d), empty(rows, d), empty(rows, 3 * d)
        self.normed_head = empty(rows, d)
        self.hidden, self.grad_hidden = empty(rows, shape.d_ff), empty(rows, shape.d_ff)
        self.grad_next = empty(rows, d)
        self.sums = empty(num_vectors, members, self.num_sums, d, dtype=f32)
        self.partial = torch.zeros(self.num_splits, members, self.num_parameters, dtype=f32, device=device)
        self.grad = empty(members, self.num_parameters, dtype=f32)
        self.squares = empty(members, -(-self.num_parameters // self._combined[0]), dtype=torch.float64)
        self.slots = self._slots(device)

    def _slots(self, device: torch.device) -> Tensor:
        """For each parameter its place in ``sums`` (vector · D + column), −1 for what stands in ``partial``."""
        slots = torch.full((self.num_parameters,), -1, dtype=torch.int32)
        d = self.shape.d_model
        for layer in range(self.shape.n_layer):
            for i, name in enumerate(("ln1_gain", "ln1_bias", "ln2_gain", "ln2_bias")):
                slots[self._at(name, layer) :][:d] = (4 * layer + i) * d + torch.arange(d)
        for i, name in enumerate(("ln_f_gain", "ln_f_bias")):
            slots[self.at[name] :][:d] = (4 * self.shape.n_layer + i) * d + torch.arange(d)
        return slots.to(device)

    def _at(self, name: str, layer: int) -> int:
        """Offset of one layer's parameter in a member's flat vector."""
        return self.at[name] + layer * math.prod(self.shape.parameter_shapes()[name][1:])

    def _layer_forward(self, layer: int, master: Tensor, half: Tensor) -> None:
        from scaling_sim_torch.kernels.attention import attention_forward
        from scaling_sim_torch.kernels.mlp import mlp_forward

        kept = layer if len(self.mid) > 1 else 0
        x, x_next = self.stream[layer % len(self.stream)], self.stream[(layer + 1) % len(self.stream)]
        attention_forward[(self.num_members * self.batch * self.shape.n_head,)](
            x, self.mixed[kept], master, half, self.num_parameters, self.batch,
            self._at("ln1_gain", layer), self._at("ln1_bias", layer), self._at("qkv", layer), self._scale,
            **self.sizes, **self.head_width, **self.context, **self.tiling.attention.options,
        )  # fmt: skip
        mlp_forward[(self.num_sums, self.num_members)](
            x, self.mixed[kept], self.mid[kept], x_next, master, half,
            self.num_parameters, self.num_rows, self.num_sums,
            self._at("attn_out", layer), self._at("ln2_gain", layer), self._at("ln2_bias", layer),
            self._at("mlp_up", layer), self._at("mlp_down", layer),
            **self.sizes, **self._feed_forward, ROWS=self.tiling.mlp.rows, **self.tiling.mlp.options,
        )  # fmt: skip

    def _layer_backward(self, layer: int, master: Tensor, half: Tensor) -> None:
        from scaling_sim_torch.kernels.attention import attention_backward, projection_backward
        from scaling_sim_torch.kernels.mlp import mlp_backward
        from scaling_sim_torch.kernels.weights import layer_gradients

        x, sizes, tiling = self.stream[layer], self.sizes, self.tiling
        ln1 = self._at("ln1_gain", layer), self._at("ln1_bias", layer)
        qkv, out, up, down = (self._at(name, layer) for name in ("qkv", "attn_out", "mlp_up", "mlp_down"))
        rows = self.num_parameters, self.num_rows, self.num_sums
        mlp_backward[(self.num_sums, self.num_members)](
            self.mid[layer], self.grad_x, self.grad_half, self.normed, self.hidden, self.grad_hidden, self.grad_mid,
            self.sums, master, half, *rows, self._at("ln2_gain", layer), self._at("ln2_bias", layer), up, down,
            4 * layer + 2, **sizes, **self._feed_forward, ROWS=tiling.mlp_back.rows, **tiling.mlp_back.options,
        )  # fmt: skip
        attention_backward[(self.num_members * self.batch * self.shape.n_head,)](
            x, self.grad_mid, self.grad_qkv, master, half, self.num_parameters, self.batch, *ln1, qkv, out, self._scale,
            **sizes, **self.head_width, **self.context, **tiling.attention_back.options,
        )  # fmt: skip
        projection_backward[(self.num_sums, self.num_members)](
            x, self.grad_qkv, self.grad_x, self.grad_next, self.normed1, self.sums, master, half, *rows, *ln1, qkv,
            4 * layer, **sizes, ROWS=tiling.projection.rows, **tiling.projection.options,
        )  # fmt: skip
        layer_gradients[(self._num_tiles, self.num_splits, self.num_members)](
            self.grad_qkv, self.normed1, self.grad_mid, self.mixed[layer], self.grad_hidden, self.normed,
            self.grad_half, self.hidden, self.partial, self.num_parameters, self.num_rows, self.num_splits,
            qkv, out, up, down,
            D=self.shape.d_model, F=self.shape.d_ff, TILE=tiling.weight_tile, ROWS=tiling.weights.rows,
            **tiling.weights.options,
        )  # fmt: skip
        self.grad_half, self.grad_next = self.grad_next, self.grad_half

    def _head(self, master: Tensor, half: Tensor, *, gradient: bool) -> None:
        from scaling_sim_torch.kernels.head import head_forward

        tiling, last = self.tiling, self.shape.n_layer % len(self.stream)
        head_forward[(self.num_sums, self.num_members)](
            self.stream[last], self.targets, self.row_losses, self.log_sums, self.normed_head, self.grad_x,
            self.grad_half, self.sums, master, half, self.num_parameters, self.num_rows, self.num_sums,
            self.at["ln_f_gain"], self.at["ln_f_bias"], 4 * self.shape.n_layer, self.shape.vocab_size,
            1 / self.num_rows,
            **self.sizes, ROWS=tiling.head.rows, BLOCK=tiling.head_block, GRADIENT=gradient, **tiling.head.options,
        )  # fmt: skip

    def _embedding_gradient(self, half: Tensor) -> None:
        from scaling_sim_torch.kernels.embedding import position_gradient
        from scaling_sim_torch.kernels.head import embedding_gradient, scatter_embedding

        shape, tiling, one_hot = self.shape, self.tiling, self.shape.vocab_size <= MAX_ONE_HOT
        blocks = -(-shape.vocab_size // tiling.embedding_block)
        embedding_gradient[(blocks, self.num_splits, self.num_members)](
            self.normed_head, self.tokens, self.targets, self.log_sums, self.grad_x, self.partial, half,
            self.num_parameters, self.num_rows, self.num_splits, shape.vocab_size, 1 / self.num_rows,
            **self.sizes, ROWS=tiling.embedding.rows, BLOCK=tiling.embedding_block, WITH_INPUT=one_hot,
            **tiling.embedding.options,
        )  # fmt: skip
        if not one_hot:
            scatter_embedding[(-(-self.num_rows // 64), self.num_members)](
                self.tokens, self.grad_x, self.partial, self.num_parameters, self.num_rows, **self.sizes, ROWS=64
            )
        position_gradient[(-(-shape.n_ctx // 16), self.num_members, self.num_splits)](
            self.grad_x, self.partial, self.num_parameters, self.batch, self.num_splits, self.num_members,
            shape.vocab_size, **self.sizes, T=shape.n_ctx, BLOCK=16, num_warps=1,
        )  # fmt: skip

    def _combine(self) -> None:
        from scaling_sim_torch.kernels.weights import combine

        combine[(self.squares.shape[1], self.num_members)](
            self.partial, self.sums, self.slots, self.grad, self.squares, self.num_parameters, self.num_members,
            self.num_splits, self.num_sums, self.shape.d_model, BLOCK=self._combined[0],
            PARTS=self._combined[1], num_warps=4,
        )  # fmt: skip

    @property
    def _combined(self) -> tuple[int, int]:
        """Parameters and parts that one program sums at a time."""
        parts = min(16, 1 << (self.num_splits - 1).bit_length())
        return (1024 if parts <= 4 else 256), parts

    @property
    def _scale(self) -> float:
        return 1 / math.sqrt(self.shape.d_head)

    @property
    def _feed_forward(self) -> dict[str, int]:
        return {"F": self.shape.d_ff, "F_BLOCK": self.tiling.f_block}

    @property
    def _num_tiles(self) -> int:
        """Tiles of the four matrices of a layer."""
        sizes = (self.shape.d_model, self.shape.d_ff, 3 * self.shape.d_model)
        d, f, u = (-(-size // self.tiling.weight_tile) for size in sizes)
        return u * d + d * d + 2 * f * d
