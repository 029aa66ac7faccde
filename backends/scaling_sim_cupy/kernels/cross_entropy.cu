// The head and its loss in one place: logits = y·Eᵀ never leave registers, 16 columns at a time.
//
// First pass: log₂ Σ 2^(z·log₂e) over the vocabulary, each lane over its own columns with a running maximum, merged at
// the end. Second pass: the logits once more, and with p = 2^(z·log₂e − norm) their gradient (p − 1_target)·weight,
// which goes at once into grad_y = grad_logits·E and, chunk by chunk through shared memory, into grad_E = grad_logitsᵀ·y.

constexpr int V_STRIDE = V_CHUNK + 8;

// log₂ of the sum of powers for the lane's two rows, and the logits of their targets.
__device__ __forceinline__ void log_sum(
    float (&norm)[2], float (&chosen)[2], const A (&y)[DP / 16], const real* head, const int (&targets)[2]) {
    float top[2] = {-infinity(), -infinity()}, sum[2] = {0, 0};
    chosen[0] = chosen[1] = 0;
    Weights<DP / 16> columns;
    columns.ask(head, 0);
#pragma unroll TWICE
    for (int n = 0; n < VP / 16; ++n) {
        Tile z[2];
        product(z, y, columns);
        columns.ask(head, next_of(n, VP / 16) * (DP / 16));
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float peak = top[half];
#pragma unroll
            for (int j = 0; j < 2; ++j)
#pragma unroll
                for (int e = 2 * half; e < 2 * half + 2; ++e) {
                    const int column = 16 * n + column_of(j, e);
                    if (column == targets[half]) chosen[half] = z[j].c[e];
                    z[j].c[e] = N_VOCAB == VP || column < N_VOCAB ? z[j].c[e] * LOG2E : -infinity();
                    peak = fmaxf(peak, z[j].c[e]);
                }
            // A lane whose columns all lie beyond the vocabulary has no maximum yet: −∞ − −∞ must not be taken.
            const float zero = N_VOCAB == VP || peak > -infinity() ? peak : 0.f;
            sum[half] *= power2(top[half] - zero);
            top[half] = peak;
#pragma unroll
            for (int j = 0; j < 2; ++j)
#pragma unroll
                for (int e = 2 * half; e < 2 * half + 2; ++e) sum[half] += power2(z[j].c[e] - zero);
        }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float peak = quad_max(top[half]);
        norm[half] = peak + log2f(quad_sum(sum[half] * power2(top[half] - peak)));
        chosen[half] = quad_sum(chosen[half]);
    }
}

// Adds to grad_y and to grad_E (``grad``, packed results). ``y_rows``: y in shared memory, row length ROW_STRIDE.
// ``buffer``: shared, TP × V_STRIDE. Every thread of the CTA must come here.
__device__ __forceinline__ void head_backward(
    Tile (&grad_y)[DT], const A (&y)[DP / 16], const real* head, const real* head_transposed, const float (&norm)[2],
    const int (&targets)[2], const float (&weight)[2], const real* y_rows, real* buffer, float* grad, bool fresh) {
    Weights<DP / 16> columns;
    Weights<DP / 16, VP / 16> rows;
    columns.ask(head, 0);
    rows.ask(head_transposed, 0);
#pragma unroll 1
    for (int chunk = 0; chunk < VP / V_CHUNK; ++chunk) {
        __syncthreads();  // y_rows is written; the buffer is free
#pragma unroll TWICE
        for (int inside = 0; inside < V_CHUNK / 16; ++inside) {
            const int n = chunk * (V_CHUNK / 16) + inside, next = next_of(n, VP / 16);
            Tile z[2];
            product(z, y, columns);
            columns.ask(head, next * (DP / 16));
#pragma unroll
            for (int j = 0; j < 2; ++j)
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const int column = 16 * n + column_of(j, e), half = e >> 1;
                    float p = power2(fmaf(z[j].c[e], LOG2E, -norm[half]));
                    if (N_VOCAB != VP && column >= N_VOCAB) p = 0;
                    z[j].c[e] = (column == targets[half] ? p - 1.f : p) * weight[half];
                }
            const A grad_z = as_a(z[0], z[1]);
            store_a(buffer + 16 * warp_id() * V_STRIDE + 16 * inside, V_STRIDE, grad_z);
            product_add(grad_y, grad_z, rows);
            rows.ask(head_transposed, next);
        }
        __syncthreads();
        outer<V_CHUNK, DP, DP / 16, V_STRIDE, ROW_STRIDE>(
            grad + chunk * (V_CHUNK / 16) * (DP / 16) * 256, buffer, y_rows, fresh);
    }
}
