// One block, forward and backward, of the sequence that a CTA computes.
//
// The residual stream lives in registers, 16 rows per warp. What crosses rows goes through shared memory: queries, keys
// and values, and the two factors of each weight gradient (Σ_rows gradᵀ·activation is a product over all rows). What
// the backward pass needs of a block is kept per lane in device memory: its input, its middle, its queries, keys and
// values, mixed values and norms; layer norms and the feed-forward part are computed again.

constexpr int F_STRIDE = F_CHUNK + 8;
constexpr int WORK_STRIDE = larger(QKV_STRIDE, larger(2 * F_STRIDE, V_STRIDE));

// Slots of `Keep` per layer.
constexpr int SLOTS_A = sizeof(A) / 16;
constexpr int KEPT_INPUT = 0, KEPT_MIDDLE = DT, KEPT_QKV = 2 * DT, KEPT_MIXED = KEPT_QKV + 3 * UP / 16 * SLOTS_A;
constexpr int KEPT_NORMS = KEPT_MIXED + UP / 16 * SLOTS_A, KEPT_LAYER = KEPT_NORMS + N_HEAD;
constexpr int PARKED = N_LAYER * KEPT_LAYER, KEPT_SLOTS = PARKED + DT;  // see `park`
static_assert(KEPT_SLOTS * THREADS * 16 == KEPT_BYTES, "layout.py and block.cu disagree on what is kept");

struct Shared {
    double losses[WARPS];
    float sums[WARPS][VECTORS * DP];  // of the gradients of gains and biases, each warp its own
    float norms[N_HEAD * TP], deltas[N_HEAD * TP];
    int tokens[TP];
    __align__(16) real rows1[TP * ROW_STRIDE];
    __align__(16) real rows2[TP * ROW_STRIDE];
    __align__(16) real work[TP * WORK_STRIDE];
};
static_assert(sizeof(Shared) <= SHARED_BYTES, "layout.py asks for less shared memory than block.cu needs");

// The residual stream, or its gradient, waits in device memory while its registers are needed for something else.
__device__ __forceinline__ void park(const Keep& memory, const Tile (&x)[DT]) {
    if (DT > 4) keep(memory, PARKED, x);
}

__device__ __forceinline__ void unpark(const Keep& memory, Tile (&x)[DT]) {
    if (DT > 4) recall(memory, PARKED, x);
}

// One member as a CTA sees it.
struct Member {
    const float* params;  // flat, see scaling_sim_cupy.layout
    const real* packed;  // this lane's part of the first block
    float* grad;
    Keep memory;
    Shared* shared;
};

__device__ __forceinline__ float* sums_of_warp(const Member& m, int vector) {
    return m.shared->sums[warp_id()] + vector * DP;
}

__device__ __forceinline__ const real* packed_at(const Member& m, int layer, int piece) {
    return m.packed + layer * PACK_LAYER + piece;
}

__device__ __forceinline__ void add(Tile (&x)[DT], const Tile (&y)[DT]) {
#pragma unroll
    for (int j = 0; j < DT; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) x[j].c[e] += y[j].c[e];
}

__device__ __forceinline__ void put_rows(float* place, const float (&values)[2]) {
    if ((lane_id() & 3) == 0) {
        place[row_of(0)] = values[0];
        place[row_of(1)] = values[1];
    }
}

