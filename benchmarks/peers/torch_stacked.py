"""Peer: M equal GPTs in one PyTorch process as somebody would write it today: stacked, compiled, one captured graph.

Parameters stacked, batched products in bfloat16, fused AdamW, forward and backward compiled, the whole update captured
in a CUDA graph. No token gather, no learning rate or clipping per member, no record of losses.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def prepare(n_layer: int, d_model: int, n_head: int, num_members: int, vocab_size: int, context: int, batch: int):
    """A function that replays one update."""
    params = _parameters(num_members, n_layer, d_model, vocab_size, context)
    optimizer = torch.optim.AdamW(params.values(), lr=1e-3, fused=True, capturable=True)
    tokens, targets = (torch.randint(vocab_size, (num_members, batch, context), device="cuda") for _ in range(2))
    compiled = torch.compile(_loss)

    def update() -> None:
        compiled(params, tokens, targets, n_layer, n_head).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(4):
            update()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        update()
    return graph.replay


def _parameters(members: int, n_layer: int, d: int, vocab_size: int, context: int) -> dict[str, Tensor]:
    shapes = {"e": (members, vocab_size, d), "p": (members, context, d)}
    for i in range(n_layer):
        shapes |= {f"qkv{i}": (members, d, 3 * d), f"o{i}": (members, d, d)}
        shapes |= {f"up{i}": (members, d, 4 * d), f"down{i}": (members, 4 * d, d)}
    params = {name: 0.02 * torch.randn(*shape, device="cuda") for name, shape in shapes.items()}
    for i in range(n_layer):
        for ln in "ab":
            params |= {f"gain_{ln}{i}": torch.ones(members, 1, d, device="cuda")}
            params |= {f"bias_{ln}{i}": torch.zeros(members, 1, d, device="cuda")}
    return {name: value.requires_grad_() for name, value in params.items()}


def _loss(p: dict[str, Tensor], tokens: Tensor, targets: Tensor, n_layer: int, n_head: int) -> Tensor:
    members, batch, context = tokens.shape
    d = p["e"].shape[-1]
    offset = (torch.arange(members, device="cuda") * p["e"].shape[1]).view(members, 1, 1)
    x = functional.embedding(tokens + offset, p["e"].flatten(0, 1)).view(members, batch, context, d)
    x = (x + p["p"][:, None]).view(members, batch * context, d).bfloat16()
    for i in range(n_layer):
        qkv = torch.bmm(_norm(x, p, f"a{i}"), p[f"qkv{i}"].bfloat16())
        q, k, v = qkv.view(members * batch, context, 3, n_head, d // n_head).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed = mixed.transpose(1, 2).reshape(members, batch * context, d)
        x = x + torch.bmm(mixed, p[f"o{i}"].bfloat16())
        hidden = functional.gelu(torch.bmm(_norm(x, p, f"b{i}"), p[f"up{i}"].bfloat16()), approximate="tanh")
        x = x + torch.bmm(hidden, p[f"down{i}"].bfloat16())
    logits = torch.bmm(functional.layer_norm(x, (d,)), p["e"].transpose(1, 2).bfloat16())
    loss = functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum")
    return loss / (batch * context)


def _norm(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    return (functional.layer_norm(x, x.shape[-1:]) * p[f"gain_{name}"] + p[f"bias_{name}"]).bfloat16()
