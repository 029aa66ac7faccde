// What the tensor cores multiply, in two precisions behind one set of names. All PTX of this backend stands here.
//
// A warp multiplies tiles: c (16×8, float32) += a (16×16) · b (16×8). Which elements a lane holds is the same in both
// precisions; with g = lane / 4 and t = lane % 4 (PTX ISA, "Matrix fragments for mma.m16n8k16"):
//
//   c.c[0..3]   (g, 2t) (g, 2t+1) (g+8, 2t) (g+8, 2t+1)
//   a.v[0..3]   the pairs (g, 2t..) (g+8, 2t..) (g, 2t+8..) (g+8, 2t+8..), where 2t.. means columns 2t and 2t+1
//   b.v[0..1]   the pairs (2t.., g) (2t+8.., g)
//
// so that two neighbouring results c become an operand a without leaving their lane.
//
// EXACT 0: a pair is two bfloat16, one mma.m16n8k16 per product, float32 accumulation.
// EXACT 1: a pair is two float32, each split into a large and a small tf32 part, x = x₁ + x₂ + O(2⁻²²·x);
//          c += a₂·b₁ + a₁·b₂ + a₁·b₁ (Ootomo and Yokota 2022) keeps float32's accuracy on the tensor cores. An
//          m16n8k8 wants columns t and t+4 from each lane; since a sum may run over its index in any order, column 2t
//          plays t and column 2t+1 plays t+4, in a and b alike.
// EXACT 2: as 1, but plain float32 fused multiply-adds, the operands passed between lanes by shuffles: slow, and the
//          truth that the tensor cores are compared with.
//
// EMULATED: what only a card has (tensor cores, approximate functions) is supplied by tests/backends/cuda_on_cpu.hpp.

struct __align__(16) Tile { float c[4]; };

#if EXACT
typedef float real;
struct Pair { float x, y; };
#else
typedef unsigned short real;
struct Pair { unsigned int word; };
#endif
struct __align__(16) A { Pair v[4]; };
struct B { Pair v[2]; };

__device__ __forceinline__ float infinity() { return __uint_as_float(0x7f800000u); }
__device__ __forceinline__ float not_a_number() { return __uint_as_float(0x7fc00000u); }
__device__ __forceinline__ int lane_id() { return threadIdx.x & 31; }

#if EXACT

__device__ __forceinline__ Pair make_pair(float x, float y) { return {x, y}; }
__device__ __forceinline__ float first(Pair p) { return p.x; }
__device__ __forceinline__ float second(Pair p) { return p.y; }
__device__ __forceinline__ real as_real(float x) { return x; }
__device__ __forceinline__ float power2(float x) { return exp2f(x); }
__device__ __forceinline__ float tangent(float x) { return tanhf(x); }

__device__ __forceinline__ void store_pair(real* place, Pair p) { *reinterpret_cast<float2*>(place) = {p.x, p.y}; }

__device__ __forceinline__ Pair load_pair(const real* place) {
    const float2 p = *reinterpret_cast<const float2*>(place);
    return {p.x, p.y};
}

// a(i, k) = from[i·stride + k], or from[k·stride + i] if transposed.
__device__ __forceinline__ A load_a(const real* from, int stride) {
    const real* place = from + (lane_id() >> 2) * stride + 2 * (lane_id() & 3);
    return {{load_pair(place), load_pair(place + 8 * stride), load_pair(place + 8), load_pair(place + 8 * stride + 8)}};
}

__device__ __forceinline__ A load_a_transposed(const real* from, int stride) {
    const real* place = from + 2 * (lane_id() & 3) * stride + (lane_id() >> 2);
    const real* low = place + 8 * stride;
    return {{{place[0], place[stride]}, {place[8], place[stride + 8]}, {low[0], low[stride]},
             {low[8], low[stride + 8]}}};
}

// Two operands b side by side, 16×16: b(k, j) = from[j·stride + k], or from[k·stride + j] if transposed.
__device__ __forceinline__ void load_b(B (&b)[2], const real* from, int stride) {
    const real* place = from + (lane_id() >> 2) * stride + 2 * (lane_id() & 3);
    for (int j = 0; j < 2; ++j, place += 8 * stride) b[j] = {{load_pair(place), load_pair(place + 8)}};
}

__device__ __forceinline__ void load_b_transposed(B (&b)[2], const real* from, int stride) {
    const real* place = from + 2 * (lane_id() & 3) * stride + (lane_id() >> 2);
    const real* low = place + 8 * stride;
    for (int j = 0; j < 2; ++j) b[j] = {{{place[8 * j], place[stride + 8 * j]}, {low[8 * j], low[stride + 8 * j]}}};
}

#if EXACT == 1 && !defined(EMULATED)

__device__ __forceinline__ void split(float x, unsigned int& large, unsigned int& small) {
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(large) : "f"(x));
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(small) : "f"(x - __uint_as_float(large)));
}

__device__ __forceinline__ void mma_tf32(Tile& d, const unsigned int (&a)[4], const unsigned int (&b)[2]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d.c[0]), "+f"(d.c[1]), "+f"(d.c[2]), "+f"(d.c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void multiply(Tile& d, const A& a, const B& b) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        unsigned int large_a[4], small_a[4], large_b[2], small_b[2];
        for (int row = 0; row < 2; ++row) {
            split(a.v[2 * half + row].x, large_a[row], small_a[row]);
            split(a.v[2 * half + row].y, large_a[2 + row], small_a[2 + row]);
        }
        split(b.v[half].x, large_b[0], small_b[0]);
        split(b.v[half].y, large_b[1], small_b[1]);
        mma_tf32(d, small_a, large_b);
        mma_tf32(d, large_a, small_b);
        mma_tf32(d, large_a, large_b);
    }
}

