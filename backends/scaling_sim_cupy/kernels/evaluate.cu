// Losses alone: grid (CTAs per member, members).

// Losses of every position, (members, sequences, N_CTX) nats, no dropout. ``starts``: (members, sequences).
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) evaluate(
    const TOKEN* tokens, const long long* starts, int num_sequences, const float* params, const real* packed,
    float* losses) {
    const int row = blockIdx.y;
    const Member m = {params + (size_t)row * PARAM_SIZE, packed + (size_t)row * PACK_SIZE + lane_id() * 8, nullptr,
                      {nullptr}, reinterpret_cast<Shared*>(shared_bytes)};
    for (int b = blockIdx.x; b < num_sequences; b += gridDim.x) {
        const size_t number = (size_t)row * num_sequences + b;
        float of_rows[2];
        sequence<false>(of_rows, m, tokens + starts[number], Dropout{}, 0.f, false);
        for (int half = 0; half < 2; ++half)
            if ((lane_id() & 3) == 0 && row_of(half) < N_CTX) losses[number * N_CTX + row_of(half)] = of_rows[half];
    }
}
