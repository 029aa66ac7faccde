"""The model of `scaling_sim.model.shape` for a whole cohort, with its gradient written out by hand.

Suffixes name axes: M members, B sequences, T positions, R = B·T rows, D d_model, V vocabulary, P all parameters of one
member side by side. No operation mixes members, and sums over rows are matrix products or tree reductions, never float
atomics: on one card the same call gives the same bits.
"""

from __future__ import annotations

from typing import NamedTuple

import cupy

from scaling_sim.model.shape import Shape
from scaling_sim_cupy.block import BlockCache, block_backward, block_forward
from scaling_sim_cupy.dropout import Dropout, drop, drop_backward
from scaling_sim_cupy.layers import layer_norm, layer_norm_backward, linear, log_softmax, one_hot, weight_gradient
from scaling_sim_cupy.parameters import Array, Params, layer_parameters, split_parameters


class Cache(NamedTuple):
    """What the backward pass needs from the forward pass."""

    drop0_MRD: Array | None
    blocks: list[BlockCache]
    ln_f: tuple[Array, Array]
    y_MRD: Array


def position_losses(flat_MP: Array, shape: Shape, tokens_MBT: Array, targets_MBT: Array) -> Array:
    """Cross-entropy of every next token, (M, B, T) nats, no dropout."""
    logits_MRV, _ = forward(split_parameters(flat_MP, shape), shape, tokens_MBT, None)
    return _losses(log_softmax(logits_MRV), _rows(targets_MBT)).reshape(targets_MBT.shape)


def loss_and_gradients(
    flat_MP: Array, shape: Shape, tokens_MBT: Array, targets_MBT: Array, dropout: Dropout | None
) -> tuple[Array, Array]:
    """Mean losses (M,) in float64, nats, and their gradients (M, P).

    The gradient of the logits is (softmax − 1_target)/R; `backward` takes it from there.

    Parameters
    ----------
    flat_MP : (M, P) array
        Parameters, side by side as in `Shape.parameter_shapes`.
    tokens_MBT, targets_MBT : (M, B, T) integer arrays
        Token ids and the ids one position later.
    dropout : Dropout or None
        None switches dropout off.
    """
    params, targets_MR = split_parameters(flat_MP, shape), _rows(targets_MBT)
    logits_MRV, cache = forward(params, shape, tokens_MBT, dropout)
    log_probabilities_MRV = log_softmax(logits_MRV)
    loss_M = _losses(log_probabilities_MRV, targets_MR).mean(axis=1, dtype=cupy.float64)
    grad_logits_MRV = cupy.exp(log_probabilities_MRV)
    grad_logits_MRV -= one_hot(targets_MR, shape.vocab_size, flat_MP.dtype)
    grad_logits_MRV /= targets_MR.shape[1]
    grad_MP = cupy.empty_like(flat_MP)
    backward(params, split_parameters(grad_MP, shape), shape, tokens_MBT, grad_logits_MRV, cache)
    return loss_M, grad_MP


def forward(params: Params, shape: Shape, tokens_MBT: Array, dropout: Dropout | None) -> tuple[Array, Cache]:
    """Logits (M, R, V) and what `backward` needs."""
    x_MRD, drop0_MRD = drop(_embed(params, tokens_MBT), dropout, site=0)
    blocks = []
    for layer in range(shape.n_layer):
        x_MRD, block = block_forward(layer_parameters(params, layer), shape, x_MRD, dropout, layer)
        blocks.append(block)
    y_MRD, ln_f = layer_norm(x_MRD, params["ln_f_gain"], params["ln_f_bias"])
    return linear(y_MRD, params["token_embedding"]), Cache(drop0_MRD, blocks, ln_f, y_MRD)


def backward(
    params: Params, grads: Params, shape: Shape, tokens_MBT: Array, grad_logits_MRV: Array, cache: Cache
) -> None:
    """Write the gradient of every parameter into the views ``grads``.

    The tied embedding receives two parts: as the head's matrix, and the sum over rows of 1_token ⊗ grad_x, a matrix
    product with one-hot rows instead of a scatter-add, so that the order of the sum is fixed.
    """
    grad_y_MRD = cupy.matmul(grad_logits_MRV, params["token_embedding"])
    grad_x_MRD, grads["ln_f_gain"][...], grads["ln_f_bias"][...] = layer_norm_backward(
        grad_y_MRD, params["ln_f_gain"], cache.ln_f
    )
    for layer in reversed(range(shape.n_layer)):
        p, grad_p = layer_parameters(params, layer), layer_parameters(grads, layer)
        grad_x_MRD = block_backward(p, grad_p, shape, grad_x_MRD, cache.blocks[layer])
    grad_x_MRD = drop_backward(grad_x_MRD, cache.drop0_MRD)
    chosen_MRV = one_hot(_rows(tokens_MBT), shape.vocab_size, grad_x_MRD.dtype)
    as_head_MVD, as_input_MVD = weight_gradient(grad_logits_MRV, cache.y_MRD), weight_gradient(chosen_MRV, grad_x_MRD)
    grads["token_embedding"][...] = as_head_MVD + as_input_MVD
    grads["position_embedding"][...] = grad_x_MRD.reshape(*tokens_MBT.shape, shape.d_model).sum(axis=1)


def _embed(params: Params, tokens_MBT: Array) -> Array:
    """Token plus position embedding, (M, R, D)."""
    num_members, num_sequences, num_positions = tokens_MBT.shape
    member_M11 = cupy.arange(num_members)[:, None, None]
    x_MBTD = params["token_embedding"][member_M11, tokens_MBT] + params["position_embedding"][:, None]
    return x_MBTD.reshape(num_members, num_sequences * num_positions, x_MBTD.shape[-1])


def _losses(log_probabilities_MRV: Array, targets_MR: Array) -> Array:
    """Minus the log-probability of the targets, (M, R) nats."""
    return -cupy.take_along_axis(log_probabilities_MRV, targets_MR[..., None], axis=-1)[..., 0]


def _rows(ids_MBT: Array) -> Array:
    """(M, B, T) → (M, R)."""
    num_members, num_sequences, num_positions = ids_MBT.shape
    return ids_MBT.reshape(num_members, num_sequences * num_positions)
