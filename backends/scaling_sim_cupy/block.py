"""One pre-LN block, forward and backward, for all members at once.

Suffixes: M members, R = B·T rows, D d_model, U 3·d_model, F d_ff. Source: GPT-2 (Radford et al. 2019); the exact
definition stands in `scaling_sim.model.shape`.
"""

from __future__ import annotations

from typing import NamedTuple

import cupy

from scaling_sim.model.shape import Shape
from scaling_sim_cupy.attention import AttentionCache, attention, attention_backward
from scaling_sim_cupy.dropout import Dropout, drop, drop_backward
from scaling_sim_cupy.layers import gelu, gelu_slope, layer_norm, layer_norm_backward, linear, weight_gradient
from scaling_sim_cupy.parameters import Array, Params


class BlockCache(NamedTuple):
    """What the backward pass of one block needs from its forward pass."""

    ln1: tuple[Array, Array]
    a_MRD: Array
    attention: AttentionCache
    mixed_MRD: Array
    drop1_MRD: Array | None
    ln2: tuple[Array, Array]
    b_MRD: Array
    h_MRF: Array
    gelu_MRF: Array
    drop2_MRD: Array | None


def block_forward(
    p: Params, shape: Shape, x_MRD: Array, dropout: Dropout | None, layer: int
) -> tuple[Array, BlockCache]:
    """x + attention(LN₁(x)), then x + feed-forward(LN₂(x)); dropout on both residuals."""
    a_MRD, ln1 = layer_norm(x_MRD, p["ln1_gain"], p["ln1_bias"])
    mixed_MRD, attended = attention(linear(a_MRD, p["qkv"]), shape)
    residual_MRD, drop1_MRD = drop(linear(mixed_MRD, p["attn_out"]), dropout, site=1 + 2 * layer)
    x_MRD = x_MRD + residual_MRD
    b_MRD, ln2 = layer_norm(x_MRD, p["ln2_gain"], p["ln2_bias"])
    h_MRF = linear(b_MRD, p["mlp_up"])
    gelu_MRF = gelu(h_MRF)
    residual_MRD, drop2_MRD = drop(linear(gelu_MRF, p["mlp_down"]), dropout, site=2 + 2 * layer)
    cache = BlockCache(ln1, a_MRD, attended, mixed_MRD, drop1_MRD, ln2, b_MRD, h_MRF, gelu_MRF, drop2_MRD)
    return x_MRD + residual_MRD, cache


def block_backward(p: Params, grads: Params, shape: Shape, grad_x_MRD: Array, cache: BlockCache) -> Array:
    """Gradient at the block's input; the gradients of its parameters are written into the views ``grads``."""
    grad_out_MRD = drop_backward(grad_x_MRD, cache.drop2_MRD)
    grads["mlp_down"][...] = weight_gradient(grad_out_MRD, cache.gelu_MRF)
    grad_h_MRF = cupy.matmul(grad_out_MRD, p["mlp_down"]) * gelu_slope(cache.h_MRF)
    grads["mlp_up"][...] = weight_gradient(grad_h_MRF, cache.b_MRD)
    grad_b_MRD, grads["ln2_gain"][...], grads["ln2_bias"][...] = layer_norm_backward(
        cupy.matmul(grad_h_MRF, p["mlp_up"]), p["ln2_gain"], cache.ln2
    )
    grad_x_MRD = grad_x_MRD + grad_b_MRD

    grad_out_MRD = drop_backward(grad_x_MRD, cache.drop1_MRD)
    grads["attn_out"][...] = weight_gradient(grad_out_MRD, cache.mixed_MRD)
    grad_qkv_MRU = attention_backward(cupy.matmul(grad_out_MRD, p["attn_out"]), cache.attention, shape)
    grads["qkv"][...] = weight_gradient(grad_qkv_MRU, cache.a_MRD)
    grad_a_MRD, grads["ln1_gain"][...], grads["ln1_bias"][...] = layer_norm_backward(
        cupy.matmul(grad_qkv_MRU, p["qkv"]), p["ln1_gain"], cache.ln1
    )
    return grad_x_MRD + grad_a_MRD
