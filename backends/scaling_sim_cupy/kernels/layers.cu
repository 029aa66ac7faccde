// Sizes, and the parts of a block that need no other row: layer norm, GELU, dropout, products with weights.
//
// One CTA computes one sequence at a time; each of its warps owns 16 neighbouring rows (positions). An activation of
// width W is W/8 tiles in registers; all widths are rounded up to 16 and the surplus is kept at zero.

constexpr int ceil16(int n) { return (n + 15) / 16 * 16; }
constexpr int larger(int a, int b) { return a > b ? a : b; }

constexpr int D_HEAD = D_MODEL / N_HEAD;
constexpr int DP = ceil16(D_MODEL), CP = ceil16(D_HEAD), UP = N_HEAD * CP, FP = ceil16(D_FF), VP = ceil16(N_VOCAB);
constexpr int TP = ceil16(N_CTX), WARPS = TP / 16, THREADS = 32 * WARPS;
constexpr int DT = DP / 8;  // tiles of the residual stream
constexpr int VECTORS = 4 * N_LAYER + 2;  // gains and biases of the layer norms

constexpr float LN_EPSILON = 1e-5f, LOG2E = 1.4426950408889634f, LN2 = 0.6931471805599453f;
constexpr float GELU_SLOPE = 0.7978845608028654f, GELU_CUBIC = 0.044715f;

__device__ __forceinline__ int warp_id() { return threadIdx.x >> 5; }

// Row e / 2 of a lane (its rows are g and g + 8 of its warp's 16) and column of element e of tile j.
__device__ __forceinline__ int row_of(int half) { return 16 * warp_id() + (lane_id() >> 2) + 8 * half; }
__device__ __forceinline__ int column_of(int j, int e) { return 8 * j + 2 * (lane_id() & 3) + (e & 1); }

// Sum and maximum over the four lanes that share their rows.
__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

template <int N>
__device__ __forceinline__ void clear(Tile (&x)[N]) {
#pragma unroll
    for (int j = 0; j < N; ++j) x[j] = {{0, 0, 0, 0}};
}

template <int N>
__device__ __forceinline__ void as_operands(A (&a)[N], const Tile (&x)[2 * N]) {
#pragma unroll
    for (int k = 0; k < N; ++k) a[k] = as_a(x[2 * k], x[2 * k + 1]);
}

// The warp's rows in a shared array of row length ``stride``.
template <int N>
__device__ __forceinline__ void stage(real* to, int stride, const A (&a)[N]) {
#pragma unroll
    for (int k = 0; k < N; ++k) store_a(to + 16 * warp_id() * stride + 16 * k, stride, a[k]);
}

// N blocks of a packed matrix on their way into registers. Weights come from the second-level cache, hundreds of cycles
// away: `ask` sends for the next ones as soon as the last are used, and the loads run beside other work. In float32
// operands take twice the registers; there the loads are issued when they are needed.
template <int N>
struct Weights {
    static constexpr bool EARLY = EXACT == 0;
    B b[N][2];
    const real* packed;
    int first, apart;

    __device__ __forceinline__ void load() {
#pragma unroll
        for (int i = 0; i < N; ++i) load_packed(b[i], packed, first + i * apart);
    }

    // Blocks first, first + apart, …
    __device__ __forceinline__ void ask(const real* matrix, int first_block, int blocks_apart) {
        packed = matrix;
        first = first_block;
        apart = blocks_apart;
        if (EARLY) load();
    }

    __device__ __forceinline__ void ready() {
        if (!EARLY) load();
    }
};

// The next of ``count`` numbers; the last is asked for twice, which nobody waits for.
__device__ __forceinline__ int next_of(int number, int count) { return number + 1 < count ? number + 1 : number; }

// 16 columns of rows · matrix, from the blocks of these columns.
template <int K>
__device__ __forceinline__ void product(Tile (&out)[2], const A (&rows)[K], Weights<K>& weights) {
    clear(out);
    weights.ready();
#pragma unroll
    for (int k = 0; k < K; ++k) {
        multiply(out[0], rows[k], weights.b[k][0]);
        multiply(out[1], rows[k], weights.b[k][1]);
    }
}

