"""The model's forward and backward pass in NumPy: the readable truth that every backend is compared with.

One member at a time. Suffixes name axes: B sequences, T positions, D d_model, U 3·d_model, F d_ff, V vocabulary,
H heads, C width of a head, S attended positions. ``grad_x`` is the derivative of the loss with respect to ``x``.

Sources: GPT-2 (Radford et al. 2019) for the pre-LN block; GELU by tanh (Hendrycks and Gimpel 2016, eq. 2); the exact
definition stands in `scaling_sim.model.shape` and `scaling_sim.engine.protocol`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling_sim.engine.philox import dropout_mask
from scaling_sim.model.shape import Shape

Array = NDArray[Any]
Params = Mapping[str, Array]

LN_EPSILON = 1e-5
GELU_SLOPE = math.sqrt(2 / math.pi)
GELU_CUBIC = 0.044715


class Dropout(NamedTuple):
    """Masks of one member at one update; see the protocol for sites and counters."""

    seed: int
    update: int
    rate: float

    def factor(self, site: int, x_BTD: Array) -> Array:
        """What the activation is multiplied with: 0 where dropped, 1/(1 − rate) where kept; shaped like ``x_BTD``."""
        num_rows, num_columns = x_BTD.shape[0] * x_BTD.shape[1], x_BTD.shape[2]
        keep = dropout_mask(self.seed, self.update, site, num_rows, num_columns, self.rate)
        return keep.reshape(x_BTD.shape).astype(x_BTD.dtype) / (1 - self.rate)


class BlockCache(NamedTuple):
    """What the backward pass of one layer needs from its forward pass."""

    ln1: tuple[Array, Array]
    a_BTD: Array
    q_BHTC: Array
    k_BHTC: Array
    v_BHTC: Array
    weights_BHTS: Array
    mixed_BTD: Array
    drop1_BTD: Array | None
    ln2: tuple[Array, Array]
    b_BTD: Array
    h_BTF: Array
    gelu_BTF: Array
    drop2_BTD: Array | None


def position_losses(params: Params, shape: Shape, tokens_BT: Array, targets_BT: Array) -> Array:
    """Cross-entropy of every next token, (B, T) nats, no dropout."""
    logits_BTV, _ = forward(params, shape, tokens_BT, None)
    return -_log_softmax_at(logits_BTV, targets_BT)


def loss_and_gradients(
    params: Params, shape: Shape, tokens_BT: Array, targets_BT: Array, dropout: Dropout | None = None
) -> tuple[float, dict[str, Array]]:
    """Mean loss over all positions (nats) and its gradient for every parameter.

    Parameters
    ----------
    params : mapping of arrays
        Canonical names and shapes (`Shape.parameter_shapes`).
    tokens_BT, targets_BT : (B, T) integer arrays
        Token ids and the ids one position later.
    dropout : Dropout, optional
        None switches dropout off.
    """
    logits_BTV, caches = forward(params, shape, tokens_BT, dropout)
    loss = float(-_log_softmax_at(logits_BTV, targets_BT).mean(dtype=np.float64))
    grad_logits_BTV = _softmax(logits_BTV)
    np.put_along_axis(
        grad_logits_BTV,
        targets_BT[..., None],
        np.take_along_axis(grad_logits_BTV, targets_BT[..., None], -1) - 1,
        -1,
    )
    return loss, backward(params, shape, tokens_BT, grad_logits_BTV / targets_BT.size, caches)


def forward(
    params: Params, shape: Shape, tokens_BT: Array, dropout: Dropout | None
) -> tuple[Array, tuple[Array | None, list[BlockCache], tuple[Array, Array], Array]]:
    """Logits (B, T, V) and what `backward` needs."""
    x_BTD = params["token_embedding"][tokens_BT] + params["position_embedding"]
    x_BTD, drop0_BTD = _drop(x_BTD, dropout, site=0)
    blocks = []
    for layer in range(shape.n_layer):
        x_BTD, block = _block_forward(_layer(params, layer), shape, x_BTD, dropout, layer)
        blocks.append(block)
    y_BTD, ln_f = _layer_norm(x_BTD, params["ln_f_gain"], params["ln_f_bias"])
    logits_BTV = y_BTD @ params["token_embedding"].T
    return logits_BTV, (drop0_BTD, blocks, ln_f, y_BTD)


def backward(
    params: Params,
    shape: Shape,
    tokens_BT: Array,
    grad_logits_BTV: Array,
    caches: tuple[Array | None, list[BlockCache], tuple[Array, Array], Array],
) -> dict[str, Array]:
    """Gradient of every parameter, from the gradient of the logits."""
    drop0_BTD, blocks, ln_f, y_BTD = caches
    grads = {name: np.zeros_like(value) for name, value in params.items()}
    grads["token_embedding"] += _weight_gradient(grad_logits_BTV, y_BTD)
    grad_x_BTD, grads["ln_f_gain"], grads["ln_f_bias"] = _layer_norm_backward(
        grad_logits_BTV @ params["token_embedding"], params["ln_f_gain"], ln_f
    )
    for layer in reversed(range(shape.n_layer)):
        grad_x_BTD = _block_backward(_layer(params, layer), _layer(grads, layer), grad_x_BTD, blocks[layer])
    grad_x_BTD = _drop_backward(grad_x_BTD, drop0_BTD)
    grads["position_embedding"] += grad_x_BTD.sum(axis=0)
    np.add.at(grads["token_embedding"], tokens_BT, grad_x_BTD)
    return grads


def _block_forward(
    p: Params, shape: Shape, x_BTD: Array, dropout: Dropout | None, layer: int
) -> tuple[Array, BlockCache]:
    a_BTD, ln1 = _layer_norm(x_BTD, p["ln1_gain"], p["ln1_bias"])
    q_BHTC, k_BHTC, v_BHTC = (_split_heads(z, shape.n_head) for z in np.split(a_BTD @ p["qkv"].T, 3, axis=-1))
    weights_BHTS = _attention_weights(q_BHTC, k_BHTC)
    mixed_BTD = _merge_heads(weights_BHTS @ v_BHTC)
    residual1_BTD, drop1_BTD = _drop(mixed_BTD @ p["attn_out"].T, dropout, site=1 + 2 * layer)
    x_BTD = x_BTD + residual1_BTD
    b_BTD, ln2 = _layer_norm(x_BTD, p["ln2_gain"], p["ln2_bias"])
    h_BTF = b_BTD @ p["mlp_up"].T
    gelu_BTF = _gelu(h_BTF)
    residual2_BTD, drop2_BTD = _drop(gelu_BTF @ p["mlp_down"].T, dropout, site=2 + 2 * layer)
    cache = BlockCache(
        ln1, a_BTD, q_BHTC, k_BHTC, v_BHTC, weights_BHTS, mixed_BTD, drop1_BTD, ln2, b_BTD, h_BTF, gelu_BTF, drop2_BTD
    )
    return x_BTD + residual2_BTD, cache


def _block_backward(p: Params, grads: Params, grad_x_BTD: Array, cache: BlockCache) -> Array:
    """Gradient at the block's input; the layer's parameter gradients are added into the views ``grads``."""
    grad_out_BTD = _drop_backward(grad_x_BTD, cache.drop2_BTD)
    grads["mlp_down"][:] += _weight_gradient(grad_out_BTD, cache.gelu_BTF)
    grad_h_BTF = (grad_out_BTD @ p["mlp_down"]) * _gelu_slope(cache.h_BTF)
    grads["mlp_up"][:] += _weight_gradient(grad_h_BTF, cache.b_BTD)
    grad_b_BTD, grads["ln2_gain"][:], grads["ln2_bias"][:] = _layer_norm_backward(
        grad_h_BTF @ p["mlp_up"], p["ln2_gain"], cache.ln2
    )
    grad_x_BTD = grad_x_BTD + grad_b_BTD

    grad_out_BTD = _drop_backward(grad_x_BTD, cache.drop1_BTD)
    grads["attn_out"][:] += _weight_gradient(grad_out_BTD, cache.mixed_BTD)
    grad_qkv_BTU = _attention_backward(grad_out_BTD @ p["attn_out"], cache)
    grads["qkv"][:] += _weight_gradient(grad_qkv_BTU, cache.a_BTD)
    grad_a_BTD, grads["ln1_gain"][:], grads["ln1_bias"][:] = _layer_norm_backward(
        grad_qkv_BTU @ p["qkv"], p["ln1_gain"], cache.ln1
    )
    return grad_x_BTD + grad_a_BTD


def _attention_weights(q_BHTC: Array, k_BHTC: Array) -> Array:
    """softmax(q·k / √C) over the positions s ≤ t."""
    num_positions, width = q_BHTC.shape[-2:]
    scores_BHTS = (q_BHTC @ k_BHTC.swapaxes(-1, -2)) / math.sqrt(width)
    future_TS = np.triu(np.ones((num_positions, num_positions), bool), k=1)
    return _softmax(np.where(future_TS, -np.inf, scores_BHTS).astype(scores_BHTS.dtype))


def _attention_backward(grad_mixed_BTD: Array, cache: BlockCache) -> Array:
    """Gradient of queries, keys and values, side by side as in the rows of ``qkv``."""
    num_heads, width = cache.q_BHTC.shape[1], cache.q_BHTC.shape[3]
    grad_mixed_BHTC = _split_heads(grad_mixed_BTD, num_heads)
    grad_v_BHTC = cache.weights_BHTS.swapaxes(-1, -2) @ grad_mixed_BHTC
    grad_weights_BHTS = grad_mixed_BHTC @ cache.v_BHTC.swapaxes(-1, -2)
    inner_BHT1 = (grad_weights_BHTS * cache.weights_BHTS).sum(axis=-1, keepdims=True)
    grad_scores_BHTS = cache.weights_BHTS * (grad_weights_BHTS - inner_BHT1) / math.sqrt(width)
    grad_q_BHTC = grad_scores_BHTS @ cache.k_BHTC
    grad_k_BHTC = grad_scores_BHTS.swapaxes(-1, -2) @ cache.q_BHTC
    return np.concatenate([_merge_heads(z) for z in (grad_q_BHTC, grad_k_BHTC, grad_v_BHTC)], axis=-1)


def _layer_norm(x_BTD: Array, gain_D: Array, bias_D: Array) -> tuple[Array, tuple[Array, Array]]:
    """(x − mean)/√(variance + ε)·gain + bias, with the normalised value and 1/√(variance + ε)."""
    centred_BTD = x_BTD - x_BTD.mean(axis=-1, keepdims=True)
    inverse_BT1 = 1 / np.sqrt((centred_BTD**2).mean(axis=-1, keepdims=True) + LN_EPSILON)
    normal_BTD = centred_BTD * inverse_BT1
    return normal_BTD * gain_D + bias_D, (normal_BTD, inverse_BT1)


def _layer_norm_backward(grad_y_BTD: Array, gain_D: Array, cache: tuple[Array, Array]) -> tuple[Array, Array, Array]:
    """Gradients of input, gain and bias."""
    normal_BTD, inverse_BT1 = cache
    scaled_BTD = grad_y_BTD * gain_D
    along_BT1 = (scaled_BTD * normal_BTD).mean(axis=-1, keepdims=True)
    grad_x_BTD = inverse_BT1 * (scaled_BTD - scaled_BTD.mean(axis=-1, keepdims=True) - normal_BTD * along_BT1)
    return grad_x_BTD, (grad_y_BTD * normal_BTD).sum(axis=(0, 1)), grad_y_BTD.sum(axis=(0, 1))


def _gelu(x: Array) -> Array:
    """x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³)))."""
    value: Array = 0.5 * x * (1 + np.tanh(GELU_SLOPE * (x + GELU_CUBIC * x**3)))
    return value


def _gelu_slope(x: Array) -> Array:
    """Derivative of `_gelu`."""
    tanh = np.tanh(GELU_SLOPE * (x + GELU_CUBIC * x**3))
    inner_slope = GELU_SLOPE * (1 + 3 * GELU_CUBIC * x**2)
    value: Array = 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * inner_slope
    return value


def _softmax(x: Array) -> Array:
    exponential: Array = np.exp(x - x.max(axis=-1, keepdims=True))
    exponential /= exponential.sum(axis=-1, keepdims=True)
    return exponential


def _log_softmax_at(logits_BTV: Array, targets_BT: Array) -> Array:
    """Log probability of the targets, (B, T)."""
    shifted_BTV = logits_BTV - logits_BTV.max(axis=-1, keepdims=True)
    chosen_BT: Array = np.take_along_axis(shifted_BTV, targets_BT[..., None], axis=-1)[..., 0]
    normaliser_BT: Array = np.log(np.exp(shifted_BTV).sum(axis=-1))
    return chosen_BT - normaliser_BT


def _drop(x_BTD: Array, dropout: Dropout | None, site: int) -> tuple[Array, Array | None]:
    if dropout is None or dropout.rate == 0:
        return x_BTD, None
    factor_BTD = dropout.factor(site, x_BTD)
    return x_BTD * factor_BTD, factor_BTD


def _drop_backward(grad_BTD: Array, factor_BTD: Array | None) -> Array:
    return grad_BTD if factor_BTD is None else grad_BTD * factor_BTD


def _weight_gradient(grad_out: Array, inputs: Array) -> Array:
    """Gradient of W in out = inputs · Wᵀ, summed over all leading axes: (out, in)."""
    return grad_out.reshape(-1, grad_out.shape[-1]).T @ inputs.reshape(-1, inputs.shape[-1])


def _split_heads(x_BTD: Array, num_heads: int) -> Array:
    """(B, T, D) → (B, H, T, C): heads are consecutive slices of the width."""
    return x_BTD.reshape(*x_BTD.shape[:2], num_heads, -1).transpose(0, 2, 1, 3)


def _merge_heads(x_BHTC: Array) -> Array:
    """(B, H, T, C) → (B, T, D)."""
    return x_BHTC.transpose(0, 2, 1, 3).reshape(x_BHTC.shape[0], x_BHTC.shape[2], -1)


LAYERED = ("ln1_gain", "ln1_bias", "qkv", "attn_out", "ln2_gain", "ln2_bias", "mlp_up", "mlp_down")
"""Parameters whose first axis is the layer."""


def _layer(params: Params, layer: int) -> dict[str, Array]:
    """Views of one layer's parameters."""
    return {name: params[name][layer] for name in LAYERED}
