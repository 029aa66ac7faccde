// Causal attention of one sequence, scores and weights never leave registers (Dao et al. 2022).
//
// ``qkv`` (shared, TP × QKV_STRIDE): queries, keys and values of all heads side by side, each head CP wide. Forward:
// a warp owns 16 queries and meets the keys before them, 16 at a time, with a running maximum. Backward, with w the
// weights, g the gradient of the mixed values and δ = Σ g·mixed per query:
//
//   grad_v = wᵀ·g;  grad_scores = w·(g·vᵀ − δ)/√C;  grad_q = grad_scores·k;  grad_k = grad_scoresᵀ·q.
//
// A warp computes grad_q of its 16 queries (keys up to them), then grad_k and grad_v of its 16 keys (queries from them
// on), with the scores transposed: together every warp meets WARPS + 1 blocks, no sum is shared between warps, and
// scores are computed twice instead of being kept. Powers are of 2: ``norms`` holds log₂ Σ 2^(score·log₂e) per query.

constexpr int QKV_STRIDE = 3 * UP + 8, ROW_STRIDE = larger(DP, UP) + 8;

#define SCORE_SCALE (LOG2E * rsqrtf((float)D_HEAD))

// Scores (16 rows × 16 columns) of a block: operands of the rows · the 16 rows of shared memory from ``columns`` on.
__device__ __forceinline__ void scores(
    Tile (&s)[2], const A (&rows)[CP / 16], const real* columns, int stride) {
    clear(s);
#pragma unroll
    for (int k = 0; k < CP / 16; ++k) {
        B b[2];
        load_b(b, columns + 16 * k, stride);
        multiply(s[0], rows[k], b[0]);
        multiply(s[1], rows[k], b[1]);
    }
}

// out (16 × CP) += block (16 × 16) · the 16 rows of shared memory from ``rows`` on.
__device__ __forceinline__ void mix(Tile (&out)[CP / 8], const A& block, const real* rows, int stride) {
#pragma unroll
    for (int n = 0; n < CP / 16; ++n) {
        B b[2];
        load_b_transposed(b, rows + 16 * n, stride);
        multiply(out[2 * n], block, b[0]);
        multiply(out[2 * n + 1], block, b[1]);
    }
}

__device__ __forceinline__ void load_rows(A (&a)[CP / 16], const real* from, int stride) {
#pragma unroll
    for (int k = 0; k < CP / 16; ++k) a[k] = load_a(from + 16 * k, stride);
}

// Element e of tile j of a block on the diagonal: is its column (key) after its row (query)?
__device__ __forceinline__ bool is_future(int j, int e) {
    return column_of(j, e) > (lane_id() >> 2) + 8 * (e >> 1);
}

// Mixed values of one head for the warp's queries, and the norms of its two rows.
__device__ __forceinline__ void attend(A (&mixed)[CP / 16], float (&norms)[2], const real* qkv, int head) {
    const real *queries = qkv + head * CP, *keys = queries + UP, *values = keys + UP;
    A q[CP / 16];
    load_rows(q, queries + 16 * warp_id() * QKV_STRIDE, QKV_STRIDE);
    Tile out[CP / 8];
    clear(out);
    float top[2] = {-infinity(), -infinity()}, sum[2] = {0, 0};
    for (int block = 0; block <= warp_id(); ++block) {
        Tile s[2];
        scores(s, q, keys + 16 * block * QKV_STRIDE, QKV_STRIDE);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float peak = top[half];
#pragma unroll
            for (int j = 0; j < 2; ++j)
#pragma unroll
                for (int e = 2 * half; e < 2 * half + 2; ++e) {
                    s[j].c[e] = block == warp_id() && is_future(j, e) ? -infinity() : s[j].c[e] * SCORE_SCALE;
                    peak = fmaxf(peak, s[j].c[e]);
                }
            peak = quad_max(peak);
            const float shrink = power2(top[half] - peak);
            top[half] = peak;
            sum[half] *= shrink;
#pragma unroll
            for (int j = 0; j < 2; ++j)
#pragma unroll
                for (int e = 2 * half; e < 2 * half + 2; ++e) {
                    s[j].c[e] = power2(s[j].c[e] - peak);
                    sum[half] += s[j].c[e];
                }
#pragma unroll
            for (int j = 0; j < CP / 8; ++j) {
                out[j].c[2 * half] *= shrink;
                out[j].c[2 * half + 1] *= shrink;
            }
        }
        mix(out, as_a(s[0], s[1]), values + 16 * block * QKV_STRIDE, QKV_STRIDE);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float total = quad_sum(sum[half]), inverse = 1.f / total;
        norms[half] = top[half] + log2f(total);
#pragma unroll
        for (int j = 0; j < CP / 8; ++j) {
            out[j].c[2 * half] *= inverse;
            out[j].c[2 * half + 1] *= inverse;
        }
    }
    as_operands(mixed, out);
}

