/* moe.cu - routing, grouping by expert on the device, the experts' two products, their sum.
 *
 * Nothing here waits for the host: as many blocks are launched as the worst routing needs, and
 * those without a tile leave at once. */
#include "gemm.cuh"
#include "moe.cuh"

/* One warp a token. The next best is the best of those after the last one in the order of logits,
 * lower ids first, so nobody keeps a list of who is taken. */
static __global__ void route_kernel(struct moe_route a)
{
    int t = (int) ((blockIdx.x * blockDim.x + threadIdx.x) / 32), lane = threadIdx.x % 32;
    const float *z = a.z + (int64_t) t * a.n_expert;
    int32_t *idx = a.idx + (int64_t) t * a.top_k;
    float *w = a.w + (int64_t) t * a.top_k, last = INFINITY, top = 0, sum = 0;
    int last_id = -1;

    if (t >= a.n_tok)
        return;
    for (int j = 0; j < a.top_k; j++) {
        float best = -INFINITY;
        int id = a.n_expert;

        for (int e = lane; e < a.n_expert; e += 32) {
            bool left = z[e] < last || (z[e] == last && e > last_id);

            if (left && (z[e] > best || (z[e] == best && e < id))) {
                best = z[e];
                id = e;
            }
        }
        for (int o = 16; o > 0; o /= 2) {
            float v = __shfl_xor_sync(WARP_ALL, best, o);
            int e = __shfl_xor_sync(WARP_ALL, id, o);

            if (v > best || (v == best && e < id)) {
                best = v;
                id = e;
            }
        }
        if (id == a.n_expert)              /* not a number: the sampler will say so */
            id = j;
        last = best;
        last_id = id;
        top = j == 0 ? best : top;
        sum += expf(best - top);
        if (lane == 0) {
            idx[j] = id;
            w[j] = expf(best - top);
        }
    }
    __syncwarp();
    for (int j = lane; j < a.top_k; j += 32)
        w[j] = w[j] / sum * a.scale[idx[j]];
}

static __global__ void __launch_bounds__(MOE_EXPERT_MAX) group_kernel(struct moe_work w)
{
    __shared__ struct group_smem sm;

    next_may_start();
    wait_for_others();
    group_pairs(&sm, w);
}

/* Scattered words, so they take more than one SM. */
static __global__ void order_kernel(struct moe_work w)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;

    next_may_start();
    wait_for_others();
    if (i < w.m.n_tok * w.m.top_k)
        place_pair(w, i);
}

/* rows outputs of each expert. Pair p reads row p / div of x and writes row p of y. */
struct product { const bf16 *w, *x; float *y; int32_t rows, cols, div; };

static __global__ void __launch_bounds__(GEMM_THREADS) tile_kernel(struct moe_work w,
                                                                   struct product p)
{
    __shared__ __align__(16) struct tile_smem sm;
    __shared__ int pair[TILE_TOK];
    int out = blockIdx.x * TILE_OUT, e, first, n;
    struct tile t;

    if ((int) blockIdx.y >= *w.n_tile)
        return;
    e = w.tile[blockIdx.y].expert;
    first = w.tile[blockIdx.y].first;
    n = w.tile[blockIdx.y].n;
    if ((int) threadIdx.x < n)
        pair[threadIdx.x] = w.m.order[first + threadIdx.x];
    __syncthreads();

    t.w = p.w + ((int64_t) e * p.rows + out) * p.cols;
    t.n_out = p.rows - out < TILE_OUT ? p.rows - out : TILE_OUT;
    t.n_tok = n;
    t.cols = p.cols;
    gemm_tile(&sm, &t,
              [&](int i) { return p.x + (int64_t) (pair[i] / p.div) * p.cols; },
              [&](int i, int o, float v) { p.y[(int64_t) pair[i] * p.rows + out + o] = v; });
}

