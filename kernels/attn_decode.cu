/* attn_decode.cu - attention of one token a sequence: norm and turn of q and k, the store of k and
 * v, and the context in parts, each a block, whose results merge_kernel adds up.
 *
 * Old keys wait for no other kernel, so they are on their way before this one may read q. Bound by
 * the reading of K and V.
 *
 * Whole K and V take turns: each is on its way while the other is used. Where K has the turned dims
 * only (pages.h), the scores need V as well: a stage is both, and there are two. */
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
#define WAVES     3                        /* of blocks in a launch, at most if that can be */

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

/* The token whose context is looked at for this block's. */
__device__ static inline int own_token(const struct args *g)
{
    const int32_t *n = g->a.attn.n_own;

    return n != NULL && (int) blockIdx.x >= *n ? *n - 1 : (int) blockIdx.x;
}

/* false: the context has not so many parts, or is another block's too. */
__device__ static inline bool find_span(struct span *b, const struct args *g)
{
    const struct kv_map *m = &g->a.attn.map;
    int pos = m->pos[blockIdx.x], own = own_token(g), lo, hi;
    struct parts part = parts_of(pos, g->a.attn.window, g->len);

    if ((int) blockIdx.z >= part.n || own < (int) blockIdx.x)
        return false;
    lo = (part.base + (int) blockIdx.z) * g->len;
    hi = lo + g->len;
    *b = { m->seq[blockIdx.x], pos, (int) blockIdx.y, part.first > lo ? part.first : lo,
           pos + 1 < hi ? pos + 1 : hi };
    return true;
}

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
__device__ static void load(bf16 *to, int dim, const void *pages, const struct args *g,
                            const struct span *b, int k0, int slot, bool newest)
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

/* Keys and their values but for the newest, as one group of copies or as two. */
template <int keys, bool whole>
__device__ static void load_stage(bf16 *k, int k_dim, int dim, const struct args *g,
                                  const struct span *b, int k0)
{
    int slot = find_slots<keys>(g, b, k0);

    load<keys>(k, k_dim, g->a.attn.kv.k, g, b, k0, slot, false);
    if (whole)
        copy_commit();
    load<keys>(k + keys * k_dim, dim, g->a.attn.kv.v, g, b, k0, slot, false);
    copy_commit();
}

/* The newest key of this head in the pages. */
__device__ static inline int64_t newest_slot(const struct args *g, const struct span *b)
{
    const struct kv_map *m = &g->a.attn.map;
    const struct kv_layer *kv = &g->a.attn.kv;
    int64_t page = m->page[(int64_t) b->seq * m->page_max + b->pos / kv->page_tok];

    return (page * kv->page_tok + b->pos % kv->page_tok) * kv->n_kv + b->h_kv;
}

/* The newest key and value, which an earlier kernel has stored, to this row of k and v. */
__device__ static void load_newest(bf16 *k, bf16 *v, int row, int k_dim, int dim,
                                   const struct args *g, const struct span *b)
{
    int64_t slot = newest_slot(g, b);
    const bf16 *from_k = (const bf16 *) g->a.attn.kv.k + slot * k_dim;
    const bf16 *from_v = (const bf16 *) g->a.attn.kv.v + slot * dim;

    for (int i = threadIdx.x * 8; i < k_dim; i += THREADS * 8)
        *(uint4 *) (k + place(row, i, k_dim)) = *(const uint4 *) (from_k + i);
    for (int i = threadIdx.x * 8; i < dim; i += THREADS * 8)
        *(uint4 *) (v + place(row, i, dim)) = *(const uint4 *) (from_v + i);
}

/* One warp: y = turn(w * x / rms(x)) as bf16, to a row in shared memory and to a page. Lane l has
 * the pairs (i, i + dim/2), i = l, l + 32, ...; those below `kept` are written. */
template <int pairs>
__device__ static void bring_head(bf16 *to, int row, bf16 *page, const float *x, const float *w,
                                  const float *cs, const struct norm_rope *r, int dim, int kept)
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

        if (i >= kept)
            break;
        u = lo[j] * inv * (w != NULL ? w[i] : 1);
        v = hi[j] * inv * (w != NULL ? w[i + half] : 1);
        if (cs != NULL && i < r->n_rot) {
            float c = cs[i], s = cs[r->n_rot + i], turned = u * c - v * s;

            v = v * c + u * s;
            u = turned;
        }
        if (to != NULL) {
            to[place(row, i, 2 * kept)] = __float2bfloat16(u);
            to[place(row, i + kept, 2 * kept)] = __float2bfloat16(v);
        }
        if (page != NULL) {
            page[i] = __float2bfloat16(u);
            page[i + kept] = __float2bfloat16(v);
        }
    }
}

