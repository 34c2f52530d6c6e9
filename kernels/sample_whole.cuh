/* sample_whole.cuh - what a draw is, and how one block draws from a whole row, where those
 * that may be drawn are too many to be sorted. */
#ifndef KERNELS_SAMPLE_WHOLE_CUH
#define KERNELS_SAMPLE_WHOLE_CUH

#include "sample.cuh"

#define ONE ((double) (1ull << 44))        /* weight of the largest logit; 2^19 of them,
                                              cuda_shape()'s limit, fit 64 bits */

__device__ static inline uint64_t weight_of(const struct sample_row *r, float x, float max,
                                            float min_p)
{
    double w = exp((double) (x - max) / (double) r->temperature);

    return w < (double) min_p ? 0 : (uint64_t) (w * ONE);
}

/* Weights that reach this are in top_p. */
__device__ static inline uint64_t share_of(const struct sample_row *r, uint64_t all)
{
    uint64_t want = (uint64_t) ceil((double) r->top_p * (double) all);

    return want > 0 ? want : 1;
}

__device__ static inline uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* sample_uniform() */
__device__ static inline double uniform(uint64_t seed, uint64_t pos)
{
    uint64_t x = mix(mix(seed + 0x9e3779b97f4a7c15ull) + (pos + 1) * 0x9e3779b97f4a7c15ull);

    return (double) (x >> 11) * 0x1p-53;
}

/* The weight at which the draw stops, of this sum. */
__device__ static uint64_t drawn_of(const struct sample_row *r, uint64_t all)
{
    uint64_t want = (uint64_t) (uniform(r->seed, (uint64_t) r->pos) * (double) all) + 1;

    return least()(want, all);
}

/* --- cuts in a whole row --- */

/* The ids that are still candidates: before the cut in the order of logits, lower ids first. */
struct cut { uint32_t key; int id; };

struct row {
    struct smem    *sm;
    const float    *x;
    const uint64_t *weight;                /* [n] 0: banned or too small to count */
    int             n;
    struct cut      cut;
};

__device__ static inline bool kept(const struct row *r, int i)
{
    uint32_t key = order_of(r->x[i]);

    return key > r->cut.key || (key == r->cut.key && i <= r->cut.id);
}

/* What an id counts: itself or its weight; nothing behind the cut. */
__device__ static inline uint64_t value(const struct row *r, int i, bool by_weight)
{
    if (!kept(r, i))
        return 0;
    return by_weight ? r->weight[i] : r->x[i] > -INFINITY;
}

/* Sum of the values of ids whose key is at least this. */
__device__ static uint64_t sum_from(const struct row *r, uint32_t key, bool by_weight)
{
    uint64_t v = 0;

    for (int i = threadIdx.x; i < r->n; i += THREADS)
        if (order_of(r->x[i]) >= key)
            v += value(r, i, by_weight);
    return block_all(v, r->sm->part, plus());
}

/* The first id, in the order of ids, up to which the values of ids with this key (any: 0) reach
 * want, 1 .. their sum. Each warp has a stretch of ids. */
__device__ static int reach_by_id(const struct row *r, uint32_t key, bool by_weight, uint64_t want)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int len = (r->n + WARPS * 32 - 1) / (WARPS * 32) * 32, lo = warp * len;
    int hi = lo + len < r->n ? lo + len : r->n;
    uint64_t sum = 0, before = 0;

    for (int i = lo + lane; i < hi; i += 32)
        if (key == 0 || order_of(r->x[i]) == key)
            sum += value(r, i, by_weight);
    for (int o = 16; o > 0; o /= 2)
        sum += __shfl_xor_sync(WARP_ALL, sum, o);
    if (lane == 0)
        r->sm->part[warp] = sum;
    __syncthreads();
    for (int w = 0; w < warp; w++)
        before += r->sm->part[w];

    if (before < want && before + sum >= want) {       /* in this warp's stretch */
        for (int base = lo; base < hi; base += 32) {
            int i = base + lane;
            uint64_t v = i < hi && (key == 0 || order_of(r->x[i]) == key)
                         ? value(r, i, by_weight) : 0;
            unsigned here;

            for (int o = 1; o < 32; o *= 2) {
                uint64_t up = __shfl_up_sync(WARP_ALL, v, o);

                v += lane >= o ? up : 0;
            }
            here = __ballot_sync(WARP_ALL, before + v >= want);
            if (here != 0) {
                if (lane == 0)
                    r->sm->found = base + __ffs(here) - 1;
                break;
            }
            before += __shfl_sync(WARP_ALL, v, 31);
        }
    }
    __syncthreads();
    sum = (uint64_t) r->sm->found;
    __syncthreads();
    return (int) sum;
}

/* The same in the order of logits: the cut that keeps just enough to reach want. */
__device__ static struct cut reach_by_logit(const struct row *r, bool by_weight, uint64_t want)
{
    uint32_t lo = 0, hi = 0xffffffffu, mid;
    struct cut c;

    while (lo < hi) {                      /* the largest key from which on want is reached */
        mid = hi - (hi - lo) / 2;
        if (sum_from(r, mid, by_weight) >= want)
            lo = mid;
        else
            hi = mid - 1;
    }
    c.key = lo;
    c.id = reach_by_id(r, lo, by_weight, want - (lo == 0xffffffffu ? 0
                                                 : sum_from(r, lo + 1, by_weight)));
    return c;
}

__device__ static int draw_slowly(struct smem *sm, const struct sample_row *a, uint64_t *weight,
                                  float max)
{
    struct row r = { sm, a->logits, weight, a->vocab, { 0, 0x7fffffff } };
    uint64_t n = 0;

    for (int i = threadIdx.x; i < a->vocab; i += THREADS) {
        weight[i] = weight_of(a, a->logits[i], max, 0);
        n += a->logits[i] > -INFINITY;
    }
    n = block_all(n, sm->part, plus());    /* a barrier: the weights are there */

    if (a->top_k > 0 && (uint64_t) a->top_k < n)
        r.cut = reach_by_logit(&r, false, (uint64_t) a->top_k);
    if (a->top_p < 1)
        r.cut = reach_by_logit(&r, true, share_of(a, sum_from(&r, 0, true)));
    for (int i = threadIdx.x; i < a->vocab && a->min_p > 0; i += THREADS)
        weight[i] = weight_of(a, a->logits[i], max, a->min_p);
    __syncthreads();
    return reach_by_logit(&r, true, drawn_of(a, sum_from(&r, 0, true))).id;
}

#endif
