/* attn_decode.cu - attention of one token a sequence: norm and turn of q and k, the store of k and
 * v, and the context in parts, each a block, whose results merge_kernel adds up.
 *
 * Old keys wait for no other kernel, so they are on their way before this one may read q. Bound by
 * the reading of K and V. */
#include "cuda.h"
#include "dev.cuh"

#define WARPS     8
#define THREADS   (WARPS * 32)
#define ROWS_MAX  16                       /* query heads of a kv head */
#define PART_FEW  66                       /* parts of a context, at most; */
#define PART_MAX  258                      /* of a step of up to FEW_TOK tokens */
#define FEW_TOK   8
#define PART_LANES ((PART_MAX + 31) / 32)
#define MERGE_COLS  128                    /* of a block that adds parts up: 4 a lane */
#define MERGE_WARPS 8
#define BLOCKS    4096                     /* of a launch, at most if that can be */

struct args {
    struct attn_layer a;
    int               group;               /* query heads of a kv head */
    int               len, z;              /* keys of a part, parts in the scratch */
    float            *acc, *max, *sum;     /* [n_tok, n_head, z, head_dim], [n_tok, n_head, z] */
};

/* Part i of a context has the keys (base + i) * len and on. */
struct parts { int first, base, n; };

__device__ static inline struct parts parts_of(int pos, int window, int len)
{
    int first = window > 0 && pos >= window ? pos - window + 1 : 0;

    return { first, first / len, pos / len - first / len + 1 };
}

/* What a block looks at: keys first .. end-1 of a sequence. */
struct span { int seq, pos, h_kv, first, end; };

/* Where in shared memory a row's element i lies. Rows are dense; pieces of 16 bytes change places
 * with the row, so that those who read one column of many rows meet no bank twice. */
__device__ static inline int place(int row, int i, int dim)
{
    int pieces = dim / 8, turn = pieces & -pieces;

    return row * dim + ((i / 8) ^ (row & ((turn < 8 ? turn : 8) - 1))) * 8 + i % 8;
}

/* Where in the pages the keys from k0 on lie, or -1: a warp has neighbouring ones, of which lane i
 * looks up the i'th. */
template <int keys>
__device__ static inline int find_slots(const struct args *g, const struct span *b, int k0)
{
    const int rows = keys / WARPS;
    const struct kv_layer *kv = &g->a.attn.kv;
    const int32_t *table = g->a.attn.map.page + (int64_t) b->seq * g->a.attn.map.page_max;
    int key = k0 + (int) threadIdx.x / 32 * rows + (int) threadIdx.x % rows;

    return key >= b->first && key < b->end
           ? table[key / kv->page_tok] * kv->page_tok + key % kv->page_tok : -1;
}

/* Keys or values from k0 on to shared memory; not the newest one, if nobody has stored it yet. */
template <int keys>
__device__ static void load(bf16 *to, const void *pages, const struct args *g,
                            const struct span *b, int dim, int k0, int slot, bool newest)
{
    const int rows = keys / WARPS;
    const struct kv_layer *kv = &g->a.attn.kv;
    int lane = threadIdx.x % 32, row = threadIdx.x / 32 * rows;

    #pragma unroll
    for (int i = 0; i < rows; i++) {
        int at = __shfl_sync(WARP_ALL, slot, i);
        const bf16 *p = (const bf16 *) pages + ((int64_t) (at < 0 ? 0 : at) * kv->n_kv + b->h_kv)
                                               * dim;

        if (k0 + row + i == b->pos && !newest)
            continue;
        for (int c = lane * 8; c < dim; c += 256)
            copy_async(to + place(row + i, c, dim), p + c, at >= 0);
    }
}

/* One warp: y = turn(w * x / rms(x)) as bf16, to a row in shared memory and to a page. Lane l has
 * the pairs (i, i + dim/2), i = l, l + 32, ... */
