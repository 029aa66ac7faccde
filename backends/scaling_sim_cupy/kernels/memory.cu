// What goes to device memory: activations kept for the backward pass, and sums of weight gradients.

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
#pragma unroll TWICE
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
