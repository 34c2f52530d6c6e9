/* sample.cuh - what the kernels of sampling share: the slices of a row and what they leave for each
 * other, entries that sort in the order of logits, and what a block does together. */
#ifndef KERNELS_SAMPLE_CUH
#define KERNELS_SAMPLE_CUH

#include "cuda.h"
#include "dev.cuh"

#define THREADS 512
#define WARPS   (THREADS / 32)
#define SLICES  64                         /* of a row, at most */
#define BINS    2048
#define LIST    2048                       /* ids that are sorted at most */
#define NONE    (~0ull)                    /* behind all entries */

/* What the blocks of a row have found. */
struct part {
    int32_t  not_finite[SLICES];
    uint64_t best[SLICES];                 /* the first entry of each slice, all bent */
    uint64_t top[SLICES][SAMPLE_TOP_MAX];  /* for logprobs: the first before that, and the */
    double   sum[SLICES];                  /* sum of exp(logit - the largest of the row) */
    uint64_t weight[SLICES];               /* drawn in the order of ids: the sums of weights */
    uint64_t bin[BINS];                    /* else: ids or weights by distance from the largest */
    uint64_t list[LIST];                   /* the entries in the first bins, in no order */
    int32_t  n_list;                       /* how many there are, also if there is no room */
};

struct scratch {
    struct part *part;                     /* [n_row] */
    uint64_t    *weight;                   /* [n_row, vocab] also counts of generated ids */
    float       *raw;                      /* [n_row, vocab] the logits before anything bent them */
};

struct slice { int lo, hi; };              /* ids */

__device__ static inline struct slice slice_of(int vocab, int i, int n)
{
    int len = (vocab + n * 32 - 1) / (n * 32) * 32, lo = i * len;

    return { lo < vocab ? lo : vocab, lo + len < vocab ? lo + len : vocab };
}

__device__ static inline bool in_slice(const struct slice *s, int id)
{
    return id >= s->lo && id < s->hi;
}

/* An unsigned integer in the order of the floats; -0 is 0. */
__device__ static inline uint32_t order_of(float x)
{
    uint32_t u = __float_as_uint(x + 0.0f);

    return u >> 31 != 0 ? ~u : u | 0x80000000u;
}

/* Entries ascend as logits descend, the lowest id of equals first. None is 0. */
__device__ static inline uint64_t entry_of(float x, int id)
{
    return (uint64_t) ~order_of(x) << 32 | (uint32_t) id;
}

__device__ static inline int id_of(uint64_t entry)
{
    return (int) (uint32_t) entry;
}

__device__ static inline float logit_of(uint64_t entry)
{
    uint32_t u = ~(uint32_t) (entry >> 32);

    return __uint_as_float(u >> 31 != 0 ? u & 0x7fffffffu : ~u);
}

struct smem {
    uint64_t part[WARPS];
    double   sum[WARPS];
    int      found;
};

struct plus {
    template <typename num> __device__ num operator()(num a, num b) const { return a + b; }
};

struct least {
    template <typename num> __device__ num operator()(num a, num b) const { return a < b ? a : b; }
};

/* Of all threads' values, in every thread. tmp: [WARPS] */
template <typename num, typename op> __device__ static num block_all(num v, num *tmp, op both)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

    for (int o = 16; o > 0; o /= 2)
        v = both(v, __shfl_xor_sync(WARP_ALL, v, o));
    if (lane == 0)
        tmp[warp] = v;
    __syncthreads();
    v = tmp[lane % WARPS];
    for (int o = WARPS / 2; o > 0; o /= 2)
        v = both(v, __shfl_xor_sync(WARP_ALL, v, o));
    __syncthreads();
    return v;
}

/* The sum over the threads before this one. tmp: [WARPS] */
__device__ static uint64_t block_before(uint64_t v, uint64_t *tmp)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint64_t sum = v, before = 0;

    for (int o = 1; o < 32; o *= 2) {
        uint64_t up = __shfl_up_sync(WARP_ALL, sum, o);

        sum += lane >= o ? up : 0;
    }
    if (lane == 31)
        tmp[warp] = sum;
    __syncthreads();
    for (int w = 0; w < warp; w++)
        before += tmp[w];
    __syncthreads();
    return before + sum - v;
}

/* The first of the n entries at v, v + stride, ...; each warp finds it for itself. */
__device__ static uint64_t first_of(const uint64_t *v, int n, int stride)
{
    uint64_t first = NONE, other;

    for (int i = threadIdx.x % 32; i < n; i += 32)
        first = least()(first, v[i * stride]);
    for (int o = 16; o > 0; o /= 2) {
        other = __shfl_xor_sync(WARP_ALL, first, o);
        first = least()(first, other);
    }
    return first;
}

/* In shared memory, with room for the next power of 2. */
__device__ static void sort_list(uint64_t *list, int n)
{
    int m = 1;

    while (m < n)
        m *= 2;
    for (int i = n + threadIdx.x; i < m; i += THREADS)
        list[i] = NONE;
    __syncthreads();

    for (int run = 2; run <= m; run *= 2)
        for (int gap = run / 2; gap > 0; gap /= 2) {
            for (int i = threadIdx.x; i < m / 2; i += THREADS) {
                int a = 2 * i - (i & (gap - 1)), b = a + gap;
                uint64_t x = list[a], y = list[b];

                if ((x > y) == ((a & run) == 0)) {
                    list[a] = y;
                    list[b] = x;
                }
            }
            __syncthreads();
        }
}

#endif
