// A whole sequence, forward and backward.

__device__ __forceinline__ void embed(Tile (&x)[DT], const Member& m, const int (&tokens)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = row_of(half);
        const bool is_real = row < N_CTX;
        const float* token = m.params + PARAM_TOKEN + (is_real ? tokens[half] : 0) * D_MODEL;
        const float* position = m.params + PARAM_POSITION + (is_real ? row : 0) * D_MODEL;
#pragma unroll
        for (int j = 0; j < DT; ++j) {
            const float2 of_token = entries(token, j), of_position = entries(position, j);
            x[j].c[2 * half] = is_real ? of_token.x + of_position.x : 0.f;
            x[j].c[2 * half + 1] = is_real ? of_token.y + of_position.y : 0.f;
        }
    }
}

// The gradient at the embedding's output, summed per position and per token: Σ_rows 1_token ⊗ grad, a product with
// one-hot rows made in registers, so that the order of the sum is fixed. grad_E already holds the head's part.
__device__ __forceinline__ void embedding_backward(Tile (&grad_x)[DT], const Member& m, bool fresh) {
    real* rows = m.shared->rows1;
    A operands[DP / 16];
    as_operands(operands, grad_x);
    stage(rows, ROW_STRIDE, operands);
    float4* positions = packed_result(m.grad + GRAD_POSITION, warp_id() * (DP / 16), 0);
    float4 before[DT];
#pragma unroll
    for (int j = 0; j < DT; ++j) before[j] = fresh ? float4{0, 0, 0, 0} : __ldcs(positions + 32 * j);
#pragma unroll
    for (int j = 0; j < DT; ++j) __stcs(positions + 32 * j, sum_of(before[j], grad_x[j]));
    __syncthreads();
#pragma unroll 1
    for (int job = warp_id(); job < VP / 16; job += WARPS) {
        const int id = 16 * job + (lane_id() >> 2);
        Tile sum[DT];
#pragma unroll
        for (int j = 0; j < DT; ++j) {
            const float4 before = __ldcs(packed_result(m.grad + GRAD_HEAD, job * (DP / 16) + j / 2, j % 2));
            sum[j] = {{before.x, before.y, before.z, before.w}};
        }
#pragma unroll TWICE
        for (int row = 0; row < TP; row += 16) {
            A chosen;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int2 at = *reinterpret_cast<const int2*>(m.shared->tokens + row + 2 * (lane_id() & 3) + 8 * half);
                chosen.v[2 * half] = make_pair(at.x == id, at.y == id);
                chosen.v[2 * half + 1] = make_pair(at.x == id + 8, at.y == id + 8);
            }
#pragma unroll
            for (int k = 0; k < DP / 16; ++k) {
                B b[2];
                load_b_transposed(b, rows + row * ROW_STRIDE + 16 * k, ROW_STRIDE);
                multiply(sum[2 * k], chosen, b[0]);
                multiply(sum[2 * k + 1], chosen, b[1]);
            }
        }
#pragma unroll
        for (int j = 0; j < DT; ++j)
            *packed_result(m.grad + GRAD_HEAD, job * (DP / 16) + j / 2, j % 2) = {sum[j].c[0], sum[j].c[1], sum[j].c[2],
                                                                                  sum[j].c[3]};
    }
}

// One sequence. Returns the losses of the lane's two rows, nats.
template <bool TRAIN>
__device__ __forceinline__ void sequence(
    float (&losses)[2], const Member& m, const TOKEN* window, const Dropout& dropout, float row_weight, bool fresh) {
    int tokens[2], targets[2];
    float weight[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = row_of(half);
        tokens[half] = row < N_CTX ? (int)window[row] : -1;
        targets[half] = row < N_CTX ? (int)window[row + 1] : -1;
        weight[half] = row < N_CTX ? row_weight : 0.f;
        if (TRAIN && (lane_id() & 3) == 0) m.shared->tokens[row] = tokens[half];
    }
    Tile x[DT];
    embed(x, m, tokens);
    if (TRAIN) drop(x, dropout, 0);
#pragma unroll 1
    for (int layer = 0; layer < N_LAYER; ++layer) forward_layer<TRAIN>(x, m, dropout, layer);

    A y[DP / 16];
    layer_norm(y, x, m.params + PARAM_LNF_GAIN, m.params + PARAM_LNF_BIAS);
    float norm[2], chosen[2];
    log_sum(norm, chosen, y, m.packed + PACK_HEAD, targets);
#pragma unroll
    for (int half = 0; half < 2; ++half) losses[half] = norm[half] * LN2 - chosen[half];
    if (!TRAIN) return;

    stage(m.shared->rows2, ROW_STRIDE, y);
    park(m.memory, x);
    Tile grad_x[DT];
    {
        Tile grad_y[DT];
        clear(grad_y);
        head_backward(grad_y, y, m.packed + PACK_HEAD, m.packed + PACK_HEAD_T, norm, targets, weight,
                      m.shared->rows2, m.shared->work, m.grad + GRAD_HEAD, fresh);
        clear(grad_x);
        unpark(m.memory, x);
        layer_norm_backward(grad_x, grad_y, x, m.params + PARAM_LNF_GAIN,
                            sums_of_warp(m, 4 * N_LAYER));
    }
#pragma unroll 1
    for (int layer = N_LAYER - 1; layer >= 0; --layer) {
        feed_forward_backward(grad_x, m, dropout, layer, fresh);
        attention_backward(grad_x, m, dropout, layer, fresh);
    }
    drop(grad_x, dropout, 0);
    embedding_backward(grad_x, m, fresh);
    __syncthreads();  // shared memory is free for the next sequence
}

extern __shared__ __align__(16) unsigned char shared_bytes[];
