/* attn.cu - paged attention, online softmax over tiles of 32 keys, on the matrix units.
 *
 * A block has the rows of one tile: up to `span` tokens of a sequence, with all the query heads of
 * one kv head, so that a key is fetched once for all of them. Tiles begin at multiples of span,
 * tiles of keys at multiples of 32, parts of a context at multiples of a length that follows from
 * the tile's place: what a row sums in which order depends on its position alone.
 *
 * Bound by the reading of K and V when rows are few: then a context is cut into parts, each a
 * block, whose results merge_kernel adds up. Many rows go to attn_prefill.cu where that can. */
#include "cuda.h"
#include "dev.cuh"

#define KEYS      32                       /* of a tile */
#define PART_MIN  128                      /* keys of a part of a context */
#define PART_MAX  64                       /* parts, about: they grow with the context */
#define PARTS     (PART_MAX + 2)

struct args {
    struct attn a;
    int         group, span;               /* query heads of a kv head, tokens of a tile */
    int         z;                         /* parts in the scratch, 0: contexts are in one piece */
    float      *acc, *max, *sum;           /* [n_tok, n_head, z, head_dim], [n_tok, n_head, z] */
};

/* The parts of a tile's context: part i has the keys (base + i) * len and on. */
struct parts { int len, base, n; };

__host__ __device__ static inline struct parts parts_of(int pos, int span, int window)
{
    int tile = pos / span * span, last = tile + span - 1;
    int first = window > 0 && tile >= window ? tile - window + 1 : 0;
    struct parts p = { PART_MIN, 0, 0 };

    while ((last + 1 - first) / p.len > PART_MAX)
        p.len *= 2;
    p.base = first / p.len;
    p.n = last / p.len - p.base + 1;
    return p;
}

/* Keys first .. end-1 are visible to some row of the tile. */
struct block { int t0, n_tok, seq, pos, h_kv, first, end; };

/* false: nothing to do here. Thread i looks at token i of the tile. */
__device__ static bool find_block(const struct args *g, struct block *b)
{
    const struct kv_map *m = &g->a.map;
    int i = threadIdx.x, t = blockIdx.x;
    bool mine;

    b->t0 = t;
    b->h_kv = blockIdx.y;
    b->seq = m->seq[t];
    b->pos = m->pos[t];
    if (t > 0 && m->seq[t - 1] == b->seq && b->pos % g->span != 0)
        return false;                      /* in the tile of a token before */

    mine = i < g->span - b->pos % g->span && t + i < m->n_tok && m->seq[t + i] == b->seq;
    b->n_tok = __syncthreads_count(mine);
    b->first = g->a.window > 0 && b->pos >= g->a.window ? b->pos - g->a.window + 1 : 0;
    b->end = b->pos + b->n_tok;
    if (g->z > 0) {
        struct parts p = parts_of(b->pos, g->span, g->a.window);
        int lo = (p.base + (int) blockIdx.z) * p.len, hi = lo + p.len;

        if ((int) blockIdx.z >= p.n)
            return false;
        b->first = b->first > lo ? b->first : lo;
        b->end = b->end < hi ? b->end : hi;
    }
    return true;
}

/* Rows of dim numbers in shared memory: those of one column meet no bank twice. */
__host__ __device__ static inline int stride_of(int dim)
{
    return dim + 8;
}

/* 32 keys or values of dim numbers from k0 on, one row a warp at a time; zeros where none is
 * visible. */
__device__ static void load_keys(bf16 *to, int dim, const void *pages, const struct args *g,
                                 const struct block *b, int k0)
{
    const struct kv_layer *kv = &g->a.kv;
    const int32_t *table = g->a.map.page + (int64_t) b->seq * g->a.map.page_max;
    int lane = threadIdx.x % 32, n_warp = blockDim.x / 32;

    for (int i = threadIdx.x / 32; i < KEYS; i += n_warp) {
        int key = k0 + i;
        bool in = key >= b->first && key < b->end;
        const bf16 *p = (const bf16 *) pages;

        if (in)
            p += (((int64_t) table[key / kv->page_tok] * kv->page_tok + key % kv->page_tok)
                  * kv->n_kv + b->h_kv) * dim;
        for (int c = lane * 8; c < dim; c += 256)
            copy_async(to + i * stride_of(dim) + c, p + c, in);
    }
}

