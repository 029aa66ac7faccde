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

__device__ __forceinline__ float4 sum_of(const float4& a, const Tile& b) {
    return {a.x + b.c[0], a.y + b.c[1], a.z + b.c[2], a.w + b.c[3]};
}

// grad (packed results, 16×16 blocks, PITCH blocks per row) += Σ_rows yᵀ·x over the whole sequence: O columns of one
// shared array, I of another, of rows Y_STRIDE and X_STRIDE long. Each job is R×C blocks of one warp; nothing is shared
// between jobs, so the order of every sum is fixed. What stands in grad is sent for first and added last, so that its
// way through the caches passes beside the products. ``fresh``: the first sequence of this CTA, nothing stands there.
template <int O, int I, int PITCH, int Y_STRIDE, int X_STRIDE, int R, int C>
__device__ __forceinline__ void outer_jobs(float* grad, const real* y, const real* x, bool fresh) {
    constexpr int ACROSS = I / 16 / C, JOBS = O / 16 / R * ACROSS;
#pragma unroll 1
    for (int job = warp_id(); job < JOBS; job += WARPS) {
        const int o = job / ACROSS * R, i = job % ACROSS * C;
        float4* place = packed_result(grad, o * PITCH + i, 0);
        float4 before[R][2 * C];
#pragma unroll
        for (int r = 0; r < R; ++r)
#pragma unroll
            for (int j = 0; j < 2 * C; ++j) {
                before[r][j] = {0, 0, 0, 0};
                if (!fresh) before[r][j] = __ldcs(place + r * PITCH * 64 + j * 32);
            }
        Tile sum[R][2 * C];
#pragma unroll
        for (int r = 0; r < R; ++r) clear(sum[r]);
        const real *of_y = y + 16 * o, *of_x = x + 16 * i;
#pragma unroll TWICE
        for (int row = 0; row < TP; row += 16, of_y += 16 * Y_STRIDE, of_x += 16 * X_STRIDE) {
            A a[R];
            B b[2 * C];
#pragma unroll
            for (int r = 0; r < R; ++r) a[r] = load_a_transposed(of_y + 16 * r, Y_STRIDE);
#pragma unroll
            for (int c = 0; c < C; ++c) load_b_transposed(reinterpret_cast<B(&)[2]>(b[2 * c]), of_x + 16 * c, X_STRIDE);
#pragma unroll
            for (int r = 0; r < R; ++r)
#pragma unroll
                for (int j = 0; j < 2 * C; ++j) multiply(sum[r][j], a[r], b[j]);
        }
#pragma unroll
        for (int r = 0; r < R; ++r)
#pragma unroll
            for (int j = 0; j < 2 * C; ++j) __stcs(place + r * PITCH * 64 + j * 32, sum_of(before[r][j], sum[r][j]));
    }
}

// Larger jobs read shared memory less often; they pay once every warp still has one.
template <int O, int I, int PITCH, int Y_STRIDE, int X_STRIDE>
__device__ __forceinline__ void outer(float* grad, const real* y, const real* x, bool fresh) {
    constexpr int BLOCKS = O / 16 * (I / 16);
    constexpr int C = I % 32 == 0 && BLOCKS >= 2 * WARPS ? 2 : 1;
    constexpr int R = O % 32 == 0 && BLOCKS >= 2 * C * WARPS ? 2 : 1;
    outer_jobs<O, I, PITCH, Y_STRIDE, X_STRIDE, R, C>(grad, y, x, fresh);
}
