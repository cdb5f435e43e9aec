// CUDA C's built-ins for g++: what generated kernels use, on the CPU.
//
// A CUDA thread is a fiber. What threads do together (barriers, shuffles, votes) goes through the functions of `host.cpp`,
// which knows who waits where; all else is plain C++. Names that NVRTC has only with headers are not here, so that a text
// that leans on them compiles nowhere.
#pragma once

#include <math.h>
#include <string.h>
#include <utility>

#undef INFINITY
#undef NAN

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__

// Vector types, aligned as CUDA aligns them.

#define LZ_SHIM_VECTORS(T, name, of2, of4)                                                                                    \
    struct __align__(of2) name##2 { T x, y; };                                                                                \
    struct name##3 { T x, y, z; };                                                                                            \
    struct __align__(of4) name##4 { T x, y, z, w; };                                                                          \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                                         \
    static inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                                 \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

LZ_SHIM_VECTORS(signed char, char, 2, 4)
LZ_SHIM_VECTORS(unsigned char, uchar, 2, 4)
LZ_SHIM_VECTORS(short, short, 4, 8)
LZ_SHIM_VECTORS(unsigned short, ushort, 4, 8)
LZ_SHIM_VECTORS(int, int, 8, 16)
LZ_SHIM_VECTORS(unsigned, uint, 8, 16)
LZ_SHIM_VECTORS(long long, longlong, 16, 16)
LZ_SHIM_VECTORS(unsigned long long, ulonglong, 16, 16)
LZ_SHIM_VECTORS(float, float, 8, 16)
LZ_SHIM_VECTORS(double, double, 16, 16)

struct dim3 {
    unsigned x, y, z;
};

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
static const int warpSize = 32;

// What threads do together.

/// What the first byte of a fault's report says of its kind; `Fault` of the Rust side has the same order.
enum lz_shim_kind { LZ_SHIM_MEMORY, LZ_SHIM_BARRIER, LZ_SHIM_WARP, LZ_SHIM_TRAP, LZ_SHIM_ENDLESS };

/// Reports that the running kernel is wrong, and ends the process.
[[noreturn]] void lz_shim_fault(lz_shim_kind kind, const char* format, ...) __attribute__((format(printf, 2, 3)));
/// A thread's wait for all of its block.
void lz_shim_barrier(int line);
/// The lanes of the running warp that have not exited.
unsigned lz_shim_active();
/// The dynamic shared memory of the running block.
void* lz_shim_dynamic();

/// What a lane asks of the lanes of its warp: they all ask the same, and get their results together.
struct lz_shim_request {
    const char* name;
    int line;
    unsigned mask;
    /// Gives every lane of the mask its result.
    void (*complete)(lz_shim_request* const* lanes, unsigned mask);
};
/// Waits until all lanes of the mask have asked, and the request is complete.
void lz_shim_ask(lz_shim_request* request);

static inline int lz_shim_lane() { return threadIdx.x % 32; }

template <class T>
struct lz_shim_shuffle : lz_shim_request {
    T value, result;
    int from;

    static void finish(lz_shim_request* const* lanes, unsigned mask) {
        for (int lane = 0; lane < 32; lane++) {
            if (!(mask >> lane & 1)) continue;
            auto* own = static_cast<lz_shim_shuffle*>(lanes[lane]);
            if (!(mask >> own->from & 1)) {
                lz_shim_fault(LZ_SHIM_WARP, "%s in line %d: lane %d reads lane %d, which mask %08x does not name", own->name,
                              own->line, lane, own->from, mask);
            }
            own->result = static_cast<lz_shim_shuffle*>(lanes[own->from])->value;
        }
    }

    static T run(const char* name, int line, unsigned mask, T value, int from) {
        lz_shim_shuffle request;
        request.name = name, request.line = line, request.mask = mask, request.complete = finish;
        request.value = value, request.from = from;
        lz_shim_ask(&request);
        return request.result;
    }
};

struct lz_shim_vote : lz_shim_request {
    bool value;
    unsigned result;

