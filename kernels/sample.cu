/* sample.cu - several blocks a row: what bends it, how far its ids lie behind the largest, which of
 * them may be drawn; then one block sorts those few and draws. Weights are fixed-point integers, so
 * sums have no order: the draw is the same however the threads run. */
#include "sample_whole.cuh"

static_assert(BINS % THREADS == 0 && LIST % THREADS == 0, "each thread has as many");
static_assert(SLICES * SAMPLE_TOP_MAX <= LIST && SLICES <= THREADS, "what slices find has room");

__device__ static inline bool is_finite(float x)
{
    return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u;
}

static __global__ void __launch_bounds__(THREADS) cap_kernel(const struct sample_row *rows,
                                                             struct scratch t)
{
    struct sample_row r = rows[blockIdx.y];
    struct slice s = slice_of(r.vocab, blockIdx.x, gridDim.x);
    int bad = 0;

#pragma unroll 4
    for (int i = s.lo + threadIdx.x; i < s.hi; i += THREADS) {
        float x = r.logits[i];

        bad |= !is_finite(x);
        if (r.softcap > 0)
            r.logits[i] = r.softcap * tanhf(x / r.softcap);
    }
    bad = __syncthreads_or(bad);
    if (threadIdx.x == 0)
        t.part[blockIdx.y].not_finite[blockIdx.x] = bad;
}

/* --- what bends a row: each block does its slice --- */

/* Bias and penalties; count: [vocab] of scratch. */
__device__ static void penalise(const struct sample_row *r, const struct steer_lists *s,
                                const struct slice *in, unsigned *count)
{
    float *x = r->logits;
    int n = steer_n_past(s), id;

    for (int i = threadIdx.x; i < s->h->n_bias; i += THREADS)
        if (in_slice(in, id = s->bias_id[i]))
            x[id] = steer_finite(x[id] + s->bias[i]);
    for (int i = threadIdx.x; i < n; i += THREADS)
        if (in_slice(in, id = steer_past(s, r->tail, i)))
            count[id] = 0;
    __syncthreads();

    for (int i = in->lo + threadIdx.x; s->h->has_seen && i < in->hi; i += THREADS)
        if (sample_in(s->seen, i))
            x[i] = steer_repeat(s, x[i]);
    for (int i = threadIdx.x; i < n; i += THREADS)
        if (in_slice(in, id = steer_past(s, r->tail, i)))
            atomicAdd(&count[id], 1u);
    __syncthreads();

    for (int i = threadIdx.x; i < n; i += THREADS) {   /* who takes the count of an id does it */
        id = steer_past(s, r->tail, i);
        unsigned c = in_slice(in, id) ? atomicExch(&count[id], 0u) : 0;

        if (c > 0)
            x[id] = steer_penalty(s, id, x[id], (int32_t) c);
    }
    __syncthreads();
}

__device__ static void forbid(const struct sample_row *r, const struct steer_lists *s,
                              const struct slice *in)
{
    float *x = r->logits;
    int last;

    for (int i = in->lo + threadIdx.x; s->h->has_allow && i < in->hi; i += THREADS)
        if (!sample_in(s->allow, i))
            x[i] = -INFINITY;
    for (int i = threadIdx.x; i < s->h->n_stop; i += THREADS)
        if (in_slice(in, s->stop[i]))
            x[s->stop[i]] = -INFINITY;
    for (int i = 0, k = 0; i < s->h->n_word; i += 1 + s->word[i], k++) {
        const int32_t *id = s->word + i + 1;
        int n = s->word[i];

        if (k % THREADS == threadIdx.x && in_slice(in, last = id[n - 1])
            && steer_at_word(s, r->tail, id, n))
            x[last] = -INFINITY;
    }
}

__device__ static void bend(const struct sample_row *r, const struct slice *in, unsigned *count)
{
    if (r->steer != NULL) {
        struct steer_lists s = steer_of(r->steer, r->vocab);

        penalise(r, &s, in, count);
        forbid(r, &s, in);
    }
    for (int b = 0; b < 2; b++)
        for (int i = threadIdx.x; i < r->n_ban[b]; i += THREADS)
            if (in_slice(in, r->ban[b][i]))
                r->logits[r->ban[b][i]] = -INFINITY;
    __syncthreads();
}