// out (N·16 columns) += one operand · 16 rows of a matrix, from the blocks of these rows.
template <int N>
__device__ __forceinline__ void product_add(Tile (&out)[2 * N], const A& rows, Weights<N>& weights) {
    weights.ready();
#pragma unroll
    for (int n = 0; n < N; ++n) {
        multiply(out[2 * n], rows, weights.b[n][0]);
        multiply(out[2 * n + 1], rows, weights.b[n][1]);
    }
}

// Layer norm: n = (x − mean)/√(variance + ε), y = n·gain + bias.

struct Norm { float mean[2], inverse[2]; };

__device__ __forceinline__ bool is_real_column(int j, int e) { return D_MODEL == DP || column_of(j, e) < D_MODEL; }

__device__ __forceinline__ Norm norm_of(const Tile (&x)[DT]) {
    Norm norm;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float sum = 0, squares = 0;
#pragma unroll
        for (int j = 0; j < DT; ++j) sum += x[j].c[2 * half] + x[j].c[2 * half + 1];
        norm.mean[half] = quad_sum(sum) * (1.f / D_MODEL);
#pragma unroll
        for (int j = 0; j < DT; ++j)
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; ++e) {
                const float centred = is_real_column(j, e) ? x[j].c[e] - norm.mean[half] : 0.f;
                squares = fmaf(centred, centred, squares);
            }
        norm.inverse[half] = 1.f / sqrtf(quad_sum(squares) * (1.f / D_MODEL) + LN_EPSILON);
    }
    return norm;
}

__device__ __forceinline__ float normal(const Tile (&x)[DT], const Norm& norm, int j, int e) {
    return (x[j].c[e] - norm.mean[e >> 1]) * norm.inverse[e >> 1];
}

__device__ __forceinline__ float entry(const float* vector, int j, int e) {
    return is_real_column(j, e) ? __ldg(vector + column_of(j, e)) : 0.f;
}

__device__ __forceinline__ void layer_norm(
    A (&y)[DP / 16], const Tile (&x)[DT], const float* gain, const float* bias) {
    const Norm norm = norm_of(x);
#pragma unroll
    for (int k = 0; k < DP / 16; ++k) {
        Tile pair[2];
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int j = 2 * k + half;
                pair[half].c[e] = fmaf(normal(x, norm, j, e), entry(gain, j, e), entry(bias, j, e));
            }
        y[k] = as_a(pair[0], pair[1]);
    }
}

// Adds the gradient at the layer norm's input to grad_x. With s = grad_y·gain:
// grad_x += (s − mean(s) − n·mean(s·n))/√(variance + ε); grad_gain = Σ_rows grad_y·n; grad_bias = Σ_rows grad_y.
// ``sums`` holds this warp's running sums of both, DP apart; columns are summed over the lanes that share them.
__device__ __forceinline__ void layer_norm_backward(
    Tile (&grad_x)[DT], const Tile (&grad_y)[DT], const Tile (&x)[DT], const float* gain, float* sums) {
    const Norm norm = norm_of(x);
    float mean[2] = {0, 0}, along[2] = {0, 0};
#pragma unroll
    for (int j = 0; j < DT; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const float scaled = grad_y[j].c[e] * entry(gain, j, e);
            mean[e >> 1] += scaled;
            along[e >> 1] = fmaf(scaled, normal(x, norm, j, e), along[e >> 1]);
        }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        mean[half] = quad_sum(mean[half]) * (1.f / D_MODEL);
        along[half] = quad_sum(along[half]) * (1.f / D_MODEL);
    }
