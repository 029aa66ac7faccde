"""Forward and backward pass of one chunk: a few whole sequences, small enough that their activations stay in cache.

Block l: m = x + drop(attention(LN1(x)·Wqkvᵀ)·Woᵀ);  x' = m + drop(gelu(LN2(m)·Wupᵀ)·Wdownᵀ).  Matrices are (out, in).
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# (Numba infers the types of kernels.)

from __future__ import annotations

from typing import NamedTuple

from scaling_sim_numba.kernels.attention import attention, attention_backward
from scaling_sim_numba.kernels.compiler import kernel
from scaling_sim_numba.kernels.cross_entropy import head_loss
from scaling_sim_numba.kernels.gelu import gelu, gelu_backward
from scaling_sim_numba.kernels.layer_norm import layer_norm, layer_norm_backward
from scaling_sim_numba.kernels.product import gemm
from scaling_sim_numba.kernels.views import matrix, vector
from scaling_sim_numba.philox import dropout


class Dropout(NamedTuple):
    """Dropout of one member: a word below ``threshold`` drops its element."""

    rate: float
    threshold: int
    key_low: int
    key_high: int


@kernel
def embed(x_Rd, tokens, token_Vd, position_Td):
    """x = token embedding + position embedding."""
    rows, width = x_Rd.shape
    context = position_Td.shape[0]
    for r in range(rows):
        token, t = tokens[r], r % context
        for i in range(width):
            x_Rd[r, i] = token_Vd[token, i] + position_Td[t, i]


@kernel
def embed_backward(dx_Rd, tokens, d_token_Vd, d_position_Td):
    """Add the gradient of every row to its token and its position."""
    rows, width = dx_Rd.shape
    context = d_position_Td.shape[0]
    for r in range(rows):
        token, t = tokens[r], r % context
        for i in range(width):
            d_token_Vd[token, i] += dx_Rd[r, i]
            d_position_Td[t, i] += dx_Rd[r, i]


@kernel
def residual(y_Rd, x_Rd, a_Rk, w_dk, branch_Rd, drop, step, site, first_row):
    """y = x + drop(a·wᵀ)."""
    rows, width = x_Rd.shape
    if drop.threshold > 0:
        gemm(a_Rk, w_dk.T, 0.0, branch_Rd)
        dropout(branch_Rd, drop, step, site, first_row)
        for r in range(rows):
            for i in range(width):
                y_Rd[r, i] = x_Rd[r, i] + branch_Rd[r, i]
    else:
        for r in range(rows):
            for i in range(width):
                y_Rd[r, i] = x_Rd[r, i]
        gemm(a_Rk, w_dk.T, 1.0, y_Rd)


@kernel
def residual_backward(d_a_Rk, d_w_dk, dy_Rd, a_Rk, w_dk, branch_Rd, drop, step, site, first_row):
    """da = drop(dy)·w, dw += drop(dy)ᵀ·a; the gradient of x is dy itself."""
    if drop.threshold > 0:
        rows, width = dy_Rd.shape
        for r in range(rows):
            for i in range(width):
                branch_Rd[r, i] = dy_Rd[r, i]
        dropout(branch_Rd, drop, step, site, first_row)
        d_branch_Rd = branch_Rd
    else:
        d_branch_Rd = dy_Rd
    gemm(d_branch_Rd.T, a_Rk, 1.0, d_w_dk)
    gemm(d_branch_Rd, w_dk, 0.0, d_a_Rk)


@kernel
def forward(sizes, at, to, params, arena, tokens, drop, step, first_row):
    """Activations of every layer and of the final layer norm, left in the arena."""
    rows, d, f = tokens.size, sizes.width, sizes.hidden
    x_Rd = matrix(arena, to.x if sizes.layers else to.x_final, rows, d)
    branch_Rd = matrix(arena, to.d_branch, rows, d)
    embed(
        x_Rd,
        tokens,
        matrix(params, at.token_embedding, sizes.vocab, d),
        matrix(params, at.position_embedding, sizes.context, d),
    )
    if drop.threshold > 0:
        dropout(x_Rd, drop, step, 0, first_row)
    for l in range(sizes.layers):
        o = l * to.layer
        normed_Rd = matrix(arena, o + to.normed1, rows, d)
        qkv_R3d = matrix(arena, o + to.qkv, rows, 3 * d)
        attended_Rd = matrix(arena, o + to.attended, rows, d)
        middle_Rd = matrix(arena, o + to.middle, rows, d)
        layer_norm(
            x_Rd,
            vector(params, at.ln1_gain + l * d, d),
            vector(params, at.ln1_bias + l * d, d),
            matrix(arena, o + to.statistics, 2, rows),
            normed_Rd,
        )
        gemm(normed_Rd, matrix(params, at.qkv + l * 3 * d * d, 3 * d, d).T, 0.0, qkv_R3d)
        attention(sizes, arena, o + to.probabilities, to.scores, qkv_R3d, attended_Rd)
        w_out = matrix(params, at.attn_out + l * d * d, d, d)
        residual(middle_Rd, x_Rd, attended_Rd, w_out, branch_Rd, drop, step, 1 + 2 * l, first_row)

        normed_Rd = matrix(arena, o + to.normed2, rows, d)
        up_Rf = matrix(arena, o + to.up, rows, f)
        activated_Rf = matrix(arena, o + to.activated, rows, f)
        layer_norm(
            middle_Rd,
            vector(params, at.ln2_gain + l * d, d),
            vector(params, at.ln2_bias + l * d, d),
            matrix(arena, o + to.statistics + 2 * rows, 2, rows),
            normed_Rd,
        )
        gemm(normed_Rd, matrix(params, at.mlp_up + l * f * d, f, d).T, 0.0, up_Rf)
        gelu(up_Rf, activated_Rf)
        x_Rd = matrix(arena, o + to.layer + to.x if l + 1 < sizes.layers else to.x_final, rows, d)
        w_down = matrix(params, at.mlp_down + l * d * f, d, f)
        residual(x_Rd, middle_Rd, activated_Rf, w_down, branch_Rd, drop, step, 2 + 2 * l, first_row)
    layer_norm(
        x_Rd,
        vector(params, at.ln_f_gain, d),
        vector(params, at.ln_f_bias, d),
        matrix(arena, to.statistics_final, 2, rows),
        matrix(arena, to.normed_final, rows, d),
    )


@kernel
def backward(sizes, at, to, params, grads, arena, tokens, drop, step, first_row):
    """Add the chunk's gradient to ``grads``, from what `forward` left and the head's gradient in ``d_narrow``."""
    rows, d, f = tokens.size, sizes.width, sizes.hidden
    dx_Rd = matrix(arena, to.d_x, rows, d)
    d_narrow_Rd = matrix(arena, to.d_narrow, rows, d)
    branch_Rd = matrix(arena, to.d_branch, rows, d)
    dx_Rd[:, :] = dx_Rd.dtype.type(0.0)
    layer_norm_backward(
        dx_Rd,
        d_narrow_Rd,
        matrix(arena, to.x_final, rows, d),
        vector(params, at.ln_f_gain, d),
        matrix(arena, to.statistics_final, 2, rows),
        vector(grads, at.ln_f_gain, d),
        vector(grads, at.ln_f_bias, d),
    )
    for l in range(sizes.layers - 1, -1, -1):
        o = l * to.layer
        d_up_Rf = matrix(arena, to.d_wide, rows, f)
        activated_Rf = matrix(arena, o + to.activated, rows, f)
        w, dw = matrix(params, at.mlp_down + l * d * f, d, f), matrix(grads, at.mlp_down + l * d * f, d, f)
        residual_backward(d_up_Rf, dw, dx_Rd, activated_Rf, w, branch_Rd, drop, step, 2 + 2 * l, first_row)
        gelu_backward(d_up_Rf, matrix(arena, o + to.up, rows, f))
        gemm(d_up_Rf.T, matrix(arena, o + to.normed2, rows, d), 1.0, matrix(grads, at.mlp_up + l * f * d, f, d))
        gemm(d_up_Rf, matrix(params, at.mlp_up + l * f * d, f, d), 0.0, d_narrow_Rd)
        layer_norm_backward(
            dx_Rd,
            d_narrow_Rd,
            matrix(arena, o + to.middle, rows, d),
            vector(params, at.ln2_gain + l * d, d),
            matrix(arena, o + to.statistics + 2 * rows, 2, rows),
            vector(grads, at.ln2_gain + l * d, d),
            vector(grads, at.ln2_bias + l * d, d),
        )

        d_qkv_R3d = matrix(arena, to.d_wide, rows, 3 * d)
        attended_Rd = matrix(arena, o + to.attended, rows, d)
        w, dw = matrix(params, at.attn_out + l * d * d, d, d), matrix(grads, at.attn_out + l * d * d, d, d)
        residual_backward(d_narrow_Rd, dw, dx_Rd, attended_Rd, w, branch_Rd, drop, step, 1 + 2 * l, first_row)
        qkv_R3d = matrix(arena, o + to.qkv, rows, 3 * d)
        attention_backward(sizes, arena, o + to.probabilities, to.scores, qkv_R3d, d_narrow_Rd, d_qkv_R3d)
        normed_Rd = matrix(arena, o + to.normed1, rows, d)
        gemm(d_qkv_R3d.T, normed_Rd, 1.0, matrix(grads, at.qkv + l * 3 * d * d, 3 * d, d))
        gemm(d_qkv_R3d, matrix(params, at.qkv + l * 3 * d * d, 3 * d, d), 0.0, d_narrow_Rd)
        layer_norm_backward(
            dx_Rd,
            d_narrow_Rd,
            matrix(arena, o + to.x, rows, d),
            vector(params, at.ln1_gain + l * d, d),
            matrix(arena, o + to.statistics, 2, rows),
            vector(grads, at.ln1_gain + l * d, d),
            vector(grads, at.ln1_bias + l * d, d),
        )
    if drop.threshold > 0:
        dropout(dx_Rd, drop, step, 0, first_row)
    embed_backward(
        dx_Rd,
        tokens,
        matrix(grads, at.token_embedding, sizes.vocab, d),
        matrix(grads, at.position_embedding, sizes.context, d),
    )


@kernel
def chunk_loss(sizes, at, to, params, grads, arena, tokens, targets, losses, weight, drop, step, first_row, gradient):
    """Loss of every row into ``losses``; if ``gradient``, add weight · d(Σ losses) to ``grads``."""
    rows, d = tokens.size, sizes.width
    forward(sizes, at, to, params, arena, tokens, drop, step, first_row)
    head_loss(
        sizes,
        arena,
        to.logits,
        to.row_sums,
        matrix(arena, to.normed_final, rows, d),
        matrix(params, at.token_embedding, sizes.vocab, d),
        targets,
        losses,
        weight,
        matrix(arena, to.d_narrow, rows, d),
        matrix(grads, at.token_embedding, sizes.vocab, d),
        gradient,
    )
    if gradient:
        backward(sizes, at, to, params, grads, arena, tokens, drop, step, first_row)