/* The heads of q to shared memory; the newest k and v to their page, and to this row of k and v
 * here if these are not NULL. */
template <int pairs>
__device__ static void bring_heads(bf16 *q, bf16 *k, bf16 *v, int row, int k_dim, int dim,
                                   const struct args *g, const struct span *b)
{
    const struct norm_rope *r = &g->a.rope;
    const struct kv_store *st = &g->a.store;
    const struct kv_layer *kv = &g->a.attn.kv;
    int t = blockIdx.x;
    int n = g->group + (st->k != NULL && b->pos < b->end ? 2 : 0);
    const float *cs = r->cs + (int64_t) t * 2 * r->n_rot;
    int64_t head = (int64_t) t * kv->n_kv + b->h_kv, slot = newest_slot(g, b);

    for (int i = threadIdx.x / 32; i < n; i += WARPS) {
        if (i < g->group)
            bring_head<pairs>(q, i, NULL, r->q + (head * g->group + i) * dim, r->w, cs, r, dim,
                              dim / 2);
        else if (i == g->group)
            bring_head<pairs>(k, row, (bf16 *) kv->k + slot * k_dim, st->k + head * dim, st->w, cs,
                              r, dim, k_dim / 2);
        else
            bring_head<pairs>(v, row, (bf16 *) kv->v + slot * dim, st->v + head * dim, NULL, NULL,
                              r, dim, dim / 2);
    }
}

/* Dims i .. i+7 of a key: where k is not whole, v has those that do not turn. */
template <bool whole>
__device__ static inline const bf16 *key_dims(const bf16 *k, const bf16 *v, int key, int i,
                                              int k_dim, int dim)
{
    int half = dim / 2, n_rot = k_dim / 2, in_half = i < half ? i : i - half;

    if (whole)
        return k + place(key, i, dim);
    return in_half < n_rot ? k + place(key, i < half ? i : n_rot + in_half, k_dim)
           : v + place(key, i, dim);
}

/* Keys and values are the left sides of products, which have 16 rows; the queries are the right
 * ones, with 8 columns: so nothing is computed twice. A warp has the scores of 16 keys, of whose
 * dims every SPLITS-th 16: s is so many sums. Rows without a head are not numbers that anybody
 * looks at. */
#define SPLITS(keys) (WARPS * 16 / (keys))

/* This warp's dims of the queries. */
template <int keys, int rows, int chunks>
__device__ static void load_q(uint32_t f[chunks][rows / 8][2], const bf16 *q, int dim)
{
    int lane = threadIdx.x % 32, split = threadIdx.x / 32 / (keys / 16) % SPLITS(keys);

    #pragma unroll
    for (int i = 0; i < chunks; i++) {
        int d = (i * SPLITS(keys) + split) * 16;

        #pragma unroll
        for (int r = 0; r < rows / 8; r++)
            if (d < dim)
                ldmatrix_x2(f[i][r], q + place(r * 8 + lane % 8, d + lane / 8 % 2 * 8, dim));
    }
}

/* s = k q */
template <int keys, int rows, int chunks, bool whole>
__device__ static void scores(float *s, const uint32_t f[chunks][rows / 8][2], const bf16 *k,
                              const bf16 *v, int k_dim, int dim)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int split = warp / (keys / 16) % SPLITS(keys), n = warp % (keys / 16) * 16;
    float c[rows / 8][4] = {};
    uint32_t a[4];

    #pragma unroll
    for (int i = 0; i < chunks; i++) {
        int d = (i * SPLITS(keys) + split) * 16;

        if (d < dim) {
            ldmatrix_x4(a, key_dims<whole>(k, v, n + lane % 16, d + lane / 16 * 8, k_dim, dim));
            #pragma unroll
            for (int r = 0; r < rows / 8; r++)
                mma_16x8x16(c[r], a[0], a[1], a[2], a[3], f[i][r][0], f[i][r][1]);
        }
    }
    #pragma unroll
    for (int i = 0; i < rows / 2; i++)
        s[(split * rows + i / 4 * 8 + lane % 4 * 2 + i % 2) * (keys + 4) + n + lane / 4
          + i / 2 % 2 * 8] = c[i / 4][i % 4];
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

        v[i] = s[r * (keys + 4) + j + i];
        for (int k = 1; k < SPLITS(keys); k++)
            v[i] += s[(k * rows + r) * (keys + 4) + j + i];
        v[i] = key >= b->first && key < b->end ? v[i] : -INFINITY;
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