/* The queries of the block's rows as bf16; row r is head r % group of token r / group. */
template <int rows>
__device__ static void load_q(bf16 *to, const struct args *g, const struct block *b)
{
    int dim = g->a.kv.head_dim, stride = stride_of(dim);

    for (int i = threadIdx.x * 4; i < rows * dim; i += blockDim.x * 4) {
        int r = i / dim, t = r / g->group;
        float4 v = make_float4(0, 0, 0, 0);

        if (t < b->n_tok && t < g->span)
            v = *(const float4 *) (g->a.q + ((int64_t) (b->t0 + t) * g->a.n_head
                                             + b->h_kv * g->group + r % g->group) * dim + i % dim);
        *(uint2 *) (to + r * stride + i % dim) = make_uint2(pack_bf16(v.x, v.y),
                                                            pack_bf16(v.z, v.w));
    }
}

/* Dims i .. i+7 of a key: where k is not whole, v has those that do not turn. */
template <bool whole>
__device__ static inline const bf16 *key_dims(const bf16 *k, const bf16 *v, int key, int i,
                                              const struct kv_layer *kv)
{
    int half = kv->head_dim / 2, n_rot = kv->k_dim / 2, in_half = i < half ? i : i - half;

    if (whole)
        return k + key * stride_of(kv->head_dim) + i;
    return in_half < n_rot ? k + key * stride_of(kv->k_dim) + (i < half ? i : n_rot + in_half)
           : v + key * stride_of(kv->head_dim) + i;
}

/* s[16 x 8] of this warp: its 16 rows, its 8 keys. */
template <bool whole>
__device__ static void scores(float *c, const bf16 *q, const bf16 *k, const bf16 *v,
                              const struct kv_layer *kv)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, key = warp % 4 * 8 + lane % 8;
    int dim = kv->head_dim, d = 0;
    const bf16 *qp = q + (warp / 4 * 16 + lane % 16) * stride_of(dim) + lane / 16 * 8;
    uint32_t a[4], b[4];

    #pragma unroll 4
    for (; d + 32 <= dim; d += 32) {
        ldmatrix_x4(b, key_dims<whole>(k, v, key, d + lane / 8 * 8, kv));
        ldmatrix_x4(a, qp + d);
        mma_16x8x16(c, a[0], a[1], a[2], a[3], b[0], b[1]);
        ldmatrix_x4(a, qp + d + 16);
        mma_16x8x16(c, a[0], a[1], a[2], a[3], b[2], b[3]);
    }
    if (d < dim) {                         /* 16 left: the upper half of b is not used */
        ldmatrix_x4(b, key_dims<whole>(k, v, key, d + lane / 8 % 2 * 8, kv));
        ldmatrix_x4(a, qp + d);
        mma_16x8x16(c, a[0], a[1], a[2], a[3], b[0], b[1]);
    }
}

#define S_STRIDE (KEYS + 4)                /* floats */
#define P_STRIDE (KEYS + 8)                /* bf16 */

/* Eight threads to a row: p = exp(s - max), how much the sums so far shrink, the new sum. */
struct row_state { float max, sum; };