    static void finish(lz_shim_request* const* lanes, unsigned mask) {
        unsigned votes = 0;
        for (int lane = 0; lane < 32; lane++) {
            if (mask >> lane & 1) votes |= unsigned(static_cast<lz_shim_vote*>(lanes[lane])->value) << lane;
        }
        for (int lane = 0; lane < 32; lane++) {
            if (mask >> lane & 1) static_cast<lz_shim_vote*>(lanes[lane])->result = votes;
        }
    }

    static unsigned run(const char* name, int line, unsigned mask, bool value) {
        lz_shim_vote request;
        request.name = name, request.line = line, request.mask = mask, request.complete = finish;
        request.value = value;
        lz_shim_ask(&request);
        return request.result;
    }
};

/// The lane a shuffle reads: within segments of `width` lanes; the own one where the other is outside.
static inline int lz_shim_indexed(int from, int width) { return (lz_shim_lane() & -width) | (from & (width - 1)); }
static inline int lz_shim_inside(int from, int width) {
    return (from & -width) == (lz_shim_lane() & -width) ? from : lz_shim_lane();
}

template <class T>
static T lz_shim_shfl(int line, unsigned mask, T v, int from, int width = 32) {
    return lz_shim_shuffle<T>::run("__shfl_sync", line, mask, v, lz_shim_indexed(from, width));
}
template <class T>
static T lz_shim_xor(int line, unsigned mask, T v, int bits, int width = 32) {
    int from = lz_shim_lane() ^ bits;
    // An earlier segment may be read, a later one not.
    bool later = (from & -width) > (lz_shim_lane() & -width);
    return lz_shim_shuffle<T>::run("__shfl_xor_sync", line, mask, v, later ? lz_shim_lane() : from);
}
template <class T>
static T lz_shim_down(int line, unsigned mask, T v, int by, int width = 32) {
    return lz_shim_shuffle<T>::run("__shfl_down_sync", line, mask, v, lz_shim_inside(lz_shim_lane() + by, width));
}
template <class T>
static T lz_shim_up(int line, unsigned mask, T v, int by, int width = 32) {
    return lz_shim_shuffle<T>::run("__shfl_up_sync", line, mask, v, lz_shim_inside(lz_shim_lane() - by, width));
}
static inline void lz_shim_syncwarp(int line, unsigned mask = 0xffffffffu) {
    lz_shim_vote::run("__syncwarp", line, mask, false);
}

#define __syncthreads() lz_shim_barrier(__LINE__)
#define __syncwarp(...) lz_shim_syncwarp(__LINE__, ##__VA_ARGS__)
#define __activemask() lz_shim_active()
#define __shfl_sync(...) lz_shim_shfl(__LINE__, __VA_ARGS__)
#define __shfl_xor_sync(...) lz_shim_xor(__LINE__, __VA_ARGS__)
#define __shfl_down_sync(...) lz_shim_down(__LINE__, __VA_ARGS__)
#define __shfl_up_sync(...) lz_shim_up(__LINE__, __VA_ARGS__)
#define __ballot_sync(mask, v) lz_shim_vote::run("__ballot_sync", __LINE__, mask, v)
#define __any_sync(mask, v) (lz_shim_vote::run("__any_sync", __LINE__, mask, v) != 0)
#define __all_sync(mask, v) (lz_shim_vote::run("__all_sync", __LINE__, mask, !(v)) == 0)

static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __threadfence_system() {}

// Launches, by the convention of cuLaunchKernel: a pointer to each argument.

/// A kernel of a program: how it is called, and its static shared memory.
struct lz_shim_kernel {
    const char* name;
    void (*call)(void** arguments);
    unsigned char *shared, *shared_end;
};
extern const lz_shim_kernel lz_shim_kernels[];

template <class... P, size_t... I>
static inline void lz_shim_apply(void (*kernel)(P...), void** arguments, std::index_sequence<I...>) {
    kernel(*(P*)arguments[I]...);
}
template <class... P>
static inline void lz_shim_call(void (*kernel)(P...), void** arguments) {
    lz_shim_apply(kernel, arguments, std::index_sequence_for<P...>());
}

