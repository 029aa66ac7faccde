// Sizes, and products of a warp's rows with weights.
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

// How often the long loops are unrolled. A split product is 12 to 20 times the instructions of one in bfloat16: unrolled
// loops of them take twice the time to compile and are no faster.
constexpr int TWICE = EXACT ? 1 : 2, THRICE = EXACT ? 1 : 3;
constexpr int NARROW_TWICE = DP > 16 ? 1 : TWICE;  // where registers are scarce: weights would be sent for late

// Whether a thread may have twice 128 registers and operands are small: what is needed later can then be sent for early.
constexpr bool ROOM = EXACT == 0 && RESIDENT * THREADS <= 256;

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

// The warp's rows into a shared array of row length ``stride``, and out of it.
template <int N>
__device__ __forceinline__ void stage(real* to, int stride, const A (&a)[N]) {
#pragma unroll
    for (int k = 0; k < N; ++k) store_a(to + 16 * warp_id() * stride + 16 * k, stride, a[k]);
}

template <int N>
__device__ __forceinline__ void fetch(A (&a)[N], const real* from, int stride) {
#pragma unroll
    for (int k = 0; k < N; ++k) a[k] = load_a(from + 16 * warp_id() * stride + 16 * k, stride);
}

// N blocks of a packed matrix, APART from each other, on their way into registers. Weights come from the second-level
// cache, hundreds of cycles away: `ask` sends for the next ones as soon as the last are used, and the loads run beside
// other work. In float32 operands take twice the registers; there the loads are issued when they are needed.
template <int N, int APART = 1>
struct Weights {
    static constexpr bool EARLY = EXACT == 0;
    B b[N][2];
    const real* place;

    __device__ __forceinline__ void load() {
#pragma unroll
        for (int i = 0; i < N; ++i) load_packed(b[i], place + i * APART * 256);
    }

    // Blocks first, first + APART, … of a matrix (see `Member::packed`).
    __device__ __forceinline__ void ask(const real* matrix, int first) {
        place = matrix + first * 256;
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
template <int N, int APART>
__device__ __forceinline__ void product_add(Tile (&out)[2 * N], const A& rows, Weights<N, APART>& weights) {
    weights.ready();
#pragma unroll
    for (int n = 0; n < N; ++n) {
        multiply(out[2 * n], rows, weights.b[n][0]);
        multiply(out[2 * n + 1], rows, weights.b[n][1]);
    }
}