template <int pairs>
__device__ static void bring_head(bf16 *to, int row, bf16 *page, const float *x, const float *w,
                                  const float *cs, const struct norm_rope *r, int dim)
{
    int lane = threadIdx.x % 32, half = dim / 2;
    float lo[pairs], hi[pairs], sum = 0, inv;

    #pragma unroll
    for (int j = 0; j < pairs; j++) {
        int i = lane + 32 * j;

        lo[j] = i < half ? x[i] : 0;
        hi[j] = i < half ? x[i + half] : 0;
        sum += lo[j] * lo[j] + hi[j] * hi[j];
    }
    inv = 1.0f / sqrtf(warp_sum(sum) / (float) dim + r->eps);
    #pragma unroll
    for (int j = 0; j < pairs; j++) {
        int i = lane + 32 * j;
        float u, v;

        if (i >= half)
            break;
        u = lo[j] * inv * (w != NULL ? w[i] : 1);
        v = hi[j] * inv * (w != NULL ? w[i + half] : 1);
        if (cs != NULL && i < r->n_rot) {
            float c = cs[i], s = cs[r->n_rot + i], turned = u * c - v * s;

            v = v * c + u * s;
            u = turned;
        }
        if (to != NULL) {
            to[place(row, i, dim)] = __float2bfloat16(u);
            to[place(row, i + half, dim)] = __float2bfloat16(v);
        }
        if (page != NULL) {
            page[i] = __float2bfloat16(u);
            page[i + half] = __float2bfloat16(v);
        }
    }
}

/* The heads of q to shared memory; the newest k and v to their page, and to this row of k and v
 * here if these are not NULL. */
template <int pairs>
__device__ static void bring_heads(bf16 *q, bf16 *k, bf16 *v, int row, int dim,
                                   const struct args *g, const struct span *b)
{
    const struct norm_rope *r = &g->a.rope;
    const struct kv_store *st = &g->a.store;
    const struct kv_layer *kv = &g->a.attn.kv;
    int t = blockIdx.x;
    int n = g->group + (st->k != NULL && b->pos < b->end ? 2 : 0);
    const float *cs = r->cs + (int64_t) t * 2 * r->n_rot;
    int64_t head = (int64_t) t * kv->n_kv + b->h_kv, slot;

    slot = g->a.attn.map.page[(int64_t) b->seq * g->a.attn.map.page_max + b->pos / kv->page_tok];
    slot = ((slot * kv->page_tok + b->pos % kv->page_tok) * kv->n_kv + b->h_kv) * dim;
    for (int i = threadIdx.x / 32; i < n; i += WARPS) {
        if (i < g->group)
            bring_head<pairs>(q, i, NULL, r->q + (head * g->group + i) * dim, r->w, cs,
                              r, dim);
        else if (i == g->group)
            bring_head<pairs>(k, row, (bf16 *) kv->k + slot, st->k + head * dim, st->w, cs, r,
                              dim);
        else
            bring_head<pairs>(v, row, (bf16 *) kv->v + slot, st->v + head * dim, NULL, NULL, r,
                              dim);
    }
}

/* s = q k: a warp has 8 keys at a time. With 8 rows the other half of the products says the same;
 * rows without a head are not numbers that anybody looks at. */
template <int keys, int rows>
__device__ static void scores(float *s, const bf16 *q, const bf16 *k, int dim)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

    for (int n = warp * 8; n < keys; n += WARPS * 8) {
        float c[4] = {0, 0, 0, 0}, *sp = s + lane / 4 * (keys + 4) + n + lane % 4 * 2;
        uint32_t a[4], b[2];

        #pragma unroll 4
        for (int d = 0; d < dim; d += 16) {
            ldmatrix_x4(a, q + place(lane % rows, d + lane / 16 * 8, dim));
            ldmatrix_x2(b, k + place(n + lane % 8, d + lane / 8 % 2 * 8, dim));
            mma_16x8x16(c, a[0], a[1], a[2], a[3], b[0], b[1]);
        }
        *(float2 *) sp = make_float2(c[0], c[1]);
        if (rows > 8)
            *(float2 *) (sp + 8 * (keys + 4)) = make_float2(c[2], c[3]);
    }
}

struct row_state { float max, sum; };

/* As many threads to each row: p = exp(s - max), and how much the sums so far shrink. */
template <int keys, int rows>
__device__ static void softmax(struct row_state *st, const float *s, bf16 *p, float *shrink,
                               const struct span *b, int k0)
{
    const int n = THREADS / rows, each = keys / n;
    int r = threadIdx.x / n, j = threadIdx.x % n * each;
    float v[each], max = st->max, sum = 0, scale;

    #pragma unroll
    for (int i = 0; i < each; i++) {
        int key = k0 + j + i;

        v[i] = key >= b->first && key < b->end ? s[r * (keys + 4) + j + i] : -INFINITY;
        max = fmaxf(max, v[i]);
    }
    for (int o = 1; o < n; o *= 2)
        max = fmaxf(max, __shfl_xor_sync(WARP_ALL, max, o));
    #pragma unroll
    for (int i = 0; i < each; i++) {
        v[i] = __expf(v[i] - max);           /* a part has a visible key: max is a number */
        sum += v[i];
        p[r * (keys + 8) + j + i] = __float2bfloat16(v[i]);
    }
    for (int o = 1; o < n; o *= 2)
        sum += __shfl_xor_sync(WARP_ALL, sum, o);
    scale = __expf(st->max - max);
    st->sum = st->sum * scale + sum;
    st->max = max;
    if (j == 0)
        shrink[r] = scale;
}

