"""The model of `scaling_sim.model.shape` for a whole cohort: every weight carries the member axis in front.

Suffixes name axes: M members, B sequences, T positions, R = B·T rows, D d_model, U 3·d_model, F d_ff, V vocabulary,
H heads, C width of a head, P all parameters of one member side by side. No operation mixes members, so what one of them
does (NaN included) never reaches another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from scaling_sim.model.shape import Shape
from scaling_sim_torch.cross_entropy import chunk_rows
from scaling_sim_torch.dropout import Dropout

LN_EPSILON = 1e-5


def split_parameters(flat_MP: Tensor, shape: Shape) -> dict[str, Tensor]:
    """Views (M, *shape) of a flat parameter tensor, by canonical name."""
    return split_flat(flat_MP, shape.parameter_shapes())


def split_flat(flat_MP: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Views (M, *size) of a flat tensor that holds entries of these sizes one after another."""
    pieces = torch.split_with_sizes(flat_MP, [math.prod(size) for size in shapes.values()], dim=1)
    return {
        name: piece.view(flat_MP.shape[0], *size) for (name, size), piece in zip(shapes.items(), pieces, strict=True)
    }


def position_losses(
    flat_MP: Tensor, shape: Shape, tokens_MBT: Tensor, targets_MBT: Tensor, dropout: Dropout | None = None
) -> Tensor:
    """Cross-entropy of every next token, (M, B, T) nats in the parameters' dtype.

    Logits are held for as many rows as `cross_entropy.MAX_LOGITS` allows; of the others they are computed again in the
    backward pass.
    """
    params, targets_MR = split_parameters(flat_MP, shape), targets_MBT.flatten(1)
    y_MRD, embedding_MVD = _trunk(params, shape, tokens_MBT, dropout), params["token_embedding"]
    num_members, num_rows = targets_MR.shape
    size = chunk_rows(num_members, num_rows, shape.vocab_size, flat_MP.element_size())
    if size >= num_rows:
        return _row_losses(y_MRD, embedding_MVD, targets_MR).view(targets_MBT.shape)
    parts = zip(torch.split(y_MRD, size, dim=1), torch.split(targets_MR, size, dim=1), strict=True)
    losses = [
        checkpoint(_row_losses, y_MrD, embedding_MVD, targets_Mr, use_reentrant=False, preserve_rng_state=False)
        for y_MrD, targets_Mr in parts
    ]
    return torch.cat(losses, dim=1).view(targets_MBT.shape)


def _row_losses(y_MrD: Tensor, embedding_MVD: Tensor, targets_Mr: Tensor) -> Tensor:
    """Cross-entropy (M, r) of rows of the final layer norm's output."""
    logits_MrV = _linear(y_MrD, embedding_MVD).to(embedding_MVD.dtype)
    losses = functional.cross_entropy(logits_MrV.flatten(0, 1), targets_Mr.flatten(), reduction="none")
    return losses.view(targets_Mr.shape)


def _trunk(params: dict[str, Tensor], shape: Shape, tokens_MBT: Tensor, dropout: Dropout | None) -> Tensor:
    """Output of the final layer norm, (M, R, D)."""
    layers = {name: params[name].unbind(dim=1) for name in LAYERED}
    x_MRD = _embed(params, tokens_MBT)
    if dropout is not None:
        x_MRD = dropout(x_MRD, site=0)
    for layer in range(shape.n_layer):
        x_MRD = _block({name: layers[name][layer] for name in LAYERED}, shape, x_MRD, tokens_MBT, dropout, layer)
    return _layer_norm(x_MRD, params["ln_f_gain"], params["ln_f_bias"])


LAYERED = ("ln1_gain", "ln1_bias", "qkv", "attn_out", "ln2_gain", "ln2_bias", "mlp_up", "mlp_down")
"""Parameters with a layer axis after the member axis."""


def _embed(params: dict[str, Tensor], tokens_MBT: Tensor) -> Tensor:
    """Token plus position embedding, (M, R, D): one lookup in the members' tables laid end to end."""
    table_MVD = params["token_embedding"]
    num_members, vocab_size, _ = table_MVD.shape
    offset_M11 = torch.arange(num_members, device=tokens_MBT.device)[:, None, None] * vocab_size
    x_MBTD = functional.embedding(tokens_MBT + offset_M11, table_MVD.flatten(0, 1))
    return (x_MBTD + params["position_embedding"][:, None]).flatten(1, 2)


def _block(
    p: dict[str, Tensor], shape: Shape, x_MRD: Tensor, tokens_MBT: Tensor, dropout: Dropout | None, layer: int
) -> Tensor:
    a_MRD = _layer_norm(x_MRD, p["ln1_gain"], p["ln1_bias"])
    residual_MRD = _linear(_attention(_linear(a_MRD, p["qkv"]), shape, tokens_MBT.shape[1]), p["attn_out"])
    x_MRD = x_MRD + (residual_MRD if dropout is None else dropout(residual_MRD, site=1 + 2 * layer))
    b_MRD = _layer_norm(x_MRD, p["ln2_gain"], p["ln2_bias"])
    h_MRF = functional.gelu(_linear(b_MRD, p["mlp_up"]), approximate="tanh")
    residual_MRD = _linear(h_MRF, p["mlp_down"])
    return x_MRD + (residual_MRD if dropout is None else dropout(residual_MRD, site=2 + 2 * layer))


def _attention(qkv_MRU: Tensor, shape: Shape, num_sequences: int) -> Tensor:
    """Causal attention over M·B sequences at once, (M, R, D)."""
    num_members = qkv_MRU.shape[0]
    # (M, R, U) -> three of (M·B, H, T, C)
    heads = qkv_MRU.view(num_members * num_sequences, shape.n_ctx, 3, shape.n_head, shape.d_head)
    q_BHTC, k_BHTC, v_BHTC = heads.permute(2, 0, 3, 1, 4).unbind(0)
    mixed_BHTC = functional.scaled_dot_product_attention(q_BHTC, k_BHTC, v_BHTC, is_causal=True)
    return mixed_BHTC.transpose(1, 2).reshape(num_members, num_sequences * shape.n_ctx, shape.d_model)


def _linear(x_MRi: Tensor, weight_Moi: Tensor) -> Tensor:
    """x·Wᵀ for every member."""
    return torch.bmm(x_MRi, weight_Moi.transpose(1, 2))


def _layer_norm(x_MRD: Tensor, gain_MD: Tensor, bias_MD: Tensor) -> Tensor:
    normal_MRD = functional.layer_norm(x_MRD, x_MRD.shape[-1:], eps=LN_EPSILON)
    return torch.addcmul(bias_MD[:, None], normal_MRD, gain_MD[:, None])