/* Any row length: one warp an output, for shapes whose rows are not whole 16 bytes. */
static __global__ void plain_kernel(struct moe_work w, struct product p)
{
    int o = blockIdx.y * 8 + threadIdx.x / 32, lane = threadIdx.x % 32, pair = blockIdx.x;
    const bf16 *row = p.w + ((int64_t) w.m.idx[pair] * p.rows + o) * p.cols;
    int64_t x = (int64_t) (pair / p.div) * p.cols;
    float sum = 0;

    if (o >= p.rows)
        return;
    for (int k = lane; k < p.cols; k += 32)
        sum += __bfloat162float(row[k]) * __bfloat162float(p.x[x + k]);
    sum = warp_sum(sum);
    if (lane == 0)
        p.y[(int64_t) pair * p.rows + o] = sum;
}

static void product(const struct moe_work *w, const struct product *p, gpu_stream s)
{
    if (p->cols % 8 != 0) {
        dim3 grid((unsigned) (w->m.n_tok * w->m.top_k), (unsigned) ceil_div(p->rows, 8));

        plain_kernel<<<grid, 256, 0, s>>>(*w, *p);
    } else {
        dim3 grid((unsigned) ceil_div(p->rows, TILE_OUT), (unsigned) w->tile_max);

        tile_kernel<<<grid, GEMM_THREADS, 0, s>>>(*w, *p);
    }
}

static __global__ void act_kernel(struct moe_work w)
{
    int64_t p = blockIdx.x;
    const float *gu = w.m.gu + p * 2 * w.m.ffn;

    for (int i = threadIdx.x; i < w.m.ffn; i += blockDim.x)
        w.act[p * w.m.ffn + i] = __float2bfloat16(gelu_mul(gu[i], gu[w.m.ffn + i]));
}

static __global__ void sum_kernel(struct moe m)
{
    int64_t t = blockIdx.y;
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float sum = 0;

    next_may_start();
    wait_for_others();
    if (i >= m.hidden)
        return;
    for (int j = 0; j < m.top_k; j++)
        sum += m.w[t * m.top_k + j] * m.out[(t * m.top_k + j) * m.hidden + i];
    m.y[t * m.hidden + i] = sum;
}

void moe_sum_cuda(const struct moe *m, gpu_stream s)
{
    dim3 grid((unsigned) ceil_div(m->hidden, 256), (unsigned) m->n_tok);

    launch_early(sum_kernel, grid, 256, 0, s, *m);
}

static size_t align256(size_t n)
{
    return (n + 255) / 256 * 256;
}

/* p NULL: only counts. Outputs of the hopper path are bf16. */
static size_t lay_out(struct moe_work *w, void *p, bool hopper)
{
    size_t pairs = (size_t) w->m.n_tok * (size_t) w->m.top_k, n = 0;
    size_t tiles = (size_t) w->m.n_expert + pairs / SKINNY_TOK;
    size_t out = hopper && w->m.n_tok > MOE_SKINNY_TOK ? sizeof(bf16) : sizeof(float);
    char *c = (char *) p;
    struct { void **p; size_t bytes; } part[] = {
        { (void **) &w->m.order, pairs * 4 },
        { (void **) &w->rank, pairs * 4 },
        { (void **) &w->m.start, (size_t) w->m.n_expert * 4 },
        { (void **) &w->tile, tiles * sizeof(*w->tile) },
        { (void **) &w->n_tile, 4 },            { (void **) &w->n_taken, 2 * 4 },
        { (void **) &w->m.gu, hopper ? 0 : pairs * 2 * (size_t) w->m.ffn * sizeof(float) },
        { (void **) &w->act, pairs * (size_t) w->m.ffn * sizeof(bf16) },
        { (void **) &w->m.out, pairs * (size_t) w->m.hidden * out },
    };

    for (size_t i = 0; i < sizeof(part) / sizeof(part[0]); i++) {
        if (p != NULL)
            *part[i].p = c + n;
        n += align256(part[i].bytes);
    }
    return n;
}

static int32_t part_tok(const struct moe *a, bool hopper)
{
    int32_t most = hopper ? MOE_CUDA_TOK : MOE_BASE_TOK;

    return a->n_tok < most ? a->n_tok : most;
}