__device__ static void softmax_tile(struct row_state *st, const float *s, bf16 *p, float *shrink,
                                    const struct args *g, const struct block *b, int k0)
{
    int r = threadIdx.x / 8, j = threadIdx.x % 8 * 4, t = r / g->group, pos = b->pos + t;
    int lo = g->a.window > 0 && pos >= g->a.window ? pos - g->a.window + 1 : 0;
    float4 v4 = *(const float4 *) (s + r * S_STRIDE + j);
    float v[4] = { v4.x, v4.y, v4.z, v4.w }, max = st->max, sum = 0, scale;

    lo = lo > b->first ? lo : b->first;
    for (int i = 0; i < 4; i++) {
        int key = k0 + j + i;

        v[i] = t < b->n_tok && t < g->span && key >= lo && key <= pos && key < b->end
               ? v[i] : -INFINITY;
        max = fmaxf(max, v[i]);
    }
    for (int o = 1; o < 8; o *= 2)
        max = fmaxf(max, __shfl_xor_sync(WARP_ALL, max, o));

    for (int i = 0; i < 4; i++) {
        v[i] = max == -INFINITY ? 0.0f : expf(v[i] - max);
        sum += v[i];
    }
    for (int o = 1; o < 8; o *= 2)
        sum += __shfl_xor_sync(WARP_ALL, sum, o);

    scale = max == -INFINITY ? 1.0f : expf(st->max - max);
    st->sum = st->sum * scale + sum;
    st->max = max;
    *(uint2 *) (p + r * P_STRIDE + j) = make_uint2(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]));
    if (j == 0)
        shrink[r] = scale;
}

/* o += p v: every warp has all rows and some of the columns, 8 at a time. */
template <int m_tiles, int n_tiles>
__device__ static void values(float o[m_tiles][n_tiles][4], const bf16 *p, const bf16 *v,
                              const float *shrink, int stride, int dim)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n_warp = m_tiles * 4;
    uint32_t a[m_tiles][2][4], b[4];

    #pragma unroll
    for (int m = 0; m < m_tiles; m++) {
        float up = shrink[m * 16 + lane / 4], low = shrink[m * 16 + lane / 4 + 8];

        for (int k = 0; k < 2; k++)
            ldmatrix_x4(a[m][k], p + (m * 16 + lane % 16) * P_STRIDE + k * 16 + lane / 16 * 8);
        #pragma unroll
        for (int n = 0; n < n_tiles; n++) {
            o[m][n][0] *= up;
            o[m][n][1] *= up;
            o[m][n][2] *= low;
            o[m][n][3] *= low;
        }
    }
    #pragma unroll
    for (int n = 0; n < n_tiles; n++) {
        int col = (warp + n * n_warp) * 8;

        if (col >= dim)
            break;
        ldmatrix_x4_trans(b, v + lane * stride + col);
        #pragma unroll
        for (int m = 0; m < m_tiles; m++) {
            mma_16x8x16(o[m][n], a[m][0][0], a[m][0][1], a[m][0][2], a[m][0][3], b[0], b[1]);
            mma_16x8x16(o[m][n], a[m][1][0], a[m][1][1], a[m][1][2], a[m][1][3], b[2], b[3]);
        }
    }
}

/* Rows to y, or to this part's place in the scratch. */
template <int m_tiles, int n_tiles>
__device__ static void write_rows(float o[m_tiles][n_tiles][4], const float *inv,
                                  const struct args *g, const struct block *b)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n_warp = m_tiles * 4;
    int dim = g->a.kv.head_dim;

    #pragma unroll
    for (int m = 0; m < m_tiles; m++) {
        #pragma unroll
        for (int half = 0; half < 2; half++) {
            int r = m * 16 + half * 8 + lane / 4, t = r / g->group;
            int64_t head = (int64_t) (b->t0 + t) * g->a.n_head + b->h_kv * g->group + r % g->group;
            float *to = g->acc + (head * g->z + blockIdx.z) * dim;
            bf16 *y = (bf16 *) g->a.y + head * dim;

            if (t >= b->n_tok || t >= g->span)
                continue;
            #pragma unroll
            for (int n = 0; n < n_tiles; n++) {
                int col = (warp + n * n_warp) * 8 + lane % 4 * 2;

                float u = o[m][n][2 * half] * inv[r], v = o[m][n][2 * half + 1] * inv[r];

                if (col < dim && g->z > 0)
                    *(float2 *) (to + col) = make_float2(u, v);
                else if (col < dim)
                    *(uint32_t *) (y + col) = pack_bf16(u, v);
            }
        }
    }
}