/* o += p v: a warp has dim / 8 of the columns, 8 at a time. */
template <int keys, int rows, int n_tiles>
__device__ static void values(float o[n_tiles][4], const bf16 *p, const bf16 *v,
                              const float *shrink, int dim)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float up = shrink[lane / 4], low = shrink[lane / 4 + rows - 8];
    uint32_t a[keys / 16][4], b[4];

    #pragma unroll
    for (int k = 0; k < keys / 16; k++)
        ldmatrix_x4(a[k], p + lane % rows * (keys + 8) + k * 16 + lane / 16 * 8);
    #pragma unroll
    for (int n = 0; n < n_tiles; n++) {
        int col = (warp + n * WARPS) * 8;

        if (col >= dim)
            break;
        o[n][0] *= up;
        o[n][1] *= up;
        o[n][2] *= low;
        o[n][3] *= low;
        #pragma unroll
        for (int k = 0; k < keys / 16; k += 2) {
            ldmatrix_x4_trans(b, v + place(k * 16 + lane, col, dim));
            mma_16x8x16(o[n], a[k][0], a[k][1], a[k][2], a[k][3], b[0], b[1]);
            mma_16x8x16(o[n], a[k + 1][0], a[k + 1][1], a[k + 1][2], a[k + 1][3], b[2], b[3]);
        }
    }
}

/* A part's rows to its place in the scratch. */
template <int rows, int n_tiles>
__device__ static void write_part(const float o[n_tiles][4], const struct row_state *st,
                                  const struct args *g, const struct span *b)
{
    const int n = THREADS / rows;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, dim = g->a.attn.kv.head_dim;
    int64_t head = ((int64_t) blockIdx.x * g->a.attn.kv.n_kv + b->h_kv) * g->group;

    if (threadIdx.x % n == 0 && (int) threadIdx.x / n < g->group) {
        int64_t i = (head + threadIdx.x / n) * g->z + blockIdx.z;

        g->max[i] = st->max;
        g->sum[i] = st->sum;
    }
    #pragma unroll
    for (int half = 0; half < rows / 8; half++) {
        int r = half * 8 + lane / 4;
        float *to = g->acc + ((head + r) * g->z + blockIdx.z) * dim;

        if (r >= g->group)
            break;
        #pragma unroll
        for (int n = 0; n < n_tiles; n++) {
            int col = (warp + n * WARPS) * 8 + lane % 4 * 2;

            if (col < dim)
                *(float2 *) (to + col) = make_float2(o[n][2 * half], o[n][2 * half + 1]);
        }
    }
}

/* Shared memory: k, v [keys, dim], q [rows, dim], p, s, shrink. */
__host__ __device__ static inline size_t smem_bytes(int keys, int rows, int dim)
{
    return (size_t) (2 * keys + rows) * (size_t) dim * 2 + (size_t) rows * (size_t) (keys + 8) * 2
           + (size_t) rows * (size_t) (keys + 4 + 1) * 4;
}

/* keys: of a step of the loop. dim_max: registers for so many columns; exact: there are so many.
 * blocks: on an SM at once, which takes registers from each. */
