"""Causal attention of every head of every sequence of every member in one batch of small matrix products.

Suffixes: M members, R = B·T rows, T positions, S attended positions, D d_model, U 3·d_model, C width of a head,
G = M·B·H groups (member, sequence, head). The leading 3 of an array holds queries, keys and values.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cupy

from scaling_sim.model.shape import Shape
from scaling_sim_cupy.layers import softmax
from scaling_sim_cupy.parameters import Array


class AttentionCache(NamedTuple):
    """What the backward pass needs."""

    heads_3GTC: Array
    weights_GTS: Array


def attention(qkv_MRU: Array, shape: Shape) -> tuple[Array, AttentionCache]:
    """softmax(q·kᵀ/√C over s ≤ t)·v with the heads side by side, (M, R, D)."""
    num_members, num_rows, _ = qkv_MRU.shape
    heads_3GTC = _split_heads(qkv_MRU, shape, parts=3)
    q_GTC, k_GTC, v_GTC = heads_3GTC
    scores_GTS = cupy.matmul(q_GTC, k_GTC.swapaxes(1, 2)) / math.sqrt(shape.d_head)
    future_TS = cupy.arange(shape.n_ctx)[:, None] < cupy.arange(shape.n_ctx)
    weights_GTS = softmax(cupy.where(future_TS, scores_GTS.dtype.type(-math.inf), scores_GTS))
    mixed_1GTC = cupy.matmul(weights_GTS, v_GTC)[None]
    return _merge_heads(mixed_1GTC, shape, num_members, num_rows), AttentionCache(heads_3GTC, weights_GTS)


def attention_backward(grad_mixed_MRD: Array, cache: AttentionCache, shape: Shape) -> Array:
    """Gradient of queries, keys and values side by side, (M, R, U).

    With w the weights and g the gradient of the mixed values: grad_v = wᵀ·g; grad_w = g·vᵀ; through the softmax
    grad_scores = w·(grad_w − Σ_s grad_w·w); grad_q = grad_scores·k/√C and grad_k = grad_scoresᵀ·q/√C.
    """
    num_members, num_rows, _ = grad_mixed_MRD.shape
    (q_GTC, k_GTC, v_GTC), weights_GTS = cache
    grad_mixed_GTC = _split_heads(grad_mixed_MRD, shape, parts=1)[0]
    grad_weights_GTS = cupy.matmul(grad_mixed_GTC, v_GTC.swapaxes(1, 2))
    grad_weights_GTS -= (grad_weights_GTS * weights_GTS).sum(axis=-1, keepdims=True)
    grad_scores_GTS = weights_GTS * grad_weights_GTS / math.sqrt(shape.d_head)
    grad_3GTC = cupy.empty_like(cache.heads_3GTC)
    grad_3GTC[0] = cupy.matmul(grad_scores_GTS, k_GTC)
    grad_3GTC[1] = cupy.matmul(grad_scores_GTS.swapaxes(1, 2), q_GTC)
    grad_3GTC[2] = cupy.matmul(weights_GTS.swapaxes(1, 2), grad_mixed_GTC)
    return _merge_heads(grad_3GTC, shape, num_members, num_rows)


def _split_heads(x_MRX: Array, shape: Shape, parts: int) -> Array:
    """(M, R, parts·D) → (parts, G, T, C): within each part the heads are consecutive slices of the width."""
    num_sequences = x_MRX.shape[0] * x_MRX.shape[1] // shape.n_ctx
    heads = x_MRX.reshape(num_sequences, shape.n_ctx, parts, shape.n_head, shape.d_head).transpose(2, 0, 3, 1, 4)
    return heads.reshape(parts, num_sequences * shape.n_head, shape.n_ctx, shape.d_head)


def _merge_heads(x_3GTC: Array, shape: Shape, num_members: int, num_rows: int) -> Array:
    """(parts, G, T, C) → (M, R, parts·D)."""
    parts, num_groups = x_3GTC.shape[:2]
    heads = x_3GTC.reshape(parts, num_groups // shape.n_head, shape.n_head, shape.n_ctx, shape.d_head)
    return heads.transpose(1, 3, 0, 2, 4).reshape(num_members, num_rows, parts * shape.d_model)
