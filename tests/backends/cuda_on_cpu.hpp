// As much of CUDA as the CuPy backend's kernels use, on a CPU: their text is compiled by g++ and run by the tests.
//
// Every thread of a CTA is a coroutine. It runs until it needs the others: at a shuffle or a tensor-core operation it
// waits for its warp, at __syncthreads for the CTA. Between two barriers the warps run one after the other, each as far
// as it can, in an order that changes from barrier to barrier: a missing __syncthreads gives wrong numbers here.
// Shared memory begins as NaN. LAUNCHER(name) after the kernels' text makes a kernel callable from outside.

#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <functional>
#include <utility>
#include <vector>

#define __device__
#define __global__
#define __shared__ static
#define __forceinline__ inline
#define __noinline__
#define __align__(n) alignas(n)
#define __launch_bounds__(...)
#define EMULATED
using std::isfinite;
using std::isnan;

struct uint4 { unsigned int x, y, z, w; };
struct float4 { float x, y, z, w; };
struct float2 { float x, y; };
struct int2 { int x, y; };
struct Index { int x, y; };
static Index threadIdx, blockIdx, gridDim;

namespace emulation {

struct Thread {
    ucontext_t context;  // where it begins; afterwards it is switched to and from by jumps, which cost no system call
    jmp_buf place;
    std::vector<char> stack;
    bool begun = false, waits_for_cta = false, finished = false;
};

// What the lanes of a warp hand to each other; two turns, since a quick lane may be one ahead of a slow one.
struct Warp {
    alignas(16) unsigned char given[2][32][64];
    int turn, arrived;
};

static std::vector<Thread> threads;
static std::vector<Warp> warps;
static jmp_buf scheduler;
static int current;
static std::function<void()> kernel;

static void leave() {
    const int me = current;
    if (!_setjmp(threads[me].place)) _longjmp(scheduler, 1);
}

static void body() {
    for (;;) {  // one CTA after the other
        kernel();
        threads[current].finished = true;
        leave();
    }
}

static void enter(int next) {
    current = next;
    threadIdx.x = next;
    if (_setjmp(scheduler)) return;
    Thread& thread = threads[next];
    if (thread.begun) _longjmp(thread.place, 1);
    thread.begun = true;
    setcontext(&thread.context);
}

// One after the other, the lanes of a warp until each waits for the CTA or is finished.
static void run_warp(int warp) {
    for (volatile bool moved = true; moved;) {
        moved = false;
        for (volatile int lane = 0; lane < 32; lane = lane + 1) {
            const Thread& thread = threads[32 * warp + lane];
            if (thread.waits_for_cta || thread.finished) continue;
            enter(32 * warp + lane);
            moved = true;
        }
    }
}

static void make(Thread& thread) {
    thread.stack.resize(1 << 18);
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.data();
    thread.context.uc_stack.ss_size = thread.stack.size();
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, body, 0);
}

static void run_cta(int num_threads) {
    const int num_warps = num_threads / 32;
    if ((int)threads.size() != num_threads) {
        threads.assign(num_threads, Thread{});
        for (Thread& thread : threads) make(thread);
    }
    warps.assign(num_warps, Warp{});
    for (Thread& thread : threads) thread.waits_for_cta = thread.finished = false;
    for (int round = 0;; ++round) {
        for (int i = 0; i < num_warps; ++i) run_warp(round % 2 ? num_warps - 1 - i : (i + round) % num_warps);
        int waiting = 0, finished = 0;
        for (Thread& thread : threads) {
            waiting += thread.waits_for_cta;
            finished += thread.finished;
            thread.waits_for_cta = false;
        }
        if (finished == num_threads) return;
        if (waiting != num_threads) abort();  // __syncthreads was not reached by all
    }
}

// Hands ``mine`` to the warp, waits for all lanes, and calls ``read(lane → what it handed over)``.
template <typename T, typename Read>
static void exchange(const T& mine, Read read) {
    static_assert(sizeof(T) <= 64);
    Warp& warp = warps[current / 32];
    const int turn = warp.turn;
    memcpy(warp.given[turn % 2][current % 32], &mine, sizeof(T));
    if (++warp.arrived == 32) {
        warp.arrived = 0;
        ++warp.turn;
    }
    while (warp.turn == turn) leave();
    read([&](int lane) -> const T& { return *(const T*)warp.given[turn % 2][lane]; });
}

// Calls a kernel with arguments given by address, as the CUDA driver does.
template <typename... T, size_t... I>
static void prepare(void (*function)(T...), void** arguments, std::index_sequence<I...>) {
    kernel = [=] { function(*(T*)arguments[I]...); };
}

template <typename... T>
static void launch(void (*function)(T...), int grid_x, int grid_y, int num_threads, void** arguments,
                   unsigned char* shared, size_t shared_size) {
    prepare(function, arguments, std::index_sequence_for<T...>());
    gridDim = {grid_x, grid_y};
    for (blockIdx.y = 0; blockIdx.y < grid_y; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < grid_x; ++blockIdx.x) {
            memset(shared, 0xff, shared_size);
            run_cta(num_threads);
        }
}