#pragma unroll
    for (int j = 0; j < DT; ++j) {
        float for_gain[2] = {0, 0}, for_bias[2] = {0, 0};
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const int half = e >> 1;
            const float n = normal(x, norm, j, e), scaled = grad_y[j].c[e] * entry(gain, j, e);
            if (is_real_column(j, e)) grad_x[j].c[e] += norm.inverse[half] * (scaled - mean[half] - n * along[half]);
            for_gain[e & 1] = fmaf(grad_y[j].c[e], n, for_gain[e & 1]);
            for_bias[e & 1] += grad_y[j].c[e];
        }
#pragma unroll
        for (int e = 0; e < 2; ++e) {
#pragma unroll
            for (int apart = 4; apart < 32; apart *= 2) {
                for_gain[e] += __shfl_xor_sync(~0u, for_gain[e], apart);
                for_bias[e] += __shfl_xor_sync(~0u, for_bias[e], apart);
            }
            if (lane_id() < 4) {
                sums[column_of(j, e)] += for_gain[e];
                sums[DP + column_of(j, e)] += for_bias[e];
            }
        }
    }
}

// GELU by tanh (Hendrycks and Gimpel 2016, eq. 2): x/2·(1 + u), u = tanh(√(2/π)·(x + 0.044715·x³)).

__device__ __forceinline__ float gelu(float x) {
    const float u = tangent(x * fmaf(GELU_SLOPE * GELU_CUBIC * x, x, GELU_SLOPE));
    return fmaf(0.5f * x, u, 0.5f * x);
}

// Value and derivative (1 + u)/2 + x/2·(1 − u²)·√(2/π)·(1 + 3·0.044715·x²).
__device__ __forceinline__ void gelu_with_slope(float x, float& value, float& slope) {
    const float u = tangent(x * fmaf(GELU_SLOPE * GELU_CUBIC * x, x, GELU_SLOPE)), half = 0.5f * x;
    value = fmaf(half, u, half);
    slope = fmaf(half * fmaf(-u, u, 1.f), fmaf(3.f * GELU_SLOPE * GELU_CUBIC * x, x, GELU_SLOPE), fmaf(0.5f, u, 0.5f));
}

// Dropout: word column % 4 of Philox4x32-10 with the member's key and counter (update, site, row, column / 4), as in
// scaling_sim.engine.philox (Salmon et al., SC 2011); kept where word ≥ threshold.

struct Dropout {
    unsigned int update, low, high;
    unsigned long long threshold;
    float scale;
    int first_row;  // of this sequence in its batch
};

