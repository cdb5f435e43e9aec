// What generated kernels use: types of memory, arithmetic as the Kernel IR defines it, shuffles, vectors, contractions.

// Halves in memory. In registers they are floats.

struct lz_f16 { unsigned short bits; };
struct lz_bf16 { unsigned short bits; };

__device__ __forceinline__ float lz_widen(lz_bf16 h) { return __int_as_float((int)((unsigned)h.bits << 16)); }

#ifdef __CUDACC_RTC__

__device__ __forceinline__ float lz_widen(lz_f16 h) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h.bits));
    return f;
}
__device__ __forceinline__ lz_f16 lz_narrow_f16(float f) {
    lz_f16 h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.bits) : "f"(f));
    return h;
}
__device__ __forceinline__ lz_bf16 lz_narrow_bf16(float f) {
    lz_bf16 h;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h.bits) : "f"(f));
    return h;
}

#else

__device__ __forceinline__ float lz_widen(lz_f16 h) {
    const unsigned magnitude = h.bits & 0x7fffu, sign = (h.bits & 0x8000u) << 16;
    unsigned number = magnitude << 13;
    number = __float_as_int(__int_as_float((int)number) * 5.192296858534828e33f);
    if (magnitude >= 0x7c00u) number |= 0x7f800000u;
    return __int_as_float((int)(number | sign));
}
__device__ __forceinline__ lz_f16 lz_narrow_f16(float f) {
    const unsigned bits = (unsigned)__float_as_int(f), magnitude = bits & 0x7fffffffu;
    unsigned number;
    if (magnitude > 0x7f800000u) {
        number = 0x7e00u;
    } else if (magnitude < 0x38800000u) {
        number = (unsigned)__float_as_int(__int_as_float((int)magnitude) + 0.5f) - 0x3f000000u;
    } else {
        number = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13;
        if (number > 0x7c00u) number = 0x7c00u;
    }
    lz_f16 h;
    h.bits = (unsigned short)(number | ((bits >> 16) & 0x8000u));
    return h;
}
__device__ __forceinline__ lz_bf16 lz_narrow_bf16(float f) {
    const unsigned bits = (unsigned)__float_as_int(f);
    lz_bf16 h;
    h.bits = (unsigned short)((f != f ? bits | 0x00400000u : bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    return h;
}

#endif

__device__ __forceinline__ float lz_round_f16(float f) { return lz_widen(lz_narrow_f16(f)); }
__device__ __forceinline__ float lz_round_bf16(float f) { return lz_widen(lz_narrow_bf16(f)); }

// Integers wrap.

__device__ __forceinline__ unsigned char lz_add(unsigned char a, unsigned char b) { return (unsigned char)(a + b); }
__device__ __forceinline__ int lz_add(int a, int b) { return (int)((unsigned)a + (unsigned)b); }
__device__ __forceinline__ long long lz_add(long long a, long long b) {
    return (long long)((unsigned long long)a + (unsigned long long)b);
}
__device__ __forceinline__ unsigned char lz_sub(unsigned char a, unsigned char b) { return (unsigned char)(a - b); }
__device__ __forceinline__ int lz_sub(int a, int b) { return (int)((unsigned)a - (unsigned)b); }
__device__ __forceinline__ long long lz_sub(long long a, long long b) {
    return (long long)((unsigned long long)a - (unsigned long long)b);
}
__device__ __forceinline__ unsigned char lz_mul(unsigned char a, unsigned char b) { return (unsigned char)(a * b); }
__device__ __forceinline__ int lz_mul(int a, int b) { return (int)((unsigned)a * (unsigned)b); }
__device__ __forceinline__ long long lz_mul(long long a, long long b) {
    return (long long)((unsigned long long)a * (unsigned long long)b);
}
template <class T> __device__ __forceinline__ T lz_neg(T a) { return lz_sub((T)0, a); }
template <class T> __device__ __forceinline__ T lz_abs(T a) { return a < 0 ? lz_neg(a) : a; }

// Shifts by a negative count or by the width or more: nothing is left, or the sign.

template <class T> __device__ __forceinline__ T lz_shl(T a, T n) {
    return n >= 0 && n < (T)(8 * sizeof(T)) ? (T)((unsigned long long)a << (int)n) : (T)0;
}
template <class T> __device__ __forceinline__ T lz_shr(T a, T n) {
    const int last = (int)(8 * sizeof(T)) - 1;
    return (T)(a >> (n >= 0 && n < (T)(8 * sizeof(T)) ? (int)n : last));
}
__device__ __forceinline__ unsigned char lz_shr(unsigned char a, unsigned char n) {
    return n < 8 ? (unsigned char)(a >> n) : (unsigned char)0;
}
__device__ __forceinline__ unsigned char lz_ushr(unsigned char a, unsigned char n) { return (unsigned char)(a >> n); }
__device__ __forceinline__ int lz_ushr(int a, int n) { return (int)((unsigned)a >> n); }
__device__ __forceinline__ long long lz_ushr(long long a, long long n) {
    return (long long)((unsigned long long)a >> (int)n);
}

// Quotients and remainders of integers: 0 where the divisor is; the smallest integer over -1 wraps.

template <class T> __device__ __forceinline__ T lz_trunc_div(T a, T b) {
    if (b == 0) return (T)0;
    return b == (T)-1 ? lz_neg(a) : (T)(a / b);
}
__device__ __forceinline__ unsigned char lz_trunc_div(unsigned char a, unsigned char b) {
    return b == 0 ? (unsigned char)0 : (unsigned char)(a / b);
}
template <class T> __device__ __forceinline__ T lz_fmod(T a, T b) {
    return b == 0 ? (T)0 : lz_sub(a, lz_mul(lz_trunc_div(a, b), b));
}
template <class T> __device__ __forceinline__ T lz_remainder(T a, T b) {
    const T rest = lz_fmod(a, b);
    return rest != 0 && (rest < 0) != (b < 0) ? lz_add(rest, b) : rest;
}
template <class T> __device__ __forceinline__ T lz_floor_div(T a, T b) {
    const T quotient = lz_trunc_div(a, b), rest = lz_fmod(a, b);
    return rest != 0 && (rest < 0) != (b < 0) ? lz_sub(quotient, (T)1) : quotient;
}

// The power of integers by squaring; a negative exponent gives the quotient towards zero.

template <class T> __device__ __forceinline__ T lz_pow(T base, T exponent) {
    if (exponent < 0) return base == 1 ? (T)1 : base == (T)-1 ? ((exponent & 1) != 0 ? (T)-1 : (T)1) : (T)0;
    T result = (T)1;
    for (T rest = exponent; rest > 0; rest = (T)(rest >> 1)) {
        if ((rest & 1) != 0) result = lz_mul(result, base);
        base = lz_mul(base, base);
    }
    return result;
}

// Functions of floats that no library has.

__device__ __forceinline__ double lz_fmod(double a, double b) { return fmod(a, b); }
__device__ __forceinline__ double lz_remainder(double a, double b) {
    const double rest = fmod(a, b);
    return rest != 0.0 && (b < 0.0) != (rest < 0.0) ? rest + b : rest;
}
__device__ __forceinline__ double lz_floor_div(double a, double b) {
    if (b == 0.0) return a / b;
    const double rest = fmod(a, b);
    double quotient = (a - rest) / b;
    if (rest != 0.0 && (b < 0.0) != (rest < 0.0)) quotient -= 1.0;
    if (quotient == 0.0) return copysign(0.0, a / b);
    const double below = floor(quotient);
    return quotient - below > 0.5 ? below + 1.0 : below;
}

// The larger and the smaller; a NaN on either side wins.

template <class T> __device__ __forceinline__ T lz_max(T a, T b) { return a > b || a != a ? a : b; }
template <class T> __device__ __forceinline__ T lz_min(T a, T b) { return a < b || a != a ? a : b; }

// Floats to integers, as x86 converts them: what does not fit, and NaN, is the smallest integer.

__device__ __forceinline__ int lz_to_i32(double v) {
    return v > -2147483649.0 && v < 2147483648.0 ? (int)v : -2147483647 - 1;
}
__device__ __forceinline__ int lz_to_i32(float v) {
    return v >= -2147483648.0f && v < 2147483648.0f ? (int)v : -2147483647 - 1;
}
__device__ __forceinline__ long long lz_to_i64(double v) {
    return v >= -9223372036854775808.0 && v < 9223372036854775808.0 ? (long long)v : -9223372036854775807LL - 1;
}
__device__ __forceinline__ long long lz_to_i64(float v) { return lz_to_i64((double)v); }

// `a * 2^b` in two exact steps; 0 for all `b` below the least. (Where `b` is NaN, `a` is.)

__device__ __forceinline__ float lz_power_of_two(int n) { return __int_as_float((int)((unsigned)(n + 127) << 23)); }
__device__ __forceinline__ float lz_scale(float a, float b) {
    const int n = (int)fmaxf(b, -252.0f), half = n >> 1;
    return a * lz_power_of_two(half) * lz_power_of_two(n - half);
}
__device__ __forceinline__ double lz_power_of_two(long long n) { return __longlong_as_double((long long)((unsigned long long)(n + 1023) << 52)); }
__device__ __forceinline__ double lz_scale(double a, double b) {
    const long long n = (long long)fmax(b, -2044.0), half = n >> 1;
    return a * lz_power_of_two(half) * lz_power_of_two(n - half);
}

// Bits of floats and floats of bits.

__device__ __forceinline__ int lz_bits(float v) { return __float_as_int(v); }
__device__ __forceinline__ long long lz_bits(double v) { return __double_as_longlong(v); }
__device__ __forceinline__ float lz_of_bits(int v) { return __int_as_float(v); }
__device__ __forceinline__ double lz_of_bits(long long v) { return __longlong_as_double(v); }

// An index that is data, within its extent.

__device__ __forceinline__ long long lz_clamp(long long v, long long extent) {
    return v < 0 || extent <= 0 ? 0 : v < extent ? v : extent - 1;
}

// Failed checks: the one of lowest site, and there of lowest linear index, is kept with its value.

struct lz_status {
    unsigned long long key;
    long long value;
    unsigned lock, unused;
};
__device__ __noinline__ void lz_check_failed(lz_status* first, long long site, long long at, long long value) {
    const unsigned long long key = ~(((unsigned long long)site << 44) | (unsigned long long)at);
    if (atomicMax(&first->key, key) >= key) return;
    while (atomicCAS(&first->lock, 0u, 1u) != 0u) {}
    __threadfence();
    if (atomicMax(&first->key, 0ull) == key) *(volatile long long*)&first->value = value;
    __threadfence();
    atomicCAS(&first->lock, 1u, 0u);
}

// The value of the lane whose number differs in the bits of `m`.

__device__ __forceinline__ int lz_other(int v, int m) { return __shfl_xor_sync(0xffffffffu, v, m); }
__device__ __forceinline__ long long lz_other(long long v, int m) { return __shfl_xor_sync(0xffffffffu, v, m); }
__device__ __forceinline__ float lz_other(float v, int m) { return __shfl_xor_sync(0xffffffffu, v, m); }
__device__ __forceinline__ double lz_other(double v, int m) { return __shfl_xor_sync(0xffffffffu, v, m); }
__device__ __forceinline__ bool lz_other(bool v, int m) { return lz_other((int)v, m) != 0; }
__device__ __forceinline__ unsigned char lz_other(unsigned char v, int m) { return (unsigned char)lz_other((int)v, m); }

// The value of lane 0.

__device__ __forceinline__ int lz_first(int v) { return __shfl_sync(0xffffffffu, v, 0); }
__device__ __forceinline__ long long lz_first(long long v) { return __shfl_sync(0xffffffffu, v, 0); }
__device__ __forceinline__ float lz_first(float v) { return __shfl_sync(0xffffffffu, v, 0); }
__device__ __forceinline__ double lz_first(double v) { return __shfl_sync(0xffffffffu, v, 0); }
__device__ __forceinline__ bool lz_first(bool v) { return lz_first((int)v) != 0; }
__device__ __forceinline__ unsigned char lz_first(unsigned char v) { return (unsigned char)lz_first((int)v); }

// Values as the words of partial results.

__device__ __forceinline__ unsigned long long lz_word(bool v) { return v ? 1ull : 0ull; }
__device__ __forceinline__ unsigned long long lz_word(unsigned char v) { return v; }
__device__ __forceinline__ unsigned long long lz_word(int v) { return (unsigned)v; }
__device__ __forceinline__ unsigned long long lz_word(long long v) { return (unsigned long long)v; }
__device__ __forceinline__ unsigned long long lz_word(float v) { return (unsigned)__float_as_int(v); }
__device__ __forceinline__ unsigned long long lz_word(double v) { return (unsigned long long)__double_as_longlong(v); }
template <class T> struct lz_of_word {
    static __device__ __forceinline__ T value(unsigned long long w) { return (T)w; }
};
template <> struct lz_of_word<float> {
    static __device__ __forceinline__ float value(unsigned long long w) { return __int_as_float((int)(unsigned)w); }
};
template <> struct lz_of_word<double> {
    static __device__ __forceinline__ double value(unsigned long long w) { return __longlong_as_double((long long)w); }
};

// Neighbours in memory, read and written together where their address allows.

template <class T, int N> struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) lz_vector { T at[N]; };

__device__ __forceinline__ bool lz_aligned(const void* p) { return ((unsigned long long)p & 15ull) == 0; }

template <int N, class T> __device__ __forceinline__ lz_vector<T, N> lz_read(const T* from, bool whole, int count) {
    lz_vector<T, N> v;
    if (whole) {
        v = *(const lz_vector<T, N>*)from;
    } else {
#pragma unroll
        for (int e = 0; e < N; e++)
            if (e < count) v.at[e] = from[e];
    }
    return v;
}
template <int N, class T> __device__ __forceinline__ void lz_write(T* to, const lz_vector<T, N>& v, bool whole, int count) {
    if (whole) {
        *(lz_vector<T, N>*)to = v;
    } else {
#pragma unroll
        for (int e = 0; e < N; e++)
            if (e < count) to[e] = v.at[e];
    }
}

// `a * b + c`, rounded once where it rounds.

__device__ __forceinline__ float lz_fma(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double lz_fma(double a, double b, double c) { return fma(a, b, c); }
template <class T> __device__ __forceinline__ T lz_fma(T a, T b, T c) { return lz_add(lz_mul(a, b), c); }
__device__ __forceinline__ float lz_sum(float a, float b) { return a + b; }
__device__ __forceinline__ double lz_sum(double a, double b) { return a + b; }
template <class T> __device__ __forceinline__ T lz_sum(T a, T b) { return lz_add(a, b); }

// `acc[r, c] += sum over k of a(r, k) * b(k, c)` for the rows and columns that there are. The result is made in blocks of
// BM by BN elements; each of TY by TX threads has TM by TN of them in registers. Both operands come through shared memory, BK
// elements of the contraction at a time: `A_ALONG` and `B_ALONG` say that neighbours along the contraction are neighbours in
// memory. All threads of the block take part, and meet before.

template <class T, int BM, int BN, int BK, int TM, int TN, bool A_ALONG, bool B_ALONG, class A, class B>
__device__ __forceinline__ void lz_dot(T* acc, int distance, int rows, int columns, int depth, T* stage, A a, B b) {
    constexpr int TY = BM / TM, TX = BN / TN, THREADS = TY * TX;
    constexpr int WIDTH_A = BM + 4, WIDTH_B = BN + 4;
    constexpr int OWN_A = (BM * BK + THREADS - 1) / THREADS, OWN_B = (BN * BK + THREADS - 1) / THREADS;
    T* const stage_a = stage;
    T* const stage_b = stage + BK * WIDTH_A;
    const int me = (int)threadIdx.x, ty = me / TX, tx = me % TX;
    for (int r0 = 0; r0 < rows; r0 += BM) {
        for (int c0 = 0; c0 < columns; c0 += BN) {
            T sum[TM][TN];
#pragma unroll
            for (int i = 0; i < TM; i++)
#pragma unroll
                for (int j = 0; j < TN; j++) sum[i][j] = (T)0;
            // The elements that a thread brings in next wait in registers while the last ones are multiplied.
            T next_a[OWN_A], next_b[OWN_B];
            auto fetch = [&](int k0) {
#pragma unroll
                for (int i = 0; i < OWN_A; i++) {
                    const int n = i * THREADS + me, r = A_ALONG ? n / BK : n % BM, k = A_ALONG ? n % BK : n / BM;
                    const bool inside = n < BM * BK && r0 + r < rows && k0 + k < depth;
                    next_a[i] = inside ? a(r0 + r, k0 + k) : (T)0;
                }
#pragma unroll
                for (int i = 0; i < OWN_B; i++) {
                    const int n = i * THREADS + me, c = B_ALONG ? n / BK : n % BN, k = B_ALONG ? n % BK : n / BN;
                    const bool inside = n < BN * BK && c0 + c < columns && k0 + k < depth;
                    next_b[i] = inside ? b(k0 + k, c0 + c) : (T)0;
                }
            };
            // What the operands and the tile held before is there.
            __syncthreads();
            fetch(0);
            for (int k0 = 0; k0 < depth; k0 += BK) {
                __syncthreads();
#pragma unroll
                for (int i = 0; i < OWN_A; i++) {
                    const int n = i * THREADS + me, r = A_ALONG ? n / BK : n % BM, k = A_ALONG ? n % BK : n / BM;
                    if (n < BM * BK) stage_a[k * WIDTH_A + r] = next_a[i];
                }
#pragma unroll
                for (int i = 0; i < OWN_B; i++) {
                    const int n = i * THREADS + me, c = B_ALONG ? n / BK : n % BN, k = B_ALONG ? n % BK : n / BN;
                    if (n < BN * BK) stage_b[k * WIDTH_B + c] = next_b[i];
                }
                __syncthreads();
                if (k0 + BK < depth) fetch(k0 + BK);
                const int last = depth - k0 < BK ? depth - k0 : BK;
#pragma unroll 8
                for (int k = 0; k < last; k++) {
                    T left[TM], right[TN];
#pragma unroll
                    for (int i = 0; i < TM; i++) left[i] = stage_a[k * WIDTH_A + ty * TM + i];
#pragma unroll
                    for (int j = 0; j < TN; j++) right[j] = stage_b[k * WIDTH_B + tx * TN + j];
#pragma unroll
                    for (int i = 0; i < TM; i++)
#pragma unroll
                        for (int j = 0; j < TN; j++) sum[i][j] = lz_fma(left[i], right[j], sum[i][j]);
                }
            }
#pragma unroll
            for (int i = 0; i < TM; i++)
#pragma unroll
                for (int j = 0; j < TN; j++) {
                    const int r = r0 + ty * TM + i, c = c0 + tx * TN + j;
                    if (r < rows && c < columns) acc[r * distance + c] = lz_sum(acc[r * distance + c], sum[i][j]);
                }
        }
    }
}
