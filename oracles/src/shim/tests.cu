// Kernels for the tests of the shim; each starts at its `extern "C"`.

__device__ __forceinline__ float warp_sum(float v) {
    #pragma unroll
    for (int by = 16; by > 0; by >>= 1) v += __shfl_down_sync(0xffffffffu, v, by);
    return v;
}

__device__ float block_sum_of(float v) {
    __shared__ float partial[32];
    v = warp_sum(v);
    if (threadIdx.x % warpSize == 0) partial[threadIdx.x / 32] = v;
    __syncthreads();
    v = threadIdx.x < blockDim.x / 32 ? partial[threadIdx.x] : 0.0f;
    return threadIdx.x < 32 ? warp_sum(v) : v;
}

// Loads the fragments of row-major matrices, multiplies and stores.
template <class Narrow, class Multiply>
__device__ void multiply_fragments(const float* a, const float* b, float* d, Narrow narrow, Multiply multiply) {
    int group = threadIdx.x / 4, pair = threadIdx.x % 4 * 2;
    unsigned fa[4], fb[2];
    float c[4];
    for (int i = 0; i < 4; i++) {
        const float* p = a + (group + i % 2 * 8) * 16 + pair + i / 2 * 8;
        fa[i] = narrow(p[0]) | narrow(p[1]) << 16;
        c[i] = (group + i / 2 * 8) * 8 + pair + i % 2;
    }
    for (int i = 0; i < 2; i++) {
        const float* p = b + (pair + i * 8) * 8 + group;
        fb[i] = narrow(p[0]) | narrow(p[8]) << 16;
    }
    multiply(c, fa, fb, c);
    for (int i = 0; i < 4; i++) d[(group + i / 2 * 8) * 8 + pair + i % 2] = c[i];
}

__constant__ int table[4] = {1, 2, 3, 4};

extern "C" __global__ void numbers(unsigned* __restrict__ y) {
    y[blockIdx.x * blockDim.x + threadIdx.x] = blockIdx.x * 1000 + threadIdx.x + (gridDim.x - gridDim.x);
}

extern "C" __global__ void words(double* y, long long a, float b, bool c, unsigned char d, double e) {
    y[0] = double(a) + b + c + d + e;
}

extern "C" __global__ void __launch_bounds__(128) reversed(int* y) {
    __shared__ int tile[128];
    int base = blockIdx.x * 128;
    tile[threadIdx.x] = base + threadIdx.x;
    __syncthreads();
    y[base + threadIdx.x] = tile[127 - threadIdx.x];
}

extern "C" __global__ void fresh_shared(unsigned* y) {
    __shared__ float tile[32];
    bool nan = tile[threadIdx.x] != tile[threadIdx.x];
    bool all = __all_sync(0xffffffffu, nan);
    tile[threadIdx.x] = 0.0f;
    if (threadIdx.x == 0) y[blockIdx.x] = all;
}

extern "C" __global__ void dynamic_shared(float* y) {
    extern __shared__ __align__(16) float tile[];
    tile[threadIdx.x] = float(blockIdx.x * 64 + threadIdx.x);
    __syncthreads();
    y[blockIdx.x * 64 + threadIdx.x] = tile[63 - threadIdx.x];
}

extern "C" __global__ void shuffle_index(int* y) {
    y[threadIdx.x] = __shfl_sync(0xffffffffu, int(threadIdx.x) * 10, threadIdx.x + 1);
}

extern "C" __global__ void shuffle_xor(int* y) {
    y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, int(threadIdx.x) * 10, 5);
}

extern "C" __global__ void shuffle_down(int* y) {
    y[threadIdx.x] = __shfl_down_sync(0xffffffffu, int(threadIdx.x) * 10, 3);
}

extern "C" __global__ void shuffle_up(int* y) {
    y[threadIdx.x] = __shfl_up_sync(0xffffffffu, int(threadIdx.x) * 10, 3);
}

extern "C" __global__ void shuffle_segments(int* y) {
    y[threadIdx.x] = __shfl_sync(0xffffffffu, int(threadIdx.x) * 10, threadIdx.x + 1, 8);
}

