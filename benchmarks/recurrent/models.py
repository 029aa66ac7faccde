"""The models: an LSTM, and a transformer that may go through its layers several times.

The transformer is the library's (pre-LN, tanh-GELU, learned positions, tied embedding, no linear biases, weights from
N(0, 0.02²)), so that with ``reuse = 1`` it is the control. Suffixes: B sequences, T positions, D width, F width
of the feed-forward part, H heads, C width of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaling_sim.datasets.recurrent import Kind

DEVIATION = 0.02


@dataclass(frozen=True)
class Spec:
    """A model to train."""

    kind: Kind
    layers: int
    reuse: int
    d: int
    n_head: int
    n_ctx: int
    seed: int = 0

    @property
    def name(self) -> str:
        """For people: lstm-2x112, recurrent-2x96-r4, transformer-2x96, with -T512 and -s1 where unusual."""
        parts = [f"{self.kind}-{self.layers}x{self.d}"]
        parts += [f"r{self.reuse}"] * (self.reuse > 1) + [f"T{self.n_ctx}"] + [f"s{self.seed}"] * (self.seed > 0)
        return "-".join(parts)

    @property
    def N(self) -> int:
        """Parameters without embeddings, biases and norms."""
        return (8 if self.kind == "lstm" else 12) * self.layers * self.d**2

    @property
    def flops_per_token(self) -> float:
        """Forward and backward, 6·N·reuse."""
        return 6.0 * self.N * self.reuse

    def exact_flops_per_token(self, vocab_size: int) -> float:
        """With the head and causal attention (Kaplan et al. 2020, Table 1)."""
        attention = 0.0 if self.kind == "lstm" else 6.0 * self.layers * self.reuse * self.n_ctx * self.d
        return self.flops_per_token + 6.0 * vocab_size * self.d + attention

    def build(self, vocab_size: int) -> nn.Module:
        """The model on the CPU, its weights drawn from ``seed``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return (LSTM if self.kind == "lstm" else Transformer)(self, vocab_size)


class LSTM(nn.Module):
    """Embedding, layer norm, `torch.nn.LSTM` as wide as the embedding, layer norm, tied head.

    Its cells are float32 (products in TF32) also under autocast: a cell state of 8 bits, carried over the whole
    context, would forget for want of precision. Forget gates start open (bias 1).
    """

    def __init__(self, spec: Spec, vocab_size: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, spec.d)
        self.norm_in, self.norm_out = nn.LayerNorm(spec.d), nn.LayerNorm(spec.d)
        self.cells = nn.LSTM(spec.d, spec.d, spec.layers, batch_first=True)
        nn.init.normal_(self.tokens.weight, std=DEVIATION)
        for layer in range(spec.layers):
            for side, bias in (("ih", 1.0), ("hh", 0.0)):
                gates = getattr(self.cells, f"bias_{side}_l{layer}")
                nn.init.zeros_(gates)
                nn.init.constant_(gates[spec.d : 2 * spec.d], bias)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits (B, T, V)."""
        x_BTD = self.norm_in(self.tokens(tokens_BT))
        with torch.autocast(tokens_BT.device.type, enabled=False):
            x_BTD, _ = self.cells(x_BTD.float())
        return functional.linear(self.norm_out(x_BTD), self.tokens.weight)


class Transformer(nn.Module):
    """A stack of blocks that is gone through ``reuse`` times; positions are added once, before the first."""

    def __init__(self, spec: Spec, vocab_size: int) -> None:
        super().__init__()
        self.reuse = spec.reuse
        self.tokens, self.positions = nn.Embedding(vocab_size, spec.d), nn.Embedding(spec.n_ctx, spec.d)
        nn.init.normal_(self.tokens.weight, std=DEVIATION)
        nn.init.normal_(self.positions.weight, std=DEVIATION)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.layers))
        self.norm = nn.LayerNorm(spec.d)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits (B, T, V)."""
        x_BTD = self.tokens(tokens_BT) + self.positions.weight
        for _ in range(self.reuse):
            for block in self.blocks:
                x_BTD = block(x_BTD)
        return functional.linear(self.norm(x_BTD), self.tokens.weight)


class Block(nn.Module):
    """Attention and feed-forward; what writes into the residual stream starts smaller, one factor per write."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.n_head = spec.n_head
        self.norm1, self.norm2 = nn.LayerNorm(spec.d), nn.LayerNorm(spec.d)
        written = DEVIATION / math.sqrt(2 * spec.layers * spec.reuse)
        self.qkv, self.out = _matrix(spec.d, 3 * spec.d, DEVIATION), _matrix(spec.d, spec.d, written)
        self.up, self.down = _matrix(spec.d, 4 * spec.d, DEVIATION), _matrix(4 * spec.d, spec.d, written)

    def forward(self, x_BTD: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        q_BHTC, k_BHTC, v_BHTC = self.qkv(self.norm1(x_BTD)).view(B, T, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)
        mixed_BHTC: Tensor = functional.scaled_dot_product_attention(q_BHTC, k_BHTC, v_BHTC, is_causal=True)
        x_BTD = x_BTD + self.out(mixed_BHTC.transpose(1, 2).reshape(B, T, D))
        hidden_BTF: Tensor = functional.gelu(self.up(self.norm2(x_BTD)), approximate="tanh")
        return x_BTD + self.down(hidden_BTF)


def _matrix(inputs: int, outputs: int, deviation: float) -> nn.Linear:
    matrix = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(matrix.weight, std=deviation)
    return matrix