/* bf16 numbers of q, k and v in shared memory. */
__host__ __device__ static inline int tile_size(int rows, const struct kv_layer *kv)
{
    int n_v = kv->k_dim == kv->head_dim ? 1 : 2;

    return (rows + n_v * KEYS) * stride_of(kv->head_dim) + KEYS * stride_of(kv->k_dim);
}

/* rows: 16 or 64, of a block of rows * 8 threads. dim_max: registers for so many columns. whole: K
 * and V take turns, each on its way while the other is used. Else both are used at once, and there
 * are two places for V. */
template <int rows, int dim_max, bool whole>
static __global__ void __launch_bounds__(rows * 8) attn_kernel(struct args g)
{
    extern __shared__ __align__(16) char smem[];
    const int m_tiles = rows / 16, n_tiles = (dim_max / 8 + m_tiles * 4 - 1) / (m_tiles * 4);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, r = threadIdx.x / 8;
    int dim = g.a.kv.head_dim, k_dim = whole ? dim : g.a.kv.k_dim, stride = stride_of(dim);
    bf16 *q = (bf16 *) smem, *k = q + rows * stride, *v = k + KEYS * stride_of(k_dim);
    bf16 *next_v = whole ? v : v + KEYS * stride, *p = q + tile_size(rows, &g.a.kv);
    float *s = (float *) (p + rows * P_STRIDE), *shrink = s + rows * S_STRIDE;
    float o[m_tiles][n_tiles][4] = {};
    struct row_state st = { -INFINITY, 0 };
    struct block b;

    if (!find_block(&g, &b))
        return;
    load_q<rows>(q, &g, &b);
    load_keys(k, k_dim, g.a.kv.k, &g, &b, b.first / KEYS * KEYS);
    copy_commit();
    load_keys(v, dim, g.a.kv.v, &g, &b, b.first / KEYS * KEYS);
    copy_commit();

    for (int k0 = b.first / KEYS * KEYS; k0 < b.end; k0 += KEYS) {
        float c[4] = {0, 0, 0, 0}, *sp;

        copy_wait<whole ? 1 : 0>();
        __syncthreads();                   /* the keys are here */
        scores<whole>(c, q, k, v, &g.a.kv);
        sp = s + (warp / 4 * 16 + lane / 4) * S_STRIDE + warp % 4 * 8 + lane % 4 * 2;
        *(float2 *) sp = make_float2(c[0], c[1]);
        *(float2 *) (sp + 8 * S_STRIDE) = make_float2(c[2], c[3]);
        __syncthreads();                   /* nobody needs them any more */
        if (k0 + KEYS < b.end)
            load_keys(k, k_dim, g.a.kv.k, &g, &b, k0 + KEYS);
        if (!whole && k0 + KEYS < b.end)
            load_keys(next_v, dim, g.a.kv.v, &g, &b, k0 + KEYS);
        copy_commit();

        softmax_tile(&st, s, p, shrink, &g, &b, k0);
        if (whole)
            copy_wait<1>();
        __syncthreads();                   /* p and the values are here */
        values<m_tiles, n_tiles>(o, p, v, shrink, stride, dim);
        __syncthreads();
        if (whole) {
            if (k0 + KEYS < b.end)
                load_keys(v, dim, g.a.kv.v, &g, &b, k0 + KEYS);
            copy_commit();
        } else {
            bf16 *used = v;

            v = next_v;
            next_v = used;
        }
    }

    if (g.z > 0 && threadIdx.x % 8 == 0 && r / g.group < b.n_tok && r / g.group < g.span) {
        int64_t head = (int64_t) (b.t0 + r / g.group) * g.a.n_head + b.h_kv * g.group
                       + r % g.group;

        g.max[head * g.z + blockIdx.z] = st.max;
        g.sum[head * g.z + blockIdx.z] = st.sum;
    }
    if (threadIdx.x % 8 == 0)
        shrink[r] = g.z > 0 ? 1.0f : 1.0f / st.sum;
    __syncthreads();
    write_rows<m_tiles, n_tiles>(o, shrink, &g, &b);
}

