// From the CTAs' gradient sums to the next weights: one thread per parameter, grid (blocks, members).

constexpr int BLOCK = 256;

// Sum over the CTA in a fixed order; every thread gets it.
__device__ __forceinline__ double block_sum(double value) {
    __shared__ double parts[BLOCK];
    __syncthreads();
    parts[threadIdx.x] = value;
    for (int half = BLOCK / 2; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
    }
    __syncthreads();
    return parts[0];
}

// grad (members, PARAM_SIZE): Σ over CTAs, in their order; squares (members, blocks): Σ grad² in float64.
// ``grad_at``: where a parameter stands in a CTA's buffer. The last launch of an update moves ``step`` on; nobody reads it
// meanwhile.
extern "C" __global__ void __launch_bounds__(BLOCK) reduce_gradients(
    const float* grads, int num_ctas, const int* grad_at, float* grad, double* squares, int* step,
    int is_last) {
    const int i = blockIdx.x * BLOCK + threadIdx.x, row = blockIdx.y;
    float total = 0;
    if (i < PARAM_SIZE) {
        const float* from = grads + (size_t)row * num_ctas * GRAD_SIZE + grad_at[i];
#pragma unroll 8
        for (int cta = 0; cta < num_ctas; ++cta) total += from[(size_t)cta * GRAD_SIZE];
        grad[(size_t)row * PARAM_SIZE + i] = total;
    }
    const double sum = block_sum((double)total * total);
    if (threadIdx.x == 0) squares[(size_t)row * gridDim.x + blockIdx.x] = sum;
    if (is_last && i == 0 && row == 0) ++*step;
}

// The operands that the tensor cores read: a weight stands in one or two places of ``packed``, −1 is none.
__device__ __forceinline__ void pack_one(real* packed, const int* forward_at, const int* backward_at, int i, float p) {
    if (forward_at[i] < 0) return;
    packed[forward_at[i]] = as_real(p);
    packed[backward_at[i]] = as_real(p);
}

extern "C" __global__ void __launch_bounds__(BLOCK) pack(
    const float* params, real* packed, const int* forward_at, const int* backward_at) {
    const int i = blockIdx.x * BLOCK + threadIdx.x, row = blockIdx.y;
    if (i < PARAM_SIZE)
        pack_one(packed + (size_t)row * PACK_SIZE, forward_at, backward_at, i, params[(size_t)row * PARAM_SIZE + i]);
}

// AdamW (Loshchilov and Hutter 2019, algorithm 2) after clipping to ``clip_norm``; decay on the matrices of the layers.
// ``step`` stands one beyond this update. losses (updates, members): NaN from the update on at which loss or norm were
// not finite; such a member keeps the bits of weights and moments. ``healthy``: before the first update. rest = 1 − beta.
extern "C" __global__ void __launch_bounds__(BLOCK) adamw(
    float* params, float* adam_m, float* adam_v, real* packed, const float* grad, const double* squares,
    const double* loss_sums, int num_ctas, double num_rows, const int* step, const bool* healthy, double* losses,
    const float* step_size, const float* decay, const float* correction2, const int* forward_at,
    const int* backward_at, double clip_norm, float beta1, float rest1, float beta2, float rest2) {
    const int i = blockIdx.x * BLOCK + threadIdx.x, row = blockIdx.y, num_members = gridDim.y, now = *step - 1;
    double part = 0;
    for (int block = threadIdx.x; block < gridDim.x; block += BLOCK) part += squares[(size_t)row * gridDim.x + block];
    const double norm = sqrt(block_sum(part));
    part = 0;
    for (int cta = threadIdx.x; cta < num_ctas; cta += BLOCK) part += loss_sums[(size_t)row * num_ctas + cta];
    const double loss = block_sum(part) / num_rows;
    const bool was_healthy = now ? !isnan(losses[(size_t)(now - 1) * num_members + row]) : healthy[row];
    const bool is_healthy = was_healthy && isfinite(loss) && isfinite(norm);
    const size_t at = (size_t)now * num_members + row;
    if (i == 0) losses[at] = is_healthy ? loss : (double)not_a_number();
    if (i >= PARAM_SIZE || !is_healthy) return;

    const size_t place = (size_t)row * PARAM_SIZE + i;
    const float clipped = grad[place] * (float)(norm > clip_norm ? clip_norm / norm : 1.0);
    const float m = beta1 * adam_m[place] + rest1 * clipped, v = beta2 * adam_v[place] + rest2 * clipped * clipped;
    float p = params[place], change = step_size[at] * (m / (sqrtf(v / correction2[now]) + 1e-8f));
    if (i >= PARAM_LAYERS && forward_at[i] >= 0) change += decay[at] * p;
    p -= change;
    adam_m[place] = m;
    adam_v[place] = v;
    params[place] = p;
    pack_one(packed + (size_t)row * PACK_SIZE, forward_at, backward_at, i, p);
}