// Atomics: what CUDA has, for the types it has.

#define LZ_SHIM_ATOMIC(T, name, after)                                                                                        \
    static inline T name(T* p, T v) {                                                                                         \
        T old = *p;                                                                                                           \
        *p = after;                                                                                                           \
        return old;                                                                                                           \
    }
#define LZ_SHIM_ATOMICS(T)                                                                                                    \
    LZ_SHIM_ATOMIC(T, atomicMin, v < old ? v : old)                                                                           \
    LZ_SHIM_ATOMIC(T, atomicMax, v > old ? v : old)                                                                           \
    LZ_SHIM_ATOMIC(T, atomicAnd, old& v)                                                                                      \
    LZ_SHIM_ATOMIC(T, atomicOr, old | v)                                                                                      \
    LZ_SHIM_ATOMIC(T, atomicXor, old ^ v)
#define LZ_SHIM_CAS(T)                                                                                                        \
    static inline T atomicCAS(T* p, T compare, T v) {                                                                         \
        T old = *p;                                                                                                           \
        if (old == compare) *p = v;                                                                                           \
        return old;                                                                                                           \
    }

LZ_SHIM_ATOMICS(int)
LZ_SHIM_ATOMICS(unsigned)
LZ_SHIM_ATOMICS(long long)
LZ_SHIM_ATOMICS(unsigned long long)
LZ_SHIM_ATOMIC(int, atomicAdd, int(unsigned(old) + unsigned(v)))
LZ_SHIM_ATOMIC(unsigned, atomicAdd, old + v)
LZ_SHIM_ATOMIC(unsigned long long, atomicAdd, old + v)
LZ_SHIM_ATOMIC(float, atomicAdd, old + v)
LZ_SHIM_ATOMIC(double, atomicAdd, old + v)
LZ_SHIM_ATOMIC(int, atomicSub, int(unsigned(old) - unsigned(v)))
LZ_SHIM_ATOMIC(unsigned, atomicSub, old - v)
LZ_SHIM_ATOMIC(int, atomicExch, v)
LZ_SHIM_ATOMIC(unsigned, atomicExch, v)
LZ_SHIM_ATOMIC(unsigned long long, atomicExch, v)
LZ_SHIM_ATOMIC(float, atomicExch, v)
LZ_SHIM_ATOMIC(unsigned, atomicInc, old >= v ? 0u : old + 1)
LZ_SHIM_ATOMIC(unsigned, atomicDec, old == 0 || old > v ? v : old - 1)
LZ_SHIM_CAS(unsigned short)
LZ_SHIM_CAS(int)
LZ_SHIM_CAS(unsigned)
LZ_SHIM_CAS(unsigned long long)

// Loads and stores with hints.

#define LZ_SHIM_LOAD(name)                                                                                                    \
    template <class T>                                                                                                        \
    static inline T name(const T* p) {                                                                                        \
        return *p;                                                                                                            \
    }
#define LZ_SHIM_STORE(name)                                                                                                   \
    template <class T>                                                                                                        \
    static inline void name(T* p, T v) {                                                                                      \
        *p = v;                                                                                                               \
    }
LZ_SHIM_LOAD(__ldg)
LZ_SHIM_LOAD(__ldca)
LZ_SHIM_LOAD(__ldcg)
LZ_SHIM_LOAD(__ldcs)
LZ_SHIM_LOAD(__ldcv)
LZ_SHIM_LOAD(__ldlu)
LZ_SHIM_STORE(__stwb)
LZ_SHIM_STORE(__stcg)
LZ_SHIM_STORE(__stcs)
LZ_SHIM_STORE(__stwt)

// Bits and integers.