/* The first of this thread's entries behind another. */
__device__ static uint64_t first_behind(const float *x, const struct slice *in, uint64_t other)
{
    uint64_t first = NONE;

#pragma unroll 4
    for (int i = in->lo + threadIdx.x; i < in->hi; i += THREADS) {
        uint64_t e = entry_of(x[i], i);

        if (e > other)
            first = least()(first, e);
    }
    return first;
}

/* The slice's first n; only the thread whose entry was taken looks for its next. */
__device__ static void put_first(struct smem *sm, const float *x, const struct slice *in, int n,
                                 uint64_t *to)
{
    uint64_t mine = first_behind(x, in, 0), first;

    for (int i = 0; i < n; i++) {
        first = block_all(mine, sm->part, least());
        if (threadIdx.x == 0)
            to[i] = first;
        if (i + 1 < n && mine == first)
            mine = first_behind(x, in, first);
    }
}

static __global__ void __launch_bounds__(THREADS) bend_kernel(const struct sample_row *rows,
                                                              struct scratch t, int32_t *bad)
{
    __shared__ struct smem sm;
    struct sample_row r = rows[blockIdx.y];
    struct part *p = t.part + blockIdx.y;
    struct slice in = slice_of(r.vocab, blockIdx.x, gridDim.x);
    size_t at = (size_t) blockIdx.y * (size_t) r.vocab;
    int not_finite;

    next_may_start();
    not_finite = __syncthreads_or(threadIdx.x < gridDim.x && p->not_finite[threadIdx.x] != 0);
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        *r.tok = 0;                        /* whatever goes wrong, an id */
        bad[blockIdx.y] = not_finite ? SAMPLE_NOT_FINITE : SAMPLE_OK;
        p->n_list = 0;
    }
    if (not_finite)
        return;

    for (int i = (int) (blockIdx.x * THREADS + threadIdx.x); i < BINS; i += gridDim.x * THREADS)
        p->bin[i] = 0;
    if (r.lp != NULL) {
        put_first(&sm, r.logits, &in, r.n_top > 0 ? r.n_top : 1, p->top[blockIdx.x]);
        for (int i = in.lo + threadIdx.x; i < in.hi; i += THREADS)
            t.raw[at + i] = r.logits[i];
        __syncthreads();
    }
    bend(&r, &in, (unsigned *) (t.weight + at));
    put_first(&sm, r.logits, &in, 1, &p->best[blockIdx.x]);
}

/* --- which ids may be drawn --- */

/* How a row is drawn; where it is by ids or weights in bins, of what the first bins hold. */
enum way { GREEDY, BY_ID, BY_COUNT, BY_WEIGHT, SLOWLY };

__device__ static enum way way_of(const struct sample_row *r)
{
    if (r->temperature == 0
        || (r->steer != NULL && ((const struct steer_head *) r->steer)->force >= 0))
        return GREEDY;
    if (r->top_k <= 0 && r->top_p >= 1)
        return BY_ID;
    if (r->top_k > 0 && r->top_k <= LIST)
        return BY_COUNT;
    return r->top_p < 1 && (r->top_k <= 0 || r->top_k >= r->vocab) ? BY_WEIGHT : SLOWLY;
}

/* 64 bins an octave of the distance from the largest logit, from 2^-24 to 256. */
__device__ static inline int bin_of(float max, float x)
{
    int b = (int) (__float_as_uint(max - x) >> 17) - (127 - 24) * 64;

    return b < 0 ? 0 : b < BINS ? b : BINS - 1;
}

struct bins { uint32_t low[BINS], high[BINS]; };       /* shared memory adds 32 bits at once */

