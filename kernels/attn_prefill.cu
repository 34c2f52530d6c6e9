/* attn_prefill.cu - attention where a sequence has many tokens, on Hopper's matrix units.
 *
 * A block has the rows of one tile: `span` tokens of a sequence with all query heads of one kv
 * head. Two warpgroups of consumers compute; a third fetches K and V through the page table, in
 * chunks of 16 KB, into a ring. Heads of 256: 128 rows, 64 for each consumer. Heads of 512: 64
 * rows; both compute all scores, each has half of the columns of V, since the sums of 64 x 512
 * fill the registers of both.
 *
 * The consumers norm and turn the queries of their tile before that.
 *
 * Scores of the next 64 keys are computed while those of the last ones are multiplied by V; the
 * softmax runs beside the products. Tiles begin at multiples of span, keys at multiples of 64, so
 * what a row sums in which order depends on its position alone.
 *
 * Bound by the matrix units; heads of 512 also by the L2, which sends 2 KB for each key and 64
 * rows. */
#include "cuda.h"
#include "head.cuh"
#include "wgmma.cuh"

#define KEYS       64                      /* of a tile */
#define CHUNK      16384                   /* bytes: 64 keys x 128 dims of K, or some rows of V */
#define RING       10
#define CONSUMERS  256                     /* threads */
#define PRODUCERS  128
#define THREADS    (CONSUMERS + PRODUCERS)
#define LOG2_E     1.4426950408889634f
#define LAZY       8.0f                    /* sums shrink when a maximum grew by more */

template <int dim> struct shape {
    static const int rows = 32768 / dim;   /* q takes 64 KB */
    static const int chunks = dim / 128;   /* of a tile of K, and of V */
    static const int v_keys = 8192 / dim;  /* of a chunk of V */
};

struct smem {
    char     q[65536];                     /* blocks of 64 columns, wgmma.cuh */
    char     ring[RING][CHUNK];
    uint64_t full[RING], empty[RING];
    int32_t  share[THREADS / 32], begin;
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* n_tok tokens of seq, from token t0 and position pos on; the first visible key of all of them. */
struct tile { int t0, n_tok, seq, pos, first, h_kv; };

/* A place in the ring, and the parity of the times it came by. */
struct ring { int i; uint32_t parity; };

__device__ static inline void ring_next(struct ring *r)
{
    if (++r->i == RING) {
        r->i = 0;
        r->parity ^= 1;
    }
}

__device__ static inline bool begins(const struct kv_map *m, int t, int span)
{
    int pos = m->pos[t], seq = m->seq[t], before = m->seq[t > 0 ? t - 1 : 0];

    return (t == 0) | (pos % span == 0) | (seq != before);
}

/* Tile k from the end, since the later ones see more keys; false: there are not so many. */
__device__ static bool find_tile(struct tile *b, const struct attn *a, int k, int span,
                                 struct smem *sm)
{
    const struct kv_map *m = &a->map;
    int each = (m->n_tok + THREADS - 1) / THREADS, lo = threadIdx.x * each, n = 0, upto, all = 0;
    int hi = lo + each < m->n_tok ? lo + each : m->n_tok, lane = threadIdx.x % 32, t;

    #pragma unroll 4
    for (t = lo; t < hi; t++)
        n += begins(m, t, span);
    upto = n;
    for (int o = 1; o < 32; o *= 2) {
        int less = __shfl_up_sync(WARP_ALL, upto, o);

        upto += lane >= o ? less : 0;
    }
    if (lane == 31)
        sm->share[threadIdx.x / 32] = upto;
    __syncthreads();
    for (int w = 0; w < THREADS / 32; w++) {
        upto += w < (int) threadIdx.x / 32 ? sm->share[w] : 0;
        all += sm->share[w];
    }
    if (k >= all)
        return false;

