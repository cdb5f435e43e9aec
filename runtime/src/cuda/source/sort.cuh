// Sorts of lines. An element becomes a pair: a key whose order is that of the sort, and its index. Pairs differ, so whatever sorts
// them is stable for the elements. A block sorts a tile in shared memory; tiles of a longer line are merged, two runs at a time.

struct lz_wide_pair { unsigned long long key, index; };

__device__ __forceinline__ bool lz_before(unsigned long long a, unsigned long long b) { return a < b; }
__device__ __forceinline__ bool lz_before(lz_wide_pair a, lz_wide_pair b) {
    return a.key < b.key || (a.key == b.key && a.index < b.index);
}
__device__ __forceinline__ void lz_set_pair(unsigned long long& pair, unsigned key, long long index) {
    pair = (unsigned long long)key << 32 | (unsigned)index;
}
__device__ __forceinline__ void lz_set_pair(lz_wide_pair& pair, unsigned long long key, long long index) {
    pair.key = key;
    pair.index = (unsigned long long)index;
}
// What stands behind every element.
__device__ __forceinline__ void lz_set_last(unsigned long long& pair) { pair = ~0ull; }
__device__ __forceinline__ void lz_set_last(lz_wide_pair& pair) { pair.key = pair.index = ~0ull; }
__device__ __forceinline__ long long lz_index(unsigned long long pair) { return (long long)(unsigned)pair; }
__device__ __forceinline__ long long lz_index(lz_wide_pair pair) { return (long long)pair.index; }

// Keys. NaN is the largest, and adding 0 makes a zero positive.

__device__ __forceinline__ unsigned lz_key(unsigned char v) { return v; }
__device__ __forceinline__ unsigned lz_key(int v) { return (unsigned)v ^ 0x80000000u; }
__device__ __forceinline__ unsigned long long lz_key(long long v) { return (unsigned long long)v ^ 0x8000000000000000ull; }
__device__ __forceinline__ unsigned lz_key(float v) {
    const unsigned bits = (unsigned)__float_as_int(v + 0.0f);
    return v != v ? ~0u : bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ unsigned lz_key(lz_f16 v) { return lz_key(lz_widen(v)); }
__device__ __forceinline__ unsigned lz_key(lz_bf16 v) { return lz_key(lz_widen(v)); }
__device__ __forceinline__ unsigned long long lz_key(double v) {
    const unsigned long long bits = (unsigned long long)__double_as_longlong(v + 0.0);
    return v != v ? ~0ull : bits >> 63 ? ~bits : bits | 0x8000000000000000ull;
}

// A sort is a type `S`: `Element` and `Pair`; `lines`, elements of a `length`, of which `count` are wanted, `stride` elements apart,
// their results `result_stride`; `own` elements of a line in a tile, and lines `together` in one, both powers of two; `from` and `to`, where
// a line and its results begin; `descending`; `threads` of a block.

template <class S>
__device__ __forceinline__ void lz_sort_tile(const typename S::Element* operand, long long* result, typename S::Pair* pairs,
                                             typename S::Pair* tile) {
    const int size = S::own * S::together;
    const long long tiles = (S::length + S::own - 1) / S::own;
    const long long first_line = blockIdx.x / tiles * S::together, first = blockIdx.x % tiles * S::own;
    for (int i = (int)threadIdx.x; i < size; i += S::threads) {
        const long long line = first_line + i / S::own, at = first + i % S::own;
        if (line < S::lines && at < S::length) {
            const auto key = lz_key(operand[S::from(line) + at * S::stride]);
            lz_set_pair(tile[i], S::descending ? ~key : key, at);
        } else {
            lz_set_last(tile[i]);
        }
    }
    for (int run = 2; run <= S::own; run *= 2) {
        for (int step = run / 2; step > 0; step /= 2) {
            __syncthreads();
            for (int i = (int)threadIdx.x; i < size / 2; i += S::threads) {
                const int low = 2 * i - (i & (step - 1)), high = low + step;
                const bool rises = (low & (S::own - 1) & run) == 0;
                const typename S::Pair a = tile[low], b = tile[high];
                if (lz_before(b, a) == rises) {
                    tile[low] = b;
                    tile[high] = a;
                }
            }
        }
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < size; i += S::threads) {
        const long long line = first_line + i / S::own, at = first + i % S::own;
        if (line >= S::lines) break;
        if (tiles > 1) {
            pairs[line * tiles * S::own + at] = tile[i];
        } else if (at < S::count) {
            result[S::to(line) + at * S::result_stride] = lz_index(tile[i]);
        }
    }
}

// How many of the first `at` pairs of two merged runs are of the first run.
template <class P>
__device__ __forceinline__ long long lz_split(const P* a, long long a_length, const P* b, long long b_length, long long at) {
    long long low = at > b_length ? at - b_length : 0, high = at < a_length ? at : a_length;
    while (low < high) {
        const long long middle = (low + high) / 2;
        if (lz_before(a[middle], b[at - 1 - middle])) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

// Merges runs of `run` pairs into runs of twice as many: a tile of one for each block. What is not wanted of a run is not made.
template <class S>
__device__ __forceinline__ void lz_merge_tile(const typename S::Pair* from, typename S::Pair* to, long long* result, long long run,
                                              typename S::Pair* tile) {
    typedef typename S::Pair P;
    const int each = S::own / S::threads;
    const long long tiles = (S::length + S::own - 1) / S::own, padded = tiles * S::own;
    const long long line = blockIdx.x / tiles, begin = blockIdx.x % tiles * S::own;
    const long long group = begin / (2 * run) * (2 * run), at = begin - group;
    if (at >= S::count) return;
    const P* a = from + line * padded + group;
    const long long a_length = run < padded - group ? run : padded - group;
    const long long rest = padded - group - a_length, b_length = run < rest ? run : rest;
    const P* b = a + a_length;
    const long long a0 = lz_split(a, a_length, b, b_length, at), a1 = lz_split(a, a_length, b, b_length, at + S::own);
    const int from_a = (int)(a1 - a0), from_b = S::own - from_a;
    for (int i = (int)threadIdx.x; i < S::own; i += S::threads) tile[i] = i < from_a ? a[a0 + i] : b[at - a0 + i - from_a];
    __syncthreads();
    const int place = (int)threadIdx.x * each;
    int i = (int)lz_split(tile, from_a, tile + from_a, from_b, place), j = place - i;
    P merged[each];
#pragma unroll
    for (int e = 0; e < each; e++) {
        const bool first = j >= from_b || (i < from_a && lz_before(tile[i], tile[from_a + j]));
        merged[e] = first ? tile[i] : tile[from_a + j];
        i += first;
        j += !first;
    }
    __syncthreads();
#pragma unroll
    for (int e = 0; e < each; e++) tile[place + e] = merged[e];
    __syncthreads();
    for (int i = (int)threadIdx.x; i < S::own; i += S::threads) {
        if (2 * run < padded) {
            to[line * padded + begin + i] = tile[i];
        } else if (at + i < S::count) {
            result[S::to(line) + (at + i) * S::result_stride] = lz_index(tile[i]);
        }
    }
}

// One launch of a sort: of tiles where `run` is 0, and of a merge else.
template <class S>
__device__ __forceinline__ void lz_sort(const typename S::Element* operand, long long* result, const typename S::Pair* from,
                                        typename S::Pair* to, long long run, typename S::Pair* tile) {
    if (run == 0) {
        lz_sort_tile<S>(operand, result, to, tile);
    } else if constexpr (S::length > S::own) {
        lz_merge_tile<S>(from, to, result, run, tile);
    }
}