// x + attention(LN₁(x)), then x + feed-forward(LN₂(x)).
template <bool TRAIN>
__device__ __forceinline__ void forward_layer(Tile (&x)[DT], const Member& m, const Dropout& dropout, int layer) {
    const float* params = m.params + layer * D_MODEL;
    const int kept = layer * KEPT_LAYER;
    real* qkv = m.shared->work;
    if (TRAIN) keep(m.memory, kept + KEPT_INPUT, x);
    {
        Weights<DP / 16> columns;
        columns.ask(packed_at(m, layer, PACK_QKV), 0);
        A a[DP / 16];
        layer_norm(a, x, params + PARAM_LN1_GAIN, params + PARAM_LN1_BIAS);
        __syncthreads();  // the others are through with what stands in ``work``
#pragma unroll THRICE
        for (int n = 0; n < 3 * UP / 16; ++n) {
            Tile out[2];
            product(out, a, columns);
            columns.ask(packed_at(m, layer, PACK_QKV), next_of(n, 3 * UP / 16) * (DP / 16));
            const A block[1] = {as_a(out[0], out[1])};
            store_a(qkv + 16 * warp_id() * QKV_STRIDE + 16 * n, QKV_STRIDE, block[0]);
            if (TRAIN) keep(m.memory, kept + KEPT_QKV + n * SLOTS_A, block);
        }
    }
    __syncthreads();
    Tile residual[DT];
    clear(residual);
#pragma unroll 1
    for (int head = 0; head < N_HEAD; ++head) {
        A mixed[CP / 16];
        Tile norms[1] = {{{0, 0, 0, 0}}};
        float of_rows[2];
        attend(mixed, of_rows, qkv, head);
        norms[0].c[0] = of_rows[0];
        norms[0].c[1] = of_rows[1];
        if (TRAIN) {
            keep(m.memory, kept + KEPT_MIXED + head * CP / 16 * SLOTS_A, mixed);
            keep(m.memory, kept + KEPT_NORMS + head, norms);
        }
#pragma unroll
        for (int k = 0; k < CP / 16; ++k) {
            Weights<DP / 16, UP / 16> rows;
            rows.ask(packed_at(m, layer, PACK_OUT), head * CP / 16 + k);
            product_add(residual, mixed[k], rows);
        }
    }
    if (TRAIN) drop(residual, dropout, 1 + 2 * layer);
    add(x, residual);
    if (TRAIN) keep(m.memory, kept + KEPT_MIDDLE, x);
    const real *up = packed_at(m, layer, PACK_UP), *down = packed_at(m, layer, PACK_DOWN);
    Weights<DP / 16> columns;
    Weights<DP / 16, FP / 16> rows;
    columns.ask(up, 0);
    rows.ask(down, 0);
    A b[DP / 16];
    layer_norm(b, x, params + PARAM_LN2_GAIN, params + PARAM_LN2_BIAS);
    clear(residual);
#pragma unroll TWICE
    for (int f = 0; f < FP / 16; ++f) {
        const int next = next_of(f, FP / 16);
        Tile h[2];
        product(h, b, columns);
        columns.ask(up, next * (DP / 16));
#pragma unroll
        for (int j = 0; j < 2; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) h[j].c[e] = gelu(h[j].c[e]);
        product_add(residual, as_a(h[0], h[1]), rows);
        rows.ask(down, next);
    }
    if (TRAIN) drop(residual, dropout, 2 + 2 * layer);
    if (TRAIN && DT > 4) recall(m.memory, kept + KEPT_MIDDLE, x);  // its registers were free meanwhile
    add(x, residual);
}

