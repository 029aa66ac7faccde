"""Causal self-attention of one chunk: p = softmax(q·kᵀ/√k_width) over keys up to the query, output p·v.

Queries go in blocks, so that scores take block · T numbers at most. ``qkv_R3d`` holds all queries, then keys, then
values of a row; heads are blocks of columns, read in place through strides.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# (Numba infers the types of kernels.)

from __future__ import annotations

import numpy as np

from scaling_sim_numba.kernels.compiler import kernel
from scaling_sim_numba.kernels.product import LOWER_LEFT, LOWER_RESULT, UPPER_LEFT, causal_gemm
from scaling_sim_numba.kernels.scalar import exp, order_key, order_value
from scaling_sim_numba.kernels.views import block, general, matrix

_GROUP = 16
"""Columns are taken in groups of so many, so that vector loops leave no remainder; those not seen count as zero."""


@kernel
def causal_softmax(p_QJ, first, scale):
    """Softmax of ``scale`` times row t over the columns up to ``first + t``, in place; zero to the end of their group.

    What lies beyond is read, and may be anything.
    """
    real = p_QJ.dtype.type
    rows, columns = p_QJ.shape
    zero, nothing, factor = real(0.0), real(-np.inf), real(scale)
    for t in range(rows):
        seen = first + t + 1
        end = min((seen + _GROUP - 1) // _GROUP * _GROUP, columns)
        key = order_key(p_QJ[t, 0])
        for j in range(end):
            other = order_key(p_QJ[t, j] if j < seen else nothing)
            key = other if other > key else key
        largest = order_value(key, p_QJ[t, 0])
        total = zero
        for j in range(end):
            e = exp(factor * (p_QJ[t, j] - largest))
            e = e if j < seen else zero
            p_QJ[t, j] = e
            total += e
        inverse = real(1.0) / total
        for j in range(end):
            p_QJ[t, j] *= inverse


@kernel
def causal_softmax_backward(p_QJ, d_QJ, first, scale):
    """Turn dp into ds = scale·p·(dp − Σ_j p·dp), in place; columns as in `causal_softmax`."""
    real = p_QJ.dtype.type
    rows, columns = p_QJ.shape
    zero, factor = real(0.0), real(scale)
    for t in range(rows):
        seen = first + t + 1
        end = min((seen + _GROUP - 1) // _GROUP * _GROUP, columns)
        mean = zero
        for j in range(end):
            mean += p_QJ[t, j] * d_QJ[t, j] if j < seen else zero
        for j in range(end):
            d_QJ[t, j] = factor * p_QJ[t, j] * (d_QJ[t, j] - mean) if j < seen else zero


@kernel
def attention(sizes, arena, probabilities, scores, qkv_R3d, out_Rd):
    """Write the attention output of every sequence and head of the chunk; keep p where ``sizes.keep``."""
    T, d = sizes.context, sizes.width
    k = d // sizes.heads
    scale = 1.0 / np.sqrt(k)
    place = probabilities
    for s in range(qkv_R3d.shape[0] // T):
        for h in range(sizes.heads):
            for first in range(0, T, sizes.query_block):
                last = min(first + sizes.query_block, T)
                p_QJ = matrix(arena, place if sizes.keep else scores, last - first, last)
                queries_Qk = block(qkv_R3d, s * T + first, h * k, last - first, k)
                keys_Jk = block(qkv_R3d, s * T, d + h * k, last, k)
                values_Jk = block(qkv_R3d, s * T, 2 * d + h * k, last, k)
                out_Qk = block(out_Rd, s * T + first, h * k, last - first, k)
                causal_gemm(queries_Qk, keys_Jk.T, 0.0, general(p_QJ), LOWER_RESULT, first)
                causal_softmax(p_QJ, first, scale)
                causal_gemm(general(p_QJ), values_Jk, 0.0, out_Qk, LOWER_LEFT, first)
                place += (last - first) * last


@kernel
def attention_backward(sizes, arena, probabilities, scores, qkv_R3d, d_out_Rd, d_qkv_R3d):
    """Write the gradient of qkv.

    dv = pᵀ·do, dp = do·vᵀ, ds = softmax'(dp)/√k_width, dq = ds·k, dk = dsᵀ·q. The last query block comes
    first, as it sees every key: it writes dk and dv, the others add to them.
    """
    T, d = sizes.context, sizes.width
    k = d // sizes.heads
    scale = 1.0 / np.sqrt(k)
    place = probabilities
    for s in range(qkv_R3d.shape[0] // T):
        for h in range(sizes.heads):
            place_end = place
            for first in range(0, T, sizes.query_block):
                last = min(first + sizes.query_block, T)
                place_end += (last - first) * last
            place = place_end
            for first in range((T - 1) // sizes.query_block * sizes.query_block, -1, -sizes.query_block):
                last = min(first + sizes.query_block, T)
                Q = last - first
                place_end -= Q * last
                queries_Qk = block(qkv_R3d, s * T + first, h * k, Q, k)
                keys_Jk = block(qkv_R3d, s * T, d + h * k, last, k)
                values_Jk = block(qkv_R3d, s * T, 2 * d + h * k, last, k)
                d_out_Qk = block(d_out_Rd, s * T + first, h * k, Q, k)
                p_QJ = matrix(arena, place_end if sizes.keep else scores, Q, last)
                d_p_QJ = matrix(arena, scores + sizes.query_block * T, Q, last)
                if not sizes.keep:
                    causal_gemm(queries_Qk, keys_Jk.T, 0.0, general(p_QJ), LOWER_RESULT, first)
                    causal_softmax(p_QJ, first, scale)
                add = 0.0 if last == T else 1.0
                d_queries_Qk = block(d_qkv_R3d, s * T + first, h * k, Q, k)
                d_keys_Jk = block(d_qkv_R3d, s * T, d + h * k, last, k)
                d_values_Jk = block(d_qkv_R3d, s * T, 2 * d + h * k, last, k)
                causal_gemm(general(p_QJ).T, d_out_Qk, add, d_values_Jk, UPPER_LEFT, first)
                causal_gemm(d_out_Qk, values_Jk.T, 0.0, general(d_p_QJ), LOWER_RESULT, first)
                causal_softmax_backward(p_QJ, d_p_QJ, first, scale)
                causal_gemm(general(d_p_QJ), keys_Jk, 0.0, d_queries_Qk, LOWER_LEFT, first)
                causal_gemm(general(d_p_QJ).T, queries_Qk, add, d_keys_Jk, UPPER_LEFT, first)