extern "C" __global__ void shuffle_doubles(double* y) {
    double v = threadIdx.x + 0.5;
    for (int bits = 16; bits > 0; bits /= 2) v += __shfl_xor_sync(0xffffffffu, v, bits);
    if (threadIdx.x % 32 == 0) y[threadIdx.x / 32] = v;
}

extern "C" __global__ void votes(unsigned* y) {
    unsigned even = __ballot_sync(0xffffffffu, threadIdx.x % 2 == 0);
    bool any = __any_sync(0xffffffffu, threadIdx.x == 31), all = __all_sync(0xffffffffu, threadIdx.x != 31);
    unsigned active = __activemask();
    __syncwarp();
    if (threadIdx.x == 0) y[0] = even, y[1] = any, y[2] = all, y[3] = active;
}

extern "C" __global__ void half_warps(int* y) {
    unsigned mask = threadIdx.x < 16 ? 0x0000ffffu : 0xffff0000u;
    int v = threadIdx.x;
    for (int bits = 8; bits > 0; bits /= 2) v += __shfl_xor_sync(mask, v, bits);
    __syncwarp(mask);
    __syncwarp();
    y[threadIdx.x] = v;
}

extern "C" __global__ void short_warp(int* y) {
    int v = threadIdx.x, sum = 0;
    for (int i = 0; i < 20; i++) sum += __shfl_sync(0x000fffffu, v, i);
    if (v == 0) y[0] = sum;
}

extern "C" __global__ void block_sum(const float* x, float* y) {
    float sum = block_sum_of(x[threadIdx.x]);
    if (threadIdx.x == 0) *y = sum;
}

extern "C" __global__ void last_block(const float* x, unsigned long long* partials, unsigned* ticket, float* y) {
    __shared__ bool last;
    float sum = block_sum_of(x[blockIdx.x * 64 + threadIdx.x]);
    if (threadIdx.x == 0) {
        partials[blockIdx.x] = __float_as_uint(sum);
        __threadfence();
        last = atomicAdd(ticket, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last) return;
    if (threadIdx.x == 0) {
        float total = 0.0f;
        for (unsigned i = 0; i < gridDim.x; i++) total += __uint_as_float((unsigned)__ldcg(&partials[i]));
        *y = total;
        *ticket = 0;
    }
}

extern "C" __global__ void atomics(long long* y) {
    __shared__ unsigned long long of_block;
    int i = blockIdx.x * 64 + threadIdx.x;
    if (threadIdx.x == 0) of_block = 0;
    __syncthreads();
    atomicAdd((unsigned long long*)y, 1ull);
    atomicMin(y + 1, -(long long)i);
    atomicMax(y + 2, (long long)i);
    atomicOr((unsigned long long*)y + 3, (unsigned long long)i);
    unsigned long long old = (unsigned long long)y[4], seen;
    do {
        seen = old;
        old = atomicCAS((unsigned long long*)y + 4, seen, seen + 1);
    } while (old != seen);
    if (atomicAdd(&of_block, 1ull) == 63) atomicAdd((int*)(y + 5), 1);
    atomicMax((unsigned*)(y + 6), (unsigned)i);
}

extern "C" __global__ void atomic_floats(float* y) {
    atomicAdd(y, 1.0f);
    atomicAdd(y + 1, 1.5f);
}

extern "C" __global__ void vectors(const float* __restrict__ x, float* __restrict__ y) {
    float4 v = __ldg((const float4*)x + threadIdx.x);
    *reinterpret_cast<float4*>(y + 4 * threadIdx.x) = make_float4(v.w, v.z, v.y, v.x);
}

extern "C" __global__ void bits(long long* y) {
    double zero = y[0];
    y[0] = __float_as_int(1.0f);
    y[1] = __popc(7u);
    y[2] = __clz(8);
    y[3] = table[3];
    y[4] = __float2int_rz(1e20f);
    y[5] = __float2int_rz(float(zero / zero));
    y[6] = __double2ll_rz(zero / zero);
    y[7] = max(min(9, 7), 3);
    y[8] = __double2ll_rz(-1e300);
}

extern "C" __global__ void halves(float* y) {
    float values[9] = {1.0f, 65504.0f, 65520.0f, 0x1p-24f, 0x1p-26f, 1.0009765f, 1.0004f, -0x1p-14f, 3.14159f};
    for (int i = 0; i < 8; i++) y[i] = lz_shim_of_f16(lz_shim_f16_of(values[i]));
    y[8] = lz_shim_of_bf16(lz_shim_bf16_of(values[8]));
}

extern "C" __global__ void functions(float* y) {
    y[0] = rsqrtf(4.0f);
    y[1] = fmaf(2.0f, 3.0f, 1.0f);
    y[2] = fmaxf(1.0f, 2.0f);
    y[3] = float(floor(3.5));
    y[4] = cosf(0.0f) + tanhf(0.0f);
}

extern "C" __global__ void fragments_f16(const float* a, const float* b, float* d) {
    multiply_fragments(a, b, d, lz_shim_f16_of, lz_shim_mma_f16);
}

extern "C" __global__ void fragments_bf16(const float* a, const float* b, float* d) {
    multiply_fragments(a, b, d, lz_shim_bf16_of, lz_shim_mma_bf16);
}

extern "C" __global__ void missing_barrier(int* y) {
    __shared__ int tile[128];
    tile[threadIdx.x] = threadIdx.x;
    y[threadIdx.x] = tile[127 - threadIdx.x];
}

extern "C" __global__ void write_after_read(int* y) {
    __shared__ int tile[64];
    for (int round = 0; round < 3; round++) {
        tile[threadIdx.x] = 100 * round + threadIdx.x;
        __syncthreads();
        y[threadIdx.x] += tile[63 - threadIdx.x];
    }
}

extern "C" __global__ void exits_before_barrier(int* y) {
    if (threadIdx.x >= 40) return;
    __syncthreads();
    y[threadIdx.x] = 1;
}

extern "C" __global__ void two_barriers(int* y) {
    if (threadIdx.x < 32)
        __syncthreads();
    else __syncthreads();
    y[threadIdx.x] = 1;
}

extern "C" __global__ void lanes_missing(int* y) {
    if (threadIdx.x < 16) y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, int(threadIdx.x), 1);
}