template <class To, class From>
static inline To lz_shim_bits(From v) {
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To to;
    memcpy(&to, &v, sizeof to);
    return to;
}
static inline int __float_as_int(float v) { return lz_shim_bits<int>(v); }
static inline unsigned __float_as_uint(float v) { return lz_shim_bits<unsigned>(v); }
static inline float __int_as_float(int v) { return lz_shim_bits<float>(v); }
static inline float __uint_as_float(unsigned v) { return lz_shim_bits<float>(v); }
static inline long long __double_as_longlong(double v) { return lz_shim_bits<long long>(v); }
static inline double __longlong_as_double(long long v) { return lz_shim_bits<double>(v); }
static inline int __double2hiint(double v) { return int(lz_shim_bits<unsigned long long>(v) >> 32); }
static inline int __double2loint(double v) { return int(lz_shim_bits<unsigned long long>(v)); }
static inline double __hiloint2double(int high, int low) {
    return lz_shim_bits<double>((unsigned long long)(unsigned)high << 32 | (unsigned)low);
}
static inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(v); }
static inline int __clzll(long long v) { return v == 0 ? 64 : __builtin_clzll(v); }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline int __ffsll(long long v) { return __builtin_ffsll(v); }
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
static inline int __mulhi(int a, int b) { return int((long long)a * b >> 32); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)a * b >> 32); }
static inline long long __mul64hi(long long a, long long b) { return (long long)((__int128)a * b >> 64); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}

#define LZ_SHIM_MIN_MAX(T)                                                                                                    \
    static inline T min(T a, T b) { return b < a ? b : a; }                                                                   \
    static inline T max(T a, T b) { return a < b ? b : a; }
LZ_SHIM_MIN_MAX(int)
LZ_SHIM_MIN_MAX(unsigned)
LZ_SHIM_MIN_MAX(long)
LZ_SHIM_MIN_MAX(unsigned long)
LZ_SHIM_MIN_MAX(long long)
LZ_SHIM_MIN_MAX(unsigned long long)
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

// Conversions that stay in range, as the machine's do.

template <class To, class From>
static inline To lz_shim_truncated(From v, To nan, To low, To high, double beyond) {
    if (v != v) return nan;
    // `beyond` is the first whole number above the range, exact in both types.
    if (double(v) >= beyond) return high;
    if (low == 0 ? double(v) <= 0 : double(v) <= -beyond) return low;
    return To(v);
}
#define LZ_SHIM_TRUNCATE(name, From, To, nan, low, high, beyond)                                                              \
    static inline To name(From v) { return lz_shim_truncated<To>(v, nan, low, high, beyond); }
LZ_SHIM_TRUNCATE(__float2int_rz, float, int, 0, -2147483647 - 1, 2147483647, 0x1p31)
LZ_SHIM_TRUNCATE(__double2int_rz, double, int, -2147483647 - 1, -2147483647 - 1, 2147483647, 0x1p31)
LZ_SHIM_TRUNCATE(__float2uint_rz, float, unsigned, 0, 0, 4294967295u, 0x1p32)
LZ_SHIM_TRUNCATE(__double2uint_rz, double, unsigned, 2147483648u, 0, 4294967295u, 0x1p32)
LZ_SHIM_TRUNCATE(__float2ll_rz, float, long long, -0x7fffffffffffffffll - 1, -0x7fffffffffffffffll - 1, 0x7fffffffffffffffll,
                 0x1p63)
LZ_SHIM_TRUNCATE(__double2ll_rz, double, long long, -0x7fffffffffffffffll - 1, -0x7fffffffffffffffll - 1,
                 0x7fffffffffffffffll, 0x1p63)
static inline float __int2float_rn(int v) { return float(v); }
static inline float __uint2float_rn(unsigned v) { return float(v); }
static inline float __ll2float_rn(long long v) { return float(v); }
static inline float __ull2float_rn(unsigned long long v) { return float(v); }
static inline double __int2double_rn(int v) { return double(v); }
static inline double __ll2double_rn(long long v) { return double(v); }
static inline double __ull2double_rn(unsigned long long v) { return double(v); }
static inline float __double2float_rn(double v) { return float(v); }