template <int keys, int rows, int dim_max, bool exact, int blocks>
static __global__ void __launch_bounds__(THREADS, blocks) attn_kernel(struct args g)
{
    extern __shared__ __align__(16) char smem[];
    const int n_tiles = (dim_max / 8 + WARPS - 1) / WARPS, pairs = (dim_max + 63) / 64;
    const struct kv_layer *kv = &g.a.attn.kv;
    int dim = exact ? dim_max : kv->head_dim, window = g.a.attn.window, k0, lo;
    bf16 *k = (bf16 *) smem, *v = k + keys * dim, *q = v + keys * dim, *p = q + rows * dim;
    float *s = (float *) (p + rows * (keys + 8)), *shrink = s + rows * (keys + 4);
    float o[n_tiles][4] = {};
    struct row_state st = { -INFINITY, 0 };
    struct span b = { g.a.attn.map.seq[blockIdx.x], g.a.attn.map.pos[blockIdx.x], (int) blockIdx.y,
                      0, 0 };
    struct parts part = parts_of(b.pos, window, g.len);
    int slot;
    bool here;

    next_may_start();
    if ((int) blockIdx.z >= part.n)
        return;
    lo = (part.base + (int) blockIdx.z) * g.len;
    b.first = part.first > lo ? part.first : lo;
    b.end = b.pos + 1 < lo + g.len ? b.pos + 1 : lo + g.len;
    k0 = b.first / keys * keys;
    here = b.pos < k0 + keys;
    slot = find_slots<keys>(&g, &b, k0);
    load<keys>(k, kv->k, &g, &b, dim, k0, slot, false);
    copy_commit();
    load<keys>(v, kv->v, &g, &b, dim, k0, slot, false);
    copy_commit();

    wait_for_others();
    bring_heads<pairs>(q, here ? k : NULL, here ? v : NULL, b.pos - k0, dim, &g, &b);
    if (here && g.a.store.k == NULL) {     /* an earlier kernel has stored the newest */
        load<keys>(k, kv->k, &g, &b, dim, k0, slot, true);
        load<keys>(v, kv->v, &g, &b, dim, k0, slot, true);
        copy_commit();
        copy_wait<0>();
    }
    slot = find_slots<keys>(&g, &b, k0 + keys);

    for (; k0 < b.end; k0 += keys) {
        copy_wait<1>();
        __syncthreads();                   /* the keys are here */
        scores<keys, rows>(s, q, k, dim);
        __syncthreads();                   /* nobody needs them any more */
        if (k0 + keys < b.end)
            load<keys>(k, kv->k, &g, &b, dim, k0 + keys, slot, true);
        copy_commit();
        softmax<keys, rows>(&st, s, p, shrink, &b, k0);
        copy_wait<1>();
        __syncthreads();                   /* p and the values are here */
        values<keys, rows, n_tiles>(o, p, v, shrink, dim);
        __syncthreads();
        if (k0 + keys < b.end)
            load<keys>(v, kv->v, &g, &b, dim, k0 + keys, slot, true);
        copy_commit();
        slot = find_slots<keys>(&g, &b, k0 + 2 * keys);        /* in time for the next turn */
    }
    write_part<rows, n_tiles>(o, &st, &g, &b);
}

/* A block adds up MERGE_COLS columns of a token's head: warp w the parts w, w + warps, ..., then
 * come the warps' sums in their order. */
static __global__ void __launch_bounds__(MERGE_WARPS * 32) merge_kernel(struct args g)
{
    __shared__ float weight[PART_MAX];
    __shared__ float4 sum[MERGE_WARPS][32];
    int dim = g.a.attn.kv.head_dim, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int n = parts_of(g.a.attn.map.pos[blockIdx.x], g.a.attn.window, g.len).n;
    int warps = blockDim.x / 32, c = blockIdx.z * MERGE_COLS + lane * 4;
    int64_t head = (int64_t) blockIdx.x * g.a.attn.n_head + blockIdx.y;
    const float *acc = g.acc + head * g.z * dim + c;
    float max[PART_LANES], top = -INFINITY, all = 0;
    float4 y = {};

    next_may_start();
    wait_for_others();
    #pragma unroll
    for (int i = 0; i < PART_LANES; i++) {
        max[i] = lane + 32 * i < n ? g.max[head * g.z + lane + 32 * i] : -INFINITY;
        top = fmaxf(top, max[i]);
    }
    for (int o = 16; o > 0; o /= 2)
        top = fmaxf(top, __shfl_xor_sync(WARP_ALL, top, o));
    #pragma unroll
    for (int i = 0; i < PART_LANES; i++) {
        float w = expf(max[i] - top);

        if (lane + 32 * i < n) {
            all += w * g.sum[head * g.z + lane + 32 * i];
            if (warp == 0)
                weight[lane + 32 * i] = w;
        }
    }
    all = 1 / warp_sum(all);
    __syncthreads();

    #pragma unroll 8
    for (int i = warp; i < n && c < dim; i += warps) {
        float4 u = *(const float4 *) (acc + (int64_t) i * dim);

        y.x += u.x * weight[i];
        y.y += u.y * weight[i];
        y.z += u.z * weight[i];
        y.w += u.w * weight[i];
    }
    sum[warp][lane] = y;
    __syncthreads();
    if (warp > 0 || c >= dim)
        return;
    for (int w = 1; w < warps; w++) {
        y.x += sum[w][lane].x;
        y.y += sum[w][lane].y;
        y.z += sum[w][lane].z;
        y.w += sum[w][lane].w;
    }
    *(uint2 *) ((bf16 *) g.a.attn.y + head * dim + c) = make_uint2(
        pack_bf16(y.x * all, y.y * all), pack_bf16(y.z * all, y.w * all));
}