#elif EXACT == 2

__device__ __noinline__ void multiply(Tile& d, const A& a, const B& b) {
    const int g = lane_id() >> 2, t = lane_id() & 3;
    for (int k = 0; k < 16; ++k) {
        const int half = k / 8, holder = k % 8 / 2;
        float left[2], right[2];
        for (int i = 0; i < 2; ++i) {
            const Pair mine = a.v[2 * half + i], column = b.v[half];
            left[i] = __shfl_sync(~0u, k % 2 ? mine.y : mine.x, 4 * g + holder);
            right[i] = __shfl_sync(~0u, k % 2 ? column.y : column.x, 4 * (2 * t + i) + holder);
        }
        for (int e = 0; e < 4; ++e) d.c[e] = fmaf(left[e / 2], right[e % 2], d.c[e]);
    }
}

#endif

#else  // bfloat16

__device__ __forceinline__ float first(Pair p) { return __uint_as_float(p.word << 16); }
__device__ __forceinline__ float second(Pair p) { return __uint_as_float(p.word & 0xffff0000u); }

__device__ __forceinline__ void store_pair(real* place, Pair p) { *reinterpret_cast<unsigned int*>(place) = p.word; }

#ifndef EMULATED

__device__ __forceinline__ unsigned int rounded(float low, float high) {
    unsigned int word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}

__device__ __forceinline__ float power2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float tangent(float x) {
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ void multiply(Tile& d, const A& a, const B& b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d.c[0]), "+f"(d.c[1]), "+f"(d.c[2]), "+f"(d.c[3])
                 : "r"(a.v[0].word), "r"(a.v[1].word), "r"(a.v[2].word), "r"(a.v[3].word), "r"(b.v[0].word),
                   "r"(b.v[1].word));
}

// Four 8×8 matrices; lane l hands over the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrices(Pair& m0, Pair& m1, Pair& m2, Pair& m3, const real* row) {
    const unsigned int address = (unsigned int)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(m0.word), "=r"(m1.word), "=r"(m2.word), "=r"(m3.word) : "r"(address) : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(Pair& m0, Pair& m1, Pair& m2, Pair& m3, const real* row) {
    const unsigned int address = (unsigned int)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(m0.word), "=r"(m1.word), "=r"(m2.word), "=r"(m3.word) : "r"(address) : "memory");
}

#endif

__device__ __forceinline__ Pair make_pair(float x, float y) { return {rounded(x, y)}; }
__device__ __forceinline__ real as_real(float x) { return (real)rounded(x, 0.f); }

// a(i, k) = from[i·stride + k], or from[k·stride + i] if transposed.
__device__ __forceinline__ A load_a(const real* from, int stride) {
    const int lane = lane_id();
    A a;
    load_matrices(a.v[0], a.v[1], a.v[2], a.v[3], from + (lane & 15) * stride + (lane >> 4) * 8);
    return a;
}

__device__ __forceinline__ A load_a_transposed(const real* from, int stride) {
    const int lane = lane_id();
    A a;
    load_matrices_transposed(
        a.v[0], a.v[1], a.v[2], a.v[3], from + ((lane & 7) + (lane >> 4) * 8) * stride + (lane >> 3 & 1) * 8);
    return a;
}

// Two operands b side by side, 16×16: b(k, j) = from[j·stride + k], or from[k·stride + j] if transposed.
__device__ __forceinline__ void load_b(B (&b)[2], const real* from, int stride) {
    const int lane = lane_id();
    load_matrices(b[0].v[0], b[0].v[1], b[1].v[0], b[1].v[1],
                  from + ((lane & 7) + (lane >> 4) * 8) * stride + (lane >> 3 & 1) * 8);
}

__device__ __forceinline__ void load_b_transposed(B (&b)[2], const real* from, int stride) {
    const int lane = lane_id();
    load_matrices_transposed(b[0].v[0], b[0].v[1], b[1].v[0], b[1].v[1],
                             from + (lane & 15) * stride + (lane >> 4) * 8);
}

#endif

// Two neighbouring results as an operand.
__device__ __forceinline__ A as_a(const Tile& left, const Tile& right) {
    return {{make_pair(left.c[0], left.c[1]), make_pair(left.c[2], left.c[3]), make_pair(right.c[0], right.c[1]),
             make_pair(right.c[2], right.c[3])}};
}

__device__ __forceinline__ void store_a(real* to, int stride, const A& a) {
    real* place = to + (lane_id() >> 2) * stride + 2 * (lane_id() & 3);
    store_pair(place, a.v[0]);
    store_pair(place + 8 * stride, a.v[1]);
    store_pair(place + 8, a.v[2]);
    store_pair(place + 8 * stride + 8, a.v[3]);
}

// A block (16×16: two operands b) of a packed matrix, eight neighbouring elements for every lane, those of this one at
// ``place``; see scaling_sim_cupy.layout.
__device__ __forceinline__ void load_packed(B (&b)[2], const real* place) {
#if EXACT
    const float4 left = __ldg(reinterpret_cast<const float4*>(place));
    const float4 right = __ldg(reinterpret_cast<const float4*>(place) + 1);
    b[0] = {{{left.x, left.y}, {left.z, left.w}}};
    b[1] = {{{right.x, right.y}, {right.z, right.w}}};
#else
    const uint4 words = __ldg(reinterpret_cast<const uint4*>(place));
    b[0] = {{{words.x}, {words.y}}};
    b[1] = {{{words.z}, {words.w}}};
#endif
}
