/* moe.cu - routing, grouping by expert on the device, the experts' two products, their sum.
 *
 * Nothing here waits for the host: as many blocks are launched as the worst routing needs, and
 * those without a tile leave at once. */
#include "cuda.h"
#include "gemm.cuh"

#define EXPERT_MAX 1024

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

void moe_route_cuda(const struct moe_route *a, gpu_stream s)
{
    route_kernel<<<(unsigned) ceil_div(a->n_tok, 4), 128, 0, s>>>(*a);
}

/* What one call of the experts works on; all but m lies in the scratch. */
struct work {
    struct moe m;
    int32_t   *n_tile;
    int32_t   *expert, *first;     /* [n_tile] of each tile: its expert, its first place in order */
    bf16      *xb;                 /* [n_tok, hidden] */
    float     *act;                /* [n_tok * top_k, ffn], bf16 if many */
    int32_t    tile_max, tile_tok;
    bool       many;               /* tiles of TILE_TOK tokens instead of SKINNY_TOK */
};

/* Sum of v over threads 0 .. this one; tmp: 32 ints. */
__device__ static inline int scan(int v, int *tmp)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n;

    for (int o = 1; o < 32; o *= 2) {
        n = __shfl_up_sync(WARP_ALL, v, o);
        v += lane >= o ? n : 0;
    }
    if (lane == 31)
        tmp[warp] = v;
    __syncthreads();
    if (warp == 0) {
        int w = lane < (int) blockDim.x / 32 ? tmp[lane] : 0;

        for (int o = 1; o < 32; o *= 2) {
            n = __shfl_up_sync(WARP_ALL, w, o);
            w += lane >= o ? n : 0;
        }
        tmp[lane] = w;
    }
    __syncthreads();
    v += warp > 0 ? tmp[warp - 1] : 0;
    __syncthreads();
    return v;
}

/* One block of EXPERT_MAX threads, thread e for expert e. The order within an expert is left to
 * chance: each pair is computed for itself. */
static __global__ void __launch_bounds__(EXPERT_MAX) group_kernel(struct work w)
{
    __shared__ int count[EXPERT_MAX], at[EXPERT_MAX], tmp[32];
    int e = threadIdx.x, n = w.m.n_tok * w.m.top_k, end, tiles, tile;

    count[e] = 0;
    __syncthreads();
    for (int i = e; i < n; i += EXPERT_MAX)
        atomicAdd(&count[w.m.idx[i]], 1);
    __syncthreads();

    end = scan(count[e], tmp);
    at[e] = end - count[e];
    if (e < w.m.n_expert)
        w.m.start[e + 1] = end;
    if (e == 0)
        w.m.start[0] = 0;

    tiles = (count[e] + w.tile_tok - 1) / w.tile_tok;
    tile = scan(tiles, tmp) - tiles;
    for (int i = 0; i < tiles; i++) {
        w.expert[tile + i] = e;
        w.first[tile + i] = at[e] + i * w.tile_tok;
    }
    if (e == EXPERT_MAX - 1)
        *w.n_tile = tile + tiles;
    __syncthreads();

    for (int i = e; i < n; i += EXPERT_MAX)
        w.m.order[atomicAdd(&at[w.m.idx[i]], 1)] = i;
}

/* rows outputs of each expert. Pair p reads row p / div of x and writes row p of y. */
struct product { const bf16 *w; const void *x; float *y; int32_t rows, cols, div; };

static __global__ void __launch_bounds__(GEMM_THREADS) skinny_kernel(struct work w,
                                                                     struct product p)
{
    __shared__ struct skinny_smem sm;
    int out = blockIdx.x * SKINNY_OUT, g = threadIdx.x % 32 / 4, r = threadIdx.x / SKINNY_OUT;
    int o = out + threadIdx.x % SKINNY_OUT, e, first, n;
    const float *x = NULL;
    float sum;

    if ((int) blockIdx.y >= *w.n_tile)
        return;
    e = w.expert[blockIdx.y];
    first = w.first[blockIdx.y];
    n = w.m.start[e + 1] - first;
    n = n < SKINNY_TOK ? n : SKINNY_TOK;
    if (g < n)
        x = (const float *) p.x + (int64_t) (w.m.order[first + g] / p.div) * p.cols;
    sum = gemm_skinny(&sm, p.w + ((int64_t) e * p.rows + out) * p.cols,
                      p.rows - out < SKINNY_OUT ? p.rows - out : SKINNY_OUT, p.cols, x);
    if (r < n && o < p.rows)
        p.y[(int64_t) w.m.order[first + r] * p.rows + o] = sum;
}

static __global__ void __launch_bounds__(GEMM_THREADS) tile_kernel(struct work w, struct product p)
{
    __shared__ __align__(16) struct tile_smem sm;
    __shared__ int pair[TILE_TOK];
    int out = blockIdx.x * TILE_OUT, e, first, n;
    struct tile t;

    if ((int) blockIdx.y >= *w.n_tile)
        return;
    e = w.expert[blockIdx.y];
    first = w.first[blockIdx.y];
    n = w.m.start[e + 1] - first;
    n = n < TILE_TOK ? n : TILE_TOK;
    if ((int) threadIdx.x < n)
        pair[threadIdx.x] = w.m.order[first + threadIdx.x];
    __syncthreads();

    t.w = p.w + ((int64_t) e * p.rows + out) * p.cols;
    t.n_out = p.rows - out < TILE_OUT ? p.rows - out : TILE_OUT;
    t.n_tok = n;
    t.cols = p.cols;
    gemm_tile(&sm, &t,
              [&](int i) { return (const bf16 *) p.x + (int64_t) (pair[i] / p.div) * p.cols; },
              [&](int i, int o, float v) { p.y[(int64_t) pair[i] * p.rows + out + o] = v; });
}