static float bf16(unsigned int word) {
    word <<= 16;
    float x;
    memcpy(&x, &word, 4);
    return x;
}

static unsigned int to_bf16(float x) {  // to nearest, ties to even
    unsigned int word;
    memcpy(&word, &x, 4);
    return isnan(x) ? 0x7fff : (word + 0x7fff + (word >> 16 & 1)) >> 16;
}

}  // namespace emulation

#define LAUNCHER(name)                                                                                    \
    extern "C" void launch_##name(int grid_x, int grid_y, int num_threads, void** arguments) {            \
        emulation::launch(name, grid_x, grid_y, num_threads, arguments, shared_bytes, sizeof shared_bytes); \
    }

alignas(16) unsigned char shared_bytes[SHARED_BYTES];

static void __syncthreads() {
    emulation::threads[emulation::current].waits_for_cta = true;
    emulation::leave();
}

template <typename T>
static T __shfl_sync(unsigned int, T value, int lane) {
    T result;
    emulation::exchange(value, [&](auto of) { result = of(lane & 31); });
    return result;
}

template <typename T>
static T __shfl_xor_sync(unsigned int mask, T value, int apart) {
    return __shfl_sync(mask, value, (threadIdx.x & 31) ^ apart);
}

template <typename T>
static T __ldg(const T* place) { return *place; }
template <typename T>
static T __ldcs(const T* place) { return *place; }
template <typename T>
static void __stcs(T* place, T value) { *place = value; }
static float __uint_as_float(unsigned int word) { float x; memcpy(&x, &word, 4); return x; }
static unsigned int __umulhi(unsigned int a, unsigned int b) { return (uint64_t)a * b >> 32; }
static float rsqrtf(float x) { return 1.f / sqrtf(x); }

// What precision.cu takes from the card.

#if EXACT == 1

template <typename Tile, typename A, typename B>
static void multiply(Tile& d, const A& a, const B& b) {
    const struct { A a; B b; } mine = {a, b};
    const int g = (threadIdx.x & 31) / 4, t = threadIdx.x & 3;
    emulation::exchange(mine, [&](auto of) {
        for (int e = 0; e < 4; ++e)
            for (int k = 0; k < 16; ++k) {
                const auto left = of(4 * g + k % 8 / 2).a.v[2 * (k / 8) + e / 2];
                const auto right = of(4 * (2 * t + e % 2) + k % 8 / 2).b.v[k / 8];
                d.c[e] = fmaf(k % 2 ? left.y : left.x, k % 2 ? right.y : right.x, d.c[e]);
            }
    });
}

#elif EXACT == 0

static unsigned int rounded(float low, float high) { return emulation::to_bf16(low) | emulation::to_bf16(high) << 16; }
static float power2(float x) { return exp2f(x); }
static float tangent(float x) { return tanhf(x); }

template <typename Tile, typename A, typename B>
static void multiply(Tile& d, const A& a, const B& b) {
    const struct { A a; B b; } mine = {a, b};
    const int g = (threadIdx.x & 31) / 4, t = threadIdx.x & 3;
    emulation::exchange(mine, [&](auto of) {
        for (int e = 0; e < 4; ++e)
            for (int k = 0; k < 16; ++k) {
                const unsigned int left = of(4 * g + k % 8 / 2).a.v[2 * (k / 8) + e / 2].word;
                const unsigned int right = of(4 * (2 * t + e % 2) + k % 8 / 2).b.v[k / 8].word;
                d.c[e] += emulation::bf16(left >> 16 * (k % 2) & 0xffff) *
                          emulation::bf16(right >> 16 * (k % 2) & 0xffff);
            }
    });
}

template <typename P>
static void load_matrices(P& m0, P& m1, P& m2, P& m3, const unsigned short* row) {
    if ((uintptr_t)row % 16) abort();  // the card demands it
    const int g = (threadIdx.x & 31) / 4, t = threadIdx.x & 3;
    P* out[4] = {&m0, &m1, &m2, &m3};
    emulation::exchange(row, [&](auto of) {
        for (int i = 0; i < 4; ++i) {
            const unsigned short* from = of(8 * i + g) + 2 * t;
            out[i]->word = from[0] | (unsigned int)from[1] << 16;
        }
    });
}

template <typename P>
static void load_matrices_transposed(P& m0, P& m1, P& m2, P& m3, const unsigned short* row) {
    if ((uintptr_t)row % 16) abort();
    const int g = (threadIdx.x & 31) / 4, t = threadIdx.x & 3;
    P* out[4] = {&m0, &m1, &m2, &m3};
    emulation::exchange(row, [&](auto of) {
        for (int i = 0; i < 4; ++i) {
            const unsigned short* low = of(8 * i + 2 * t);
            const unsigned short* high = of(8 * i + 2 * t + 1);
            out[i]->word = low[g] | (unsigned int)high[g] << 16;
        }
    });
}

#endif
