"""Peer: one plain GPT as somebody would train it today: autocast to bfloat16, torch.compile, fused AdamW."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    def __init__(self, d: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x: Tensor) -> Tensor:
        batch, context, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, context, 3, self.n_head, d // self.n_head).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, context, d))
        return x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self, n_layer: int, d: int, n_head: int, vocab_size: int, context: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab_size, d), nn.Embedding(context, d)
        self.blocks = nn.ModuleList(Block(d, n_head) for _ in range(n_layer))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, vocab_size, bias=False)
        self.head.weight = self.tokens.weight
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions.weight
        for block in self.blocks:
            x = block(x)
        return functional.cross_entropy(self.head(self.norm(x)).flatten(0, 1).float(), targets.flatten())


def prepare(
    n_layer: int, d_model: int, n_head: int, num_members: int, vocab_size: int, context: int, batch: int,
    mode: str = "default",
):  # fmt: skip
    """A function that makes one update of one compiled model; ``mode`` is torch.compile's."""
    torch.set_float32_matmul_precision("high")
    model = GPT(n_layer, d_model, n_head, vocab_size, context).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True, capturable=True)
    tokens, targets = (torch.randint(vocab_size, (batch, context), device="cuda") for _ in range(2))
    compiled = torch.compile(model, mode=mode)

    def update() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = compiled(tokens, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return update
