/* sample.cu - one block a row. Weights are fixed-point integers, so sums have no order: the draw is
 * the same however the threads run. */
#include "cuda.h"
#include "dev.cuh"

#define THREADS 1024
#define WARPS   (THREADS / 32)
#define ONE     ((double) (1ull << 44))    /* weight of the largest logit; 2^18 of them fit 2^63 */

__device__ static inline bool is_finite(float x)
{
    return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u;
}

/* bad is 0 before, and set where a number is none. */
static __global__ void cap_kernel(const struct sample_row *rows, int32_t *bad)
{
    struct sample_row r = rows[blockIdx.y];
    int i = (blockIdx.x * blockDim.x + threadIdx.x) * 4;

    for (int end = i + 4 < r.vocab ? i + 4 : r.vocab; i < end; i++) {
        float x = r.logits[i];

        if (!is_finite(x))
            bad[blockIdx.y] = SAMPLE_NOT_FINITE;
        if (r.softcap > 0)
            r.logits[i] = r.softcap * tanhf(x / r.softcap);
    }
}

void sample_cap_cuda(const struct sample_row *rows, int32_t n_row, int32_t vocab, int32_t *bad,
                     gpu_stream s)
{
    dim3 grid((unsigned) ceil_div(vocab, 1024), (unsigned) n_row);

    cudaMemsetAsync(bad, 0, (size_t) n_row * sizeof(*bad), s);
    cap_kernel<<<grid, 256, 0, s>>>(rows, bad);
}

static_assert(SAMPLE_OK == 0, "bytes of zeros");

struct smem {
    float    max[WARPS];
    int      id[WARPS];
    double   sum[WARPS];
    uint64_t part[WARPS];
    int      found;
};

/* The largest of what the threads have and its id, the lowest of equals, in every thread. */
__device__ static int reduce_max(struct smem *sm, float *v, int id)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float max = *v;

    for (int round = 0; round < 2; round++) {
        for (int o = 16; o > 0; o /= 2) {
            float u = __shfl_xor_sync(WARP_ALL, max, o);
            int k = __shfl_xor_sync(WARP_ALL, id, o);

            if (u > max || (u == max && k < id)) {
                max = u;
                id = k;
            }
        }
        if (round == 0) {
            if (lane == 0) {
                sm->max[warp] = max;
                sm->id[warp] = id;
            }
            __syncthreads();
            max = sm->max[lane];
            id = sm->id[lane];
        }
    }
    __syncthreads();
    *v = max;
    return id;
}

__device__ static int argmax(struct smem *sm, const float *x, int n)
{
    int id = 0;
    float max = x[0];

    for (int i = threadIdx.x; i < n; i += THREADS)
        if (x[i] > max || (x[i] == max && i < id)) {
            max = x[i];
            id = i;
        }
    return reduce_max(sm, &max, id);
}

/* logprob of id: x[id] - max - log_sum. */
struct lse { float max; double log_sum; };

__device__ static struct lse lse_of(struct smem *sm, const float *x, int n)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    struct lse k = { x[argmax(sm, x, n)], 0 };
    double sum = 0;

    for (int i = threadIdx.x; i < n; i += THREADS)
        sum += (double) expf(x[i] - k.max);
    for (int round = 0; round < 2; round++) {
        for (int o = 16; o > 0; o /= 2)
            sum += __shfl_xor_sync(WARP_ALL, sum, o);
        if (round == 0) {
            if (lane == 0)
                sm->sum[warp] = sum;
            __syncthreads();
            sum = sm->sum[lane];
        }
    }
    __syncthreads();
    k.log_sum = log(sum);
    return k;
}

__device__ static inline float logprob(const struct lse *k, float x)
{
    return (float) ((double) (x - k->max) - k->log_sum);
}

/* This thread's best id behind (max, id) in the order of logits; n: none is left. */
__device__ static int best_behind(const float *x, int n, float *max, int id)
{
    float limit = *max;
    int best = n;

    *max = -INFINITY;
    for (int i = threadIdx.x; i < n; i += THREADS)
        if ((x[i] < limit || (x[i] == limit && i > id)) && (best == n || x[i] > *max)) {
            *max = x[i];
            best = i;
        }
    return best;
}

