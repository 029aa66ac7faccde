// Losses and gradients of one update: grid (CTAs per member, members). Gradients are summed over the CTA's sequences, in
// their order, in a buffer of its own (packed results).

// Sums of losses (members, CTAs per member) and of gradients (members, CTAs per member, GRAD_SIZE) of one update.
// ``starts``: (updates, num_members, sequences), of which this launch computes gridDim.y members; ``step``: which of the
// updates; keys of dropout per member.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) train(
    const TOKEN* tokens, const long long* starts, const int* step, int num_members, int num_sequences,
    const float* params, const real* packed, float* grads, double* losses, uint4* kept, const unsigned int* updates,
    const unsigned int* low, const unsigned int* high, const unsigned long long* threshold, const float* scale) {
    Shared& shared = *reinterpret_cast<Shared*>(shared_bytes);
    const int row = blockIdx.y;
    const size_t cta = (size_t)row * gridDim.x + blockIdx.x;
    const Member m = {params + (size_t)row * PARAM_SIZE, packed + (size_t)row * PACK_SIZE + lane_id() * 8,
                      grads + cta * GRAD_SIZE, {kept + cta * KEPT_SLOTS * THREADS}, &shared};
    const long long* mine = starts + ((size_t)*step * num_members + row) * num_sequences;
    for (int i = threadIdx.x; i < WARPS * VECTORS * DP; i += THREADS) shared.sums[0][i] = 0;
    __syncthreads();
    double loss = 0;
    for (int b = blockIdx.x; b < num_sequences; b += gridDim.x) {
        const Dropout dropout = {updates[*step], low[row], high[row], threshold[row], scale[row], b * N_CTX};
        float of_rows[2];
        sequence<true>(of_rows, m, tokens + mine[b], dropout, 1.f / ((float)num_sequences * N_CTX),
                       b == (int)blockIdx.x);
        loss += (row_of(0) < N_CTX ? of_rows[0] : 0.f) + (row_of(1) < N_CTX ? of_rows[1] : 0.f);
    }
    // The four lanes of a quad hold the same two rows: add over quads, then over warps.
    for (int apart = 4; apart < 32; apart *= 2) loss += __shfl_xor_sync(~0u, loss, apart);
    if (lane_id() == 0) shared.losses[warp_id()] = loss;
    __syncthreads();
    if (threadIdx.x == 0) {
        double total = 0;
        for (int warp = 0; warp < WARPS; ++warp) total += shared.losses[warp];
        losses[cta] = total;
    }
    for (int i = threadIdx.x; i < VECTORS * DP; i += THREADS) {
        float total = 0;
        for (int warp = 0; warp < WARPS; ++warp) total += shared.sums[warp][i];
        m.grad[GRAD_VECTORS + i] = total;
    }
}