__device__ static void put_bins(struct bins *b, const struct sample_row *r, const struct slice *in,
                                float max, bool by_weight, uint64_t *to)
{
    for (int i = threadIdx.x; i < BINS; i += THREADS)
        b->low[i] = b->high[i] = 0;
    __syncthreads();

#pragma unroll 4
    for (int i = in->lo + threadIdx.x; i < in->hi; i += THREADS) {
        float x = r->logits[i];
        uint64_t v = by_weight ? weight_of(r, x, max, 0) : x > -INFINITY;

        if (v > 0) {
            int k = bin_of(max, x);
            uint32_t low = (uint32_t) v, high = (uint32_t) (v >> 32);

            high += atomicAdd(&b->low[k], low) > ~low;
            if (high > 0)
                atomicAdd(&b->high[k], high);
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < BINS; i += THREADS) {
        unsigned long long v = (uint64_t) b->high[i] << 32 | b->low[i];

        if (v > 0)
            atomicAdd((unsigned long long *) &to[i], v);
    }
}

/* What the slices of a row hold: by bins, or their weight; and for logprobs. */
static __global__ void __launch_bounds__(THREADS) count_kernel(const struct sample_row *rows,
                                                               struct scratch t,
                                                               const int32_t *bad)
{
    __shared__ struct smem sm;
    __shared__ struct bins bins;
    struct part *p = t.part + blockIdx.y;
    float max;

    next_may_start();
    wait_for_others();
    if (bad[blockIdx.y] != SAMPLE_OK)
        return;
    struct sample_row r = rows[blockIdx.y];
    struct slice in = slice_of(r.vocab, blockIdx.x, gridDim.x);
    enum way way = way_of(&r);

    if (r.lp != NULL) {
        const float *raw = t.raw + (size_t) blockIdx.y * (size_t) r.vocab;
        double sum = 0;

        max = logit_of(first_of(p->top[0], gridDim.x, SAMPLE_TOP_MAX));
        for (int i = in.lo + threadIdx.x; i < in.hi; i += THREADS)
            sum += (double) expf(raw[i] - max);
        sum = block_all(sum, sm.sum, plus());
        if (threadIdx.x == 0)
            p->sum[blockIdx.x] = sum;
    }

    max = logit_of(first_of(p->best, gridDim.x, 1));
    if (way == GREEDY || way == SLOWLY || max == -INFINITY)
        return;
    if (way == BY_ID) {
        uint64_t sum = 0;

        for (int i = in.lo + threadIdx.x; i < in.hi; i += THREADS)
            sum += weight_of(&r, r.logits[i], max, r.min_p);
        sum = block_all(sum, sm.part, plus());
        if (threadIdx.x == 0)
            p->weight[blockIdx.x] = sum;
        return;
    }
    put_bins(&bins, &r, &in, max, way == BY_WEIGHT, p->bin);
}

/* The bin up to which there are as many ids, or as much weight, as may be drawn. */
__device__ static int last_bin(struct smem *sm, const struct sample_row *r, const uint64_t *bin,
                               bool by_weight)
{
    uint64_t v[BINS / THREADS], sum = 0, all, before, want;

    for (int i = 0; i < BINS / THREADS; i++)
        sum += v[i] = bin[threadIdx.x * (BINS / THREADS) + i];
    before = block_before(sum, sm->part);
    all = block_all(sum, sm->part, plus());
    want = by_weight ? share_of(r, all) : (uint64_t) r->top_k;
    want = least()(want, all);
    for (int i = 0; i < BINS / THREADS; i++) {
        if (before < want && before + v[i] >= want)
            sm->found = threadIdx.x * (BINS / THREADS) + i;
        before += v[i];
    }
    __syncthreads();
    return sm->found;
}

static __global__ void __launch_bounds__(THREADS) list_kernel(const struct sample_row *rows,
                                                              struct scratch t,
                                                              const int32_t *bad)
{
    __shared__ struct smem sm;
    struct part *p = t.part + blockIdx.y;

    next_may_start();
    wait_for_others();
    if (bad[blockIdx.y] != SAMPLE_OK)
        return;
    struct sample_row r = rows[blockIdx.y];
    struct slice in = slice_of(r.vocab, blockIdx.x, gridDim.x);
    enum way way = way_of(&r);
    float max = logit_of(first_of(p->best, gridDim.x, 1));
    int last;

    if ((way != BY_COUNT && way != BY_WEIGHT) || max == -INFINITY)
        return;
    last = last_bin(&sm, &r, p->bin, way == BY_WEIGHT);
#pragma unroll 4
    for (int i = in.lo + threadIdx.x; i < in.hi; i += THREADS) {
        float x = r.logits[i];

        if (x > -INFINITY && bin_of(max, x) <= last) {
            int at = atomicAdd(&p->n_list, 1);

            if (at < LIST)
                p->list[at] = entry_of(x, i);
        }
    }
}

/* --- the draw --- */

struct desk {
    struct smem sm;
    uint64_t    list[LIST];                /* entries */
    uint64_t    sum[LIST];                 /* of the weights up to here */
};

__device__ static void sum_list(struct desk *d, const struct sample_row *r, float max, float min_p,
                                int n)
{
    enum { EACH = LIST / THREADS };
    uint64_t v[EACH], sum = 0;

    for (int j = 0; j < EACH; j++) {
        int i = threadIdx.x * EACH + j;

        v[j] = i < n ? weight_of(r, logit_of(d->list[i]), max, min_p) : 0;
        sum += v[j];
    }
    sum = block_before(sum, d->sm.part);
    for (int j = 0; j < EACH; j++)
        d->sum[threadIdx.x * EACH + j] = sum += v[j];
    __syncthreads();
}

/* The first of n sums that reaches want. */
__device__ static int reach_in_list(struct desk *d, int n, uint64_t want)
{
    int at;

    for (int i = threadIdx.x; i < n; i += THREADS)
        if (d->sum[i] >= want && (i == 0 || d->sum[i - 1] < want))
            d->sm.found = i;
    __syncthreads();
    at = d->sm.found;
    __syncthreads();
    return at;
}

__device__ static int draw_listed(struct desk *d, const struct sample_row *r, const struct part *p,
                                  float max)
{
    int n = p->n_list;
    uint64_t all = 0;

    for (int i = threadIdx.x; i < n; i += THREADS)
        d->list[i] = p->list[i];
    sort_list(d->list, n);
    if (r->top_k > 0 && r->top_k < n)
        n = r->top_k;
    sum_list(d, r, max, 0, n);

    if (r->top_p < 1) {
        for (int i = threadIdx.x; i < BINS; i += THREADS)
            all += p->bin[i];
        all = block_all(all, d->sm.part, plus());
        n = 1 + reach_in_list(d, n, share_of(r, way_of(r) == BY_WEIGHT ? all : d->sum[n - 1]));
    }
    if (r->min_p > 0)
        sum_list(d, r, max, r->min_p, n);
    return id_of(d->list[reach_in_list(d, n, drawn_of(r, d->sum[n - 1]))]);
}

/* The slices' weights say where. */
__device__ static int draw_by_id(struct smem *sm, const struct sample_row *a, const struct part *p,
                                 int n_slice, uint64_t *weight, float max)
{
    uint64_t all = 0, want;
    struct slice in;
    int s = 0;

    for (int i = 0; i < n_slice; i++)
        all += p->weight[i];
    want = drawn_of(a, all);
    while (s < n_slice - 1 && p->weight[s] < want)
        want -= p->weight[s++];

    in = slice_of(a->vocab, s, n_slice);
    for (int i = in.lo + threadIdx.x; i < in.hi; i += THREADS)
        weight[i] = weight_of(a, a->logits[i], max, a->min_p);
    __syncthreads();
    struct row r = { sm, a->logits + in.lo, weight + in.lo, in.hi - in.lo, { 0, 0x7fffffff } };
    return in.lo + reach_by_id(&r, 0, true, want);
}

/* In every thread; -1: every id is banned. */
__device__ static int choose(struct desk *d, const struct sample_row *r, const struct part *p,
                             int n_slice, uint64_t *weight)
{
    uint64_t best = first_of(p->best, n_slice, 1);
    float max = logit_of(best);
    enum way way = way_of(r);

    if (r->steer != NULL && ((const struct steer_head *) r->steer)->force >= 0)
        return ((const struct steer_head *) r->steer)->force;
    if (max == -INFINITY)
        return r->none;
    if (way == GREEDY)
        return id_of(best);
    if (way == BY_ID)
        return draw_by_id(&d->sm, r, p, n_slice, weight, max);
    if (way == SLOWLY || p->n_list > LIST)
        return draw_slowly(&d->sm, r, weight, max);
    return draw_listed(d, r, p, max);
}

/* Of the target and of the first; the target's rank is 1 + what rank_kernel adds. */
__device__ static void put_logprobs(struct desk *d, const struct sample_row *r,
                                    const struct part *p, int n_slice, float target)
{
    float max = logit_of(first_of(p->top[0], n_slice, SAMPLE_TOP_MAX));
    double log_sum = 0;

    for (int i = 0; i < n_slice; i++)
        log_sum += p->sum[i];
    log_sum = log(log_sum);
    if (threadIdx.x == 0) {
        r->lp_id[0] = 1;
        r->lp[0] = (float) ((double) (target - max) - log_sum);
    }
    if (r->n_top == 0)
        return;

    for (int i = threadIdx.x; i < n_slice * r->n_top; i += THREADS)
        d->list[i] = p->top[i / r->n_top][i % r->n_top];
    sort_list(d->list, n_slice * r->n_top);
    for (int i = threadIdx.x; i < r->n_top; i += THREADS) {
        r->lp_id[1 + i] = id_of(d->list[i]);
        r->lp[1 + i] = (float) ((double) (logit_of(d->list[i]) - max) - log_sum);
    }
}

__device__ static inline int target_of(const struct sample_row *r)
{
    return r->target >= 0 ? r->target : *r->tok;
}

static __global__ void __launch_bounds__(THREADS) draw_kernel(const struct sample_row *rows,
                                                              struct scratch t, int n_slice,
                                                              int32_t *bad)
{
    __shared__ struct desk desk;
    int id;

    next_may_start();
    wait_for_others();
    if (bad[blockIdx.x] != SAMPLE_OK)
        return;
    struct sample_row r = rows[blockIdx.x];
    size_t at = (size_t) blockIdx.x * (size_t) r.vocab;

    __syncthreads();                       /* all have read it */
    id = choose(&desk, &r, t.part + blockIdx.x, n_slice, t.weight + at);
    if (id < 0) {
        if (threadIdx.x == 0)
            bad[blockIdx.x] = SAMPLE_ALL_BANNED;
        return;
    }
    if (threadIdx.x == 0)
        *r.tok = id;
    __syncthreads();
    if (r.lp != NULL)
        put_logprobs(&desk, &r, t.part + blockIdx.x, n_slice, t.raw[at + target_of(&r)]);
}

static __global__ void __launch_bounds__(THREADS) rank_kernel(const struct sample_row *rows,
                                                              struct scratch t,
                                                              const int32_t *bad)
{
    __shared__ struct smem sm;
    uint64_t n = 0;

    next_may_start();
    wait_for_others();
    struct sample_row r = rows[blockIdx.y];
    if (bad[blockIdx.y] != SAMPLE_OK || r.lp == NULL)
        return;
    struct slice in = slice_of(r.vocab, blockIdx.x, gridDim.x);
    const float *raw = t.raw + (size_t) blockIdx.y * (size_t) r.vocab;
    float x = raw[target_of(&r)];

    for (int i = in.lo + threadIdx.x; i < in.hi; i += THREADS)
        n += raw[i] > x;
    n = block_all(n, sm.part, plus());
    if (threadIdx.x == 0 && n > 0)
        atomicAdd(&r.lp_id[0], (int) n);
}

/* --- the launches --- */

/* A wave of blocks; few rows are cut finer. */
static dim3 grid_of(int32_t n_row)
{
    unsigned n = 512 / (unsigned) n_row;

    return dim3(n < 8 ? 8 : n < SLICES ? n : SLICES, (unsigned) n_row);
}

static struct scratch scratch_of(void *p, int32_t n_row, int32_t vocab)
{
    struct scratch t;

    t.part = (struct part *) p;
    t.weight = (uint64_t *) (t.part + n_row);
    t.raw = (float *) (t.weight + (size_t) n_row * (size_t) vocab);
    return t;
}

size_t sample_cuda_scratch(int32_t n_row, int32_t vocab)
{
    return (size_t) n_row * (sizeof(struct part)
                             + (size_t) vocab * (sizeof(uint64_t) + sizeof(float)));
}

void sample_cap_cuda(const struct sample_row *rows, int32_t n_row, int32_t vocab, void *scratch,
                     gpu_stream s)
{
    cap_kernel<<<grid_of(n_row), THREADS, 0, s>>>(rows, scratch_of(scratch, n_row, vocab));
}

void sample_draw_cuda(const struct sample_row *rows, int32_t n_row, int32_t vocab, int32_t *bad,
                      void *scratch, gpu_stream s)
{
    struct scratch t = scratch_of(scratch, n_row, vocab);
    dim3 grid = grid_of(n_row);

    bend_kernel<<<grid, THREADS, 0, s>>>(rows, t, bad);        /* copies may be ahead of it */
    launch_early(count_kernel, grid, THREADS, 0, s, rows, t, bad);
    launch_early(list_kernel, grid, THREADS, 0, s, rows, t, bad);
    launch_early(draw_kernel, (unsigned) n_row, THREADS, 0, s, rows, t, (int) grid.x, bad);
    launch_early(rank_kernel, grid, THREADS, 0, s, rows, t, bad);
}