/* Each thread knows the best of its own ids; only whose was taken looks for its next. */
__device__ static void put_top(struct smem *sm, const struct sample_row *r, const struct lse *k)
{
    float mine = INFINITY, max;
    int id = best_behind(r->logits, r->vocab, &mine, -1), taken;

    for (int i = 1; i <= r->n_top; i++) {
        max = mine;
        taken = reduce_max(sm, &max, id);
        if (threadIdx.x == 0) {
            r->lp_id[i] = taken;
            r->lp[i] = logprob(k, max);
        }
        if (taken == id) {
            mine = max;
            id = best_behind(r->logits, r->vocab, &mine, taken);
        }
    }
}

__device__ static uint64_t block_sum64(struct smem *sm, uint64_t v)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

    for (int o = 16; o > 0; o /= 2)
        v += __shfl_xor_sync(WARP_ALL, v, o);
    if (lane == 0)
        sm->part[warp] = v;
    __syncthreads();
    v = sm->part[lane];
    for (int o = 16; o > 0; o /= 2)
        v += __shfl_xor_sync(WARP_ALL, v, o);
    __syncthreads();
    return v;
}

__device__ static void put_target(struct smem *sm, const struct sample_row *r,
                                  const struct lse *k, const float *x, int id)
{
    uint64_t n = 0;

    for (int i = threadIdx.x; i < r->vocab; i += THREADS)
        n += x[i] > x[id];
    n = block_sum64(sm, n);
    if (threadIdx.x == 0) {
        r->lp_id[0] = (int32_t) n + 1;
        r->lp[0] = logprob(k, x[id]);
    }
}

/* An unsigned integer in the order of the floats. */
__device__ static inline uint32_t order_of(float x)
{
    uint32_t u = __float_as_uint(x);

    return u >> 31 != 0 ? ~u : u | 0x80000000u;
}

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
    return block_sum64(r->sm, v);
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

__device__ static int draw(struct smem *sm, const struct sample_row *a, uint64_t *weight, float max)
{
    struct row r = { sm, a->logits, weight, a->vocab, { 0, 0x7fffffff } };
    bool sorted = a->top_k > 0 || a->top_p < 1;
    uint64_t n = 0, all, want;

    for (int i = threadIdx.x; i < a->vocab; i += THREADS) {
        weight[i] = (uint64_t) (exp((double) (a->logits[i] - max) / (double) a->temperature) * ONE);
        n += a->logits[i] > -INFINITY;
    }
    n = block_sum64(sm, n);                /* a barrier: the weights are there */

    if (a->top_k > 0 && (uint64_t) a->top_k < n)
        r.cut = reach_by_logit(&r, false, (uint64_t) a->top_k);
    if (a->top_p < 1) {
        want = (uint64_t) ceil((double) a->top_p * (double) sum_from(&r, 0, true));
        r.cut = reach_by_logit(&r, true, want > 0 ? want : 1);
    }
    for (int i = threadIdx.x; i < a->vocab && a->min_p > 0; i += THREADS)
        if (exp((double) (a->logits[i] - max) / (double) a->temperature) < (double) a->min_p)
            weight[i] = 0;
    __syncthreads();

    all = sum_from(&r, 0, true);
    want = (uint64_t) (uniform(a->seed, (uint64_t) a->pos) * (double) all) + 1;
    want = want < all ? want : all;
    return sorted ? reach_by_logit(&r, true, want).id : reach_by_id(&r, 0, true, want);
}