// From the gradient at the layer's output to the one at its middle: x + feed-forward(LN₂(x)).
__device__ __forceinline__ void feed_forward_backward(
    Tile (&grad_x)[DT], const Member& m, const Dropout& dropout, int layer, bool fresh) {
    real *hidden = m.shared->work, *grad_hidden = hidden + TP * F_STRIDE;
    float* grad = m.grad + layer * GRAD_LAYER;
    const float* params = m.params + layer * D_MODEL;
    const real *up = packed_at(m, layer, PACK_UP), *up_t = packed_at(m, layer, PACK_UP_T);
    const real* down_t = packed_at(m, layer, PACK_DOWN_T);
    park(m.memory, grad_x);
    {
        A grad_out[DP / 16], b[DP / 16];
        Tile out[DT];
#pragma unroll
        for (int j = 0; j < DT; ++j) out[j] = grad_x[j];
        drop(out, dropout, 2 + 2 * layer);
        as_operands(grad_out, out);
        Tile x[DT];
        recall(m.memory, layer * KEPT_LAYER + KEPT_MIDDLE, x);
        layer_norm(b, x, params + PARAM_LN2_GAIN, params + PARAM_LN2_BIAS);
        stage(m.shared->rows1, ROW_STRIDE, grad_out);
        __syncthreads();  // the others are through with what stands in ``rows2`` and ``work``
        stage(m.shared->rows2, ROW_STRIDE, b);
    }
    Tile grad_b[DT];
    clear(grad_b);
#pragma unroll 1
    for (int chunk = 0; chunk < FP / F_CHUNK; ++chunk) {
        const int begin = chunk * (F_CHUNK / 16);
        Weights<DP / 16> columns, columns_back;
        Weights<DP / 16, FP / 16> rows_back;
        columns.ask(up, begin * (DP / 16));
        columns_back.ask(down_t, begin * (DP / 16));
        rows_back.ask(up_t, begin);
        __syncthreads();  // the others are through with the chunk before
        A grad_out[DP / 16], b[DP / 16];  // fetched anew, so that `outer` has their registers
        fetch(grad_out, m.shared->rows1, ROW_STRIDE);
        fetch(b, m.shared->rows2, ROW_STRIDE);
#pragma unroll NARROW_TWICE
        for (int inside = 0; inside < F_CHUNK / 16; ++inside) {
            const int next = begin + next_of(inside, F_CHUNK / 16);
            Tile h[2], grad_h[2];
            product(h, b, columns);
            product(grad_h, grad_out, columns_back);
            columns.ask(up, next * (DP / 16));
            columns_back.ask(down_t, next * (DP / 16));
#pragma unroll
            for (int j = 0; j < 2; ++j)
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    float slope;
                    gelu_with_slope(h[j].c[e], h[j].c[e], slope);
                    grad_h[j].c[e] *= slope;
                }
            const int place = 16 * warp_id() * F_STRIDE + 16 * inside;
            const A operand = as_a(grad_h[0], grad_h[1]);
            store_a(hidden + place, F_STRIDE, as_a(h[0], h[1]));
            store_a(grad_hidden + place, F_STRIDE, operand);
            product_add(grad_b, operand, rows_back);
            rows_back.ask(up_t, next);
        }
        __syncthreads();
        outer<F_CHUNK, DP, DP / 16, F_STRIDE, ROW_STRIDE>(
            grad + GRAD_UP + begin * (DP / 16) * 256, grad_hidden, m.shared->rows2, fresh);
        outer<DP, F_CHUNK, FP / 16, ROW_STRIDE, F_STRIDE>(
            grad + GRAD_DOWN + begin * 256, m.shared->rows1, hidden, fresh);
    }
    Tile x[DT];
    recall(m.memory, layer * KEPT_LAYER + KEPT_MIDDLE, x);
    unpark(m.memory, grad_x);
    __syncthreads();
    layer_norm_backward(grad_x, grad_b, x, params + PARAM_LN2_GAIN,
                        sums_of_warp(m, 4 * layer + 2));
}