size_t moe_cuda_scratch(const struct moe *a)
{
    size_t most = 0;

    for (int hopper = 0; hopper < 2; hopper++) {
        struct moe_work w = {};
        size_t n;

        w.m = *a;
        w.m.n_tok = part_tok(a, hopper != 0);
        n = lay_out(&w, NULL, hopper != 0);
        most = n > most ? n : most;
    }
    return most;
}

static void base_path(const struct moe_work *w, gpu_stream s)
{
    const struct moe *m = &w->m;
    struct product up, down;

    up.w = (const bf16 *) m->gate_up.p;
    up.x = (const bf16 *) m->x;
    up.y = m->gu;
    up.rows = 2 * m->ffn;
    up.cols = m->hidden;
    up.div = m->top_k;
    down.w = (const bf16 *) m->down.p;
    down.x = w->act;
    down.y = m->out;
    down.rows = m->hidden;
    down.cols = m->ffn;
    down.div = 1;

    product(w, &up, s);
    act_kernel<<<(unsigned) (m->n_tok * m->top_k), 256, 0, s>>>(*w);
    product(w, &down, s);
    moe_sum_cuda(m, s);
}

static bool has_hopper(const struct moe *a, const struct hopper *h)
{
    return h->n_sm > 0 && a->hidden % 8 == 0 && a->ffn % 8 == 0;
}

/* Everything of w. true: moe_skinny.cu does it. */
static bool lay_work(struct moe_work *w, const struct moe *a, const struct hopper *h,
                     void *scratch, size_t smem_max)
{
    int32_t pairs = a->n_tok * a->top_k;
    bool hopper = has_hopper(a, h);

    w->m = *a;
    lay_out(w, scratch, hopper);
    w->pair = hopper && h->room[2] > 0 && pairs > a->n_expert * MOE_HOPPER_TOK;
    w->tile_tok = w->pair ? 2 * MOE_HOPPER_TOK : hopper ? MOE_HOPPER_TOK : TILE_TOK;
    w->tile_step = hopper ? MOE_HOPPER_STEP : 1;
    w->tile_max = pairs < a->n_expert ? pairs : a->n_expert + pairs / w->tile_tok;
    return moe_is_skinny(a, hopper, smem_max);
}

static void group(const struct moe_work *w, gpu_stream s)
{
    dim3 blocks((unsigned) ceil_div((int64_t) w->m.n_tok * w->m.top_k, 256));

    launch_early(group_kernel, dim3(1), MOE_EXPERT_MAX, 0, s, *w);
    launch_early(order_kernel, blocks, 256, 0, s, *w);
}

void moe_route_cuda(const struct moe *a, const struct hopper *h, void *scratch, size_t smem_max,
                    gpu_stream s)
{
    struct moe_work w = {};

    if (lay_work(&w, a, h, scratch, smem_max)) {
        moe_skinny_route(&w, s);
        return;
    }
    route_kernel<<<(unsigned) ceil_div(a->n_tok, 4), 128, 0, s>>>(moe_route_of(a));
    if (a->n_tok == part_tok(a, has_hopper(a, h)))
        group(&w, s);
}

/* a is routed; grouped: and grouped. */
static void multiply(const struct moe *a, const struct hopper *h, void *scratch, size_t smem_max,
                     bool grouped, gpu_stream s)
{
    struct moe_work w = {};
    bool skinny = lay_work(&w, a, h, scratch, smem_max);

    if (!grouped && skinny)
        moe_skinny_route(&w, s);           /* routes once more: the end of a long step */
    else if (!grouped)
        group(&w, s);
    if (skinny)
        moe_skinny(&w, s);
    else if (has_hopper(a, h))
        moe_hopper(&w, h, s);
    else
        base_path(&w, s);
}

void moe_cuda(const struct moe *a, const struct hopper *h, void *scratch, size_t smem_max,
              gpu_stream s)
{
    int32_t most = part_tok(a, has_hopper(a, h));

    for (int32_t t = 0; t < a->n_tok; t += most) {
        struct moe part = moe_slice(a, t, a->n_tok - t < most ? a->n_tok - t : most, sizeof(bf16));

        multiply(&part, h, scratch, smem_max, most == a->n_tok, s);
    }
}
