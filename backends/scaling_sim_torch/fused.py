"""Small models by hand-written kernels: loss and gradient of a whole cohort in 5 + 7·n_layer launches.

Activations that one kernel hands to the next are bfloat16, the residual stream and its gradient float32; attention
weights and logits never reach device memory. See `scaling_sim_torch.kernels` for the conventions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scaling_sim.model.shape import Shape
from scaling_sim_torch.layout import offsets
from scaling_sim_torch.tiling import MAX_CONTEXT, MAX_WIDTH, Launch, Tiling, padded

MAX_ONE_HOT = 1024
"""Largest vocabulary whose embedding gradient is summed by one-hot products, in a fixed order."""
ROW_PROGRAMS = 2048
"""Programs, of all members together, to which tiles of rows are dealt."""
WEIGHT_PROGRAMS = 264
"""Parts, of all members together, of the rows whose weight gradients are summed apart: two for each multiprocessor."""
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
    crowded : bool
        Give all rows of a member to one program of each kernel: slow, but every tile then follows another one.
    """

    def __init__(
        self,
        shape: Shape,
        num_members: int,
        batch: int,
        device: torch.device,
        *,
        gradient: bool = True,
        crowded: bool = False,
    ) -> None:
        self.shape, self.num_members, self.batch = shape, num_members, batch
        self.tiling = Tiling.of(shape)
        self.at, self.num_parameters = offsets(shape)
        self.num_rows = batch * shape.n_ctx
        self.sizes = {"D": shape.d_model, "D_PAD": padded(shape.d_model)}
        self.context = {"T": shape.n_ctx, "T_PAD": padded(shape.n_ctx)}
        num_tiles = -(-self.num_rows // 64)
        self.num_sums = 1 if crowded else max(1, min(ROW_PROGRAMS // num_members, num_tiles))
        self.num_splits = 1 if crowded else self._weight_splits()
        self._allocate(device, gradient)

    def read(self, starts: Tensor, step: Tensor, corpus: Tensor, bits: int, master: Tensor) -> None:
        """Gather the batch in row ``step`` (a tensor on the device) of ``starts`` (K, M, B) and embed it."""
        from scaling_sim_torch.kernels.embedding import embed

        num_sequences = self.num_members * self.batch
        embed[(num_sequences,)](
            starts, step, corpus, self.tokens, self.targets, self.stream[0], self.normed1[0], master,
            self.num_parameters, num_sequences, self.batch, self.shape.vocab_size, *self._norm1(0),
            BITS=bits, **self.sizes, **self.context, num_warps=4,
        )  # fmt: skip

    def losses(self, master: Tensor, half: Tensor) -> Tensor:
        """Loss of every position, (M, R) float32, of the batch that was read."""
        for layer in range(self.shape.n_layer):
            self._layer_forward(layer, master, half, keep=False)
        self._head(master, half, gradient=False)
        return self.row_losses

    def gradient(self, master: Tensor, half: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Losses (M, R), gradient (M, P) of their mean, and Σ g² by blocks (M, blocks), all overwritten next time."""
        for layer in range(self.shape.n_layer):
            self._layer_forward(layer, master, half, keep=True)
        self._head(master, half, gradient=True)
        for layer in reversed(range(self.shape.n_layer)):
            self._layer_backward(layer, master, half)
        self._embedding_gradient(half)
        self._combine()
        return self.row_losses, self.grad, self.squares

    def _weight_splits(self) -> int:
        """Parts of a member's rows whose weight gradients are summed apart, to fill the device."""
        room = MAX_PARTIAL // (self.num_members * self.num_parameters)
        return max(1, min(WEIGHT_PROGRAMS // self.num_members, room, self.num_rows // 128, 64))

    def _allocate(self, device: torch.device, gradient: bool) -> None:
        shape, rows, members = self.shape, self.num_members * self.num_rows, self.num_members

        def empty(*size: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
            return torch.empty(size, dtype=dtype, device=device)

        f32, d = torch.float32, shape.d_model
        self.tokens, self.targets = empty(rows, dtype=torch.int32), empty(rows, dtype=torch.int32)
        self.row_losses = empty(members, self.num_rows, dtype=f32)
        # What each layer keeps; where no gradient is wanted, a layer overwrites what the one before it used.
        depth = shape.n_layer if gradient else 1
        self.stream = [empty(rows, d, dtype=f32) for _ in range(depth + 1)]
        self.mid = [empty(rows, d, dtype=f32) for _ in range(depth)] if gradient else self.stream[:1]
        self.normed1 = [empty(rows, d) for _ in range(depth + gradient)]
        self.normed2 = [empty(rows, d) for _ in range(depth)] if gradient else self.normed1
        self.mixed = [empty(rows, d) for _ in range(depth)]
        # Queries, keys and values, which their gradients replace, and the log-sum-exps of every row of scores.
        self.qkv = [empty(rows, 3 * d) for _ in range(depth)] if gradient else self.mixed
        self.score_sums = [empty(rows, shape.n_head, dtype=f32) for _ in range(depth)] if gradient else self.stream
        num_vectors = 4 * shape.n_layer + 2
        if not gradient:
            self.log_sums = self.grad_x = self.grad_half = self.sums = self.row_losses
            return
        self.log_sums = empty(rows, dtype=f32)
        # grad_half: of a layer's output; between its halves, of what its attention puts out.
        self.grad_x, self.grad_half, self.grad_mid = empty(rows, d, dtype=f32), empty(rows, d), empty(rows, d)
        self.grad_hidden = empty(rows, shape.d_ff)
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

    def _norm1(self, layer: int) -> tuple[int, int]:
        """Offsets of gain and bias of a layer's first layer norm; of the final one, where the layers end."""
        if layer == self.shape.n_layer:
            return self.at["ln_f_gain"], self.at["ln_f_bias"]
        return self._at("ln1_gain", layer), self._at("ln1_bias", layer)

    def _layer_forward(self, layer: int, master: Tensor, half: Tensor, *, keep: bool) -> None:
        from scaling_sim_torch.kernels.attention import attention_forward
        from scaling_sim_torch.kernels.mlp import mlp_forward

        x, x_next = (self.stream[i % len(self.stream)] for i in (layer, layer + 1))
        a, a_next = (self.normed1[i % len(self.normed1)] for i in (layer, layer + 1))
        mid, b, mixed = (kept[layer % len(kept)] for kept in (self.mid, self.normed2, self.mixed))
        attention = self.tiling.attention if keep else self.tiling.attention.unlimited()
        attention_forward[(self.num_members * self.batch * self.shape.n_head,)](
            a, self.qkv[layer % len(self.qkv)], mixed, self.score_sums[layer % len(self.score_sums)], half,
            self.num_parameters, self.batch, self._at("qkv", layer), self._scale,
            **self.sizes, **self.context, **self._heads, KEEP=keep, **attention.options,
        )  # fmt: skip
        out, gain, bias, up, down = (
            self._at(name, layer) for name in ("attn_out", "ln2_gain", "ln2_bias", "mlp_up", "mlp_down")
        )
        mlp_forward[(self.num_sums, self.num_members)](
            x, mixed, mid, b, x_next, a_next, master, half, *self._rows, out, gain, bias, up, down,
            *self._norm1(layer + 1), **self.sizes, **self._hidden(self.tiling.mlp), KEEP=keep,
        )  # fmt: skip

    def _layer_backward(self, layer: int, master: Tensor, half: Tensor) -> None:
        self._feed_forward_backward(layer, master, half)
        self._attention_backward(layer, master, half)

    def _feed_forward_backward(self, layer: int, master: Tensor, half: Tensor) -> None:
        from scaling_sim_torch.kernels.mlp import mlp_backward, mlp_gradients

        gain, up, down, out = (self._at(name, layer) for name in ("ln2_gain", "mlp_up", "mlp_down", "attn_out"))
        blocks = -(-self.shape.d_ff // self.tiling.mlp_gradients.block)
        mlp_gradients[(blocks, self.num_splits, self.num_members)](
            self.normed2[layer], self.grad_half, self.grad_hidden, self.partial, half,
            self.num_parameters, self.num_rows, self.num_splits, up, down,
            **self.sizes, **self._hidden(self.tiling.mlp_gradients),
        )  # fmt: skip
        mlp_backward[(self.num_sums, self.num_members)](
            self.mid[layer], self.grad_hidden, self.grad_x, self.grad_mid, self.grad_half, self.sums, master, half,
            *self._rows, gain, up, out, 4 * layer + 2, **self.sizes, **self._hidden(self.tiling.mlp_back),
        )  # fmt: skip

    def _attention_backward(self, layer: int, master: Tensor, half: Tensor) -> None:
        from scaling_sim_torch.kernels.attention import attention_backward, projection_backward
        from scaling_sim_torch.kernels.weights import attention_gradients

        a, qkv_rows, mixed, tiling = self.normed1[layer], self.qkv[layer], self.mixed[layer], self.tiling
        gain, qkv, out = (self._at(name, layer) for name in ("ln1_gain", "qkv", "attn_out"))
        attention_backward[(self.num_members * self.batch * self.shape.n_head,)](
            qkv_rows, mixed, self.score_sums[layer], self.grad_half, self._scale, D=self.shape.d_model,
            T=self.shape.n_ctx, T_BLOCK=min(64, padded(self.shape.n_ctx)), **self._heads,
            **tiling.attention_back.options,
        )  # fmt: skip
        projection_backward[(self.num_sums, self.num_members)](
            self.stream[layer], qkv_rows, self.grad_x, self.grad_half, self.sums, master, half, *self._rows,
            gain, qkv, 4 * layer, **self.sizes, ROWS=tiling.projection.rows, **tiling.projection.options,
        )  # fmt: skip
        attention_gradients[(self._num_tiles, self.num_splits, self.num_members)](
            qkv_rows, a, self.grad_mid, mixed, self.partial,
            self.num_parameters, self.num_rows, self.num_splits, qkv, out,
            D=self.shape.d_model, TILE=tiling.weights.block, ROWS=tiling.weights.rows, **tiling.weights.options,
        )  # fmt: skip

    def _head(self, master: Tensor, half: Tensor, *, gradient: bool) -> None:
        from scaling_sim_torch.kernels.head import head_forward

        head, layers = self.tiling.head, self.shape.n_layer
        head_forward[(self.num_sums, self.num_members)](
            self.stream[layers % len(self.stream)], self.normed1[-1], self.targets, self.row_losses, self.log_sums,
            self.grad_x, self.grad_half, self.sums, master, half, *self._rows, self.at["ln_f_gain"], 4 * layers,
            self.shape.vocab_size, 1 / self.num_rows,
            **self.sizes, ROWS=head.rows, BLOCK=head.block, GRADIENT=gradient, **head.options,
        )  # fmt: skip

    def _embedding_gradient(self, half: Tensor) -> None:
        from scaling_sim_torch.kernels.embedding import position_gradient
        from scaling_sim_torch.kernels.head import embedding_gradient, scatter_embedding

        shape, tiling, one_hot = self.shape, self.tiling, self.shape.vocab_size <= MAX_ONE_HOT
        blocks = -(-shape.vocab_size // tiling.embedding.block)
        embedding_gradient[(blocks, self.num_splits, self.num_members)](
            self.normed1[-1], self.tokens, self.targets, self.log_sums, self.grad_x, self.partial, half,
            self.num_parameters, self.num_rows, self.num_splits, shape.vocab_size, 1 / self.num_rows,
            **self.sizes, ROWS=tiling.embedding.rows, BLOCK=tiling.embedding.block, WITH_INPUT=one_hot,
            **tiling.embedding.options,
        )  # fmt: skip
        if not one_hot:
            scatter_embedding[(-(-self.num_rows // 64), self.num_members)](
                self.tokens, self.grad_x, self.partial, self.num_parameters, self.num_rows, **self.sizes, ROWS=64
            )
        position_gradient[(-(-shape.n_ctx * shape.d_model // 256), self.num_members, self.num_splits)](
            self.grad_x, self.partial, self.num_parameters, self.batch, self.num_splits, self.num_members,
            shape.vocab_size, D=shape.d_model, T=shape.n_ctx, BLOCK=256, SEQUENCES=16,
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
    def _rows(self) -> tuple[int, int, int]:
        """Parameters and rows per member, and the parts that the rows are dealt to."""
        return self.num_parameters, self.num_rows, self.num_sums

    @property
    def _heads(self) -> dict[str, int]:
        """Number and width of the heads, which the kernels of the attention are compiled for."""
        return {"H": self.shape.n_head, "C": self.shape.d_head, "C_PAD": padded(self.shape.d_head)}

    def _hidden(self, launch: Launch) -> dict[str, int]:
        """Sizes that a kernel of the feed-forward half is compiled for."""
        return {"F": self.shape.d_ff, "F_BLOCK": launch.block, "ROWS": launch.rows, **launch.options}

    @property
    def _num_tiles(self) -> int:
        """Tiles of a layer's attention matrices."""
        d, u = (-(-size // self.tiling.weights.block) for size in (self.shape.d_model, 3 * self.shape.d_model))
        return u * d + d * d