/// Halves as their bits: nearest, ties to even; every NaN becomes a quiet one.
static inline unsigned short lz_shim_f16_of(float v) {
    unsigned bits = __float_as_uint(v), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return (unsigned short)0x7fff;
    if (rest >= 0x477ff000) return (unsigned short)(sign | 0x7c00);
    if (rest < 0x38800000) {
        // Below the least normal number: adding 2^-1 * 2^-13 puts the half's last bit at the end.
        float fixed = __uint_as_float(rest) + 0.5f;
        return (unsigned short)(sign | (__float_as_uint(fixed) - 0x3f000000));
    }
    rest += 0xfff + (rest >> 13 & 1);
    return (unsigned short)(sign | ((rest >> 13) - (112 << 10)));
}
static inline float lz_shim_of_f16(unsigned short half) {
    unsigned sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000 | fraction << 13);
    if (exponent == 0) return __uint_as_float(sign | __float_as_uint(float(fraction) * 0x1p-24f));
    return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
}
static inline unsigned short lz_shim_bf16_of(float v) {
    unsigned bits = __float_as_uint(v);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
static inline float lz_shim_of_bf16(unsigned short half) { return __uint_as_float((unsigned)half << 16); }

// Matrix fragments: `d = a b + c` of a warp, 16 x 8 x 16, halves to f32. A lane holds eight elements of `a` and four of `b` as
// pairs, four of `c` and of `d`, at the places that `mma.sync.m16n8k16` gives them.

template <float (*widen)(unsigned short)>
struct lz_shim_mma : lz_shim_request {
    const unsigned *a, *b;
    const float* c;
    float d[4];

    static float half(const unsigned* pairs, int i) { return widen((unsigned short)(pairs[i / 2] >> 16 * (i % 2))); }

    static void finish(lz_shim_request* const* lanes, unsigned) {
        float a[16][16], b[16][8];
        for (int lane = 0; lane < 32; lane++) {
            auto* own = static_cast<lz_shim_mma*>(lanes[lane]);
            int group = lane / 4, pair = lane % 4 * 2;
            for (int i = 0; i < 8; i++) a[group + i / 2 % 2 * 8][pair + i % 2 + i / 4 * 8] = half(own->a, i);
            for (int i = 0; i < 4; i++) b[pair + i % 2 + i / 2 * 8][group] = half(own->b, i);
        }
        for (int lane = 0; lane < 32; lane++) {
            auto* own = static_cast<lz_shim_mma*>(lanes[lane]);
            for (int i = 0; i < 4; i++) {
                int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
                own->d[i] = own->c[i];
                for (int k = 0; k < 16; k++) own->d[i] += a[row][k] * b[k][column];
            }
        }
    }

    static void run(float* d, const unsigned* a, const unsigned* b, const float* c) {
        lz_shim_mma request;
        request.name = "mma.sync", request.line = 0, request.mask = 0xffffffffu, request.complete = finish;
        request.a = a, request.b = b, request.c = c;
        lz_shim_ask(&request);
        for (int i = 0; i < 4; i++) d[i] = request.d[i];
    }
};
static inline void lz_shim_mma_f16(float* d, const unsigned* a, const unsigned* b, const float* c) {
    lz_shim_mma<lz_shim_of_f16>::run(d, a, b, c);
}
static inline void lz_shim_mma_bf16(float* d, const unsigned* a, const unsigned* b, const float* c) {
    lz_shim_mma<lz_shim_of_bf16>::run(d, a, b, c);
}

// Functions that are not in <math.h>.

static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1 / a; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __drcp_rn(double a) { return 1 / a; }
static inline double __dsqrt_rn(double a) { return sqrt(a); }
static inline float rsqrtf(float a) { return float(1 / sqrt(double(a))); }
static inline double rsqrt(double a) { return 1 / sqrt(a); }
static inline float __frsqrt_rn(float a) { return rsqrtf(a); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __saturatef(float a) { return a > 0 ? a < 1 ? a : 1 : 0; }