/* One block a token and head: the parts, in their order. */
static __global__ void merge_kernel(struct args g)
{
    int t = blockIdx.x, dim = g.a.kv.head_dim;
    struct parts p = parts_of(g.a.map.pos[t], g.span, g.a.window);
    int64_t head = (int64_t) t * g.a.n_head + blockIdx.y;
    const float *max = g.max + head * g.z, *sum = g.sum + head * g.z;
    float top = -INFINITY, all = 0;

    for (int i = 0; i < p.n; i++)
        top = fmaxf(top, max[i]);
    for (int i = 0; i < p.n; i++)
        all += sum[i] * expf(max[i] - top);
    for (int c = threadIdx.x; c < dim; c += blockDim.x) {
        float y = 0;

        for (int i = 0; i < p.n; i++)
            y += g.acc[(head * g.z + i) * dim + c] * expf(max[i] - top);
        ((bf16 *) g.a.y)[head * dim + c] = __float2bfloat16(y / all);
    }
}

size_t attn_cuda_scratch(int32_t n_head, int32_t head_dim)
{
    return (size_t) ATTN_SPLIT_TOK * (size_t) n_head * PARTS * ((size_t) head_dim + 2)
           * sizeof(float);
}

static size_t smem_bytes(int rows, const struct kv_layer *kv)
{
    return (size_t) tile_size(rows, kv) * 2 + (size_t) rows * (P_STRIDE * 2 + (S_STRIDE + 1) * 4);
}

template <int rows, int dim_max, bool whole> static void launch(struct args *g, gpu_stream s)
{
    static size_t allowed;                 /* one thread launches */
    size_t bytes = smem_bytes(rows, &g->a.kv);
    dim3 grid((unsigned) g->a.map.n_tok, (unsigned) g->a.kv.n_kv, (unsigned) (g->z > 0 ? g->z : 1));

    g->span = rows / g->group;
    if (bytes > allowed)
        cudaFuncSetAttribute(attn_kernel<rows, dim_max, whole>,
                             cudaFuncAttributeMaxDynamicSharedMemorySize, (int) bytes);
    allowed = bytes > allowed ? bytes : allowed;
    attn_kernel<rows, dim_max, whole><<<grid, rows * 8, bytes, s>>>(*g);
}

template <int rows> static void launch_dim(struct args *g, gpu_stream s)
{
    if (g->a.kv.k_dim < g->a.kv.head_dim)
        launch<rows, 512, false>(g, s);
    else if (g->a.kv.head_dim <= 64)
        launch<rows, 64, true>(g, s);
    else if (g->a.kv.head_dim <= 256)
        launch<rows, 256, true>(g, s);
    else
        launch<rows, 512, true>(g, s);
}

/* Parts that no tile of the step exceeds. Only while their length is the least does a shorter
 * context have fewer. */
static int part_count(const struct attn *a, int span)
{
    int keys = a->ctx + span;

    if (a->window > 0 && keys > a->window + span)
        keys = a->window + span;
    return keys / PART_MIN >= PART_MAX ? PARTS : keys / PART_MIN + 2;
}

void attn_cuda(const struct attn *a, void *part, size_t smem_max, gpu_stream s)
{
    struct args g = {};
    int64_t heads = (int64_t) a->map.n_tok * a->n_head;

    g.a = *a;
    g.group = a->n_head / a->kv.n_kv;
    if (a->map.n_tok > ATTN_SPLIT_TOK) {
        if (a->map.n_tok >= 8 * a->n_seq && smem_bytes(64, &a->kv) <= smem_max)
            launch_dim<64>(&g, s);
        else
            launch_dim<16>(&g, s);
        return;
    }

    g.z = part_count(a, 16 / g.group);
    g.acc = (float *) part;
    g.max = g.acc + heads * g.z * a->kv.head_dim;
    g.sum = g.max + heads * g.z;
    launch_dim<16>(&g, s);
    merge_kernel<<<dim3((unsigned) a->map.n_tok, (unsigned) a->n_head), 128, 0, s>>>(g);
}