    k = all - 1 - k - (upto - n);          /* of this thread's own */
    for (t = lo; t < hi && k >= 0 && k < n; t++)
        if (begins(m, t, span) && k-- == 0)
            sm->begin = t;
    __syncthreads();
    b->t0 = sm->begin;
    b->seq = m->seq[b->t0];
    b->pos = m->pos[b->t0];
    t = b->t0 + threadIdx.x;
    b->n_tok = __syncthreads_count((int) threadIdx.x < span - b->pos % span && t < m->n_tok
                                   && m->seq[t] == b->seq);
    b->first = a->window > 0 && b->pos >= a->window ? b->pos - a->window + 1 : 0;
    return true;
}

/* The consumers norm and turn the queries; row r is head r % group of token r / group. */
template <int dim>
__device__ static void load_q(struct smem *sm, const struct attn_layer *a, const struct tile *b,
                              int group)
{
    const int rows = shape<dim>::rows, many = 4, warps = CONSUMERS / 32;
    const struct norm_rope *rope = &a->rope;
    int lane = threadIdx.x % 32;
    struct head<dim> w;

    head_load(&w, rope->w);
    for (int r0 = threadIdx.x / 32; r0 < rows; r0 += many * warps) {
        struct head<dim> x[many] = {};     /* all on their way before the first is used */
        struct turn<dim> turn[many] = {};

        #pragma unroll
        for (int k = 0; k < many; k++) {
            int r = r0 + k * warps, t = b->t0 + r / group;

            if (r / group < b->n_tok) {
                head_load(&x[k], rope->q + ((int64_t) t * rope->n_head + b->h_kv * group
                                            + r % group) * dim);
                turn_load(&turn[k], rope->cs + (int64_t) t * 2 * rope->n_rot, rope->n_rot);
            }
        }
        #pragma unroll
        for (int k = 0; k < many; k++) {
            int r = r0 + k * warps;

            head_norm(&x[k], &w, rope->eps);
            head_turn(&x[k], &turn[k]);
            #pragma unroll
            for (int j = 0; j < dim / 128; j++) {
                int piece = lane + 32 * j, u = piece / 2;

                *(uint2 *) (sm->q + u / 8 * (rows * 128) + r * 128 + ((u ^ r) & 7) * 16
                            + piece % 2 * 8) = piece_bf16(x[k].v[j]);
            }
        }
    }
    fence_async();
    group_sync(1, CONSUMERS);
}

/* The producer. Thread i of 128 brings unit i % 16 and every 16th after it, 16 bytes each, of keys
 * i / 16, 8 further, and so on: of a tile always the same 8 keys, which are `at` units of 16 bytes
 * into the pages. Beyond those that some row sees it repeats the nearest one: a masked score is 0,
 * and so must be what it multiplies, which a NaN in an unused slot would not be. */
#define OWN  (KEYS * 16 / PRODUCERS)

struct place { int page[2], rest[2]; };    /* of keys k0 + lane and k0 + 32 + lane */

__device__ static inline struct place find_keys(const struct attn *a, const struct tile *b, int k0)
{
    const int32_t *table = a->map.page + (int64_t) b->seq * a->map.page_max;
    struct place l;

    for (int i = 0; i < 2; i++) {
        int key = k0 + i * 32 + threadIdx.x % 32, tok = a->kv.page_tok;

        key = min(max(key, b->first), b->pos + b->n_tok - 1);
        l.page[i] = table[key / tok];
        l.rest[i] = key % tok;
    }
    return l;
}

__device__ static inline void share_keys(uint32_t *at, const struct place *l, const struct attn *a)
{
    uint32_t width = a->kv.n_kv * a->kv.head_dim / 8;

    for (int i = 0; i < 2; i++) {
        uint32_t mine = (uint32_t) (l->page[i] * a->kv.page_tok + l->rest[i]) * width;

        for (int k = 0; k < OWN / 2; k++)
            at[i * OWN / 2 + k] = __shfl_sync(WARP_ALL, mine, k * 8 + threadIdx.x / 16 % 8);
    }
}

/* keys of the tile at `at`, 8 * n units of each. from: this thread's first unit of key 0. */
template <int keys>
__device__ static inline void load_chunk(struct smem *sm, struct ring *r, const char *from,
                                         const uint32_t *at)
{
    int i = threadIdx.x % PRODUCERS, u = i % 16, row = i / 16;
    char *to = sm->ring[r->i] + u / 8 * (keys * 128) + row * 128 + (u ^ row) % 8 * 16;

    barrier_wait(&sm->empty[r->i], r->parity ^ 1);
    #pragma unroll
    for (int k = 0; k < keys / 8; k++)
        #pragma unroll
        for (int n = 0; n < KEYS / keys; n++)
            copy_async(to + k * 1024 + n * (2 * keys * 128),
                       from + (uint64_t) at[k] * 16 + n * 256, true);
    barrier_arrive_copies(&sm->full[r->i]);
    ring_next(r);
}

/* K of tile 0, then of each next tile before V of the one before it: as they are used. */
template <int dim>
__device__ static void produce(struct smem *sm, const struct attn *a, const struct tile *b)
{
    const int chunks = shape<dim>::chunks;
    int k0 = b->first / KEYS * KEYS, n = (b->pos + b->n_tok - k0 + KEYS - 1) / KEYS;
    int64_t mine = b->h_kv * dim * 2 + threadIdx.x % 16 * 16;
    const char *k = (const char *) a->kv.k + mine, *v = (const char *) a->kv.v + mine;
    struct place l = find_keys(a, b, k0);
    struct ring r = { 0, 0 };
    uint32_t at[OWN], last[OWN];

    for (int tile = 0; tile <= n; tile++) {
        #pragma unroll
        for (int i = 0; i < OWN; i++)
            last[i] = at[i];
        if (tile < n) {
            share_keys(at, &l, a);
            k0 += KEYS;
            l = find_keys(a, b, k0);
            #pragma unroll
            for (int c = 0; c < chunks; c++)
                load_chunk<KEYS>(sm, &r, k + c * 256, at);
        }
        if (tile > 0) {
            #pragma unroll
            for (int c = 0; c < chunks; c++)
                load_chunk<shape<dim>::v_keys>(sm, &r, v, last + c * (OWN / chunks));
        }
    }
    copy_commit();
    copy_wait<0>();
}

/* The consumer's side. Row i of two is that of lane / 4 + 8 * i in this warp's 16. */
struct rows {
    float max[2], sum[2], shrink[2];       /* sum: of this thread's columns */
    int   lo[2], hi[2];                    /* keys that it sees */
};

__device__ static inline void wait_full(struct smem *sm, struct ring *r)
{
    barrier_wait(&sm->full[r->i], r->parity);
    fence_async();
}

__device__ static inline void release(struct smem *sm, struct ring *r)
{
    if (threadIdx.x % 32 == 0)
        barrier_arrive(&sm->empty[r->i]);
    ring_next(r);
}

/* s = q k^T, queued; all chunks but the last are released. q: of this warpgroup's rows. */
template <int dim>
__device__ static inline void scores(float *s, struct smem *sm, uint32_t q, struct ring *use,
                                     struct ring *done)
{
    #pragma unroll
    for (int c = 0; c < shape<dim>::chunks; c++) {
        uint32_t k;

        wait_full(sm, use);
        k = wgmma_operand(sm->ring[use->i], 0);
        wgmma_begin();
        #pragma unroll
        for (int i = 0; i < 8; i++)
            wgmma_64x64(s, q + (c * 2 + i / 4) * (shape<dim>::rows * 8) + i % 4 * 2,
                        k + i / 4 * (KEYS * 8) + i % 4 * 2, c + i > 0);
        wgmma_commit();
        ring_next(use);
        if (c > 0) {
            wgmma_wait<1>();
            release(sm, done);
        }
    }
}

/* o += p v, queued chunk by chunk. col: bytes to this warpgroup's columns of a chunk. */
template <int dim>
__device__ static inline void values(float *o, struct smem *sm, const uint32_t *p, int col,
                                     struct ring *use)
{
    const int v_keys = shape<dim>::v_keys;

