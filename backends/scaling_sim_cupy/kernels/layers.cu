// The parts of a block that need no other row: layer norm, GELU, dropout.

constexpr float LN_EPSILON = 1e-5f, LOG2E = 1.4426950408889634f, LN2 = 0.6931471805599453f;
constexpr float GELU_SLOPE = 0.7978845608028654f, GELU_CUBIC = 0.044715f;

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

// The lane's two neighbouring entries in tile j of a row of D_MODEL numbers, 0 beyond its end.
__device__ __forceinline__ float2 entries(const float* row, int j) {
    const int column = column_of(j, 0);
    if (D_MODEL % 2) {
        const float left = is_real_column(j, 0) ? __ldg(row + column) : 0.f;
        return {left, is_real_column(j, 1) ? __ldg(row + column + 1) : 0.f};
    }
    return is_real_column(j, 0) ? __ldg(reinterpret_cast<const float2*>(row + column)) : float2{0, 0};
}

__device__ __forceinline__ void layer_norm(
    A (&y)[DP / 16], const Tile (&x)[DT], const float* gain, const float* bias) {
    const Norm norm = norm_of(x);
#pragma unroll
    for (int k = 0; k < DP / 16; ++k) {
        Tile pair[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int j = 2 * k + half;
            const float2 scale = entries(gain, j), shift = entries(bias, j);
#pragma unroll
            for (int e = 0; e < 4; ++e)
                pair[half].c[e] = fmaf(normal(x, norm, j, e), e & 1 ? scale.y : scale.x, e & 1 ? shift.y : shift.x);
        }
        y[k] = as_a(pair[0], pair[1]);
    }
}

// Sums over the eight lanes that hold other rows of the same columns: of N values each ends with N/8, those from number
// lane / 4 · N/8 on. In each of three steps a lane gives half of its values away and adds what it gets for the rest.
template <int APART = 16, int N>
__device__ __forceinline__ void sum_columns(float (&values)[N]) {
    constexpr int LEFT = N * APART / 32;
    const bool upper = lane_id() & APART;
#pragma unroll
    for (int i = 0; i < LEFT; ++i) {
        const float low = values[i], high = values[i + LEFT];
        values[i] = (upper ? high : low) + __shfl_xor_sync(~0u, upper ? low : high, APART);
    }
    if constexpr (APART > 4) sum_columns<APART / 2>(values);
}

// Adds the gradient at the layer norm's input to grad_x. With s = grad_y·gain:
// grad_x += (s − mean(s) − n·mean(s·n))/√(variance + ε); grad_gain = Σ_rows grad_y·n; grad_bias = Σ_rows grad_y.
// ``sums`` holds this warp's running sums of both, DP apart.
__device__ __forceinline__ void layer_norm_backward(
    Tile (&grad_x)[DT], const Tile (&grad_y)[DT], const Tile (&x)[DT], const float* gain, float* sums) {
    const Norm norm = norm_of(x);
    float mean[2] = {0, 0}, along[2] = {0, 0};
#pragma unroll
    for (int j = 0; j < DT; ++j) {
        const float2 scale = entries(gain, j);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const float scaled = grad_y[j].c[e] * (e & 1 ? scale.y : scale.x);
            mean[e >> 1] += scaled;
            along[e >> 1] = fmaf(scaled, normal(x, norm, j, e), along[e >> 1]);
        }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        mean[half] = quad_sum(mean[half]) * (1.f / D_MODEL);
        along[half] = quad_sum(along[half]) * (1.f / D_MODEL);
    }
    float columns[4 * DT];  // of the gain's gradient, then of the bias's; two per tile
#pragma unroll
    for (int j = 0; j < DT; ++j) {
        const float2 scale = entries(gain, j);
        float n[4];
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const int half = e >> 1;
            n[e] = normal(x, norm, j, e);
            const float scaled = grad_y[j].c[e] * (e & 1 ? scale.y : scale.x);
            if (is_real_column(j, e)) grad_x[j].c[e] += norm.inverse[half] * (scaled - mean[half] - n[e] * along[half]);
        }
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            columns[2 * j + e] = fmaf(grad_y[j].c[e], n[e], grad_y[j].c[e + 2] * n[e + 2]);
            columns[2 * (DT + j) + e] = grad_y[j].c[e] + grad_y[j].c[e + 2];
        }
    }
    sum_columns(columns);
#pragma unroll
    for (int i = 0; i < DT / 2; ++i) {
        const int number = (lane_id() >> 2) * (DT / 2) + i, of_kind = number % (2 * DT);
        sums[number / (2 * DT) * DP + column_of(of_kind / 2, of_kind)] += columns[i];
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