extern "C" __global__ void lane_not_named(int* y) {
    y[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, int(threadIdx.x), 1);
}

extern "C" __global__ void reads_unnamed(int* y) {
    if (threadIdx.x < 16) y[threadIdx.x] = __shfl_sync(0x0000ffffu, int(threadIdx.x), 31);
}

extern "C" __global__ void masks_disagree(int* y) {
    unsigned mask = threadIdx.x < 8 ? 0x0000ffffu : 0xffffffffu;
    y[threadIdx.x] = __shfl_xor_sync(mask, int(threadIdx.x), 1);
}

extern "C" __global__ void mask_beyond_block(int* y) {
    y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, int(threadIdx.x), 1);
}

extern "C" __global__ void stores_beyond(const float* x, float* y) {
    int i = blockIdx.x * 32 + threadIdx.x;
    if (i <= 33) y[i] = 1.0f;
}

extern "C" __global__ void stores_before(const float* x, float* y) {
    y[int(threadIdx.x) - 1] = 1.0f;
}

extern "C" __global__ void reads_beyond(const float* x, float* y) {
    y[threadIdx.x] = x[threadIdx.x + 1024];
}

extern "C" __global__ void writes_input(float* x, float* y) {
    x[threadIdx.x] = 1.0f;
}

extern "C" __global__ void not_aligned(const float* x, float* y) {
    *(float4*)(y + 1) = *(const float4*)(x + 1);
}

extern "C" __global__ void shared_beyond(const float* x, float* y) {
    extern __shared__ float tile[];
    tile[1000 + threadIdx.x * 32] = 1.0f;
}

extern "C" __global__ void divides_by_zero(int* y) {
    *y = 100000 / *y;
}

extern "C" __global__ void deep(int* y) {
    volatile char large[300 << 10];
    for (int i = (300 << 10) - 1; i >= 0; i -= 1024) large[i] = 1;
    *y = large[0];
}

extern "C" __global__ void never_ends(volatile int* y) {
    while (*y == 0) {
    }
}