__device__ __forceinline__ uint4 philox(uint4 c, unsigned int k0, unsigned int k1) {
#pragma unroll
    for (int turn = 0; turn < 10; ++turn) {
        c = {__umulhi(0xCD9E8D57u, c.z) ^ c.y ^ k0, 0xCD9E8D57u * c.z, __umulhi(0xD2511F53u, c.x) ^ c.w ^ k1,
             0xD2511F53u * c.x};
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

// Multiplies with 0 where dropped and with 1/(1 − rate) where kept; the gradient goes through the same factor.
__device__ __forceinline__ void drop(Tile (&x)[DT], const Dropout& dropout, unsigned int site) {
#if DROPOUT
#pragma unroll
    for (int j = 0; j < DT; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const unsigned int row = dropout.first_row + row_of(half), column = column_of(j, 0);
            const uint4 words = philox({dropout.update, site, row, column / 4}, dropout.low, dropout.high);
            const unsigned int pair[2] = {column & 2 ? words.z : words.x, column & 2 ? words.w : words.y};
#pragma unroll
            for (int e = 0; e < 2; ++e)
                x[j].c[2 * half + e] *= pair[e] >= dropout.threshold ? dropout.scale : 0.f;
        }
#endif
}

// What one lane keeps for the backward pass, in device memory that no other lane reads: 16 bytes per lane and slot. It
// streams past the weights (cs), which are to stay in the second-level cache.

struct Keep {
    uint4* base;
    __device__ __forceinline__ uint4* slot(int number) const { return base + number * THREADS + threadIdx.x; }
};

template <typename T, int N>
__device__ __forceinline__ void keep(const Keep& memory, int slot, const T (&values)[N]) {
    constexpr int WORDS = sizeof(T) / 16;
#pragma unroll
    for (int i = 0; i < N * WORDS; ++i) __stcs(memory.slot(slot + i), reinterpret_cast<const uint4*>(values)[i]);
}

template <typename T, int N>
__device__ __forceinline__ void recall(const Keep& memory, int slot, T (&values)[N]) {
    constexpr int WORDS = sizeof(T) / 16;
#pragma unroll
    for (int i = 0; i < N * WORDS; ++i) reinterpret_cast<uint4*>(values)[i] = __ldcs(memory.slot(slot + i));
}

// This lane's part of tile ``j`` of a 16×16 block of a packed matrix of results; see scaling_sim_cupy.layout.
__device__ __forceinline__ float4* packed_result(float* packed, int block, int j) {
    return reinterpret_cast<float4*>(packed + block * 256 + j * 128 + lane_id() * 4);
}

// grad (packed results, 16×16 blocks, ``pitch`` blocks per row) += Σ_rows yᵀ·x over the whole sequence: O columns of
// one shared array, I of another. Each job is R×C blocks of one warp; nothing is shared between jobs, so the order of
// every sum is fixed. ``fresh``: the first sequence of this CTA, what stands in grad is not read.
template <int O, int I, int R, int C>
__device__ __forceinline__ void outer_jobs(
    float* grad, int pitch, const real* y, int y_stride, const real* x, int x_stride, bool fresh) {
    constexpr int ACROSS = I / 16 / C, JOBS = O / 16 / R * ACROSS;
#pragma unroll 1
    for (int job = warp_id(); job < JOBS; job += WARPS) {
        const int o = job / ACROSS * R, i = job % ACROSS * C;
        Tile sum[R][2 * C];
#pragma unroll
        for (int r = 0; r < R; ++r)
#pragma unroll
            for (int j = 0; j < 2 * C; ++j) {
                float4 before = {0, 0, 0, 0};
                if (!fresh) before = __ldcs(packed_result(grad, (o + r) * pitch + i + j / 2, j % 2));
                sum[r][j] = {{before.x, before.y, before.z, before.w}};
            }
#pragma unroll 2
        for (int row = 0; row < TP; row += 16) {
            A a[R];
            B b[2 * C];
#pragma unroll
            for (int r = 0; r < R; ++r) a[r] = load_a_transposed(y + row * y_stride + 16 * (o + r), y_stride);
#pragma unroll
            for (int c = 0; c < C; ++c)
                load_b_transposed(reinterpret_cast<B(&)[2]>(b[2 * c]), x + row * x_stride + 16 * (i + c), x_stride);
#pragma unroll
            for (int r = 0; r < R; ++r)
#pragma unroll
                for (int j = 0; j < 2 * C; ++j) multiply(sum[r][j], a[r], b[j]);
        }
#pragma unroll
        for (int r = 0; r < R; ++r)
#pragma unroll
            for (int j = 0; j < 2 * C; ++j)
                __stcs(packed_result(grad, (o + r) * pitch + i + j / 2, j % 2),
                       (float4{sum[r][j].c[0], sum[r][j].c[1], sum[r][j].c[2], sum[r][j].c[3]}));
    }
}

// Larger jobs read shared memory less often; they pay once every warp still has one.
template <int O, int I>
__device__ __forceinline__ void outer(
    float* grad, int pitch, const real* y, int y_stride, const real* x, int x_stride, bool fresh) {
    constexpr int BLOCKS = O / 16 * (I / 16);
    constexpr int C = I % 32 == 0 && BLOCKS >= 2 * WARPS ? 2 : 1;
    constexpr int R = O % 32 == 0 && BLOCKS >= 2 * C * WARPS ? 2 : 1;
    outer_jobs<O, I, R, C>(grad, pitch, y, y_stride, x, x_stride, fresh);
}