// From the gradient at the layer's middle to the one at its input: x + attention(LN₁(x)).
__device__ __forceinline__ void attention_backward(
    Tile (&grad_x)[DT], const Member& m, const Dropout& dropout, int layer, bool fresh) {
    real *qkv = m.shared->work, *rows1 = m.shared->rows1, *rows2 = m.shared->rows2;
    float* grad = m.grad + layer * GRAD_LAYER;
    const float* params = m.params + layer * D_MODEL;
    const int kept = layer * KEPT_LAYER;
    park(m.memory, grad_x);
    Tile grad_mixed[UP / 8];
    A recalled[3 * UP / 16];
    recall(m.memory, kept + KEPT_QKV, recalled);
    {
        A grad_out[DP / 16], mixed[UP / 16];
        Tile out[DT];
#pragma unroll
        for (int j = 0; j < DT; ++j) out[j] = grad_x[j];
        drop(out, dropout, 1 + 2 * layer);
        as_operands(grad_out, out);
        recall(m.memory, kept + KEPT_MIXED, mixed);
        stage(rows1, ROW_STRIDE, grad_out);
        stage(rows2, ROW_STRIDE, mixed);
#pragma unroll
        for (int n = 0; n < UP / 16; ++n) {
            Weights<DP / 16> columns;
            columns.ask(packed_at(m, layer, PACK_OUT_T), n * (DP / 16));
            Tile block[2];
            product(block, grad_out, columns);
            grad_mixed[2 * n] = block[0];
            grad_mixed[2 * n + 1] = block[1];
        }
#pragma unroll
        for (int head = 0; head < N_HEAD; ++head) {
            float delta[2] = {0, 0};
#pragma unroll
            for (int k = head * CP / 16; k < (head + 1) * CP / 16; ++k)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const Tile& tile = grad_mixed[2 * k + i / 2];
                    const Pair value = mixed[k].v[i];
                    delta[i & 1] += tile.c[2 * (i & 1)] * first(value) + tile.c[2 * (i & 1) + 1] * second(value);
                }
            delta[0] = quad_sum(delta[0]);
            delta[1] = quad_sum(delta[1]);
            put_rows(m.shared->deltas + head * TP, delta);
            Tile norms[1];
            recall(m.memory, kept + KEPT_NORMS + head, norms);
            const float of_rows[2] = {norms[0].c[0], norms[0].c[1]};
            put_rows(m.shared->norms + head * TP, of_rows);
        }
    }
    stage(qkv, QKV_STRIDE, recalled);
    __syncthreads();
    outer<DP, UP, UP / 16, ROW_STRIDE, ROW_STRIDE>(grad + GRAD_OUT, rows1, rows2, fresh);
    __syncthreads();
    {
        A operands[UP / 16], a[DP / 16];
        as_operands(operands, grad_mixed);
        stage(rows1, ROW_STRIDE, operands);
        Tile x[DT];
        recall(m.memory, kept + KEPT_INPUT, x);
        layer_norm(a, x, params + PARAM_LN1_GAIN, params + PARAM_LN1_BIAS);
        stage(rows2, ROW_STRIDE, a);
    }
    __syncthreads();
    Tile grad_a[DT];
    clear(grad_a);
#pragma unroll 1
    for (int head = 0; head < N_HEAD; ++head) {
        const float *norms = m.shared->norms + head * TP, *deltas = m.shared->deltas + head * TP;
        Tile grads[3][CP / 8];
        attention_backward_queries(grads[0], qkv, rows1, norms, deltas, head);
        attention_backward_keys(grads[1], grads[2], qkv, rows1, norms, deltas, head);
        __syncthreads();  // nobody reads this head's columns any more
#pragma unroll
        for (int part = 0; part < 3; ++part) {
            A operands[CP / 16];
            as_operands(operands, grads[part]);
            stage(qkv + part * UP + head * CP, QKV_STRIDE, operands);
#pragma unroll
            for (int k = 0; k < CP / 16; ++k) {
                Weights<DP / 16, 3 * UP / 16> rows;
                rows.ask(packed_at(m, layer, PACK_QKV_T), (part * UP + head * CP) / 16 + k);
                product_add(grad_a, operands[k], rows);
            }
        }
    }
    Tile x[DT];
    if (ROOM) recall(m.memory, kept + KEPT_INPUT, x);
    if (ROOM) unpark(m.memory, grad_x);
    __syncthreads();
    outer<3 * UP, DP, DP / 16, QKV_STRIDE, ROW_STRIDE>(grad + GRAD_QKV, qkv, rows2, fresh);
    if (!ROOM) recall(m.memory, kept + KEPT_INPUT, x);
    if (!ROOM) unpark(m.memory, grad_x);
    layer_norm_backward(grad_x, grad_a, x, params + PARAM_LN1_GAIN, sums_of_warp(m, 4 * layer));
}