// Gradient of one head's queries, for the warp's 16 queries. ``norms`` and ``deltas`` are those of its two rows.
__device__ __forceinline__ void attention_backward_queries(
    Tile (&grad_q)[CP / 8], const real* qkv, const real* grad_mixed, const float* norms, const float* deltas,
    int head) {
    const real *queries = qkv + head * CP, *keys = queries + UP, *values = keys + UP;
    A q[CP / 16], g[CP / 16];
    load_rows(q, queries + 16 * warp_id() * QKV_STRIDE, QKV_STRIDE);
    load_rows(g, grad_mixed + head * CP + 16 * warp_id() * ROW_STRIDE, ROW_STRIDE);
    const float norm[2] = {norms[row_of(0)], norms[row_of(1)]}, delta[2] = {deltas[row_of(0)], deltas[row_of(1)]};
    clear(grad_q);
    for (int block = 0; block <= warp_id(); ++block) {
        Tile s[2], grad_w[2];
        scores(s, q, keys + 16 * block * QKV_STRIDE, QKV_STRIDE);
        scores(grad_w, g, values + 16 * block * QKV_STRIDE, QKV_STRIDE);
#pragma unroll
        for (int j = 0; j < 2; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const float w = power2(fmaf(s[j].c[e], SCORE_SCALE, -norm[e >> 1]));
                const bool hidden = block == warp_id() && is_future(j, e);
                s[j].c[e] = hidden ? 0.f : w * (grad_w[j].c[e] - delta[e >> 1]) * rsqrtf((float)D_HEAD);
            }
        mix(grad_q, as_a(s[0], s[1]), keys + 16 * block * QKV_STRIDE, QKV_STRIDE);
    }
}

// Gradients of one head's keys and values, for the warp's 16 keys: rows are keys here and columns queries.
__device__ __forceinline__ void attention_backward_keys(
    Tile (&grad_k)[CP / 8], Tile (&grad_v)[CP / 8], const real* qkv, const real* grad_mixed, const float* norms,
    const float* deltas, int head) {
    const real *queries = qkv + head * CP, *keys = queries + UP, *values = keys + UP;
    A k[CP / 16], v[CP / 16];
    load_rows(k, keys + 16 * warp_id() * QKV_STRIDE, QKV_STRIDE);
    load_rows(v, values + 16 * warp_id() * QKV_STRIDE, QKV_STRIDE);
    clear(grad_k);
    clear(grad_v);
    for (int block = warp_id(); block < WARPS; ++block) {
        const real* g = grad_mixed + head * CP + 16 * block * ROW_STRIDE;
        const real* q = queries + 16 * block * QKV_STRIDE;
        Tile s[2], grad_w[2];
        scores(s, k, q, QKV_STRIDE);
        scores(grad_w, v, g, ROW_STRIDE);
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            const float2 norm = *reinterpret_cast<const float2*>(norms + 16 * block + column_of(j, 0));
            const float2 delta = *reinterpret_cast<const float2*>(deltas + 16 * block + column_of(j, 0));
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const bool hidden = block == warp_id() && column_of(j, e) < (lane_id() >> 2) + 8 * (e >> 1);
                const float w = hidden ? 0.f : power2(fmaf(s[j].c[e], SCORE_SCALE, -(e & 1 ? norm.y : norm.x)));
                s[j].c[e] = w;
                grad_w[j].c[e] = w * (grad_w[j].c[e] - (e & 1 ? delta.y : delta.x)) * rsqrtf((float)D_HEAD);
            }
        }
        mix(grad_v, as_a(s[0], s[1]), g, ROW_STRIDE);
        mix(grad_k, as_a(grad_w[0], grad_w[1]), q, QKV_STRIDE);
    }
}