    #pragma unroll
    for (int c = 0; c < shape<dim>::chunks; c++) {
        uint32_t v;

        wait_full(sm, use);
        wgmma_begin();
        v = wgmma_operand(sm->ring[use->i] + col, v_keys * 128);
        #pragma unroll
        for (int i = 0; i < v_keys / 16; i++)
            wgmma_64x256(o, p + (c * (v_keys / 16) + i) * 4, v + i * 128);
        wgmma_commit();
        ring_next(use);
    }
}

/* Scores of the keys from k0 that a row does not see. */
__device__ static inline void mask(float *s, const struct rows *st, int k0)
{
    #pragma unroll
    for (int i = 0; i < KEYS / 2; i++) {
        int key = k0 + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2, h = i / 2 % 2;

        if (key < st->lo[h] || key > st->hi[h])
            s[i] = -INFINITY;
    }
}

/* s <- exp(s - max) of row h. */
__device__ static inline void softmax(float *s, struct rows *st, int h)
{
    float max = -INFINITY, sum = 0, top;

    #pragma unroll
    for (int i = h * 2; i < KEYS / 2; i += 4)
        max = fmaxf(max, fmaxf(s[i], s[i + 1]));
    max = fmaxf(max, __shfl_xor_sync(WARP_ALL, max, 1));
    max = fmaxf(max, __shfl_xor_sync(WARP_ALL, max, 2));

    st->shrink[h] = 1;
    if (max > st->max[h] + LAZY / LOG2_E) {
        st->shrink[h] = exp2_fast((st->max[h] - max) * LOG2_E);
        st->max[h] = max;
    }
    top = st->max[h] == -INFINITY ? 0 : st->max[h] * LOG2_E;
    #pragma unroll
    for (int i = h * 2; i < KEYS / 2; i += 4) {
        s[i] = exp2_fast(s[i] * LOG2_E - top);
        s[i + 1] = exp2_fast(s[i + 1] * LOG2_E - top);
        sum += s[i] + s[i + 1];
    }
    st->sum[h] = st->sum[h] * st->shrink[h] + sum;
}

/* p: s as bf16, laid out as the left side of a product already. */
__device__ static inline void pack(uint32_t *p, const float *s)
{
    #pragma unroll
    for (int i = 0; i < KEYS / 4; i++)
        p[i] = pack_bf16(s[i * 2], s[i * 2 + 1]);
}

__device__ static inline void shrink(float *o, const struct rows *st)
{
    if (!__any_sync(WARP_ALL, st->shrink[0] != 1 || st->shrink[1] != 1))
        return;
    #pragma unroll
    for (int i = 0; i < 128; i++)
        o[i] *= st->shrink[i / 2 % 2];
}

/* row: of h = 0. */
template <int dim>
__device__ static inline void write_rows(const float *o, const struct rows *st,
                                         const struct attn *a, const struct tile *b, int row,
                                         int group)
{
    int lane = threadIdx.x % 32, half = threadIdx.x / 128;

    #pragma unroll
    for (int h = 0; h < 2; h++) {
        int r = row + h * 8, t = r / group;
        float inv = st->sum[h];
        bf16 *y = (bf16 *) a->y
                  + ((int64_t) (b->t0 + t) * a->n_head + b->h_kv * group + r % group) * dim
                  + (dim == 512 ? half * 256 : 0) + lane % 4 * 2;

        inv += __shfl_xor_sync(WARP_ALL, inv, 1);
        inv += __shfl_xor_sync(WARP_ALL, inv, 2);
        inv = 1 / inv;
        if (t >= b->n_tok)
            continue;
        #pragma unroll
        for (int i = 0; i < 32; i++)
            *(uint32_t *) (y + i * 8) = pack_bf16(o[i * 4 + h * 2] * inv,
                                                  o[i * 4 + h * 2 + 1] * inv);
    }
}

template <int dim>
__device__ static void consume(struct smem *sm, const struct attn_layer *l, const struct tile *b,
                               int group)
{
    const struct attn *a = &l->attn;
    const int chunks = shape<dim>::chunks;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, half = warp / 4;
    int row = warp % 4 * 16 + lane / 4 + (dim == 256 ? half * 64 : 0);
    int end = b->pos + b->n_tok, k0 = b->first / KEYS * KEYS;
    uint32_t q = wgmma_operand(sm->q + (dim == 256 ? half * 64 * 128 : 0), 0);
    int col = dim == 512 ? half * 4 * shape<dim>::v_keys * 128 : 0;
    struct ring use = { 0, 0 }, done = { 0, 0 };
    struct rows st;
    float o[128], s[32];
    uint32_t p[16];

    for (int h = 0; h < 2; h++) {
        int pos = b->pos + (row + h * 8) / group;

        st.max[h] = -INFINITY;
        st.sum[h] = 0;
        st.hi[h] = pos;
        st.lo[h] = a->window > 0 ? pos - a->window + 1 : 0;
    }
    load_q<dim>(sm, l, b, group);
    #pragma unroll
    for (int i = 0; i < 128; i++)
        o[i] = 0;
    scores<dim>(s, sm, q, &use, &done);
    wgmma_wait<0>();
    keep<32>(s);
    release(sm, &done);
    mask(s, &st, k0);
    softmax(s, &st, 0);
    softmax(s, &st, 1);
    pack(p, s);
    for (k0 += KEYS; k0 < end; k0 += KEYS) {
        scores<dim>(s, sm, q, &use, &done);
        values<dim>(o, sm, p, col, &use);
        wgmma_wait<chunks>();              /* the scores are there */
        keep<32>(s);
        release(sm, &done);
        if (k0 + KEYS > b->pos + 1 || (a->window > 0 && k0 < end - a->window))
            mask(s, &st, k0);
        softmax(s, &st, 0);
        wgmma_wait<chunks / 2>();
        for (int c = 0; c < chunks / 2; c++)
            release(sm, &done);
        softmax(s, &st, 1);
        wgmma_wait<0>();
        keep<128>(o);
        keep<32>(s);
        for (int c = 0; c < chunks / 2; c++)
            release(sm, &done);
        shrink(o, &st);
        pack(p, s);
    }
    values<dim>(o, sm, p, col, &use);
    wgmma_wait<0>();
    keep<128>(o);

    write_rows<dim>(o, &st, a, b, row, group);
}

#endif

template <int dim>
static __global__ void __launch_bounds__(THREADS, 1) prefill_kernel(struct attn_layer l)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) char mem[];
    struct smem *sm = (struct smem *) mem;
    const struct attn *a = &l.attn;
    int group = a->n_head / a->kv.n_kv;
    struct tile b;

    if (threadIdx.x < RING) {
        barrier_init(&sm->full[threadIdx.x], PRODUCERS);
        barrier_init(&sm->empty[threadIdx.x], CONSUMERS / 32);
    }
    if (!find_tile(&b, a, blockIdx.y, shape<dim>::rows / group, sm))
        return;
    b.h_kv = blockIdx.x;
    if (__shfl_sync(WARP_ALL, threadIdx.x / CONSUMERS, 0) > 0) {
        regs_give<56>();
        produce<dim>(sm, a, &b);
    } else {
        regs_take<224>();
        consume<dim>(sm, &l, &b, group);
    }