/* o += v p: a warp has dim / 8 of the columns, 16 at a time. */
template <int keys, int rows, int m_tiles>
__device__ static void values(float o[m_tiles][rows / 8][4], const bf16 *p, const bf16 *v,
                              const float *shrink, int dim)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint32_t a[4], b[rows / 8][keys / 16][2];

    #pragma unroll
    for (int r = 0; r < rows / 8; r++)
        #pragma unroll
        for (int k = 0; k < keys / 16; k += 2)
            ldmatrix_x4(b[r][k], p + (r * 8 + lane % 8) * (keys + 8) + k * 16 + lane / 8 * 8);
    #pragma unroll
    for (int m = 0; m < m_tiles; m++) {
        int col = (warp + m * WARPS) * 16;

        if (col >= dim)
            break;
        #pragma unroll
        for (int i = 0; i < rows / 2; i++)
            o[m][i / 4][i % 4] *= shrink[i / 4 * 8 + lane % 4 * 2 + i % 2];
        #pragma unroll
        for (int k = 0; k < keys / 16; k++) {
            ldmatrix_x4_trans(a, v + place(k * 16 + lane / 16 * 8 + lane % 8,
                                           col + lane / 8 % 2 * 8, dim));
            #pragma unroll
            for (int r = 0; r < rows / 8; r++)
                mma_16x8x16(o[m][r], a[0], a[1], a[2], a[3], b[r][k][0], b[r][k][1]);
        }
    }
}

/* A part's rows to its place in the scratch. */
template <int rows, int m_tiles>
__device__ static void write_part(const float o[m_tiles][rows / 8][4], const struct row_state *st,
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
    for (int i = 0; i < rows / 2; i++) {
        int r = i / 4 * 8 + lane % 4 * 2 + i % 2, col = warp * 16 + i / 2 % 2 * 8 + lane / 4;
        float *to = g->acc + ((head + r) * g->z + blockIdx.z) * dim;

        #pragma unroll
        for (int m = 0; m < m_tiles; m++)
            if (r < g->group && col + m * WARPS * 16 < dim)
                to[col + m * WARPS * 16] = o[m][i / 4][i % 4];
    }
}

static bool is_whole(const struct kv_layer *kv)
{
    return kv->k_dim == kv->head_dim;
}

/* Shared memory: one or two stages of k [keys, k_dim] and v [keys, dim], q [rows, dim],
 * p [rows, keys + 8], s, shrink [rows]. */
static size_t smem_bytes(int keys, int rows, const struct kv_layer *kv)
{
    int halves = keys * (kv->k_dim + kv->head_dim) * (is_whole(kv) ? 1 : 2)
                 + rows * (kv->head_dim + keys + 8);

    return (size_t) halves * 2 + (size_t) (rows * (SPLITS(keys) * (keys + 4) + 1)) * 4;
}

/* keys: of a step of the loop. dim_max: registers for so many columns; exact: there are so many.
 * Not whole: K has a quarter of them. blocks: on an SM at once, which takes registers from each. */