/* Bias and penalties; count: [vocab] of scratch. */
__device__ static void penalise(const struct sample_row *r, const struct steer_lists *s,
                                unsigned *count)
{
    float *x = r->logits;
    int n = steer_n_past(s), id;

    for (int i = threadIdx.x; i < s->h->n_bias; i += THREADS)
        x[s->bias_id[i]] = steer_finite(x[s->bias_id[i]] + s->bias[i]);
    for (int i = threadIdx.x; i < n; i += THREADS)
        count[steer_past(s, r->tail, i)] = 0;
    __syncthreads();

    for (int i = threadIdx.x; s->h->has_seen && i < r->vocab; i += THREADS)
        if (sample_in(s->seen, i))
            x[i] = steer_repeat(s, x[i]);
    for (int i = threadIdx.x; i < n; i += THREADS)
        atomicAdd(&count[steer_past(s, r->tail, i)], 1u);
    __syncthreads();

    for (int i = threadIdx.x; i < n; i += THREADS) {   /* who takes the count of an id does it */
        id = steer_past(s, r->tail, i);
        unsigned c = atomicExch(&count[id], 0u);

        if (c > 0)
            x[id] = steer_penalty(s, id, x[id], (int32_t) c);
    }
    __syncthreads();
}

__device__ static void forbid(const struct sample_row *r, const struct steer_lists *s)
{
    float *x = r->logits;

    for (int i = threadIdx.x; s->h->has_allow && i < r->vocab; i += THREADS)
        if (!sample_in(s->allow, i))
            x[i] = -INFINITY;
    for (int i = threadIdx.x; i < s->h->n_stop; i += THREADS)
        x[s->stop[i]] = -INFINITY;
    for (int i = 0, k = 0; i < s->h->n_word; i += 1 + s->word[i], k++) {
        const int32_t *id = s->word + i + 1;
        int n = s->word[i];

        if (k % THREADS == threadIdx.x && steer_at_word(s, r->tail, id, n))
            x[id[n - 1]] = -INFINITY;
    }
}

/* In every thread; -1: every id is banned. */
__device__ static int choose(struct smem *sm, const struct sample_row *r, uint64_t *weight)
{
    struct steer_lists s;
    int best;

    if (r->steer != NULL) {
        s = steer_of(r->steer, r->vocab);
        if (s.h->force >= 0)
            return s.h->force;
        penalise(r, &s, (unsigned *) weight);
        forbid(r, &s);
    }
    for (int b = 0; b < 2; b++)
        for (int i = threadIdx.x; i < r->n_ban[b]; i += THREADS)
            r->logits[r->ban[b][i]] = -INFINITY;
    __syncthreads();

    best = argmax(sm, r->logits, r->vocab);
    if (r->logits[best] == -INFINITY)
        return r->none;
    return r->temperature > 0 ? draw(sm, r, weight, r->logits[best]) : best;
}

static __global__ void __launch_bounds__(THREADS) draw_kernel(const struct sample_row *rows,
                                                              int32_t *bad, uint64_t *scratch)
{
    __shared__ struct smem sm;
    struct sample_row r = rows[blockIdx.x];
    float *raw = (float *) (scratch + (int64_t) gridDim.x * r.vocab)
                 + (int64_t) blockIdx.x * r.vocab;
    struct lse k;
    int id;

    if (threadIdx.x == 0)
        *r.tok = 0;                        /* whatever goes wrong, an id */
    if (bad[blockIdx.x] != SAMPLE_OK)
        return;
    if (r.lp != NULL) {
        k = lse_of(&sm, r.logits, r.vocab);
        put_top(&sm, &r, &k);
        for (int i = threadIdx.x; i < r.vocab; i += THREADS)
            raw[i] = r.logits[i];
        __syncthreads();
    }

    id = choose(&sm, &r, scratch + (int64_t) blockIdx.x * r.vocab);
    if (id < 0) {
        if (threadIdx.x == 0)
            bad[blockIdx.x] = SAMPLE_ALL_BANNED;
        return;
    }
    if (threadIdx.x == 0)
        *r.tok = id;
    if (r.lp != NULL)
        put_target(&sm, &r, &k, raw, r.target >= 0 ? r.target : id);
}

void sample_draw_cuda(const struct sample_row *rows, int32_t n_row, int32_t *bad, void *scratch,
                      gpu_stream s)
{
    draw_kernel<<<(unsigned) n_row, THREADS, 0, s>>>(rows, bad, (uint64_t *) scratch);
}