#endif
}

/* false: this device runs the other code of the file, which has no such kernel. */
template <int dim> static bool launch(const struct attn_layer *l, gpu_stream s)
{
    static int ready;                      /* one thread launches. 0: not asked yet, -1: no */
    const struct attn *a = &l->attn;
    int span = shape<dim>::rows / (a->n_head / a->kv.n_kv);
    int tiles = a->map.n_tok / span + 2 * a->n_seq;
    struct cudaFuncAttributes attr;

    if (ready == 0) {
        ready = cudaFuncGetAttributes(&attr, prefill_kernel<dim>) == cudaSuccess
                && attr.ptxVersion == 90 ? 1 : -1;
        if (ready > 0)
            cudaFuncSetAttribute(prefill_kernel<dim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int) sizeof(struct smem));
    }
    if (ready < 0)
        return false;
    if (l->store.k != NULL)
        kv_store_cuda(&l->store, s);
    tiles = tiles < a->map.n_tok ? tiles : a->map.n_tok;
    prefill_kernel<dim><<<dim3((unsigned) a->kv.n_kv, (unsigned) tiles), THREADS,
                          sizeof(struct smem), s>>>(*l);
    return true;
}

int attn_prefill_cuda(const struct attn_layer *a, gpu_stream s)
{
    if (a->attn.map.n_tok <= ATTN_SPLIT_TOK || a->rope.n_rot % 4 != 0
        || a->attn.kv.k_dim < a->attn.kv.head_dim)
        return 0;
    if (a->attn.kv.head_dim == 256)
        return launch<256>(a, s);
    return a->attn.kv.head_dim == 512 && launch<512>(a, s);
}