/* Any row length: one warp an output, for shapes whose rows are not whole 16 bytes. */
static __global__ void plain_kernel(struct work w, struct product p)
{
    int o = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32, pair = blockIdx.y;
    const bf16 *row = p.w + ((int64_t) w.m.idx[pair] * p.rows + o) * p.cols;
    int64_t x = (int64_t) (pair / p.div) * p.cols;
    float sum = 0;

    if (o >= p.rows)
        return;
    for (int k = lane; k < p.cols; k += 32)
        sum += __bfloat162float(row[k]) * (w.many ? __bfloat162float(((const bf16 *) p.x)[x + k])
                                                  : ((const float *) p.x)[x + k]);
    sum = warp_sum(sum);
    if (lane == 0)
        p.y[(int64_t) pair * p.rows + o] = sum;
}

static void product(const struct work *w, const struct product *p, gpu_stream s)
{
    unsigned tiles = (unsigned) w->tile_max;

    if (p->cols % 8 != 0) {
        dim3 grid((unsigned) ceil_div(p->rows, 8), (unsigned) (w->m.n_tok * w->m.top_k));

        plain_kernel<<<grid, 256, 0, s>>>(*w, *p);
    } else if (w->many) {
        dim3 grid((unsigned) ceil_div(p->rows, TILE_OUT), tiles);

        tile_kernel<<<grid, GEMM_THREADS, 0, s>>>(*w, *p);
    } else {
        dim3 grid((unsigned) ceil_div(p->rows, SKINNY_OUT), tiles);

        skinny_kernel<<<grid, GEMM_THREADS, 0, s>>>(*w, *p);
    }
}

static __global__ void act_kernel(struct work w)
{
    int64_t p = blockIdx.x;
    const float *gu = w.m.gu + p * 2 * w.m.ffn;

    for (int i = threadIdx.x; i < w.m.ffn; i += blockDim.x) {
        float g = gu[i];
        float v = g / (expf(g * (g * g * 0.044715f + 1.0f) * -1.5957691216f) + 1.0f)
                  * gu[w.m.ffn + i];

        if (w.many)
            ((bf16 *) w.act)[p * w.m.ffn + i] = __float2bfloat16(v);
        else
            w.act[p * w.m.ffn + i] = v;
    }
}

static __global__ void sum_kernel(struct moe m)
{
    int64_t t = blockIdx.y;
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float sum = 0;

    if (i >= m.hidden)
        return;
    for (int j = 0; j < m.top_k; j++)
        sum += m.w[t * m.top_k + j] * m.out[(t * m.top_k + j) * m.hidden + i];
    m.y[t * m.hidden + i] = sum;
}

static size_t align256(size_t n)
{
    return (n + 255) / 256 * 256;
}

/* p NULL: only counts. */
static size_t lay_out(struct work *w, void *p)
{
    size_t pairs = (size_t) w->m.n_tok * (size_t) w->m.top_k, n = 0;
    size_t tiles = (size_t) w->m.n_expert + pairs / SKINNY_TOK;
    char *c = (char *) p;
    struct { void **p; size_t bytes; } part[] = {
        { (void **) &w->m.order, pairs * 4 },   { (void **) &w->m.start,
                                                  ((size_t) w->m.n_expert + 1) * 4 },
        { (void **) &w->expert, tiles * 4 },    { (void **) &w->first, tiles * 4 },
        { (void **) &w->n_tile, 4 },
        { (void **) &w->xb, (size_t) w->m.n_tok * (size_t) w->m.hidden * 2 },
        { (void **) &w->m.gu, pairs * 2 * (size_t) w->m.ffn * 4 },
        { (void **) &w->act, pairs * (size_t) w->m.ffn * 4 },
        { (void **) &w->m.out, pairs * (size_t) w->m.hidden * 4 },
    };

    for (size_t i = 0; i < sizeof(part) / sizeof(part[0]); i++) {
        if (p != NULL)
            *part[i].p = c + n;
        n += align256(part[i].bytes);
    }
    return n;
}

size_t moe_cuda_scratch(const struct moe *a)
{
    struct work w = {};

    w.m = *a;
    return lay_out(&w, NULL);
}

/* Few tokens an expert: the weights are read at full speed by 8 tokens at a time. Many: tiles. */
void moe_cuda(const struct moe *a, void *scratch, gpu_stream s)
{
    struct work w = {};
    struct product up, down;
    int32_t pairs = a->n_tok * a->top_k;

    w.m = *a;
    lay_out(&w, scratch);
    w.many = pairs > SKINNY_TOK * a->n_expert;
    w.tile_tok = w.many ? TILE_TOK : SKINNY_TOK;
    w.tile_max = pairs < a->n_expert ? pairs : a->n_expert + pairs / w.tile_tok;

    up.w = (const bf16 *) a->gate_up.p;
    up.x = a->x;
    up.y = w.m.gu;
    up.rows = 2 * a->ffn;
    up.cols = a->hidden;
    up.div = a->top_k;
    down.w = (const bf16 *) a->down.p;
    down.x = w.act;
    down.y = w.m.out;
    down.rows = a->hidden;
    down.cols = a->ffn;
    down.div = 1;

    if (w.many) {
        to_bf16_cuda(w.xb, a->x, (int64_t) a->n_tok * a->hidden, s);
        up.x = w.xb;
    }
    group_kernel<<<1, EXPERT_MAX, 0, s>>>(w);
    product(&w, &up, s);
    act_kernel<<<(unsigned) pairs, 256, 0, s>>>(w);
    product(&w, &down, s);
    sum_kernel<<<dim3((unsigned) ceil_div(a->hidden, 256), (unsigned) a->n_tok), 256, 0, s>>>(w.m);
}