/* As many parts as give every SM its work, and no more: each is written and read once more. */
static void choose_parts(struct args *g, int keys)
{
    const struct attn *a = &g->a.attn;
    int n = a->window > 0 && a->ctx > a->window ? a->window : a->ctx;
    int max = a->map.n_tok <= FEW_TOK ? PART_MAX : PART_FEW;

    g->len = keys;
    while (n / g->len + 2 > max || (n / g->len + 2) * a->map.n_tok * a->kv.n_kv > BLOCKS) {
        if (g->len >= n)
            break;
        g->len *= 2;
    }
    g->z = n / g->len + 2;
}

/* Four parts for each warp, so that few of them do not wait for many warps. */
static unsigned merge_warps(int parts)
{
    int n = (parts + 3) / 4;

    return (unsigned) (n < MERGE_WARPS ? n : MERGE_WARPS);
}

template <int keys, int rows, int dim_max, bool exact, int blocks>
static void launch(struct args *g, gpu_stream s)
{
    static size_t allowed;                 /* one thread launches */
    const struct attn *a = &g->a.attn;
    size_t bytes = smem_bytes(keys, rows, a->kv.head_dim);
    unsigned n_tok = (unsigned) a->map.n_tok;
    unsigned cols = (unsigned) ceil_div(a->kv.head_dim, MERGE_COLS);
    int64_t parts;

    choose_parts(g, keys);
    parts = (int64_t) n_tok * a->n_head * g->z;
    g->max = g->acc + parts * a->kv.head_dim;
    g->sum = g->max + parts;
    if (bytes > allowed)
        cudaFuncSetAttribute(attn_kernel<keys, rows, dim_max, exact, blocks>,
                             cudaFuncAttributeMaxDynamicSharedMemorySize, (int) bytes);
    allowed = bytes > allowed ? bytes : allowed;
    launch_early(attn_kernel<keys, rows, dim_max, exact, blocks>,
                 dim3(n_tok, (unsigned) a->kv.n_kv, (unsigned) g->z), THREADS, bytes, s, *g);
    launch_early(merge_kernel, dim3(n_tok, (unsigned) a->n_head, cols), 32 * merge_warps(g->z), 0,
                 s, *g);
}

/* Alone a block is faster with more registers, in a crowd more blocks are. */
template <int keys, int dim_max, bool exact> static void launch_fit(struct args *g, gpu_stream s)
{
    if (g->group > 8)
        launch<keys, 16, dim_max, exact, 2>(g, s);
    else if (g->a.attn.map.n_tok <= FEW_TOK || dim_max > 256)
        launch<keys, 8, dim_max, exact, 2>(g, s);
    else
        launch<keys, 8, dim_max, exact, 3>(g, s);
}

size_t attn_decode_scratch(int32_t n_tok, int32_t n_head, int32_t head_dim)
{
    size_t few = FEW_TOK * PART_MAX, parts = (size_t) n_tok * PART_FEW;

    return (parts > few ? parts : few) * (size_t) n_head * ((size_t) head_dim + 2) * sizeof(float);
}

bool attn_decode_fits(const struct attn_layer *a, size_t smem_max)
{
    const struct attn *t = &a->attn;

    return t->map.n_tok <= ATTN_DECODE_TOK && t->n_head / t->kv.n_kv <= ROWS_MAX
           && smem_bytes(t->kv.head_dim > 256 ? 32 : 64, ROWS_MAX, t->kv.head_dim) <= smem_max;
}

void attn_decode_cuda(const struct attn_layer *a, void *scratch, gpu_stream s)
{
    const struct attn *t = &a->attn;
    struct args g = {};

    g.a = *a;
    g.group = t->n_head / t->kv.n_kv;
    g.acc = (float *) scratch;
    if (t->kv.head_dim == 256)
        launch_fit<64, 256, true>(&g, s);
    else if (t->kv.head_dim == 512)
        launch_fit<32, 512, true>(&g, s);
    else if (t->kv.head_dim < 256)
        launch_fit<64, 256, false>(&g, s);
    else
        launch_fit<32, 512, false>(&g, s);
}