template <int keys, int rows, int dim_max, bool exact, bool whole, int blocks>
static __global__ void __launch_bounds__(THREADS, blocks) attn_kernel(struct args g)
{
    extern __shared__ __align__(16) char smem[];
    const int m_tiles = dim_max / 16 / WARPS, chunks = dim_max / 16 / SPLITS(keys);
    const int pairs = (dim_max + 63) / 64, stages = whole ? 1 : 2;
    const struct kv_layer *kv = &g.a.attn.kv;
    int dim = exact ? dim_max : kv->head_dim, k_dim = whole ? dim : dim / 4;
    int stage = keys * (k_dim + dim), next = whole ? 0 : stage, k0, slot, row;
    bf16 *k = (bf16 *) smem, *v = k + keys * k_dim, *q = k + stages * stage, *p = q + rows * dim;
    float *s = (float *) (p + rows * (keys + 8)), *shrink = s + SPLITS(keys) * rows * (keys + 4);
    float o[m_tiles][rows / 8][4] = {};
    uint32_t f[chunks][rows / 8][2];
    struct row_state st = { -INFINITY, 0 };
    struct span b;
    bf16 *newest;
    bool here;

    next_may_start();
    if (!find_span(&b, &g))
        return;
    k0 = b.first / keys * keys;
    for (int i = 0; i < stages; i++)
        load_stage<keys, whole>(k + i * stage, k_dim, dim, &g, &b, k0 + i * keys);

    row = b.pos - k0;
    here = b.pos < b.end && row < stages * keys;
    newest = k + row / keys * stage;
    wait_for_others();
    bring_heads<pairs>(q, here ? newest : NULL, here ? newest + keys * k_dim : NULL, row % keys,
                       k_dim, dim, &g, &b);
    if (here && g.a.store.k == NULL)
        load_newest(newest, newest + keys * k_dim, row % keys, k_dim, dim, &g, &b);
    slot = find_slots<keys>(&g, &b, k0 + stages * keys);
    __syncthreads();                       /* the queries are here */
    load_q<keys, rows, chunks>(f, q, dim);

    for (; k0 < b.end; k0 += keys) {
        copy_wait<1>();
        __syncthreads();                   /* the keys are here */
        scores<keys, rows, chunks, whole>(s, f, k, v, k_dim, dim);
        __syncthreads();                   /* nobody needs them any more */
        if (whole) {
            if (k0 + keys < b.end)
                load<keys>(k, dim, kv->k, &g, &b, k0 + keys, slot, true);
            copy_commit();
        }
        softmax<keys, rows>(&st, s, p, shrink, &b, k0);
        copy_wait<1>();
        __syncthreads();                   /* p and the values are here */
        values<keys, rows, m_tiles>(o, p, v, shrink, dim);
        __syncthreads();
        if (!whole && k0 + stages * keys < b.end)
            load<keys>(k, k_dim, kv->k, &g, &b, k0 + stages * keys, slot, true);
        if (k0 + stages * keys < b.end)
            load<keys>(v, dim, kv->v, &g, &b, k0 + stages * keys, slot, true);
        copy_commit();
        slot = find_slots<keys>(&g, &b, k0 + (stages + 1) * keys);     /* in time for its turn */
        k += next;
        v += next;
        next = -next;
    }
    write_part<rows, m_tiles>(o, &st, &g, &b);
}

/* A block adds up MERGE_COLS columns of a token's head: warp w the parts w, w + warps, ..., then
 * come the warps' sums in their order. */
static __global__ void __launch_bounds__(MERGE_WARPS * 32) merge_kernel(struct args g)
{
    __shared__ float weight[PART_MAX];
    __shared__ float4 sum[MERGE_WARPS][32];
    int dim = g.a.attn.kv.head_dim, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int own = own_token(&g), n = parts_of(g.a.attn.map.pos[own], g.a.attn.window, g.len).n;
    int warps = blockDim.x / 32, c = blockIdx.z * MERGE_COLS + lane * 4;
    int64_t head = (int64_t) own * g.a.attn.n_head + blockIdx.y;
    int64_t to = ((int64_t) blockIdx.x * g.a.attn.n_head + blockIdx.y) * dim + c;
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
    *(uint2 *) ((bf16 *) g.a.attn.y + to) = make_uint2(
        pack_bf16(y.x * all, y.y * all), pack_bf16(y.z * all, y.w * all));
}

/* As many parts as give every SM its work, and no more: each has queries to norm, and is written
 * and read once more. blocks: on an SM at once. Contexts are up to ctx, most of them shorter. */
static void choose_parts(struct args *g, int keys, int blocks)
{
    static int n_sm;                       /* one thread launches */
    const struct attn *a = &g->a.attn;
    int n = a->window > 0 && a->ctx > a->window ? a->window : a->ctx;
    int max = a->map.n_tok <= FEW_TOK ? PART_MAX : PART_FEW;

    if (n_sm == 0)
        cudaDeviceGetAttribute(&n_sm, cudaDevAttrMultiProcessorCount, 0);
    g->len = keys;
    while (n / g->len + 2 > max
           || n / g->len * a->map.n_tok * a->kv.n_kv > WAVES * blocks * n_sm) {
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

/* Shared memory that keeps an SM to so many blocks. When few tokens' blocks start early, those SMs
 * that the kernel before left first would take more than their share. */
static size_t alone(size_t bytes, int blocks)
{
    static int of_sm, of_driver;           /* one thread launches */
    size_t least;

    if (of_sm == 0) {
        cudaDeviceGetAttribute(&of_sm, cudaDevAttrMaxSharedMemoryPerMultiprocessor, 0);
        cudaDeviceGetAttribute(&of_driver, cudaDevAttrReservedSharedMemoryPerBlock, 0);
    }
    least = (size_t) (of_sm / (blocks + 1) - of_driver + 128);
    return bytes > least ? bytes : least;
}

template <int keys, int rows, int dim_max, bool exact, bool whole, int blocks>
static void launch(struct args *g, gpu_stream s)
{
    static size_t allowed;                 /* one thread launches */
    const auto kernel = attn_kernel<keys, rows, dim_max, exact, whole, blocks>;
    const struct attn *a = &g->a.attn;
    size_t bytes = alone(smem_bytes(keys, rows, &a->kv), blocks);
    unsigned n_tok = (unsigned) a->map.n_tok;
    unsigned cols = (unsigned) ceil_div(a->kv.head_dim, MERGE_COLS);
    int64_t parts;

    choose_parts(g, keys, blocks);
    parts = (int64_t) n_tok * a->n_head * g->z;
    g->max = g->acc + parts * a->kv.head_dim;
    g->sum = g->max + parts;
    if (bytes > allowed)
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int) bytes);
    allowed = bytes > allowed ? bytes : allowed;
    launch_early(kernel, dim3(n_tok, (unsigned) a->kv.n_kv, (unsigned) g->z), THREADS, bytes, s,
                 *g);
    launch_early(merge_kernel, dim3(n_tok, (unsigned) a->n_head, cols), 32 * merge_warps(g->z), 0,
                 s, *g);
}

/* Alone a block is faster with more registers, in a crowd more blocks are. */
template <int keys, int dim_max, bool exact, bool whole>
static void launch_fit(struct args *g, gpu_stream s)
{
    if (g->group > 8)
        launch<keys, 16, dim_max, exact, whole, 2>(g, s);
    else if (g->a.attn.map.n_tok <= FEW_TOK)
        launch<keys, 8, dim_max, exact, whole, 2>(g, s);
    else
        launch<keys, 8, dim_max, exact, whole, (dim_max > 256 ? 2 : 3)>(g, s);
}

size_t attn_decode_scratch(int32_t n_tok, int32_t n_head, int32_t head_dim)
{
    size_t few = FEW_TOK * PART_MAX, parts = (size_t) n_tok * PART_FEW;

    return (parts > few ? parts : few) * (size_t) n_head * ((size_t) head_dim + 2) * sizeof(float);
}

bool attn_decode_fits(const struct attn_layer *a, size_t smem_max)
{
    const struct attn *t = &a->attn;
    int group = t->n_head / t->kv.n_kv, keys = t->kv.head_dim > 256 ? 32 : 64;

    return t->map.n_tok <= ATTN_DECODE_TOK && group <= ROWS_MAX
           && (is_whole(&t->kv) || (t->kv.head_dim == 512 && t->kv.k_dim == 128))
           && smem_bytes(keys, group > 8 ? ROWS_MAX : 8, &t->kv) <= smem_max;
}

void attn_decode_cuda(const struct attn_layer *a, void *scratch, gpu_stream s)
{
    const struct attn *t = &a->attn;
    struct args g = {};

    g.a = *a;
    g.group = t->n_head / t->kv.n_kv;
    g.acc = (float *) scratch;
    if (!is_whole(&t->kv))
        launch_fit<32, 512, true, false>(&g, s);
    else if (t->kv.head_dim == 256)
        launch_fit<64, 256, true, true>(&g, s);
    else if (t->kv.head_dim == 512)
        launch_fit<32, 512, true, true>(&g, s);
    else if (t->kv.head_dim < 256)
        launch_fit<64, 256, false, true>(&g, s);
    else
        launch_fit<32, 512, false, true>(&g, s);
}
